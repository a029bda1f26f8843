"""Folders and backups written by every released format version still open, with everything in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import faissbase

DATA = Path(__file__).parent / "data"
BACKUPS = sorted(DATA.glob("format-*.tar"))


def test_there_is_a_backup_of_every_format() -> None:
    from faissbase.storage.sqlite import FORMAT_VERSION

    assert [path.stem for path in BACKUPS] == [f"format-{n}" for n in range(1, FORMAT_VERSION + 1)]


@pytest.mark.parametrize("backup", BACKUPS, ids=lambda path: str(path.stem))
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_a_collection_of_an_older_format_holds_what_it_held(
    backup: Path, metric: str, tmp_path: Path
) -> None:
    faissbase.restore(backup, tmp_path / "data")
    with faissbase.connect(tmp_path / "data") as db:
        docs = db.get_collection(f"docs-{metric}")
        assert docs.metric == metric
        assert len(docs) == 25
        assert docs.verify().ok
        [record] = docs.get(["r7"], include_vectors=True)
        assert record.metadata == {"n": 7, "tags": ["odd"], "none": None, "deep": {"x": 0.5}}
        assert record.document == "document number 7"
        assert record.vector is not None
        np.testing.assert_allclose(record.vector, np.arange(4) + 8.0, rtol=1e-6)
        assert docs.get(["r0"]) == []
        assert [hit.id for hit in docs.search(record.vector, 1, where={"n": 7})] == ["r7"]
        assert docs.text_search("updated")[0].id == "r3"
        assert docs.upsert("new", [1, 2, 3, 4]) == 1

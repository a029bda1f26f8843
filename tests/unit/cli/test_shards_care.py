"""``faissbase shards``: what its commands answer, in words and in JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faissbase


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A dataset ``docs`` of three shards."""
    url = (tmp_path / "bucket").as_uri()
    with faissbase.connect(url, cache=tmp_path / "cache", refresh_s=0) as db:
        docs = db.create_collection("docs", 4, "l2")
        for i in range(3):
            docs.upsert([f"{i}a", f"{i}b", "c"], np.full((3, 4), i))
    return url


def test_compact_merges_and_tells(cli: Any, url: str) -> None:
    ran = cli("shards", "compact", url, "docs")
    assert (ran.code, ran.out) == (0, "3 shards became 1: 7 records rewritten, 2 dropped\n")
    ran = cli("shards", "compact", url, "docs", "--json")
    assert (ran.json["dataset"], ran.json["merges"], ran.json["shards_after"]) == ("docs", 0, 1)
    assert cli("shards", "compact", url, "nothing").code == 3


def test_collect_tells_and_removes(cli: Any, url: str, tmp_path: Path) -> None:
    cli("shards", "compact", url, "docs")
    assert cli("shards", "collect", url, "docs").out.startswith("removed 0 versions, 0 objects")
    found = cli("shards", "collect", url, "docs", "--grace", "0.001s", "--dry-run", "--json").json
    assert (len(found["manifests"]), found["versions_kept"], found["dry_run"]) == (4, 1, True)
    ran = cli("shards", "collect", url, "docs", "--grace", "0.001s")
    assert ran.out.startswith(f"removed 4 versions, {len(found['objects'])} objects (")
    with faissbase.connect(url, cache=tmp_path / "other", refresh_s=0) as db:
        assert len(db.get_collection("docs").get()) == 7


@pytest.mark.parametrize("grace", ["0s", "-1h", "24", "soon"])
def test_a_wrong_grace_is_refused(cli: Any, url: str, grace: str) -> None:
    ran = cli("shards", "collect", url, "docs", f"--grace={grace}")
    assert (ran.code, "12h" in ran.err) == (2, True)


@pytest.mark.parametrize("action", ["list", "info", "verify", "compact", "collect"])
def test_a_mistyped_place_is_named_and_not_made(cli: Any, url: str, tmp_path: Path, action: str) -> None:
    mistyped, name = (tmp_path / "buckt").as_uri(), ["docs"] if action != "list" else []
    ran = cli("shards", action, mistyped, *name)
    assert (ran.code, f"nothing is at {mistyped}" in ran.err) == (3, True)
    assert not (tmp_path / "buckt").exists()
    assert "docs" in cli("shards", "list", url).out


def test_a_place_above_the_datasets_tells_what_is_in_it(cli: Any, url: str, tmp_path: Path) -> None:
    ran = cli("shards", "list", tmp_path.as_uri())
    assert (ran.code, "holds no dataset; there are other things in it: bucket" in ran.out) == (0, True)


def test_a_build_that_was_refused_is_told_where_datasets_are_listed(cli: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((2000, 8), np.float32))
    words = ("--metric", "l2", "--codec", "IVF4,PQ1x4", "--recall", "0.999", "--executor", "inline")
    built = cli("shards", "build", tmp_path / "x.npy", *words, "--out", "new", "--name", "low", "--work", "w")
    assert (built.code, "not published" in built.err) == (2, True)
    assert cli("shards", "list", "new").out.endswith("no dataset yet; builds that are not published: low\n")


def test_a_collection_with_a_dot_in_its_name_is_no_file(cli: Any, tmp_path: Path) -> None:
    with faissbase.connect(tmp_path / "data") as db:
        db.create_collection("docs.v2", 4).upsert(["a"], [[1, 2, 3, 4]])
    words = ("--data", "data", "--executor", "inline", "--out", "new", "--name", "docs", "--work", "w")
    assert cli("shards", "build", "docs.v2", *words).out.startswith("published 'docs' version 1: 1 record")
    ran = cli("shards", "build", "docs.npy", *words)
    assert (ran.code, "'docs.npy' is no file, and no collection" in ran.err) == (3, True)


def test_a_copy_of_a_mistyped_place_makes_no_folder(cli: Any, tmp_path: Path) -> None:
    ran = cli("demote", f"{(tmp_path / 'buckt').as_uri()}/docs", "--to", tmp_path / "new")
    assert (ran.code, "nothing is at" in ran.err) == (3, True)
    assert not (tmp_path / "new").exists()


def test_an_action_is_needed(cli: Any) -> None:
    assert cli("shards").code == 2


EXACT, MEASURED = "1, for every search is exact", r"0\.\d{4} or more in each shard by itself, target 0\.95"
UNKNOWN = r"not measured in 1 shard, target 0\.95"


@pytest.mark.parametrize(
    ("n", "index_type", "told"),
    [(40, "auto", EXACT), (6000, "IVF16,SQ8", MEASURED), (6000, "IVF16,PQ1x4", UNKNOWN)],
)
def test_info_of_what_was_promoted_tells_what_is_known_of_its_recall(
    n: int, index_type: str, told: str, cli: Any, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).standard_normal((n, 16), np.float32)
    with faissbase.connect(tmp_path / "data") as db:
        db.create_collection("docs", 16, index_type=index_type).add([str(i) for i in range(n)], x)
    assert cli("promote", tmp_path / "data" / "docs", tmp_path / "bucket").code == 0
    shown = cli("shards", "info", tmp_path / "bucket", "docs").out
    assert re.search(rf"recall@10 +{told}", shown), shown
    assert ("exact" in shown) == (told is EXACT)

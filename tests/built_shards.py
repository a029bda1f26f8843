"""A dataset that tests build again and again, and what must be the same of it whoever builds it, and how."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import faissbase
from faissbase.sharded.bucket import Bucket
from faissbase.sharded.build import BuildReport, Request, build
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.executors import Executor
from faissbase.sharded.manifest import Shard
from faissbase.sharded.sources import find_files
from faissbase.sharded.stages import Settings

D, ROWS = 16, 2000
_ASKED = 200


def rows(n: int) -> np.ndarray:
    """Rows around twenty centres, as real embeddings are."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, D), np.float32)[rng.integers(0, 20, n)]
    found: np.ndarray = x + np.float32(0.6) * rng.standard_normal(x.shape, np.float32)
    return found


def built(folder: Path, bucket: Bucket, executor: Executor) -> BuildReport:
    """Build ``docs`` of the rows in ``folder / "x.npy"``."""
    request = Request("docs", Settings("l2", "sq8"), rows_per_shard=ROWS)
    return build(request, find_files([str(folder / "x.npy")]), bucket, folder / "work", executor)


def facts_of(bucket: Bucket, x: np.ndarray, cache: Path) -> dict[str, Any]:
    """Everything about the newest version but names and moments."""
    manifest = Dataset(bucket, "docs").newest()
    with faissbase.connect(bucket.url, cache=cache, refresh_s=0) as db:
        docs = db.get_collection("docs")
        assert docs.verify().ok
        found = docs.search(x[:_ASKED], k=10, nprobe=2, rerank=1)
        usual = docs.search(x[:_ASKED], k=10)
        some = docs.get([str(i) for i in range(0, len(x), 97)], include_vectors=True)
    return {
        "dataset": (manifest.version, manifest.dimension, manifest.metric, manifest.index_type),
        "recall": (manifest.target_recall, manifest.measured_recall),
        "rows": (manifest.n_alive, len(manifest.shards)),
        "shards": [told(shard) for shard in manifest.shards],
        "answers": (found.ids, found.distances.tolist()),
        "usual answers": (usual.ids, usual.distances.tolist()),
        "records": [(record.id, record.vector.tobytes()) for record in some],  # type: ignore[union-attr]
    }


def told(shard: Shard) -> tuple[Any, ...]:
    """All of a shard but its name, and the file of records, which has names in it."""
    files = [(file.path.partition("/")[0], file.size_bytes, file.checksum) for file in shard.files]
    same = [file for file in files if file[0] != "records.sqlite"]
    assert len(same) == len(files) - 1
    return shard.rows, shard.n_hidden, shard.index, shard.recall, same


def reported(report: BuildReport | dict[str, Any]) -> dict[str, Any]:
    """What a report says that does not depend on where and when."""
    facts = report if isinstance(report, dict) else asdict(report)
    wanted = ("name", "version", "n_rows", "n_replaced", "shards", "index", "recall", "target")
    return {key: facts[key] for key in wanted}

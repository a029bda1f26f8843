"""The data sets that are measured: vectors, records, held-out queries and their exact answers.

Knows files and arrays: no database.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faissbase.demo.dataset import load_demo
from faissbase.types import Float32, Metric

Rows = npt.NDArray[np.integer[Any]]

_NOT_METADATA = ("id", "name", "description")


@dataclass(frozen=True, eq=False)
class Filter:
    """A filter as each query asks it, and the exact answers: row numbers, −1 where fewer match."""

    name: str
    wheres: list[dict[str, Any]]
    truth: Rows
    n_matching: float


@dataclass(frozen=True, eq=False)
class Dataset:
    """Records with queries: ``xb`` is ``float32[n, d]``, ``truth`` holds row numbers, nearest first."""

    name: str
    metric: Metric
    ids: list[str]
    xb: Float32
    metadatas: list[dict[str, Any]]
    documents: list[str]
    xq: Float32
    truth: Rows
    filters: list[Filter]

    @property
    def d(self) -> int:
        return int(self.xb.shape[1])

    def searched_form(self, vectors: Float32) -> Float32:
        """Vectors as FAISS must get them to rank by this metric: of unit length for cosine."""
        if self.metric != "cosine":
            return vectors
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        unit: Float32 = (vectors / lengths[:, None]).astype(np.float32)
        return unit


def demo() -> Dataset:
    """The data that travels inside the package."""
    data = load_demo()
    n_queries = len(data.query_vectors)
    filters = [
        _filter(name, [data.where_for(name, query) for query in range(n_queries)], truth, data.metadatas)
        for name, truth in data.filter_truth.items()
    ]
    return Dataset(
        "demo 42k x 384, cosine",
        "cosine",
        data.ids,
        data.vectors,
        data.metadatas,
        data.documents,
        data.query_vectors,
        data.truth_ids,
        filters,
    )


def debian(folder: Path) -> Dataset:
    """42,000 Debian packages with embeddings, their metadata and ten filters."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "metadata.parquet").to_pylist()
    sections = pq.read_table(folder / "queries.parquet", columns=["section"]).column(0).to_pylist()
    metadatas = [{key: row[key] for key in row if key not in _NOT_METADATA} for row in rows]
    specs = json.loads((folder / "filters.json").read_text())
    with np.load(folder / "gt.npz") as gt:
        truth = gt["ids"]
        filters = [
            _filter(
                spec["name"],
                [_where(spec["ast"], section) for section in sections],
                gt[f"f_{spec['name']}_ids"],
                metadatas,
            )
            for spec in specs
        ]
    return Dataset(
        "debian 42k x 384, cosine",
        "cosine",
        [row["name"] for row in rows],
        np.load(folder / "vectors.f16.npy").astype(np.float32),
        metadatas,
        [row["description"] for row in rows],
        np.load(folder / "queries.f16.npy").astype(np.float32),
        truth,
        filters,
    )


def fashion(folder: Path) -> Dataset:
    """60,000 pictures of clothes, pixel by pixel; the queries that have exact answers."""
    with np.load(folder / "fashion-mnist.npz") as arrays:
        truth = arrays["gt_ids"]
        xb = arrays["base"].astype(np.float32)
        xq = arrays["test"][: len(truth)].astype(np.float32)
        labels = arrays["base_labels"].tolist()
    return Dataset(
        "fashion 60k x 784, l2",
        "l2",
        [f"picture-{row}" for row in range(len(xb))],
        xb,
        [{"label": label, "row": row} for row, label in enumerate(labels)],
        [],
        xq,
        truth,
        [],
    )


def _where(tree: dict[str, Any], section: str) -> dict[str, Any]:
    """The data set's neutral expression tree in the words of ``where``."""
    [(operator, operand)] = tree.items()
    if operator in ("and", "or"):
        return {f"${operator}": [_where(part, section) for part in operand]}
    if operator == "not":
        return {"$not": _where(operand, section)}
    field, value = operand
    return {field: {f"${operator}": section if value == "$query.section" else value}}


def _filter(name: str, wheres: list[dict[str, Any]], truth: Rows, metadatas: list[dict[str, Any]]) -> Filter:
    """How many match is counted here, apart from faissbase, in the mean over the queries."""
    counted: dict[str, int] = {}
    for where in wheres:
        key = json.dumps(where)
        if key not in counted:
            counted[key] = sum(_matches(where, metadata) for metadata in metadatas)
    return Filter(name, wheres, truth, sum(counted[json.dumps(where)] for where in wheres) / len(wheres))


def _matches(where: dict[str, Any], metadata: dict[str, Any]) -> bool:
    """The few operators that the data sets' filters use."""
    for key, operand in where.items():
        if key == "$and" and not all(_matches(part, metadata) for part in operand):
            return False
        if key == "$or" and not any(_matches(part, metadata) for part in operand):
            return False
        if key == "$not" and _matches(operand, metadata):
            return False
        if not key.startswith("$") and not _compares(operand, metadata.get(key)):
            return False
    return True


def _compares(operand: Any, value: Any) -> bool:
    tests = operand if isinstance(operand, dict) else {"$eq": operand}
    return all(_COMPARISONS[operator](value, wanted) for operator, wanted in tests.items())


_COMPARISONS: dict[str, Any] = {
    "$eq": lambda value, wanted: value == wanted,
    "$lt": lambda value, wanted: value is not None and value < wanted,
    "$gte": lambda value, wanted: value is not None and value >= wanted,
    "$in": lambda value, wanted: value in wanted,
    "$nin": lambda value, wanted: value not in wanted,
    "$contains": lambda value, wanted: wanted in (value or ()),
}

"""Hugging Face's datasets: nearest examples by FAISS, for indexes of every way to make one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from tests.e2e.faiss.programs.shown import show

import datasets

D = 24


def _table(random: np.random.Generator) -> Any:
    rows = random.standard_normal((900, D)).astype(np.float32)
    return datasets.Dataset.from_dict({"name": [f"row {n}" for n in range(900)], "vector": rows.tolist()})


def _asked(table: Any, queries: Any) -> None:
    [name] = table.list_indexes()
    scores, found = table.get_nearest_examples(name, queries[0], k=5)
    show(scores=scores, names=found["name"])
    scores, many = table.get_nearest_examples_batch(name, queries, k=3)
    show(scores=list(scores), names=[each["name"] for each in many])
    show(search=list(table.search(name, queries[1], k=4)), batch=list(table.search_batch(name, queries, k=2)))
    show(ntotal=table.get_index(name).faiss_index.ntotal)


def main(folder: Path) -> None:
    datasets.disable_progress_bars()
    random = np.random.default_rng(7)
    table, queries = _table(random), random.standard_normal((4, D)).astype(np.float32)
    for factory in ("Flat", "HNSW16", "IVF8,Flat", "PCA8,IVF8,SQ8", "IVF4,PQ4x4fs", "LSH"):
        show(factory=factory)
        with_index = table.add_faiss_index("vector", string_factory=factory, train_size=900)
        _asked(with_index, queries)
        with_index.drop_index("vector")
    table.add_faiss_index("vector", metric_type=faiss.METRIC_INNER_PRODUCT, batch_size=100)
    _asked(table, queries)
    table.save_faiss_index("vector", folder / "kept.faiss")
    table.drop_index("vector")
    table.load_faiss_index("vector", folder / "kept.faiss")
    _asked(table, queries)
    table.drop_index("vector")
    own = faiss.IndexScalarQuantizer(D, faiss.ScalarQuantizer.QT_8bit)
    own.train(np.asarray(table["vector"], np.float32))
    table.add_faiss_index("vector", custom_index=own)
    _asked(table, queries)
    table.drop_index("vector")
    table.add_faiss_index_from_external_arrays(
        random.standard_normal((900, D)).astype(np.float32), "arrays", string_factory="SQfp16"
    )
    _asked(table, queries)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

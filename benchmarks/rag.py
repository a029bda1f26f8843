"""`FAISSVectorStore` beside FAISS alone: adding, searching, deleting, saving, loading.

    python -m benchmarks.rag [--n 20000] [--spec Flat HNSW] [--json out.json]

Real embeddings: the demo data (384 numbers, inner product of unit vectors) and its held-out questions. FAISS
alone is what people write by hand: an index, ``add``, ``search`` with FAISS's own settings. Recall@10 is
against exact search, for every row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts
from faissbase.ann.baseline import FAISS_VERSION, RawFlat, threads
from faissbase.demo.dataset import load_demo, load_queries
from faissbase.rag import FAISSVectorStore
from faissbase.types import Float32

_K = 10
_ROUNDS = 3


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--spec", nargs="*", default=["Flat", "IVFFlat", "HNSW"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    xb, xq = load_demo().vectors[: given.n], load_queries().query_vectors[:200]
    rows = [_raw(xb, xq), *(_store(spec, xb, xq) for spec in given.spec)]
    print(facts(Path(tempfile.gettempdir())))
    print(f"FAISS {FAISS_VERSION}; n={len(xb)}, d={xb.shape[1]}, {len(xq)} questions, k={_K}")
    for row in rows:
        print("  ".join(f"{name}={value}" for name, value in row.items()))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def _truth(xb: Float32, xq: Float32) -> Any:
    raw = RawFlat(xb.shape[1], "cosine")
    raw.add(xb)
    return raw.search(raw.prepared(xq), _K)[1]


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _median_ms(ask: Callable[[int], Any], n: int) -> float:
    """The time of one query, the median over all, of the best of some rounds."""
    rounds = [np.median([_seconds(lambda i=i: ask(i)) for i in range(n)]) for _ in range(_ROUNDS)]  # type: ignore[misc]
    return round(float(min(rounds)) * 1e3, 3)


def _raw(xb: Float32, xq: Float32) -> dict[str, Any]:
    raw = RawFlat(xb.shape[1], "cosine")
    add_s = _seconds(lambda: raw.add(xb))
    queries = raw.prepared(xq)
    with threads(1):
        ms = _median_ms(lambda i: raw.search(queries[i : i + 1], _K), len(queries))
    return {"what": "faiss.IndexFlatIP", "add_s": round(add_s, 2), "search_ms": ms, "recall@10": 1.0}


def _store(spec: str, xb: Float32, xq: Float32) -> dict[str, Any]:
    store = FAISSVectorStore(xb.shape[1], spec, "cosine")
    metadata = [{"n": i, "even": i % 2 == 0} for i in range(len(xb))]
    add_s = _seconds(lambda: store.add(xb, metadata))
    truth = _truth(xb, xq)
    found = [store.search(query, _K)[1] for query in xq]
    recall = np.mean([len(set(a) & set(b)) / _K for a, b in zip(found, truth.tolist(), strict=True)])
    row = {
        "what": spec,
        "index": store.index,
        "add_s": round(add_s, 2),
        "search_ms": _median_ms(lambda i: store.search(xq[i], _K), len(xq)),
        "recall@10": round(float(recall), 4),
        "filtered_ms": _median_ms(lambda i: store.search(xq[i], _K, where={"even": True}), 100),
        "batch_s": round(_seconds(lambda: store.batch_search(xq, _K)), 3),
        "add_one_ms": _median_ms(lambda i: store.add(xq[i]), 40),
    }
    with tempfile.TemporaryDirectory() as folder:
        row["save_s"] = round(_seconds(lambda: store.save(folder)), 2)
        row["load_s"] = round(_seconds(lambda: FAISSVectorStore.load(folder)), 2)
        row["disk_mb"] = round(sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6, 1)
    row["delete_one_ms"] = _median_ms(lambda i: store.delete([i * 7]), 40)
    row["search_after_delete_ms"] = _median_ms(lambda i: store.search(xq[i], _K), 200)
    row["compact_s"] = round(_seconds(store.compact), 2)
    return row


if __name__ == "__main__":
    main()

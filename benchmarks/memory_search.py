"""Conversation memory: how long a search takes without the embedding call, beside a scan of the database.

    python -m benchmarks.memory_search [--sizes 100 1000 10000 100000] [--folder FOLDER]

The vectors are made: 64 numbers around some centres, turned into 1536 and made noisy, as embeddings of
texts are near each other in few directions; importances from 0.3 to 1, half of the memories episodes of the
last month. The scan reads every active memory of the conversation from the same SQLite file and ranks all by
NumPy.

Searches are timed one after the other, as those of a busy server, and again each after a scan, when nothing
of ours is left in the processor's caches: so a chatbot's, between two calls of a model, begin.
Recall is that of the score against the scan.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, insert, select
from sqlalchemy.orm import Session

from benchmarks.machine import facts
from faissbase.memory import ContextMemory, Memory, get_vector_store, search_similar_memories
from faissbase.types import Float32

D = 1536
SIZES = (100, 1_000, 10_000, 100_000)
TARGETS_MS = {100: 1.0, 1_000: 2.0, 10_000: 5.0, 100_000: 10.0}
SPEED_UP_AT, SPEED_UP = 10_000, 100
K = 10
_NQ, _N_SCANS = 200, 40
_SEED = 2026
_INSERTED_AT_ONCE = 5_000
_NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


class Given:
    """Gives the vectors that a query's number stands for: the embedding call is not measured."""

    name, dimension = "given", D

    def __init__(self, vectors: Float32) -> None:
        self._vectors = vectors

    def embed(self, texts: Sequence[str]) -> Float32:
        found: Float32 = self._vectors[[int(text) for text in texts]]
        return found


def made(n: int, seed: int) -> Float32:
    """``float32[n, 1536]`` like embeddings: near a plane of 64 directions, in clusters."""
    rng = np.random.default_rng(_SEED)
    turned = rng.standard_normal((64, D)).astype(np.float32) / 8
    centres = rng.standard_normal((200, 64)).astype(np.float32) * np.float32(1.2)
    rng = np.random.default_rng(seed)
    around = centres[rng.integers(0, len(centres), n)] + rng.standard_normal((n, 64)).astype(np.float32)
    found: Float32 = around @ turned + np.float32(0.5) * rng.standard_normal((n, D)).astype(np.float32)
    return found


def fill(engine: Engine, conversation_id: str, n: int) -> None:
    """Store n memories."""
    rng = np.random.default_rng(n)
    for start in range(0, n, _INSERTED_AT_ONCE):
        m = min(_INSERTED_AT_ONCE, n - start)
        vectors, days = made(m, _SEED + start + 1), rng.uniform(0, 30, m)
        rows = [
            {
                "conversation_id": conversation_id,
                "kind": "bubble" if number % 2 else "semantic",
                "text": f"memory {start + number}",
                "importance": float(rng.uniform(0.3, 1.0)),
                "occurred_at": _NOW - timedelta(days=float(days[number])),
                "embedding": vectors[number],
                "embedder": Given.name,
            }
            for number in range(m)
        ]
        with Session(engine) as session:
            session.execute(insert(Memory), rows)
            session.commit()


def scan(engine: Engine, conversation_id: str, query: Float32) -> list[str]:
    """The ten of the highest score, by reading every memory: what an index replaces."""
    columns = (Memory.text, Memory.embedding, Memory.importance, Memory.kind, Memory.occurred_at)
    wanted = select(*columns).where(Memory.conversation_id == conversation_id, Memory.active)
    with Session(engine) as session:
        rows = session.execute(wanted).all()
    vectors = np.stack([row.embedding for row in rows])
    cosines = vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))
    days = np.array([(_NOW - row.occurred_at).total_seconds() / 86_400 for row in rows])
    is_fading = np.array([row.kind == "bubble" for row in rows])
    scores = cosines * np.array([row.importance for row in rows]) * np.exp(-0.05 * days * is_fading)
    return [rows[at].text for at in np.argsort(-scores)[:K]]


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Milliseconds by the clock and of this thread's processor time, and what came back."""
    begin, begin_cpu = time.perf_counter(), time.thread_time()
    found = call()
    return (time.perf_counter() - begin) * 1e3, (time.thread_time() - begin_cpu) * 1e3, found


def spread(measured: Sequence[tuple[float, float, Any]]) -> dict[str, float]:
    times, cpu, _ = zip(*measured, strict=True)
    return {
        "cpu_median_ms": round(float(np.median(cpu)), 3),
        "median_ms": round(float(np.median(times)), 3),
        "best_ms": round(min(times), 3),
        "p95_ms": round(float(np.percentile(times, 95)), 3),
    }


def measure(memory: ContextMemory, n: int, queries: Float32) -> dict[str, Any]:
    """Fill one conversation and search it, ours and the scan in turn."""
    conversation_id = f"conversation of {n}"
    fill(memory.engine, conversation_id, n)
    with Session(memory.engine) as session:
        built_ms, _, _ = timed(lambda: get_vector_store(conversation_id, session))
    memory.search("0", conversation_id)
    numbers = range(len(queries))
    in_row = [timed(lambda: memory.search(str(number), conversation_id, K)) for number in numbers]  # noqa: B023
    similar = []
    with Session(memory.engine) as session:
        for number in numbers:
            similar.append(
                timed(lambda: search_similar_memories(session, conversation_id, queries[number], K))  # noqa: B023
            )
    scans, apart, n_found, n_wanted = [], [], 0, 0
    for number in range(max(3, min(_N_SCANS, 100_000 // n))):
        scans.append(timed(lambda: scan(memory.engine, conversation_id, queries[number])))  # noqa: B023
        apart.append(timed(lambda: memory.search(str(number), conversation_id, K)))  # noqa: B023
        exact = scans[-1][2]
        n_found += len({each["memory"] for each in apart[-1][2]["results"]} & set(exact))
        n_wanted += len(exact)
    return {
        "n": n,
        "built_from_database_s": round(built_ms / 1e3, 2),
        "search": spread(in_row),
        "search_after_a_scan": spread(apart),
        "search_similar_memories": spread(similar),
        "scan": spread(scans),
        "times_as_fast": round(spread(scans)["median_ms"] / spread(in_row)["median_ms"], 1),
        "recall@10": round(n_found / n_wanted, 4),
        "is_met": spread(in_row)["median_ms"] <= TARGETS_MS.get(n, np.inf),
    }


def shown(found: dict[str, Any]) -> str:
    """One line."""
    names = ("search", "search_after_a_scan", "search_similar_memories", "scan")
    search, apart, similar, scanned = (found[name] for name in names)
    return (
        f"{found['n']:>7,} memories: search {search['median_ms']:.2f} ms (best {search['best_ms']:.2f}, "
        f"processor {search['cpu_median_ms']:.2f}; each after a scan {apart['median_ms']:.2f}), "
        f"similar {similar['median_ms']:.2f} ms (best {similar['best_ms']:.2f}), "
        f"scan {scanned['median_ms']:.1f} ms = {found['times_as_fast']} times as fast, "
        f"recall@10 {found['recall@10']}, target {TARGETS_MS.get(found['n'])} ms"
    )


def main() -> None:
    """Print one line for each size, then everything as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    asked = parser.parse_args()
    queries = made(_NQ, _SEED + 999_983)
    results = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        machine = facts(Path(folder))
        with ContextMemory(Path(folder) / "memory.db", Given(queries), clock=lambda: _NOW) as memory:
            for n in asked.sizes:
                found = measure(memory, n, queries)
                results.append(found)
                print(shown(found), flush=True)
                gc.collect()
    report = {"machine": machine, "seed": _SEED, "d": D, "nq": _NQ, "k": K, "results": results}
    print(json.dumps(report, indent=1, default=str))


if __name__ == "__main__":
    main()

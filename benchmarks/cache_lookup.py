"""How long a look-up in the semantic cache takes: ``python -m benchmarks.cache_lookup``.

Without the embedding call: the embedder is a table. Vectors are drawn near a space of fewer dimensions, as
those of text models lie, or come from a file (``--vectors file.npy``, float32[n, d]). A hit asks for a stored
vector with noise, a miss for one never stored. Beside the times: which share of the answers that exact search
finds above the threshold was found.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from faissbase.cache import Scope, SemanticCache
from faissbase.cache.entries import Entry
from faissbase.cache.scope import key_of
from faissbase.types import Float32

SEED = 7
THRESHOLD = 0.9
_INTRINSIC_D = 48
_N_ASKED = 300
_BATCH = 5_000


class Table:
    """An embedder that looks its vectors up."""

    name = "table"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.vectors: dict[str, Float32] = {}

    def embed(self, texts: Sequence[str]) -> Float32:
        return np.stack([self.vectors[text] for text in texts])


def drawn(n: int, d: int, rng: np.random.Generator) -> Float32:
    """``n`` unit vectors near a subspace."""
    basis = np.random.default_rng(SEED).standard_normal((_INTRINSIC_D, d))
    points = rng.standard_normal((n, _INTRINSIC_D)) @ basis + 0.5 * rng.standard_normal((n, d))
    return unit(points)


def unit(points: Any) -> Float32:
    made: Float32 = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return made


def noisy(vectors: Float32, rng: np.random.Generator) -> Float32:
    """The same at a cosine of about 0.95."""
    noise = unit(rng.standard_normal(vectors.shape))
    return unit(vectors + 0.33 * noise)


def fill(cache: SemanticCache, xb: Float32, scopes: list[Scope]) -> None:
    """Store one entry a vector, as `store` would, many at once."""
    collection = cache._shelf.entries._collection
    digests = [scope.digest("table") for scope in scopes]
    for first in range(0, len(xb), _BATCH):
        rows = range(first, min(first + _BATCH, len(xb)))
        entries = [
            Entry(key_of(digests[i % len(digests)], name(i)), digests[i % len(digests)], name(i), '"A"', 0.0)
            for i in rows
        ]
        forms = [entry.stored_form()[0] for entry in entries]
        collection.upsert([entry.key for entry in entries], xb[first : first + _BATCH], forms)


def name(i: int) -> str:
    return f"please answer question {'abcdefghij'[i % 10]}{i:x} of the set"


def timed(ask: Callable[[str], Any], prompts: list[str]) -> tuple[list[float], list[float], list[Any]]:
    """Milliseconds of wall and CPU time of each, and the answers."""
    for prompt in prompts[:20]:
        ask(prompt)
    wall, cpu, found = [], [], []
    for prompt in prompts:
        began, began_cpu = time.perf_counter(), time.thread_time()
        found.append(ask(prompt))
        cpu.append((time.thread_time() - began_cpu) * 1e3)
        wall.append((time.perf_counter() - began) * 1e3)
    return wall, cpu, found


def measure(n: int, xb: Float32, misses: Float32, n_scopes: int, path: Path) -> None:
    rng = np.random.default_rng(SEED)
    table = Table(xb.shape[1])
    scopes = [Scope(tenant=f"tenant {i}") for i in range(n_scopes)]
    with SemanticCache(table, path=path, threshold=THRESHOLD, guard=None) as cache:
        fill(cache, xb, scopes)
        built_s = settle(cache, table, misses, scopes)
        print(f"n = {n:,} in {n_scopes} scopes, d = {xb.shape[1]}; index built in {built_s:.1f} s")
        asked = rng.choice(n, _N_ASKED, replace=False)
        table.vectors = {name(i): xb[i] for i in asked.tolist()}
        table.vectors |= {f"again {i}": v for i, v in zip(asked.tolist(), noisy(xb[asked], rng), strict=True)}
        table.vectors |= {f"new {i}": vector for i, vector in enumerate(misses[:_N_ASKED])}
        expected = sum(
            has_answer(table.vectors[f"again {i}"], xb, i % n_scopes, n_scopes) for i in asked.tolist()
        )
        scope_of = {f"again {i}": scopes[i % n_scopes] for i in asked.tolist()}
        scope_of |= {name(i): scopes[i % n_scopes] for i in asked.tolist()}
        for kind, prompts in (
            ("exact hits", [name(i) for i in asked.tolist()]),
            ("similar hits", [f"again {i}" for i in asked.tolist()]),
            ("misses", [f"new {i}" for i in range(_N_ASKED)]),
        ):
            wall, cpu, found = timed(lambda p: cache.check(p, scope=scope_of.get(p, scopes[0])), prompts)
            n_found = sum(hit is not None for hit in found)
            share = f", {n_found} of {expected} that exact search finds" if kind == "similar hits" else ""
            print(
                f"  {kind:12} median {statistics.median(wall):6.3f} ms (CPU {statistics.median(cpu):6.3f}), "
                f"p95 {np.percentile(wall, 95):6.3f} ms{share}"
            )


def settle(cache: SemanticCache, table: Table, misses: Float32, scopes: list[Scope]) -> float:
    """Have done what the background does in use: the index, and its recall under the filters asked."""
    began = time.perf_counter()
    collection: Any = cache._shelf.entries._collection
    collection.optimize()
    table.vectors = {f"early {i}": vector for i, vector in enumerate(misses[:50])}
    for i, prompt in enumerate(table.vectors):
        cache.check(prompt, scope=scopes[i % len(scopes)])
    collection.optimize()
    return time.perf_counter() - began


def has_answer(vector: Float32, xb: Float32, scope: int, n_scopes: int) -> bool:
    return bool((xb[scope::n_scopes] @ vector).max() >= THRESHOLD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--d", type=int, default=384)
    parser.add_argument("--scopes", type=int, nargs="*", default=[1, 100])
    parser.add_argument("--vectors", type=Path, help="float32[n, d] to use instead of drawn ones")
    options = parser.parse_args()
    print(machine.facts(Path(tempfile.gettempdir())))
    print(f"seed {SEED}, threshold {THRESHOLD}, {_N_ASKED} look-ups a line, one thread, entries in a folder")
    for n in options.n:
        rng = np.random.default_rng(SEED + n)
        given = unit(np.load(options.vectors)[: n + _N_ASKED]) if options.vectors else None
        made = drawn(n + _N_ASKED, options.d, rng) if given is None else given
        for n_scopes in options.scopes:
            with tempfile.TemporaryDirectory() as folder:
                measure(n, made[:-_N_ASKED], made[-_N_ASKED:], n_scopes, Path(folder) / "cache")


if __name__ == "__main__":
    main()

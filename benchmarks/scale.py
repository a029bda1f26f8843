"""Datasets of shards at scale: built, opened cold, searched; beside a flat scan and FAISS used by hand.

    python -m benchmarks.scale --vectors big.npy --queries real.npz:queries \\
        [--rows 1000000 2500000 5000000 10000000]

``big.npy`` is ``[n, d]`` of any number type, searched by l2, grown from a real set; the queries are real and
held out. With ``--asked 400`` the first 400 of them are given to the build as questions that were asked, and
what follows is measured with the others.

For each number of rows the first ones are built with ``faissbase shards build`` into a folder; then:

* build: seconds for a million, processor seconds, and the most memory that was nobody's file, over all
  processes of the build;
* search: queries a second in batches of 1,000 and one at a time, with ids, and recall@10;
* beside it, in the same run: FAISS's flat scan of the same vectors, and the shards' own index files searched
  by hand with the same parameters and re-ranked by the same vectors, which returns row numbers;
* a cold start: from an empty cache, in a new process, to the first answer; from the folder, and from the same
  objects behind S3's protocol with the latency and the speed of a connection that are given (`ranged_s3`),
  where the vectors come last, and where they are waited for.

After several sizes, the curve: seconds a million rows of each, and of the largest over those of the smallest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.machine import facts
from benchmarks.process import memory_kb
from benchmarks.ranged_s3 import BUCKET
from faissbase.ann.coarse import groups_probed
from faissbase.types import Float32, Slots

K = 10
BATCH = 1_000
NAME = "scale"
_SINGLES = 1_000
_BATCHES_S = 20.0
_BLOCK_ROWS = 262_144
_EARLY = 41
_SAMPLED_S = 0.1
_RECALL = 0.95
SCANS, SCANS_ROWS = 64.0, 10_000_000
"""Times as fast as the flat scan a search should be, and of how many rows."""
_EFFORTS = (8, 12, 16, 20, 24, 32, 40, 48, 64, 96)
_DEPTHS = (4, 8, 12, 16)


def load(given: str) -> Any:
    """The array in ``file.npy`` or ``file.npz:key``."""
    path, found, key = given.rpartition(":")
    return np.load(path)[key] if found else np.load(given, mmap_mode="r")


def blocks(vectors: Any, n: int) -> Iterator[tuple[int, Float32]]:
    """The first rows, some at a time, as float32."""
    for start in range(0, n, _BLOCK_ROWS):
        yield start, np.ascontiguousarray(vectors[start : min(n, start + _BLOCK_ROWS)], np.float32)


def exact(vectors: Any, n: int, queries: Float32) -> tuple[Slots, float]:
    """The k nearest rows of each query, by FAISS's flat search of one block after another.

    With the seconds that took, without reading the blocks and making them float32. By matrix products, which
    FAISS by itself would leave out below a thousand queries, and take five times as long.
    """
    faiss.cvar.distance_compute_blas_threshold = 1
    heap, seconds = faiss.ResultHeap(nq=len(queries), k=K), 0.0
    for start, xb in blocks(vectors, n):
        begin = time.perf_counter()
        near, rows = faiss.knn(queries, xb, K)
        heap.add_result(near, rows + start)
        seconds += time.perf_counter() - begin
    heap.finalize()
    found: Slots = heap.I
    return found, seconds


def recall(found: Slots, truth: Slots) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, truth, strict=True)]))


@contextmanager
def most_memory(of: Callable[[], list[int]]) -> Iterator[dict[str, float]]:
    """The most memory in GB that processes hold beyond mapped files while the block runs."""
    most, is_over = {"gb": 0.0}, threading.Event()

    def watch() -> None:
        while not is_over.wait(_SAMPLED_S):
            total = 0.0
            for process in of():
                try:
                    total += memory_kb(process)["anonymous"] / 1e6
                except (OSError, KeyError, ValueError):  # it has just ended
                    continue
            most["gb"] = max(most["gb"], total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        is_over.set()
        thread.join()


def family(root: int) -> list[int]:
    """A process and all that come from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += parents.get(found[-1], [])
    return found


def build(source: Path, bucket: str, work: Path, options: list[str]) -> dict[str, Any]:
    """Build and publish with the command a user would give."""
    command = [sys.executable, "-m", "faissbase", "shards", "build", str(source), "--out", bucket]
    command += ["--name", NAME, "--metric", "l2", "--work", str(work), "--json", *options]
    begin, begin_cpu = time.perf_counter(), os.times()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with most_memory(lambda: family(child.pid)) as most:
        printed, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"the build ended with {child.returncode}")
    spent = os.times()
    cpu = spent.children_user + spent.children_system - begin_cpu.children_user - begin_cpu.children_system
    answer: dict[str, Any] = json.loads(printed)
    return answer | {
        "wall_s": time.perf_counter() - begin,
        "cpu_s": cpu,
        "most_memory_gb": round(most["gb"], 2),
    }


# ---- in a fresh process --------------------------------------------------------------------------


def opened(url: str, cache: str, begin: float) -> dict[str, Any]:
    """A cold start: seconds from the start of the process to the first answer, and to the last vector."""
    import faissbase

    queries = np.load(sys.argv[5])
    with faissbase.connect(url, cache=cache, read_only=True, refresh_s=0) as db:
        collection = db.get_collection(NAME)
        opened_s = time.time() - begin
        hits = collection.search(queries[0], k=K)
        took = time.time() - begin
        early = latencies(lambda query: collection.search(query, k=K), queries[1:_EARLY])
        collection.search(queries[0], k=K, recall=1.0)
        return {
            "opened_s": opened_s,
            "first_answer_s": took,
            "early_p50_ms": statistics.median(early),
            "all_here_s": time.time() - begin,
            "hits": [hit.id for hit in hits],
        }


def opened_whole(url: str, cache: str, begin: float) -> dict[str, Any]:
    """`opened`, with every vector fetched before the shards answer."""
    from faissbase.sharded.cache import Cache

    Cache.__init__.__defaults__ = (1 << 62,)  # no vectors take so much
    return opened(url, cache, begin)


def from_s3(bucket: Path, place: Path, latency_ms: float, mb_per_s: float) -> dict[str, Any]:
    """Cold starts from the objects of a bucket in a folder, served as S3's are."""
    command = [sys.executable, "-m", "benchmarks.ranged_s3", str(bucket)]
    command += ["--latency-ms", str(latency_ms), "--mb-per-s", str(mb_per_s)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"), "us-east-1")
        os.environ |= {"AWS_ENDPOINT": server.stdout.readline().strip(), **keys}
        found: dict[str, Any] = {"latency_ms": latency_ms, "mb_per_s": mb_per_s}
        for task in ("opened", "opened_whole"):
            cache = place / f"s3-{task}"
            found[task] = in_child(task, f"s3://{BUCKET}", cache, place / "queries.npy", place / "truth.npy")
            shutil.rmtree(cache)
        return found
    finally:
        server.kill()
        server.wait()


def searched(url: str, cache: str, begin: float) -> dict[str, Any]:
    """Throughput, latency and recall of an open dataset, beside FAISS by hand on the same files."""
    import faissbase

    queries, truth = np.load(sys.argv[5]), np.load(sys.argv[6])
    with faissbase.connect(url, cache=cache, read_only=True, refresh_s=0) as db:
        collection = db.get_collection(NAME)
        result = collection.search(queries, k=K)
        ids = np.array([[int(id) for id in row] for row in result.ids])
        explained = collection.explain(queries[:BATCH], k=K)
        by_hand = HandMade(Path(cache), explained, queries.shape[1])
        ours: list[float] = []
        raw: list[float] = []
        until = time.perf_counter() + _BATCHES_S
        while time.perf_counter() < until or len(ours) < 3:
            ours.append(rate(lambda: collection.search(queries, k=K).ids, len(queries)))
            raw.append(rate(lambda: by_hand.search(queries), len(queries)))
        singles = latencies(lambda query: collection.search(query, k=K), queries)
        fewest = least_effort(collection, queries, truth)
        memory = memory_kb()
        return {
            "recall@10": recall(ids, truth),
            "batch_qps": statistics.median(ours),
            "by_hand_qps": statistics.median(raw),
            "by_hand_recall@10": recall(by_hand.search(queries), truth),
            "p50_ms": float(np.percentile(singles, 50)),
            "p99_ms": float(np.percentile(singles, 99)),
            "anonymous_gb": memory["anonymous"] / 1e6,
            "least_effort": fewest,
            "knobs": [str(each.plan.knobs) for each in explained.shards.values()],
            "paths": [each.plan.path for each in explained.shards.values()],
        }


def least_effort(collection: Any, queries: Float32, truth: Slots) -> dict[str, float]:
    """The fewest lists and the shallowest re-ranking that reach .95 on these very queries, and their speed.

    What a collection chooses by itself holds for harder queries than these, so that it finds more than asked.
    """
    for nprobe in _EFFORTS:
        for rerank in _DEPTHS:
            knobs = {"nprobe": nprobe, "rerank": rerank}
            ids = [[int(id) for id in row] for row in collection.search(queries, k=K, **knobs).ids]
            if recall(np.array(ids), truth) >= _RECALL:
                speeds = [
                    rate(lambda: collection.search(queries, k=K, **knobs).ids, len(queries))  # noqa: B023
                    for _ in range(5)
                ]
                singles = latencies(lambda query: collection.search(query, k=K, **knobs), queries)  # noqa: B023
                return {
                    **knobs,
                    "recall@10": recall(np.array(ids), truth),
                    "batch_qps": statistics.median(speeds),
                    "p50_ms": float(np.percentile(singles, 50)),
                    "p99_ms": float(np.percentile(singles, 99)),
                }
    return {}


class HandMade:
    """What somebody would write around FAISS: every shard's index, re-ranked by its vectors, merged.

    A shard that is so small that batches scan it is scanned here too.
    """

    def __init__(self, cache: Path, explained: Any, d: int) -> None:
        self._parts: list[tuple[int, Any, Any, Float32, int]] = []
        first = 0
        for name, explanation in explained.shards.items():
            (folder,) = cache.glob(f"*/{name}")
            vectors = np.memmap(folder / "vectors.0.f32", np.float32, mode="r").reshape(-1, d)
            knobs = explanation.plan.knobs
            if not knobs:
                self._parts.append((first, None, None, np.asarray(vectors), 0))
            for path, knob in zip(sorted(folder.glob("segments/*.faiss")), knobs, strict=False):
                index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
                quantizer = faiss.downcast_index(faiss.extract_index_ivf(index).quantizer)
                groups = None
                if isinstance(quantizer, faiss.IndexIVF):
                    groups = faiss.SearchParametersIVF(nprobe=groups_probed(knob.effort, quantizer.nlist))
                parameters = faiss.SearchParametersIVF(nprobe=knob.effort, quantizer_params=groups)
                if isinstance(index, faiss.IndexPreTransform):
                    parameters = faiss.SearchParametersPreTransform(index_params=parameters)
                self._parts.append((first, index, parameters, np.asarray(vectors), knob.rerank * K))
            first += explanation.plan.n_slots

    def search(self, queries: Float32) -> Slots:
        near, rows = [], []
        for first, index, parameters, vectors, depth in self._parts:
            if index is None:
                distances, labels = faiss.knn(queries, vectors, K)
                near.append(distances)
                rows.append(labels + first)
                continue
            _, labels = index.search(queries, depth, params=parameters)
            exact = np.empty(labels.shape, np.float32)
            pointers = map(faiss.swig_ptr, (exact, queries, vectors, labels))
            faiss.fvec_L2sqr_by_idx(*pointers, queries.shape[1], *labels.shape)
            order = np.argsort(exact, axis=1)[:, :K]
            near.append(np.take_along_axis(exact, order, 1))
            rows.append(np.take_along_axis(labels, order, 1) + first)
        all_near, all_rows = np.concatenate(near, 1), np.concatenate(rows, 1)
        found: Slots = np.take_along_axis(all_rows, np.argsort(all_near, axis=1)[:, :K], 1)
        return found


def rate(call: Callable[[], Any], n: int) -> float:
    begin = time.perf_counter()
    call()
    return n / (time.perf_counter() - begin)


def latencies(call: Callable[[Float32], Any], queries: Float32) -> list[float]:
    """Milliseconds of one query at a time."""
    times = []
    for query in queries[:_SINGLES]:
        begin = time.perf_counter()
        call(query)
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def in_child(task: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale", "--child", task, *map(str, arguments)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer


# ---- all of it -----------------------------------------------------------------------------------


def measure(
    n: int, vectors: Any, queries: Float32, folder: Path, options: list[str], network: argparse.Namespace
) -> dict[str, Any]:
    """Build the first ``n`` rows and search them."""
    place = folder / f"rows-{n}"
    place.mkdir()
    source, bucket = place / "rows.npy", (place / "bucket").as_uri()
    np.save(source, np.asarray(vectors[:n]))
    truth, exact_s = exact(vectors, n, queries)
    scan_qps = len(queries) / exact_s
    built = build(source, bucket, place / "work", options)
    source.unlink()
    np.save(place / "queries.npy", queries)
    np.save(place / "truth.npy", truth)
    arguments = (place / "queries.npy", place / "truth.npy")
    cold = in_child("opened", bucket, place / "cold", *arguments)
    s3 = from_s3(place / "bucket", place, network.latency_ms, network.mb_per_s)
    found = in_child("searched", bucket, place / "cold", *arguments)
    found |= {"cold_start_s": cold["first_answer_s"], "scan_qps": scan_qps, "build": built, "s3": s3}
    shutil.rmtree(place)
    return {"n": n, "d": int(queries.shape[1]), **found}


def shown(found: dict[str, Any]) -> str:
    n, built, ours = found["n"], found["build"], found["batch_qps"]
    lines = [
        f"{n:,} x {found['d']}, {built['index']}: built in {built['wall_s']:.0f} s",
        f"  a million rows  {built['wall_s'] / n * 1e6:.0f} s, {built['cpu_s'] / n * 1e6:.0f} s of CPU",
        f"  memory          {built['most_memory_gb']} GB to build, {found['anonymous_gb']:.2f} GB to search",
        f"  recall@10       {found['recall@10']:.4f} at {found['knobs']}",
        f"  batches         {ours:,.0f} queries/s; FAISS by hand {found['by_hand_qps']:,.0f} "
        f"(recall@10 {found['by_hand_recall@10']:.4f}): {ours / found['by_hand_qps']:.2f} times as fast",
        f"  flat scan       {found['scan_qps']:,.1f} queries/s of FAISS, in the same run: "
        f"{against_scan(ours / found['scan_qps'], n)}",
        f"  least effort    {found['least_effort']}",
        f"  one query       p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms",
        f"  cold start      {found['cold_start_s']:.2f} s to the first answer",
        *(cold_line(label, found["s3"], task) for label, task in _COLD.items()),
    ]
    return "\n".join(lines)


def against_scan(times: float, n: int) -> str:
    """A ratio beside its target, which is for many rows: a scan grows with them, a search hardly."""
    missed = ": MISS" if n >= SCANS_ROWS and times < SCANS else ""
    return f"{times:.1f} times as fast (target {SCANS:g} from {SCANS_ROWS:,} rows on{missed})"


def curve(results: list[dict[str, Any]]) -> str:
    """How the build's time grows: near constant for a million rows, where it is linear."""
    sizes = sorted(results, key=lambda each: int(each["n"]))
    wall = [each["build"]["wall_s"] / each["n"] * 1e6 for each in sizes]
    cpu = [each["build"]["cpu_s"] / each["n"] * 1e6 for each in sizes]
    rows = [
        f"  {each['n']:>11,} rows  {seconds:6.1f} s a million, {of_cpu:6.1f} s of CPU"
        for each, seconds, of_cpu in zip(sizes, wall, cpu, strict=True)
    ]
    last = f"  largest over smallest: {wall[-1] / wall[0]:.2f}, {cpu[-1] / cpu[0]:.2f} of CPU"
    return "\n".join(["build time", *rows, last])


_COLD = {"vectors last": "opened", "vectors first": "opened_whole"}


def cold_line(label: str, s3: dict[str, Any], task: str) -> str:
    each = s3[task]
    parts = (
        f"  from S3, {label:<13} {each['first_answer_s']:.2f} s to the first answer",
        f"then p50 {each['early_p50_ms']:.1f} ms",
        f"all here after {each['all_here_s']:.1f} s",
        f"{s3['latency_ms']:g} ms and {s3['mb_per_s']:g} MB/s a connection",
    )
    return ", ".join(parts)


def main() -> None:
    """Print one line for each size, then everything as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", required=True, help="file.npy, or file.npz:key")
    parser.add_argument("--queries", required=True, help="file.npy, or file.npz:key")
    parser.add_argument("--asked", type=int, default=0, help="so many queries are given to the build")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--latency-ms", type=float, default=20.0, help="of the store of the cold start")
    parser.add_argument("--mb-per-s", type=float, default=80.0, help="of one connection to it")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--build", nargs=argparse.REMAINDER, default=[], help="options of shards build")
    asked = parser.parse_args()
    vectors = load(asked.vectors)
    queries = np.ascontiguousarray(load(asked.queries), np.float32)[:BATCH]
    given, queries, results = queries[: asked.asked], queries[asked.asked :], []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        machine = facts(Path(folder))
        options = list(asked.build)
        if len(given):
            np.save(Path(folder) / "asked.npy", given)
            options += ["--queries", str(Path(folder) / "asked.npy")]
        for n in asked.rows:
            results.append(measure(n, vectors, queries, Path(folder), options, asked))
            print(shown(results[-1]), flush=True)
    if len(results) > 1:
        print(curve(results), flush=True)
    report = {"machine": machine, "k": K, "batch": BATCH, "asked": len(given), "results": results}
    print(json.dumps(report, indent=1, default=str))
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1, default=str))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        task = {"opened": opened, "opened_whole": opened_whole, "searched": searched}[sys.argv[2]]
        print(json.dumps(task(sys.argv[3], sys.argv[4], time.time() - time.process_time())))
    else:
        main()

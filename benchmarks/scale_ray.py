"""Shards in one process beside the same shards on Ray workers: latency, throughput, and a kill.

    python -m benchmarks.scale_ray --vectors sift.npz:base --queries sift.npz:queries [--rows N]
        [--workers 1,2,4] [--seconds 3]

``--vectors`` is ``[n, d]`` of any number type, searched by l2; its first rows are built into four shards by
``faissbase shards build``. Recall@10 against the exact answer stands beside each line. Ray is started on this
machine for the time of the measurement, and each worker has one processor. Measured are one query at a time,
and then what 8 and 32 threads of one client get that ask one query each, and 8 that ask batches of 100. What
a shard, a call, a router and a hop cost is measured with one and two workers; from that, more workers are
simulated (`fanout_simulation`).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray

import faissbase
from benchmarks import fanout_simulation
from benchmarks.fanout_simulation import Costs, Tier
from benchmarks.machine import facts
from benchmarks.scale import NAME, K, build, exact, load, recall
from faissbase.sharded import runner
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.routes import RoutedDatabase

SHARDS, BATCH, QUERIES, FEW_ASKERS, MANY_ASKERS = 4, 100, 200, 8, 32
_LINE = "{:<18} {:>8} {:>8} {:>8} {:>10} {:>11} {:>14} {:>8}"


def main() -> None:
    """Measure and print, one line for each place."""
    args = _arguments()
    vectors, xq = load(args.vectors), np.ascontiguousarray(load(args.queries), np.float32)
    n = len(vectors) if args.rows is None else args.rows
    with tempfile.TemporaryDirectory(prefix="faissbase-ray-") as name:
        folder = Path(name)
        print({**facts(folder), "ray": ray.__version__, "n": n, "d": xq.shape[1]})
        np.save(folder / "vectors.npy", vectors[:n])
        truth, _ = exact(vectors, n, xq)
        build(
            folder / "vectors.npy",
            str(folder / "bucket"),
            folder / "work",
            ["--rows-per-shard", str(-(-n // SHARDS)), "--quiet"],
        )
        head = ("8 ask, q/s", "32 ask, q/s", "of 100, q/s")
        print(_LINE.format("place", "p50 ms", "p99 ms", "+ms p50", *head, "recall"))
        _measure(args, folder, xq, truth)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", required=True, help="file.npy, or file.npz:key")
    parser.add_argument("--queries", required=True, help="the same, held out")
    parser.add_argument("--rows", type=int, help="the first so many (default: all)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each throughput")
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--simulated-shards", type=int, default=64)
    parser.add_argument("--simulated-queries", type=int, default=2000)
    return parser.parse_args()


def _measure(args: argparse.Namespace, folder: Path, xq: np.ndarray, truth: np.ndarray) -> None:
    url = (folder / "bucket").as_uri()
    with faissbase.connect(url, cache=folder / "local", refresh_s=0) as db:
        docs = db.get_collection(NAME)
        base = _row("one process", docs, xq, truth, args.seconds, None)
        shard_s = _shard_s(docs, xq[:QUERIES])
    counts = [int(n) for n in args.workers.split(",")]
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(num_cpus=max(counts) + 1, include_dashboard=False, object_store_memory=100 << 20, **quiet)
    try:
        found = {n: _on_ray(n, url, folder, xq, truth, args.seconds, base, shard_s) for n in counts}
    finally:
        ray.shutdown()
    for n in sorted(set(found) & {1, 2}):
        _simulated(n, found[n])
    print(
        "\n".join(fanout_simulation.table(args.simulated_shards, found[min(found)], args.simulated_queries))
    )


def _simulated(n: int, costs: Costs) -> None:
    """Tell what was measured, and what the simulation makes of it where it can be compared."""
    shard_ms = 1e3 * float(np.mean(costs.shard_s))
    told = fanout_simulation.asking(Tier(SHARDS, n, min(2, n)), costs, FEW_ASKERS, 4000)
    print(
        f"measured with {n} workers: shard {shard_ms:.3f} ms of CPU, call {1e3 * costs.call_s:.3f}, router "
        f"{1e3 * costs.router_s:.3f}, hop {1e3 * costs.hop_s:.3f} ms; simulated from that: "
        f"{told.queries_per_s:,.0f} q/s of {FEW_ASKERS} that ask each for itself, each worker and the router "
        "with a processor"
    )


def _shard_s(docs: ShardedCollection, xq: np.ndarray) -> list[float]:
    """CPU seconds of one query in one shard."""
    found = []
    for q in xq:
        for shard in docs.frozen_shards().values():
            began = time.thread_time()
            shard.search(q, K)
            found.append(time.thread_time() - began)
    return found[len(found) // 10 :]


def _costs(
    cluster: runner.RayCluster, far: RoutedDatabase, xq: np.ndarray, shard_s: Sequence[float], hop_s: float
) -> Costs:
    """CPU of the router and of the workers for a query, asked one after the other."""
    docs, pids = far.get_collection(NAME), cluster.status().pids.values()
    for q in xq:
        docs.search(q, K)
    calls, router, workers = far.tally.n_calls, time.process_time(), sum(map(_cpu_s, pids))
    for q in xq:
        docs.search(q, K)
    n_calls = far.tally.n_calls - calls
    router_s, workers_s = time.process_time() - router, sum(map(_cpu_s, pids)) - workers
    call_s = (workers_s - len(xq) * SHARDS * float(np.mean(shard_s))) / n_calls
    return Costs(shard_s, max(0.0, call_s), router_s / len(xq), hop_s)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _on_ray(
    n: int,
    url: str,
    folder: Path,
    xq: np.ndarray,
    truth: np.ndarray,
    seconds: float,
    base: float,
    shard_s: Sequence[float],
) -> Costs:
    hop_s = _bare(n, xq) / 2e3
    began = time.monotonic()
    cluster = runner.deploy(url, workers=n, replicas=min(2, n), cache=folder / "cache", wait_s=300)
    up_s = time.monotonic() - began
    try:
        with cluster.connect(folder / f"far-{n}", refresh_s=0) as far:
            docs = far.get_collection(NAME)
            _row(f"Ray, {n} workers", docs, xq, truth, seconds, base)
            costs = _costs(cluster, far, xq[:QUERIES], shard_s, hop_s)
            kill_s = _killed(cluster, docs, xq) if n > 1 else float("nan")
            told = f"{far.tally.n_hedges} hedges in {far.tally.n_calls} calls"
            print(f"  up in {up_s:.1f} s; actor killed: full strength in {kill_s:.1f} s; {told}")
    finally:
        cluster.stop()
    return costs


class _Echo:
    def answer(self, content: bytes) -> bytes:
        return content


def _bare(n: int, xq: np.ndarray) -> float:
    """What Ray alone takes to ask as many actors the same bytes: the floor here. The median, in ms."""
    made: Any = ray.remote(_Echo)
    actors = [made.options(max_concurrency=64, num_cpus=1).remote() for _ in range(n)]
    content = xq[0].tobytes()
    times = []
    for _ in range(QUERIES + 20):
        began = time.perf_counter()
        ray.get([actor.answer.remote(content) for actor in actors])
        times.append(1e3 * (time.perf_counter() - began))
    p50, p99 = np.median(times[20:]), np.quantile(times[20:], 0.99)
    print(_LINE.format(f"bare Ray, {n} actors", f"{p50:.2f}", f"{p99:.2f}", *[""] * 5))
    for actor in actors:
        ray.kill(actor)
    return float(p50)


def _row(
    label: str, docs: ShardedCollection, xq: np.ndarray, truth: np.ndarray, seconds: float, base: float | None
) -> float:
    """Measure one place and print it; its median, in milliseconds."""
    found = docs.search(xq, K).ids  # which warms, too
    rows = np.array([[int(id) for id in ids] for ids in found])
    times = []
    for q in xq:
        began = time.perf_counter()
        docs.search(q, K)
        times.append(1e3 * (time.perf_counter() - began))
    p50, p99 = float(np.median(times)), float(np.quantile(times, 0.99))
    few, many = (
        _throughput(lambda i: docs.search(xq[i % len(xq)], K), seconds, n) for n in (FEW_ASKERS, MANY_ASKERS)
    )
    starts = len(xq) - BATCH + 1
    batches = BATCH * _throughput(lambda i: docs.search(xq[i % starts :][:BATCH], K), seconds, FEW_ASKERS)
    above = "" if base is None else f"{p50 - base:+.2f}"
    rates = (f"{each:,.0f}" for each in (few, many, batches))
    print(_LINE.format(label, f"{p50:.2f}", f"{p99:.2f}", above, *rates, f"{recall(rows, truth):.4f}"))
    return p50


def _throughput(ask: Callable[[int], object], seconds: float, n_threads: int) -> float:
    """Calls a second of some threads."""
    counts = [0] * n_threads
    began = time.monotonic()

    def asking(part: int) -> None:
        while time.monotonic() < began + seconds:
            ask(part + n_threads * counts[part])
            counts[part] += 1

    threads = [threading.Thread(target=asking, args=(part,)) for part in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


def _killed(cluster: runner.RayCluster, docs: ShardedCollection, xq: np.ndarray) -> float:
    """Seconds from kill -9 of an actor to full strength; a query that is lost ends the measurement."""
    name, pid = sorted(cluster.status().pids.items())[0]
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    while cluster.status().pids.get(name) in (None, pid) or not cluster.status().is_at_full_strength:
        docs.search(xq[0], K)
        if time.monotonic() - began > 120:
            raise TimeoutError(f"not at full strength after 120 s: {cluster.status()}")
    return time.monotonic() - began


if __name__ == "__main__":
    main()

"""FAISS here and FAISS behind `faiss_proxy`, in one run: ``python -m benchmarks.dropin --sift FOLDER``.

The server is a process of the same machine. Batches, single queries, what an upload takes, many threads;
every round asks both, in turn, and the answers have to be the same. So it is with indexes on GPUs, where
FAISS has any.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

import faiss_proxy
import faissbase
from benchmarks import ann_data, ann_grow, datasets, machine, places, report, servers
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, at_least, at_most, spread
from benchmarks.process import memory_kb
from benchmarks.timing import interleaved, ratios, seconds

PART = "faiss_proxy beside FAISS"
K = 10
_D = 128
_N_QUERIES = 1_000
_N_SINGLE = 500
_TURN = 50
_N_THREADS = 16
_PIECE_BYTES = 4 << 20
_SPECS: dict[str, Callable[[Any], None]] = {
    "HNSW32": lambda index: setattr(index.hnsw, "efSearch", 64),
    "IVF1024,Flat": lambda index: setattr(index, "nprobe", 16),
}
_GPU_SPECS: dict[str, Callable[[Any], None]] = {"Flat": lambda index: None, **_SPECS}
del _GPU_SPECS["HNSW32"]  # FAISS has none on GPUs
_SUBJECTS = ("add", "cpu", "gpu")


@dataclass(frozen=True, slots=True)
class _Pair:
    """The same index twice: of this process, and of the server's; ``is_bound``: figures are asked of it."""

    spec: str
    local: Any
    remote: Any
    is_bound: bool = True


@dataclass(frozen=True, slots=True)
class _Run:
    dataset: Dataset
    folder: Path
    url: str
    server: int
    options: argparse.Namespace


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = {"date": now, "seed": options.seed, **machine.facts(options.tmp)}
    small = ann_data.sift(options.sift) if options.sift else ann_grow.reduced(datasets.demo(), _D)
    dataset = _sized(small, options.rows, options.seed)
    figures: list[Figure] = []
    with places.folder_in(options.tmp) as folder:
        faissbase.connect(folder / "db").close()
        port = servers.free_port()
        with servers.running(servers.serve_command(folder / "db", port), port) as server:
            run = _Run(dataset, folder, f"http://127.0.0.1:{port}", server, options)
            faiss_proxy.configure(run.url)
            for part in _parts(run):
                found = list(part)
                print(f"\n{report.table(found)}", flush=True)
                figures += found
                report.write(figures, facts, options.out, "Drop-in benchmarks")
            faiss_proxy.configure(None)
    return 0


def _sized(small: Dataset, n_rows: int, seed: int) -> Dataset:
    """Its first rows, or rows grown from them; with queries, and exact answers among the rows."""
    small = replace(small, metric="l2")  # FAISS's, unless another is given
    if n_rows > len(small.xb):
        return ann_grow.grown(small, n_rows, _N_QUERIES, seed)
    xb, xq = np.ascontiguousarray(small.xb[:n_rows]), small.xq[:_N_QUERIES]
    name = f"first {n_rows:,} of {small.name}"
    return replace(small, name=name, xb=xb, xq=xq, truth=ann_data.nearest(xb, xq, K, small.metric))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dropin", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dropin.json"))
    parser.add_argument("--tmp", type=Path, default=Path(tempfile.gettempdir()), metavar="FOLDER")
    parser.add_argument(
        "--sift", type=Path, metavar="FOLDER", help="grow these photographs, not the demo data"
    )
    parser.add_argument("--only", nargs="+", choices=_SUBJECTS, default=_SUBJECTS, help="some of it alone")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement with many threads")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _parts(run: _Run) -> Iterator[Iterator[Figure]]:
    only = run.options.only
    if "add" in only:
        yield _adding(run)
    for spec in _SPECS if "cpu" in only else ():
        pair = _pair(run, spec, _SPECS[spec])
        yield _batches(run, pair)
        yield _singles(run, pair)
        yield _threads(run, pair)
        del pair
    for spec in _GPU_SPECS if "gpu" in only and faiss.get_num_gpus() else ():
        pair = _pair(run, spec, _GPU_SPECS[spec])
        yield _batches(run, pair)
        pair = _on_gpus(pair)
        yield _batches(run, pair)
        yield _singles(run, pair)
        del pair


def _pair(run: _Run, spec: str, tune: Callable[[Any], None]) -> _Pair:
    """The index, built once in this process; its bytes are the server's, too."""
    xb = run.dataset.xb
    local = faiss.index_factory(xb.shape[1], spec)
    began = time.perf_counter()
    local.train(xb)
    local.add(xb)
    print(f"{spec} built in {time.perf_counter() - began:,.0f} s", flush=True)
    remote = faiss_proxy.to_remote(local)
    for index in (local, remote):
        tune(index)
    return _Pair(spec, local, remote)


def _on_gpus(pair: _Pair) -> _Pair:
    """The same two on every GPU; no figure is asked, for the way to a server is long beside a GPU's work."""
    local, remote = faiss.index_cpu_to_all_gpus(pair.local), faiss_proxy.index_cpu_to_all_gpus(pair.remote)
    return _Pair(f"{pair.spec} on GPUs", local, remote, is_bound=False)


def _asked(pair: _Pair, xq: Any) -> tuple[Any, Any]:
    """What both find, which is the same."""
    expected, found = pair.local.search(xq, K), pair.remote.search(xq, K)
    for theirs, ours in zip(expected, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return found[0], found[1]


def _batches(run: _Run, pair: _Pair) -> Iterator[Figure]:
    xq, truth = run.dataset.xq, run.dataset.truth
    _, rows = _asked(pair, xq)
    recall = float(np.mean([len(set(a) & set(b[:K])) / K for a, b in zip(rows, truth, strict=True)]))
    arms = {
        name: partial(seconds, partial(index.search, xq, K))
        for name, index in (("local", pair.local), ("proxy", pair.remote))
    }
    taken = interleaved(arms, run.options.rounds)
    for name, times in taken.items():
        per_s = spread([len(xq) / each for each in times])
        text = f"{pair.spec}, batches of {len(xq):,}: {name}"
        yield Figure(PART, run.dataset.name, text, "queries/s", per_s, None, recall)
    gain = spread(ratios(taken["local"], taken["proxy"]))
    wanted = at_least(0.9, gain.median) if pair.is_bound else None
    text = f"{pair.spec}, batches of {len(xq):,}: proxy / local"
    yield Figure(PART, run.dataset.name, text, "x", gain, wanted, recall)


def _singles(run: _Run, pair: _Pair) -> Iterator[Figure]:
    rows = [run.dataset.xq[n % len(run.dataset.xq)][None] for n in range(_N_SINGLE)]
    local: list[float] = []
    proxy: list[float] = []
    for start in range(0, _N_SINGLE, _TURN):  # in turns: FAISS's idle threads spin for a moment after a call
        for index, times in ((pair.local, local), (pair.remote, proxy)):
            index.search(rows[start], K)
            for x in rows[start : start + _TURN]:
                times.append(1e3 * seconds(partial(index.search, x, K)))
    above = spread([b - a for a, b in zip(local, proxy, strict=True)], "quartiles")
    data, text = run.dataset.name, f"{pair.spec}, one query"
    yield Figure(PART, data, f"{text}: local", "ms", spread(local, "quartiles"))
    yield Figure(PART, data, f"{text}: proxy", "ms", spread(proxy, "quartiles"))
    wanted = at_most(1.0, above.median) if pair.is_bound else None
    yield Figure(PART, data, f"{text}: proxy above local", "ms", above, wanted)


def _threads(run: _Run, pair: _Pair) -> Iterator[Figure]:
    arms = {
        name: partial(_per_s, index, run.dataset.xq, run.options.seconds)
        for name, index in (("local", pair.local), ("proxy", pair.remote))
    }
    taken = interleaved(arms, max(3, run.options.rounds // 2))
    data, text = run.dataset.name, f"{pair.spec}, {_N_THREADS} threads of single queries"
    for name, per_s in taken.items():
        yield Figure(PART, data, f"{text}: {name}", "queries/s", spread(per_s))
    yield Figure(PART, data, f"{text}: proxy / local", "x", spread(ratios(taken["proxy"], taken["local"])))


def _per_s(index: Any, xq: Any, during_s: float) -> float:
    """Single searches a second, of all threads together."""
    done, until = [0] * _N_THREADS, time.perf_counter() + during_s

    def ask(number: int) -> None:
        while time.perf_counter() < until:
            at = (number * 61 + done[number]) % len(xq)
            index.search(xq[at : at + 1], K)
            done[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(_N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / during_s


# ---- taking in -----------------------------------------------------------------------------------


def _adding(run: _Run) -> Iterator[Figure]:
    xb, data = run.dataset.xb, f"{len(run.dataset.xb):,} x {run.dataset.d}"
    port = servers.free_port()
    with servers.running([sys.executable, "-m", "benchmarks.bare_upload", str(port)], port):
        arms = {"upload": partial(seconds, partial(_uploaded, xb, port)), "proxy": partial(_added, run)}
        for arm in arms.values():  # both processes have had their memory once
            arm()
        taken = interleaved(arms, run.options.rounds)
    mb = xb.nbytes / 1e6
    names = {"upload": "a plain upload to the bare stack", "proxy": "IndexFlatL2.add through the proxy"}
    for name, times in taken.items():
        yield Figure(PART, data, names[name], "MB/s", spread([mb / each for each in times]))
    gain = spread(ratios(taken["upload"], taken["proxy"]))
    yield Figure(PART, data, "add through the proxy / plain upload", "x", gain, at_least(0.5, gain.median))
    yield from _memory(run, data)


def _uploaded(xb: Any, port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(xb.nbytes))
    connection.endheaders()
    content = memoryview(xb).cast("B")
    for start in range(0, len(content), _PIECE_BYTES):
        connection.send(content[start : start + _PIECE_BYTES])
    answer = connection.getresponse().read()
    assert int(answer) == xb.nbytes
    connection.close()


def _added(run: _Run) -> float:
    index = faiss_proxy.IndexFlatL2(run.dataset.d)
    taken = seconds(partial(index.add, run.dataset.xb))
    assert index.ntotal == len(run.dataset.xb)
    np.testing.assert_array_equal(index.reconstruct(index.ntotal - 1), run.dataset.xb[-1])
    return taken


def _memory(run: _Run, data: str) -> Iterator[Figure]:
    """How far both processes grow beyond the vectors, which the client has and the index keeps."""
    index = faiss_proxy.IndexFlatL2(run.dataset.d)
    workers = [pid for pid in _children(run.server) if b"dropin.worker" in _command(pid)]
    worker = workers[0]  # the others read its files
    own_mb = run.dataset.xb.nbytes / 1e6
    kept: dict[str, tuple[int | str, float]] = {"client": ("self", 0.0), "worker": (worker, own_mb)}
    before = {name: _rss_mb(process) for name, (process, _) in kept.items()}
    for process, _ in kept.values():
        Path(f"/proc/{process}/clear_refs").write_text("5")
    index.add(run.dataset.xb)
    for name, (process, own) in kept.items():
        beyond = _peak_mb(process) - before[name] - own
        yield Figure(
            PART, data, f"peak memory of the {name} in one add, vectors apart", "MB", spread([beyond])
        )


def _rss_mb(process: int | str) -> float:
    return memory_kb(process)["rss"] / 1e3


def _peak_mb(process: int | str) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def _children(process: int) -> list[int]:
    """Its processes, and theirs."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    own = [int(pid) for task in tasks for pid in task.read_text().split()]
    return own + [pid for child in own for pid in _children(child)]


def _command(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


if __name__ == "__main__":
    sys.exit(main())

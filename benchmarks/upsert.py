"""Part 4: single durable upserts, beside one sync of the same bytes and other embedded databases."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import faissbase
from benchmarks import places
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, Range, Target, at_least, at_most, spread
from benchmarks.peers import Chroma, Lance, SqliteVec
from benchmarks.timing import interleaved, ratios, seconds

PART = "single upserts"
_ROUNDS = 20
_BLOCK = 25
_SLOW_CALLS = 30
_THREADS = 16
_THREAD_ROUNDS = 5
_THREAD_CALLS = 20


@dataclass(frozen=True, eq=False)
class _Source:
    """Records to upsert, one after another: the data set's, under new ids."""

    dataset: Dataset
    numbers: Iterator[int] = field(default_factory=count)

    def next(self) -> tuple[str, Any, dict[str, Any]]:
        number = next(self.numbers)
        row = number % len(self.dataset.ids)
        return f"new-{number}", self.dataset.xb[row], self.dataset.metadatas[row]


@dataclass(frozen=True, slots=True)
class _Floor:
    """A file of zeros on the disk, overwritten from the front: one write and one sync per record."""

    fd: int
    size: int
    row: int
    at: Iterator[int]

    def put(self, vector: Any, id: str, metadata: dict[str, Any]) -> None:
        data = vector.tobytes() + id.encode() + json.dumps(metadata).encode()
        os.pwrite(self.fd, data, next(self.at) * self.row % (self.size - len(data)))
        os.fdatasync(self.fd)


def _floor(folder: Path) -> _Floor:
    size = 16 << 20
    fd = os.open(folder / "floor", os.O_RDWR | os.O_CREAT)
    os.write(fd, bytes(size))
    os.fsync(fd)
    return _Floor(fd, size, 4096, count())


def run(dataset: Dataset, parent: Path) -> Iterator[Figure]:
    """One thread, sixteen threads, then the slower databases."""
    with places.folder_in(parent) as folder:
        places.make(folder / "db", dataset)
        vec = SqliteVec(folder, dataset.d)
        vec.add(dataset)
        floor = _floor(folder)
        places.settle()
        with places.reopened(folder / "db") as collection:
            yield from _one_thread(dataset, collection, vec, floor)
            yield from _threads(dataset, collection)
        os.close(floor.fd)
        vec.close()
    yield from _slow_peers(dataset, parent)


def _figure(dataset: Dataset, name: str, unit: str, values: list[float], **more: Any) -> Figure:
    range: Range = more.pop("range", "min to max")
    return Figure(PART, dataset.name, name, unit, spread(values, range), **more)


def _one_thread(dataset: Dataset, collection: Any, vec: SqliteVec, floor: _Floor) -> Iterator[Figure]:
    source = _Source(dataset)
    known = dataset.ids

    def ours() -> None:
        id, vector, metadata = source.next()
        collection.upsert([id], vector, [metadata])

    def replace() -> None:
        id, vector, metadata = source.next()
        collection.upsert([known[int(id[4:]) % len(known)]], vector, [metadata])

    def plain() -> None:
        id, vector, metadata = source.next()
        floor.put(vector, id, metadata)

    def vec_upsert() -> None:
        vec.upsert(*source.next())

    arms = {"new": ours, "replace": replace, "plain": plain, "sqlite-vec": vec_upsert}
    each: dict[str, list[float]] = {name: [] for name in arms}
    interleaved({name: _block(call, each[name]) for name, call in arms.items()}, 2)
    for times in each.values():
        times.clear()
    medians = interleaved({name: _block(call, each[name]) for name, call in arms.items()}, _ROUNDS)
    yield from _one_thread_figures(dataset, each, medians)


def _block(call: Callable[[], object], every: list[float]) -> Callable[[], float]:
    """Some calls in a row; returns their median, and adds all their times to ``every``."""

    def once() -> float:
        times = [seconds(call) for _ in range(_BLOCK)]
        every.extend(times)
        return spread(times).median

    return once


def _one_thread_figures(
    dataset: Dataset, each: dict[str, list[float]], medians: dict[str, list[float]]
) -> Iterator[Figure]:
    names = {
        "new": "faissbase upsert, new id",
        "replace": "faissbase upsert, id that exists",
        "plain": "plain pwrite + fdatasync, same bytes",
        "sqlite-vec": "sqlite-vec upsert (WAL, FULL)",
    }
    for arm, name in names.items():
        yield _figure(dataset, name, "µs", [1e6 * one for one in each[arm]], range="quartiles")
    cost = ratios(medians["new"], medians["plain"])
    met = at_most(1.5, spread(cost).median)
    note = f"medians of {_BLOCK} calls in a row, round by round"
    yield _figure(dataset, "new id: faissbase / plain", "x", cost, target=met, note=note)
    cost = ratios(medians["replace"], medians["plain"])
    yield _figure(dataset, "id that exists: faissbase / plain", "x", cost, note=note)
    cost = ratios(medians["new"], medians["sqlite-vec"])
    met = at_most(1, spread(cost).median)
    yield _figure(dataset, "new id: faissbase / sqlite-vec", "x", cost, target=met, note=note)


def _threads(dataset: Dataset, collection: Any) -> Iterator[Figure]:
    total = _THREADS * _THREAD_CALLS
    per_s: dict[int, list[float]] = {1: [], _THREADS: []}
    for number in range(_THREAD_ROUNDS):
        for n_threads in sorted(per_s, reverse=bool(number % 2)):
            taken = _together(dataset, collection, n_threads, total, f"{number}-{n_threads}")
            per_s[n_threads].append(total / taken)
    gain = ratios(per_s[_THREADS], per_s[1])
    yield _figure(dataset, "one thread", "upserts/s", per_s[1])
    yield _figure(dataset, f"{_THREADS} threads together", "upserts/s", per_s[_THREADS])
    met: Target = at_least(3, spread(gain).median)
    yield _figure(dataset, f"{_THREADS} threads / one thread", "x", gain, target=met)


def _together(dataset: Dataset, collection: Any, n_threads: int, total: int, tag: str) -> float:
    """Seconds until ``total`` upserts, shared out over the threads, are done."""

    def work(thread: int) -> None:
        for number in range(thread, total, n_threads):
            collection.upsert([f"{tag}-{number}"], dataset.xb[number], [dataset.metadatas[number]])

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(n_threads)]

    def run_all() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return seconds(run_all)


def _slow_peers(dataset: Dataset, parent: Path) -> Iterator[Figure]:
    """For information: LanceDB and Chroma, which are not built for this, after all else."""
    source = _Source(dataset)
    with places.folder_in(parent) as folder:
        arrow = Lance.arrow(dataset.ids, dataset.xb, dataset.metadatas)
        lance = Lance(folder, arrow.schema)
        lance.add(arrow)

        def lance_upsert() -> float:
            id, vector, metadata = source.next()
            row = Lance.arrow([id], vector[None], [metadata]).cast(arrow.schema)
            return seconds(lambda: lance.upsert(row))

        chroma = Chroma(folder)
        chroma.add(dataset.ids, dataset.xb, Chroma.metadatas(dataset.metadatas))

        def chroma_upsert() -> float:
            id, vector, metadata = source.next()
            [fields] = Chroma.metadatas([metadata])
            return seconds(lambda: chroma.upsert(id, vector, fields))

        with faissbase.connect(folder / "db") as db:
            ours = db.create_collection("bench", dataset.d, dataset.metric)
            places.fill(ours, dataset)

            def our_upsert() -> float:
                id, vector, metadata = source.next()
                return seconds(lambda: ours.upsert([id], vector, [metadata]))

            arms = {"faissbase": our_upsert, "LanceDB": lance_upsert, "Chroma": chroma_upsert}
            taken = interleaved(arms, _SLOW_CALLS)
    for name, times in taken.items():
        note = "never synced" if name == "LanceDB" else ""
        unit_us = [1e6 * one for one in times]
        yield _figure(dataset, f"for information: {name}", "µs", unit_us, range="quartiles", note=note)

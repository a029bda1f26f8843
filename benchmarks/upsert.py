"""Part 4: single durable upserts, beside one sync of the same bytes and other embedded databases."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import orjson

import faissbase
from benchmarks import places
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, Range, Target, at_least, at_most, spread
from benchmarks.peers import Chroma, Lance, SqliteRows, SqliteVec
from benchmarks.timing import interleaved, ratios, seconds
from faissbase.types import Record

T = TypeVar("T")

PART = "single upserts"
_WARM_ROUNDS = 5
_ROUNDS = 60
_BLOCK = 25
_FLOOR_BYTES = 16 << 20
_SLOW_CALLS = 30
_THREADS = 16
_THREAD_ROUNDS = 9
_THREAD_CALLS = 200  # 20 are over in 35 ms, and a tenth of that is the start of the threads


@dataclass(frozen=True, eq=False)
class _Source:
    """Records to upsert, one after another: the data set's, under new ids."""

    dataset: Dataset
    numbers: Iterator[int] = field(default_factory=count)

    def next(self) -> Record:
        number = next(self.numbers)
        row = number % len(self.dataset.ids)
        return Record(f"new-{number}", self.dataset.metadatas[row], None, self.dataset.xb[row])

    def next_stored(self) -> Record:
        """The next record under an id that is stored already."""
        record = self.next()
        known = self.dataset.ids
        return replace(record, id=known[int(record.id[4:]) % len(known)])


class _Floor:
    """A file of zeros on the disk, overwritten from the front: one write and one sync per record."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / "floor", os.O_RDWR | os.O_CREAT)
        os.write(self._fd, bytes(_FLOOR_BYTES))
        os.fsync(self._fd)
        self._at = 0

    def put(self, data: bytes) -> None:
        if self._at + len(data) > _FLOOR_BYTES:
            self._at = 0
        os.pwrite(self._fd, data, self._at)
        os.fdatasync(self._fd)
        self._at += len(data)

    def close(self) -> None:
        os.close(self._fd)


def _bytes_of(record: Record) -> bytes:
    """All that a record holds, encoded."""
    assert record.vector is not None
    return record.vector.tobytes() + record.id.encode() + orjson.dumps(record.metadata)


def run(dataset: Dataset, parent: Path) -> Iterator[Figure]:
    """One thread, sixteen threads, then the slower databases."""
    with places.folder_in(parent) as folder:
        places.make(folder / "db", dataset)
        vec = SqliteVec(folder, dataset.d)
        rows = SqliteRows(folder)
        for peer in (vec, rows):
            peer.add(dataset)
        floor = _Floor(folder)
        places.settle()
        with places.reopened(folder / "db") as collection:
            yield from _one_thread(dataset, collection, vec, rows, floor)
            yield from _threads(dataset, collection)
        for opened in (floor, vec, rows):
            opened.close()
    yield from _slow_peers(dataset, parent)


def _figure(dataset: Dataset, name: str, unit: str, values: list[float], **more: Any) -> Figure:
    range: Range = more.pop("range", "min to max")
    return Figure(PART, dataset.name, name, unit, spread(values, range), **more)


def _one_thread(
    dataset: Dataset, collection: Any, vec: SqliteVec, rows: SqliteRows, floor: _Floor
) -> Iterator[Figure]:
    source = _Source(dataset)

    def ours(record: Record) -> None:
        collection.upsert([record.id], record.vector, [record.metadata])

    def theirs(peer: SqliteVec | SqliteRows) -> Callable[[Record], None]:
        return lambda record: peer.upsert(record.id, record.vector, record.metadata)

    each: dict[str, list[float]] = {"new": [], "replace": [], "plain": [], "table": [], "sqlite-vec": []}
    arms = {
        "new": _block(ours, source.next, each["new"]),
        "replace": _block(ours, source.next_stored, each["replace"]),
        "plain": _block(floor.put, lambda: _bytes_of(source.next()), each["plain"]),
        "table": _block(theirs(rows), source.next, each["table"]),
        "sqlite-vec": _block(theirs(vec), source.next, each["sqlite-vec"]),
    }
    interleaved(arms, _WARM_ROUNDS)
    for times in each.values():
        times.clear()
    yield from _one_thread_figures(dataset, each, interleaved(arms, _ROUNDS))


def _block(call: Callable[[T], object], prepare: Callable[[], T], every: list[float]) -> Callable[[], float]:
    """Some calls in a row; returns their median, and adds all their times to ``every``."""

    def once() -> float:
        times = [seconds(partial(call, item)) for item in [prepare() for _ in range(_BLOCK)]]
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
        "table": "a plain SQLite table, the same row (WAL, FULL)",
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
    cost = ratios(medians["table"], medians["plain"])
    yield _figure(dataset, "a plain SQLite table / plain", "x", cost, note=note)
    cost = ratios(medians["new"], medians["table"])
    yield _figure(dataset, "new id: faissbase / a plain SQLite table", "x", cost, note=note)
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
            record = source.next()
            assert record.vector is not None
            row = Lance.arrow([record.id], record.vector[None], [record.metadata]).cast(arrow.schema)
            return seconds(lambda: lance.upsert(row))

        chroma = Chroma(folder)
        chroma.add(dataset.ids, dataset.xb, Chroma.metadatas(dataset.metadatas))

        def chroma_upsert() -> float:
            record = source.next()
            [fields] = Chroma.metadatas([record.metadata])
            return seconds(lambda: chroma.upsert(record.id, record.vector, fields))

        with faissbase.connect(folder / "db") as db:
            ours = db.create_collection("bench", dataset.d, dataset.metric, "Flat")
            places.fill(ours, dataset)

            def our_upsert() -> float:
                record = source.next()
                return seconds(lambda: ours.upsert([record.id], record.vector, [record.metadata]))

            arms = {"faissbase": our_upsert, "LanceDB": lance_upsert, "Chroma": chroma_upsert}
            taken = interleaved(arms, _SLOW_CALLS)
    for name, times in taken.items():
        note = "never synced" if name == "LanceDB" else ""
        unit_us = [1e6 * one for one in times]
        yield _figure(dataset, f"for information: {name}", "µs", unit_us, range="quartiles", note=note)

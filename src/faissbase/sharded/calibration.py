"""Measures `Costs` here: FAISS on one thread, over vectors drawn around a thousand centers.

Imports faiss. The clock is passed in and should count this process's CPU time. Queries meet cold caches, as
in an index much larger than they are; medians are taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np

from faissbase.ann.coarse import GROUPS_ASSIGNED, groups_probed, n_groups
from faissbase.ann.engine import omp_threads
from faissbase.ann.flat import FlatView
from faissbase.errors import InvalidInputError
from faissbase.sharded.costs import CODECS, Codec, CodecCosts, Costs, Line
from faissbase.types import Float32

Clock = Callable[[], float]

_SEED = 5
_CENTERS = 1000
_SPREAD = 0.5
_K = 100
_EVICTING_NUMBERS = 16 << 20
_GROWTHS = 6
_LISTS, _FEW_PROBES, _PROBES = 128, 8, 64
_ROUNDS = 10
_LEAST_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes
    ----------
    rows : int
        Vectors that are encoded; indexes are scanned with so many, and with seven times as many.
    queries : int
        Over which the median is taken.
    lists : int
        Centroids in groups.
    dimensions : tuple of int
        Two; costs are the line through both.
    cold_bytes : int
        Centroids of the flat coarse quantizer, and rows of the mapped file: more than caches hold.
    """

    rows: int = 10_000
    queries: int = 30
    lists: int = 1 << 14
    dimensions: tuple[int, int] = (128, 512)
    cold_bytes: int = 64 << 20

    @classmethod
    def of_rows(cls, rows: int) -> Effort:
        """An effort in proportion: quicker and rougher with fewer rows.

        Raises
        ------
        InvalidInputError
            Fewer than 1,024 rows: codes of 8 bits could not be trained on them.
        """
        if rows < _LEAST_ROWS:
            raise InvalidInputError(f"expected {_LEAST_ROWS} rows or more to measure on, got {rows}")
        usual = cls()
        share = min(1.0, rows / usual.rows)
        lists, cold = int(share * usual.lists), int(share * usual.cold_bytes)
        return cls(rows, max(10, int(share * usual.queries)), lists, usual.dimensions, cold)


@dataclass(frozen=True, slots=True)
class RecordCosts:
    """What a record costs around its vector; see `Costs`."""

    record_us: float
    record_bytes: float
    search_us: float


def n_steps() -> int:
    """How often `measure` calls ``on_step``."""
    return 2 * len(CODECS) + 9


def measure(
    clock: Clock,
    records: RecordCosts,
    *,
    machine: str,
    measured_on: str,
    effort: Effort | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> Costs:
    """The costs on this machine, in about a minute.

    Parameters
    ----------
    clock : callable
        CPU seconds of this process, ``time.process_time``.
    records : RecordCosts
        Measured by who has a database.
    machine, measured_on : str
        What the result says about itself.
    effort : Effort, optional
    on_step : callable
        Called `n_steps` times.
    """
    bench = _Bench(clock, effort or Effort(), on_step)
    with omp_threads(1):
        grouped = [bench.grouped(d) for d in bench.effort.dimensions]
        assign = bench.line(bench.assign)
        return Costs(
            machine=machine,
            measured_on=measured_on,
            assign=assign,
            train_ratio=bench.train_ratio(assign),
            coarse=bench.line(bench.coarse),
            grouped_assign=bench.through([each[0] for each in grouped]),
            grouped=bench.through([each[1] for each in grouped]),
            rerank=bench.line(bench.rerank),
            record_us=records.record_us,
            record_bytes=records.record_bytes,
            search_us=records.search_us,
            codecs={codec: bench.codec(codec) for codec in CODECS},
        )


class _Bench:
    """The clock, the vectors and the caches' enemy of one calibration. Times are nanoseconds."""

    def __init__(self, clock: Clock, effort: Effort, on_step: Callable[[], object]) -> None:
        self._clock, self.effort, self._on_step = clock, effort, on_step
        self._random = np.random.default_rng(_SEED)
        d = max(effort.dimensions)
        self._centers = self._random.standard_normal((_CENTERS, d), np.float32)
        self._evicting = np.ones(_EVICTING_NUMBERS, np.float32)

    def vectors(self, n: int, d: int) -> Float32:
        """``float32[n, d]`` in clusters."""
        noise = self._random.standard_normal((n, d), np.float32) * np.float32(_SPREAD)
        drawn: Float32 = self._centers[self._random.integers(_CENTERS, size=n), :d] + noise
        return drawn

    def line(self, measured: Callable[[int], float]) -> Line:
        """The line through what is measured at both dimensions."""
        return self.through([measured(d) for d in self.effort.dimensions])

    def through(self, values: list[float], xs: list[float] | None = None) -> Line:
        """The line through two values at both dimensions, or at ``xs``; neither part of it is below 0."""
        low, high = xs or list(map(float, self.effort.dimensions))
        slope = max(0.0, (values[1] - values[0]) / (high - low))
        base = values[0] - slope * low
        return Line(base, slope) if base >= 0 else Line(0.0, sum(values) / (low + high))

    def timed(self, call: Callable[[], object]) -> float:
        start = self._clock()
        call()
        return (self._clock() - start) * 1e9

    def batch(self, call: Callable[[], object]) -> float:
        return median(self.timed(call) for _ in range(3))

    def cold(self, calls: Iterator[Callable[[], object]]) -> float:
        """The median of calls that find nothing in the caches."""
        times = []
        for call in calls:
            self._evicting.sum()
            times.append(self.timed(call))
        return median(times)

    def assign(self, d: int) -> float:
        """A vector and a centroid."""
        lists, xb = 2048, self.vectors(min(4096, self.effort.rows), d)
        quantizer = faiss.IndexFlatL2(d)
        quantizer.add(self.vectors(lists, d))
        time = self.batch(lambda: quantizer.search(xb, 1))
        self._on_step()
        return time / len(xb) / lists

    def train_ratio(self, assign: Line) -> float:
        """A round of k-means over what assigning costs."""
        d, n = self.effort.dimensions[0], 3 * self.effort.rows
        lists = n // 80
        clustering = faiss.Clustering(d, lists)
        clustering.niter, clustering.seed, clustering.min_points_per_centroid = _ROUNDS, _SEED, 1
        xt = self.vectors(n, d)
        time = self.batch(lambda: clustering.train(xt, faiss.IndexFlatL2(d)))
        self._on_step()
        return max(1.0, time / (_ROUNDS * n * lists * assign.at(d)))

    def coarse(self, d: int) -> float:
        """A centroid of many, for one query."""
        lists = max(_PROBES, self.effort.cold_bytes // (4 * d))
        quantizer = faiss.IndexFlatL2(d)
        quantizer.add(self.vectors(lists, d))
        xq = self.vectors(self.effort.queries, d)
        time = self.cold(partial(quantizer.search, query, _PROBES) for query in xq[:, None])
        self._on_step()
        return time / lists

    def grouped(self, d: int) -> tuple[float, float]:
        """A centroid of the groups that are looked through, for many vectors and for one query."""
        lists = self.effort.lists
        quantizer = _trained(f"IVF{n_groups(lists)},SQfp16", self.vectors(lists, d))
        quantizer.add(self.vectors(lists, d))
        sizes = np.array([quantizer.invlists.list_size(i) for i in range(quantizer.nlist)])

        def compared(xq: Float32) -> Any:
            return sizes[quantizer.quantizer.search(xq, quantizer.nprobe)[1]].sum(axis=1)

        quantizer.nprobe = min(GROUPS_ASSIGNED, quantizer.nlist)
        xb = self.vectors(min(4096, self.effort.rows), d)
        assigned = self.batch(lambda: quantizer.search(xb, 1)) / compared(xb).sum()
        quantizer.nprobe = groups_probed(_PROBES, quantizer.nlist)
        xq = xb[: self.effort.queries]
        times = [self.cold(iter([partial(quantizer.search, query, _PROBES)])) for query in xq[:, None]]
        self._on_step()
        return float(assigned), float(np.median(times / compared(xq)))

    def rerank(self, d: int) -> float:
        """A row of a mapped file."""
        part = self.vectors(self.effort.rows, d)
        times = max(1, self.effort.cold_bytes // part.nbytes)
        rows = times * len(part)
        with tempfile.TemporaryDirectory(prefix="faissbase-calibrate-") as folder:
            path = Path(folder) / "vectors.f32"
            with path.open("wb") as file:
                for _ in range(times):
                    file.write(part.data)
            mapped: Float32 = np.memmap(path, np.float32, "r", shape=(rows, d))
            view = FlatView(mapped, "l2")
            mapped[:: max(1, 1024 // d)].sum()  # brings the pages in
            time = self.cold(self._reranked(view, rows, query) for query in part[: self.effort.queries])
            del view, mapped
        self._on_step()
        return time / _K

    def _reranked(self, view: FlatView, rows: int, query: Float32) -> Callable[[], object]:
        slots = np.sort(self._random.choice(rows, _K, replace=False)).astype(np.int64)
        return lambda: view.distances_of(query[None], slots[None])

    def codec(self, codec: Codec) -> CodecCosts:
        """What one kind of code costs."""
        parts = [self._codec(codec, d) for d in self.effort.dimensions]
        sizes = [float(part.size_bytes) for part in parts]
        return CodecCosts(
            encode=self.through([part.encode for part in parts]),
            scan=self.through([part.scan for part in parts], sizes),
            probe=self.through([part.probe for part in parts]),
            start=self.through([part.start for part in parts]),
        )

    def _codec(self, codec: Codec, d: int) -> _CodecAt:
        code, size_bytes = _CODES[codec](d)
        xb, xq = self.vectors(self.effort.rows, d), self.vectors(self.effort.queries, d)
        index = _trained(f"IVF{min(_LISTS, len(xb) // 40)},{code}", xb)
        assigned = self.batch(lambda: index.quantizer.search(xb, 1))
        times = [self.timed(lambda: index.add(xb))]
        scans = [self._scanned(index, xq, probes) for probes in (_FEW_PROBES, _PROBES)]
        times += [self.timed(lambda: index.add(xb)) for _ in range(_GROWTHS)]
        scans += [self._scanned(index, xq, probes) for probes in (_FEW_PROBES, _PROBES)]
        self._on_step()
        start, probe, scan = _solved(scans)
        return _CodecAt(max(0.0, median(times) - assigned) / len(xb), scan, probe, start, size_bytes)

    def _scanned(self, index: Any, xq: Float32, probes: int) -> _Scanned:
        """A query's time without the coarse quantizer's."""
        distances, lists = index.quantizer.search(xq, min(probes, index.nlist))
        index.nprobe = lists.shape[1]
        sizes = np.array([index.invlists.list_size(i) for i in range(index.nlist)])
        time = self.cold(
            partial(index.search_preassigned, xq[i : i + 1], _K, lists[i : i + 1], distances[i : i + 1])
            for i in range(len(xq))
        )
        return _Scanned(lists.shape[1], float(np.median(sizes[lists].sum(axis=1))), time)


@dataclass(frozen=True, slots=True)
class _Scanned:
    """Lists and codes that a query met, and its time."""

    probes: int
    codes: float
    time: float


def _solved(scans: list[_Scanned]) -> tuple[float, float, float]:
    """Start, time a list and time a code, none below 0, with the least error relative to each time."""
    rows = np.array([(1.0, scan.probes, scan.codes) for scan in scans])
    times = np.array([scan.time for scan in scans])
    best, least = np.zeros(3), np.inf
    for kept in ([0, 1, 2], [0, 2], [1, 2], [2]):
        found = np.zeros(3)
        found[kept] = np.linalg.lstsq(rows[:, kept] / times[:, None], np.ones(len(times)), rcond=None)[0]
        error = float(((rows @ found / times - 1) ** 2).sum())
        if (found >= 0).all() and error < least:
            best, least = found, error
    return float(best[0]), float(best[1]), float(best[2])


@dataclass(frozen=True, slots=True)
class _CodecAt:
    """A code's costs at one dimension, and the bytes of its vector's part."""

    encode: float
    scan: float
    probe: float
    start: float
    size_bytes: int


_CODES: dict[str, Callable[[int], tuple[str, int]]] = {
    "Flat": lambda d: ("Flat", 4 * d),
    "SQ8": lambda d: ("SQ8", d),
    "PQfs": lambda d: (f"PQ{d // 2}x4fs", d // 4),
    "RaBitQfs": lambda d: ("RaBitQfs", d // 8),
    "PQ8": lambda d: (f"PQ{d // 16}x8", d // 16),
}


def _trained(factory: str, xt: Float32) -> Any:
    """An index whose lists are only roughly placed: times do not depend on it."""
    index = faiss.index_factory(xt.shape[1], factory, faiss.METRIC_L2)
    index.cp.niter, index.cp.min_points_per_centroid = 2, 1
    if hasattr(index, "pq"):
        index.pq.cp.niter, index.pq.cp.min_points_per_centroid = 2, 1
    if hasattr(index, "do_polysemous_training"):
        index.do_polysemous_training = False
    index.train(xt)
    return index

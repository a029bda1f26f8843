"""Vectors in memory, and the FAISS index over them: what a store without a database searches.

Knows rows, numbered from 0 in the order of adding, not ids. The vectors are the truth; the index is derived
from them and answers are re-ranked by them. Many may `search` at once; whoever changes something is alone.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from faissbase.ann.build import Builder
from faissbase.ann.calibrate import measure
from faissbase.ann.checked import refuse_lists_on_disk
from faissbase.ann.curve import Choice, Curve
from faissbase.ann.flat import FlatView, Neighbours, Subset
from faissbase.ann.grammar import parse
from faissbase.ann.segment import Segment, Selector
from faissbase.ann.spec import FLAT, Spec, check_index_type, resolve
from faissbase.errors import CorruptionError, InvalidInputError, NotReadyError
from faissbase.types import Float32, Mask, Metric, Slots

EXACT_NUMBERS = 1 << 20
"""Up to so many numbers a scan answers in a fifth of a millisecond: an index would save nothing."""

_RESIZE = 8  # times as many vectors as when it was trained: more lists pay for training anew
_MEASURE_AGAIN = 2
_QUERIES = 100
_SHARES = (0.5, 0.2)
_FEW = 32  # vectors added at once: one thread is faster
_MOSTLY = 0.75  # of the rows: where as many may be found, an index finds them as it does without a filter
_TIMED_SCANS = 9
_SUBSET_COST, _PRODUCT_COST = 1.5, 0.25  # of a scan of all by one query
_PRODUCT_QUERIES = 16


class Resident:
    """``n`` rows of ``d`` numbers, some of them buried, and what is built over them.

    Attributes
    ----------
    n, n_alive : int
        Rows, and those that are not buried.
    d : int
    metric : Metric
        For cosine the rows are of unit length: whoever calls sees to that.
    index_type : str
        As `spec.check_index_type` accepts it.
    """

    def __init__(self, d: int, metric: Metric, index_type: str) -> None:
        self.d = d
        self.metric: Metric = metric
        self.index_type = check_index_type(index_type, metric, d)
        self.n = self.n_alive = 0
        self._matrix: Float32 = np.empty((0, d), np.float32)
        self._alive: Mask = np.zeros(0, np.bool_)
        self._builder: Builder | None = None
        self._n_trained = 0
        self._segment: Segment | None = None
        self._curve: Curve | None = None
        self._n_measured = 0
        self._scan_ns = 0.0
        self._refresh()

    @property
    def vectors(self) -> Float32:
        """All rows, ``float32[n, d]``, the buried ones too; not to be written to."""
        return self._matrix[: self.n]

    @property
    def alive(self) -> Mask:
        """Which rows are not buried, ``bool[n]``."""
        return self._alive[: self.n]

    @property
    def spec(self) -> Spec:
        """What is built now: `FLAT` while there is nothing but the rows."""
        return FLAT if self._builder is None else self._builder.spec

    @property
    def is_trained(self) -> bool:
        """Whether the index that was asked for is there, or needs nothing but rows."""
        if self._builder is not None:
            return True
        try:
            return not resolve(self.index_type, max(self.n, 1), self.d, self.metric).needs_training
        except NotReadyError:
            return False

    # ---- changing --------------------------------------------------------------------------------

    def append(self, rows: Float32) -> int:
        """Add ``float32[m, d]``, all or none, and return the number of the first."""
        first = self.n
        self._make_room(first + len(rows))
        self._matrix[first : first + len(rows)] = rows
        self._alive[first : first + len(rows)] = True
        try:
            self.n, self.n_alive = first + len(rows), self.n_alive + len(rows)
            self._grow()
            self._refresh()
        except BaseException:
            # FAISS may have taken a part of them: the rest is searched exactly, and built over anew later.
            self.n, self.n_alive = first, self.n_alive - len(rows)
            self._forget_index()
            self._refresh()
            raise
        return first

    def _make_room(self, n: int) -> None:
        if n <= len(self._matrix):
            return
        room = max(n, 2 * len(self._matrix))
        matrix, alive = np.empty((room, self.d), np.float32), np.zeros(room, np.bool_)
        matrix[: self.n], alive[: self.n] = self.vectors, self.alive
        self._matrix, self._alive = matrix, alive

    def bury(self, rows: Slots) -> None:
        """Never find these again; their room comes back with `compacted`."""
        self._alive[rows] = False
        self.n_alive = int(np.count_nonzero(self.alive))
        self._refresh()

    def compacted(self) -> tuple[Resident, Slots]:
        """The same without what is buried, and which rows are left. This one stays as it is."""
        kept = np.flatnonzero(self.alive)
        made = self._built_over(self.vectors[kept], self.d, self.metric, self.index_type)
        if made.spec == self.spec:  # what was measured of more rows holds for fewer
            made._curve, made._n_measured, made._scan_ns = self._curve, self._n_measured, self._scan_ns
        return made, kept

    @classmethod
    def over(cls, matrix: Float32, d: int, metric: Metric, index_type: str) -> Resident:
        """With the rows of ``float32[n, d]``, which is taken over and not copied, and an index built anew."""
        made = cls._built_over(matrix, d, metric, index_type)
        made.tune()
        return made

    @classmethod
    def _built_over(cls, matrix: Float32, d: int, metric: Metric, index_type: str) -> Resident:
        made = cls(d, metric, index_type)
        made._take(matrix)
        made._grow()
        made._refresh()
        return made

    def _take(self, matrix: Float32) -> None:
        self._matrix, self._alive = matrix, np.ones(len(matrix), np.bool_)
        self.n = self.n_alive = len(matrix)

    # ---- the index -------------------------------------------------------------------------------

    def train(self) -> None:
        """Build the index now, from all rows, though more of them would train it better.

        Raises
        ------
        NotReadyError
            FAISS cannot train it on so few.
        """
        spec = resolve(self.index_type, self.n, self.d, self.metric)
        if spec.family != "flat" and self.n:
            self._build(spec)
            self._refresh()

    def _grow(self) -> None:
        spec = self._due()
        if spec is not None:
            self._build(spec)
        elif self._builder is not None:
            is_few = self.n - self._builder.stop < _FEW
            self._builder.add(self.n, vectors=self.vectors, threads=1 if is_few else None)

    def _due(self) -> Spec | None:
        """The index to build now; None where the one that is there serves, or the rows do."""
        if not self.n or (self._builder is not None and self.n < _RESIZE * self._n_trained):
            return None
        try:
            spec = resolve(self.index_type, self.n, self.d, self.metric)
        except NotReadyError:
            return None
        is_enough = spec.family != "flat" and self.n >= parse(spec.factory, self.d).good_points
        return spec if is_enough and spec != self.spec else None

    def _build(self, spec: Spec) -> None:
        builder = Builder(spec, self.metric, self.vectors, 0)
        builder.train()
        builder.add(self.n)
        self._forget_index()
        self._builder, self._n_trained = builder, self.n

    def _forget_index(self) -> None:
        self._builder, self._curve = None, None
        self._n_trained = self._n_measured = 0

    def _refresh(self) -> None:
        """Make anew what searches use, after rows or the index have changed."""
        self._view = FlatView(self.vectors, self.metric)
        self._segment = None if self._builder is None else self._builder.segment()
        self._selector = None if self.n_alive == self.n else Selector(self.alive.copy())

    def tune(self) -> None:
        """Measure what recall the index has, once it is worth searching and has grown since. Only reads."""
        if self._segment is None or self.n * self.d < EXACT_NUMBERS:
            return
        if self._curve is None or self.n >= _MEASURE_AGAIN * self._n_measured:
            curve = measure(self._segment, self._view, self.alive, n_queries=_QUERIES, shares=_SHARES)
            self._curve, self._n_measured, self._scan_ns = curve, self.n, self._timed_scan()

    def _timed_scan(self) -> float:
        """Nanoseconds a number of an exact search, measured beside the index, for the machine may be busy."""
        times = []
        for row in range(0, self.n, max(1, self.n // _TIMED_SCANS)):
            begin = perf_counter()
            self._view.search(self.vectors[row : row + 1], 1)
            times.append(perf_counter() - begin)
        return float(np.median(times)) * 1e9 / (self.n * self.d)

    # ---- searching -------------------------------------------------------------------------------

    def search(
        self, queries: Float32, k: int, *, mask: Mask | None = None, recall: float = 0.95
    ) -> Neighbours:
        """The nearest of each query: ``(float32[nq, k'], int64[nq, k'])``, nearest first, none missing.

        Parameters
        ----------
        queries : float32[nq, d]
            C-contiguous; of unit length for cosine.
        k : int
            k' is smaller where fewer rows may be found.
        mask : bool[n], optional
            Which rows may be found; buried ones never are.
        recall : float
            The share of the true nearest that has to come back; 1 for an exact search.
        """
        selector = self._selector if mask is None else Selector(mask & self.alive)
        n_selected = self.n if selector is None else int(np.count_nonzero(selector.mask))
        k = min(k, n_selected)
        if not k or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        choice = self._choice(len(queries), k, n_selected, recall)
        if choice is None or self._segment is None:
            return self._search_exactly(queries, k, selector)
        distances, rows = self._segment.search(queries, k, choice.knobs, selector)
        is_short = rows[:, -1] < 0
        if is_short.any():
            again = self._search_exactly(np.ascontiguousarray(queries[is_short]), k, selector)
            distances[is_short], rows[is_short] = again
        return distances, rows

    def _choice(self, nq: int, k: int, n_selected: int, recall: float) -> Choice | None:
        """How to search the index; None where that would be slower than a scan, or miss too much."""
        if self._curve is None or recall >= 1.0 or n_selected * self.d < EXACT_NUMBERS:
            return None
        share = n_selected / self.n
        choice = self._curve.choice_for(recall, 1.0 if share >= _MOSTLY else share, k)
        if choice is None:
            return None
        choice = choice.harder(1.0 / share) if share >= _MOSTLY else choice
        return choice if choice.us_per_query < self._exact_us(nq, n_selected) else None

    def _exact_us(self, nq: int, n_selected: int) -> float:
        """Microseconds that each of ``nq`` queries would take without the index."""
        cost = 1.0 if n_selected == self.n else _SUBSET_COST
        cost = _PRODUCT_COST if nq >= _PRODUCT_QUERIES else cost
        return cost * self._scan_ns * n_selected * self.d / 1e3

    def _search_exactly(self, queries: Float32, k: int, selector: Selector | None) -> Neighbours:
        if selector is None:
            return self._view.search(queries, k)
        return self._view.search_subset(queries, k, Subset(np.flatnonzero(selector.mask)))

    # ---- files -----------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any] | None:
        """What `restored` wants to know of the index beside its file; None where there is none."""
        if self._builder is None:
            return None
        curve = None if self._curve is None else self._curve.as_dict()
        measured = {"n_measured": self._n_measured, "scan_ns": self._scan_ns}
        return {"n_trained": self._n_trained, "curve": curve, **measured}

    def write_index(self, path: Path) -> None:
        """Write the index to a new file, which is not synced. Nothing must be buried."""
        if self._builder is None or self.n_alive != self.n:
            raise InvalidInputError(f"an index over {self.n_alive} of {self.n} rows cannot be written")
        self._builder.write(path)

    @classmethod
    def restored(
        cls, matrix: Float32, metric: Metric, index_type: str, path: Path, factory: str, facts: dict[str, Any]
    ) -> Resident:
        """With the rows of ``float32[n, d]``, taken over, and the index that `write_index` wrote to ``path``.

        Raises
        ------
        CorruptionError
            The file is damaged, of another spec, or leads outside of these rows.
        """
        n, d = matrix.shape
        made = cls(d, metric, index_type)
        made._take(matrix)
        spec = made._spec_of(factory)
        refuse_lists_on_disk(path)
        builder = Builder(spec, metric, matrix, 0, base=path)
        if builder.stop != n:
            raise CorruptionError(f"{path} is over {builder.stop:,} vectors, expected {n:,}")
        builder.check(path)
        made._builder, made._n_trained = builder, int(facts["n_trained"])
        made._curve = None if facts["curve"] is None else Curve.from_dict(facts["curve"])
        made._n_measured, made._scan_ns = int(facts["n_measured"]), float(facts["scan_ns"])
        made._refresh()
        return made

    def _spec_of(self, factory: str) -> Spec:
        spec = resolve(factory, max(self.n, 1 << 40), self.d, self.metric)
        if spec.factory != factory or spec.family == "flat":
            raise CorruptionError(f"an index of {factory!r} is none that is built here")
        return spec

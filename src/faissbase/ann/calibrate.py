"""What recall a segment reaches at what effort, measured against exact search over the same slots.

Knows arrays and slots. It measures times; its random numbers come from a seed.

Stored vectors are easier queries than real ones: a graph leads to its own nodes, and lists are made around
them. So queries are made of them, some drawn towards another vector and some pushed outward, and the worse of
both kinds counts (``docs/decisions/007-advisor-rules.md`` compares them with real queries).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from faissbase.ann.curve import CODES_NS, Choice, Curve, Point, Scan
from faissbase.ann.flat import SCAN_NS, FlatView, Subset
from faissbase.ann.segment import Knobs, Segment, Selector
from faissbase.types import Float32, Mask

__all__ = ["SHARES", "Choice", "Curve", "Point", "Scan", "lower_bound", "measure"]

K = 10
Z_ONE_SIDED_95 = 1.645
SHARES = (0.95, 0.8, 0.5, 0.2, 0.1, 0.05, 0.02)

_EF_GRID = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_NPROBE_GRID = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
_FILTERED_STEP = 2  # every second effort of the grid
_ENOUGH = 0.99
_USUAL = 0.95
_ENOUGH_FILTERED = 0.99
_WORTH = 0.9  # filtered searches are measured from the effort on that reaches this without a filter
_MIX = 0.65  # how much of a strange query is its stored vector; the rest is another one
_OUTWARD = 1.0  # an outward query lies so far beyond its stored vector, away from that one's tenth neighbour
# Asked for each of ``n_queries``. Real ones may be as hard as outward ones: the width of their interval is
# the margin, and stays. A wide one would only be added to that of strange ones (decision 7).
_OUTWARD_PART = {"hnsw": 0.25, "ivf": 1.0, "codes": 1.0}
_STRANGE_PART = {"hnsw": 1.0, "ivf": 4.0, "codes": 4.0}
_NEAR_EFFORT = 64
_TIMED_QUERIES = 16
_TIMED_FILTERED = 12
_FILTERED_QUERIES = 80
_LEASTS = (0, 32, 64, 128, 256)
_PIVOTS = 4  # each with enough queries for exact search to gather its subset
_SETTLED_LEAST = 0.7
_BESIDE_NUMBERS, _BESIDE_LEAST, _BESIDE_TIMES = 1 << 22, 1 << 18, 5
_PACE_LEAST = 0.1
_SCAN_LEAST = 1 << 20  # numbers: of fewer, the call itself would be much of it
_SUBSET_NS = 0.24  # exact search of a subset, a float
_BLOCK_ROWS = 65_536

Recalls = npt.NDArray[np.float64]


def lower_bound(recalls: Recalls, k: int) -> float:
    """Where the true mean recall lies above with 95 % confidence, from the recall of each query.

    Wilson's bound for a share, with as many independent trials as the spread between queries says: the k
    neighbours of one query are found or missed together.

    **Source**: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22,
    1927, one-sided; L. Kish, Survey Sampling, 1965, section 8.2, for the design effect.
    """
    nq, p = len(recalls), float(recalls.mean())
    effect = 1.0
    if 0.0 < p < 1.0 and nq > 1:
        effect = float(recalls.var(ddof=1)) * k / (p * (1.0 - p))
    n = nq * k / min(max(effect, 1.0), float(k))
    z2 = Z_ONE_SIDED_95**2
    centre = p + z2 / (2.0 * n)
    spread = Z_ONE_SIDED_95 * math.sqrt(p * (1.0 - p) / n + z2 / (4.0 * n * n))
    return (centre - spread) / (1.0 + z2 / n)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Queries with the distance of the k-th true neighbour of each."""

    queries: Float32
    kth: Float32


def measure(  # noqa: PLR0913  # tests and builds each set some of them
    segment: Segment,
    view: FlatView,
    alive: Mask | None = None,
    *,
    n_queries: int = 300,
    seed: int = 0,
    queries: Float32 | None = None,
    shares: Sequence[float] = SHARES,
    is_over: Callable[[], bool] = lambda: False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Curve:
    """Recall@10 of ``segment`` over a grid of efforts and re-ranking depths.

    Parameters
    ----------
    segment : Segment
        Warm, where what is measured is to hold for a warm one.
    view : FlatView
        The segment's own vectors: row 0 is slot ``segment.first``.
    alive : bool[n], optional
        Rows that may serve as queries and as answers of filtered searches.
    n_queries : int
        Queries made of stored vectors: for a graph so many strange ones and a quarter as many pushed outward,
        otherwise so many pushed outward and four times as many strange ones.
    seed : int
    queries : float32[nq, d], optional
        Real queries, asked instead.
    shares : sequence of float
        What selectors may leave; empty to measure without selectors only.
    is_over : callable
        No new grid point is begun once this is true and what is usually asked for has been reached: on a busy
        machine a curve that ends below it would be of no use, and the index with it.
    should_stop : callable
        No new grid point is begun once this is true, whatever has been reached.
    """
    k = min(K, max(1, segment.n // 2))
    rng = np.random.default_rng(seed)
    rows = np.arange(view.n) if alive is None else np.flatnonzero(alive[: view.n])
    if not len(rows):
        return Curve(k, ())
    sets = list(made_queries(segment, view, rows, n_queries, rng)) if queries is None else [queries]
    asked = _with_truth(view, k, sets)
    beside = _Beside(view)
    points, controls = _plain(segment, asked, k, beside, is_over, should_stop)
    queries = asked[-1].queries[:_FILTERED_QUERIES]
    scanned: list[list[Scan]] = []
    scan_ns = 0.0
    for share, kinds in _subsets(segment, view, queries, k, alive, shares, rng):
        if is_over() or should_stop():
            break
        points.extend(_points_of_share(segment, share, kinds, k, controls, beside, is_over))
        scan_ns = scan_ns or _scan_ns(segment, kinds[0][0], beside)  # of the largest share
        scanned.extend(_scans(segment, view, kind, k) for kind in kinds)
    worst = [min(scans, key=lambda scan: scan.recall_low) for scans in zip(*scanned, strict=True)]
    return Curve(k, tuple(points), tuple(replace(scan, ns=scan_ns) for scan in worst))


def made_queries(
    segment: Segment, view: FlatView, rows: npt.NDArray[np.int64], n_queries: int, rng: np.random.Generator
) -> Iterator[Float32]:
    """Outward queries, then strange ones, ``float32[nq, d]``, as many of each as `measure` says."""
    least = min(n_queries, _FILTERED_QUERIES)
    outward, strange = (
        max(least, int(part[segment.family] * n_queries)) for part in (_OUTWARD_PART, _STRANGE_PART)
    )
    yield outward_queries(view, rng.choice(rows, outward), segment)
    near, far = rng.choice(rows, (2, strange))
    yield strange_queries(view, near, far)


def strange_queries(view: FlatView, near: npt.NDArray[np.int64], far: npt.NDArray[np.int64]) -> Float32:
    """Queries near the rows ``near``, each drawn towards another row: ``float32[nq, d]``."""
    return _query_form(view, _MIX * view.vectors[near] + (1.0 - _MIX) * view.vectors[far])


def outward_queries(view: FlatView, rows: npt.NDArray[np.int64], segment: Segment | None = None) -> Float32:
    """Queries beyond ``rows``, each away from its tenth neighbour, ``float32[nq, d]``; an index finds it."""
    vectors, k = np.ascontiguousarray(view.vectors[rows]), min(view.n, K + 1)
    if segment is not None:
        rerank = 1 if segment.family == "hnsw" else segment.reranks[-1]
        slots = segment.search(vectors, k, Knobs(_NEAR_EFFORT, rerank))[1]
        neighbours = slots - segment.first if slots.min() >= 0 else view.search(vectors, k)[1]
    else:
        neighbours = view.search(vectors, k)[1]
    return _query_form(view, vectors + _OUTWARD * (vectors - view.vectors[neighbours[:, -1]]))


def _query_form(view: FlatView, queries: Float32) -> Float32:
    if view.metric == "cosine":
        queries = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-30)
    return np.ascontiguousarray(queries, np.float32)


def _with_truth(view: FlatView, k: int, sets: list[Float32]) -> list[_Asked]:
    """Each set of queries with its answers, all searched in one batch, which costs least."""
    together = np.ascontiguousarray(np.concatenate(sets), np.float32)
    kth = view.search(together, k)[0][:, -1]
    stops = np.cumsum([len(queries) for queries in sets])[:-1]
    parts = zip(np.split(together, stops), np.split(kth, stops), strict=True)
    return [_Asked(queries, distances) for queries, distances in parts]


def _hits(segment: Segment, asked: _Asked, found: tuple[Float32, Any]) -> Mask:
    """Which candidates are among the k nearest: as near as the k-th true neighbour, ties included."""
    distances, slots = found
    kth = asked.kth[:, None]
    is_near = distances <= kth if segment.metric == "l2" else distances >= kth
    hits: Mask = is_near & (slots >= 0)
    return hits


def _recalls(hits: Mask, depth: int, k: int) -> Recalls:
    recalls: Recalls = np.minimum(hits[:, :depth].sum(axis=1), k) / k
    return recalls


def _grid(segment: Segment) -> tuple[int, ...]:
    if segment.family == "hnsw":
        return _EF_GRID
    nlist = segment.n_lists
    if not nlist:
        return (1,)
    return (*(nprobe for nprobe in _NPROBE_GRID if nprobe < nlist), nlist)


@dataclass(frozen=True, slots=True)
class _Control:
    """Recall without a selector at one effort: of the queries selectors are measured with, and low end."""

    effort: int
    recalls: Recalls
    low: float


def _plain(
    segment: Segment,
    asked: list[_Asked],
    k: int,
    beside: _Beside,
    is_over: Callable[[], bool],
    should_stop: Callable[[], bool],
) -> tuple[list[Point], list[_Control]]:
    points, controls, reached = [], [], 0.0
    for effort in _grid(segment):
        reranks = _reranks(segment, k, effort)
        depth = max(reranks) * k
        hits = [_hits(segment, one, segment.candidates(one.queries, depth, effort)) for one in asked]
        us = _times(segment, asked[-1].queries, k, effort, reranks)
        pace = beside.pace()
        for rerank in reranks:
            sets = [_recalls(each, rerank * k, k) for each in hits]
            worst = min(sets, key=lambda recalls: float(recalls.mean()))
            low = lower_bound(worst, k)
            points.append(Point(effort, rerank, float(worst.mean()), low, us[rerank], pace=pace))
            reached = max(reached, low)
        controls.append(_Control(effort, sets[-1][:_FILTERED_QUERIES], low))
        if low >= _ENOUGH or should_stop() or (reached >= _USUAL and is_over()):
            break
    return points, controls


def _reranks(segment: Segment, k: int, effort: int) -> list[int]:
    """Depths that do not raise the effort of a graph."""
    return [r for r in segment.reranks if segment.family != "hnsw" or r == 1 or r * k <= effort]


def _times(
    segment: Segment, queries: Float32, k: int, effort: int, reranks: Sequence[int]
) -> dict[int, float]:
    """Microseconds of one query for each re-ranking depth: measured at both ends, a straight line between."""
    ends = sorted({reranks[0], reranks[-1]})
    us = [_median_us(segment, queries[:_TIMED_QUERIES], k, Knobs(effort, rerank)) for rerank in ends]
    us = [us[0], max(us)]
    return {rerank: float(np.interp(rerank, ends, us[-len(ends) :])) for rerank in reranks}


class _Beside:
    """Exact searches of some of the vectors, timed between those of the index."""

    def __init__(self, view: FlatView) -> None:
        rows = view.vectors[: max(1, _BESIDE_NUMBERS // view.d)]
        self._view = FlatView(rows, view.metric)
        self._is_told = rows.size >= _BESIDE_LEAST  # of fewer, the call itself would be most of it

    def pace(self) -> float:
        """How many times as long as usual one takes; 1 where there is too little to tell."""
        times = []
        for row in range(_BESIDE_TIMES if self._is_told else 0):
            begin = perf_counter()
            self._view.search(np.ascontiguousarray(self._view.vectors[row : row + 1]), 1)
            times.append(perf_counter() - begin)
        usual_s = SCAN_NS * self._view.n * self._view.d / 1e9
        return max(float(np.median(times)) / usual_s, _PACE_LEAST) if times else 1.0


def _median_us(
    segment: Segment, queries: Float32, k: int, knobs: Knobs, selector: Selector | None = None
) -> float:
    times = []
    for i in range(len(queries)):
        query = queries[i : i + 1]
        begin = perf_counter()
        segment.search(query, k, knobs, selector)
        times.append(perf_counter() - begin)
    return float(np.median(times)) * 1e6 if times else 0.0


# --- with selectors ---


@dataclass(frozen=True, slots=True)
class _Subset:
    """A selector, and queries with their true neighbours among what it leaves."""

    selector: Selector
    rows: npt.NDArray[np.int64]
    asked: _Asked


_Kinds = tuple[list[_Subset], list[_Subset]]


def _subsets(
    segment: Segment,
    view: FlatView,
    queries: Float32,
    k: int,
    alive: Mask | None,
    shares: Sequence[float],
    rng: np.random.Generator,
) -> Iterator[tuple[float, _Kinds]]:
    """For each share, large ones first: a subset drawn at random, and balls around some rows.

    The queries know nothing of the balls: most lie outside, where the graph is not searched for long.
    """
    if not shares or not len(queries):
        return
    living = np.ones(view.n, np.bool_) if alive is None else np.asarray(alive[: view.n])
    far = _far_from_pivots(view, rng)
    for share in sorted(shares, reverse=True):
        if np.count_nonzero(living) * share < 2 * k:
            return
        at_random = [_subset(segment, view, queries, k, living & (rng.random(view.n) < share))]
        balls = [
            _subset(segment, view, piece, k, living & (distances <= np.quantile(distances, share)))
            for distances, piece in zip(far, np.array_split(queries, len(far)), strict=True)
            if len(piece)
        ]
        yield share, (at_random, balls)


def _far_from_pivots(view: FlatView, rng: np.random.Generator) -> list[Float32]:
    """How far every row is from each of some rows, ``float32[n]`` each; smaller is nearer."""
    pivots = view.vectors[rng.choice(view.n, min(_PIVOTS, view.n), replace=False)]
    far = np.empty((len(pivots), view.n), np.float32)
    for start in range(0, view.n, _BLOCK_ROWS):
        rows = view.vectors[start : start + _BLOCK_ROWS]
        products = pivots @ rows.T
        squares = np.einsum("ij,ij->i", rows, rows) if view.metric == "l2" else 0.0
        far[:, start : start + len(rows)] = squares - 2.0 * products
    return list(far)


def _subset(segment: Segment, view: FlatView, queries: Float32, k: int, mask: Mask) -> _Subset:
    rows = np.flatnonzero(mask)
    distances, _ = view.search_subset(np.ascontiguousarray(queries), min(k, len(rows)), Subset(rows))
    whole = mask
    if segment.first:
        whole = np.concatenate([np.zeros(segment.first, np.bool_), mask])
    asked = _Asked(queries, distances[:, -1])
    return _Subset(Selector(whole), rows, asked)


def _points_of_share(
    segment: Segment,
    share: float,
    kinds: _Kinds,
    k: int,
    controls: list[_Control],
    beside: _Beside,
    is_over: Callable[[], bool],
) -> Iterator[Point]:
    exact_us = share * segment.n * segment.d * _SUBSET_NS / 1e3
    worth = next((control.effort for control in controls if control.low >= _WORTH), controls[-1].effort)
    for effort in [effort for effort in _grid(segment) if effort >= worth][::_FILTERED_STEP]:
        control = max((c for c in controls if c.effort <= effort), key=lambda c: c.effort)
        points = list(_points_of_effort(segment, share, kinds, k, effort, control, beside))
        yield from points
        best = max(point.recall_low for point in points)
        if best >= _ENOUGH_FILTERED or points[0].us_per_query > exact_us * points[0].pace or is_over():
            return


def _points_of_effort(
    segment: Segment, share: float, kinds: _Kinds, k: int, effort: int, control: _Control, beside: _Beside
) -> Iterator[Point]:
    """One point for each number of candidates that may be required, the fewest first."""
    rerank = max(_reranks(segment, k, effort))
    most = effort if segment.family == "hnsw" else segment.n
    leasts = [least for least in _LEASTS if least <= min(most, segment.n)]
    found = [_answered(segment, kind, k, max(rerank * k, leasts[-1]), effort) for kind in kinds]
    subset = kinds[0][0]
    queries, knobs = subset.asked.queries[:_TIMED_FILTERED], Knobs(effort, rerank, leasts[-1])
    us, pace = _median_us(segment, queries, k, knobs, subset.selector), beside.pace()
    for least in leasts:
        settled = float((found[0][1] >= least).mean())
        if settled < _SETTLED_LEAST:
            return
        sets = [np.where(counts >= least, recalls, 1.0) for recalls, counts in found]
        worst = min(sets, key=lambda recalls: float(recalls.mean()))
        low = _paired_bound(worst, control)
        yield Point(effort, rerank, float(worst.mean()), low, us, share, least, settled, pace)


def _scans(segment: Segment, view: FlatView, subsets: list[_Subset], k: int) -> list[Scan]:
    """What a scan of the codes of these subsets reaches, for each re-ranking depth."""
    codes = segment.codes
    if codes is None:
        return []
    hits = []
    for subset in subsets:
        queries = subset.asked.queries
        gathered = codes.gathered(subset.rows + segment.first)
        rows = gathered.candidates(queries, max(segment.reranks) * k)[1] - segment.first
        hits.append(_hits(segment, subset.asked, (view.distances_of(queries, rows), rows)))
    scans = []
    for rerank in segment.reranks:
        recalls = np.concatenate([_recalls(each, rerank * k, k) for each in hits])
        scans.append(Scan(rerank, float(recalls.mean()), lower_bound(recalls, k)))
    return scans


def _scan_ns(segment: Segment, subset: _Subset, beside: _Beside) -> float:
    """Nanoseconds that a scan of a subset's codes usually takes for a float: the median of a few."""
    if segment.codes is None or len(subset.rows) * segment.d < _SCAN_LEAST:
        return CODES_NS
    gathered = segment.codes.gathered(subset.rows + segment.first)
    times: list[float] = []
    for query in subset.asked.queries[:_TIMED_FILTERED]:
        begin = perf_counter()
        gathered.candidates(query[None], K)
        times.append(perf_counter() - begin)
    ns: float = float(np.median(times)) * 1e9 / (len(subset.rows) * segment.d)
    return ns / beside.pace()


def _paired_bound(recalls: Recalls, control: _Control) -> float:
    """The lower bound of recall with a selector: that without one, and how much the same queries lose.

    Without a selector many more queries are measured, and what a query loses varies less than its recall:
    so the bound is nearer than from these few queries alone.

    **Source**: W. G. Cochran, Sampling Techniques, 1977, section 7.2 (difference estimator).
    """
    lost = recalls - control.recalls
    error = float(lost.std(ddof=1)) / math.sqrt(len(lost)) if len(lost) > 1 else 1.0
    return min(control.low + float(lost.mean()) - Z_ONE_SIDED_95 * error, float(recalls.mean()))


def _answered(
    segment: Segment, subsets: list[_Subset], k: int, depth: int, effort: int
) -> tuple[Recalls, npt.NDArray[np.int64]]:
    """Recall of each query, and how many selected candidates it found."""
    recalls, counts = [], []
    for subset in subsets:
        found = segment.candidates(subset.asked.queries, depth, effort, subset.selector)
        recalls.append(_recalls(_hits(segment, subset.asked, found), depth, k))
        counts.append((found[1] >= 0).sum(axis=1))
    return np.concatenate(recalls), np.concatenate(counts)

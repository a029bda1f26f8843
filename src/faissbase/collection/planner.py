"""How a search is run: through the index, on everything, on everything with room for what is dropped
after, on a few slots, or on the codes of a few slots.

The cheapest path by forecast cost is taken. All but the index and the codes are exact; those are taken only
with parameters that were measured to reach the recall asked for. Knows arrays, segments and selections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from faissbase.ann.curve import Choice
from faissbase.ann.flat import (
    GATHER_QUERIES,
    MAX_THREADS,
    SCAN_NS,
    FlatView,
    Neighbours,
    Subset,
    picked,
    product_rows,
    threads_for,
)
from faissbase.ann.segment import Knobs
from faissbase.collection import inputs
from faissbase.collection.segments import LEAST_ALIVE, LiveSegment
from faissbase.collection.selected import Selection
from faissbase.collection.store import Snapshot
from faissbase.errors import InvalidInputError
from faissbase.types import Float32, Mask, Slots

Path = Literal["none", "index", "scan", "wide scan", "subset", "codes"]

DEFAULT_RECALL = 0.95
# Nanoseconds a float: measured on 40,000 × 384 and 500,000 × 128, FAISS 1.15.1 (see ARCHITECTURE.md).
_HALF_SCAN_NS = 0.10
_SUBSET_NS = 0.24
_SUBSET_MANY_NS = 0.55  # from a quarter of the slots on, memory is no longer read ahead
_BLAS_NS = 0.03
_GATHER_NS = 0.40
_CODES_MS = 0.012  # what every such search costs beyond
_GATHER_CODES_NS = 0.30
_ARRIVING_NS = 40.0  # vectors from object storage, in one go
_ARRIVING_ROW_MS = 1.0  # each by itself, some at a time
_LEAST_RERANK = 2  # what lies beyond the k-th tells whether something nearer may have been missed
_UNDECIDED_MOST = 8
_SIGMAS = 3.0
_FEW_DROPPED = 64
_MOSTLY_ALIVE = 0.5
_WIDER = 8
_SHORT_TAIL = 4096
_PLANS_KEPT = 256
_WORTH_MEASURING_MS = 0.2
_UNMEASURED = Knobs(effort=64, rerank=2)
_NOTHING = Choice(_UNMEASURED, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asks of an approximate answer: a recall, or the parameters themselves."""

    recall: float | None = None
    nprobe: int | None = None
    ef_search: int | None = None
    rerank: int | None = None

    @property
    def target(self) -> float:
        return DEFAULT_RECALL if self.recall is None else self.recall

    @property
    def is_explicit(self) -> bool:
        return (self.nprobe, self.ef_search, self.rerank) != (None, None, None)

    def fits(self, snapshot: Snapshot) -> bool:
        """Whether the indexes of a moment have the knobs that are asked for."""
        return all(self._wrong_for(live.index.family) is None for live in snapshot.segments)

    def _wrong_for(self, family: str) -> int | None:
        return self.nprobe if family == "hnsw" else self.ef_search if family == "ivf" else None

    def effort_for(self, family: str) -> int | None:
        """The effort asked for, in the terms of an index; an error where the index has no such knob."""
        wrong = self._wrong_for(family)
        if wrong is not None:
            name, other = ("nprobe", "ef_search") if family == "hnsw" else ("ef_search", "nprobe")
            raise InvalidInputError(f"{name}={wrong} is no knob of this collection's index: use {other}")
        return self.ef_search if self.nprobe is None else self.nprobe


_NOTHING_ASKED = Wanted()
_RECALLS_KEPT = 64
_recalls: dict[float, Wanted] = {}  # what is asked again and again is checked once


def wanted_from(
    recall: float | None, nprobe: int | None, ef_search: int | None, rerank: int | None
) -> Wanted:
    """What the arguments of a search ask for, checked. Where they ask for nothing, nothing is made."""
    if nprobe is None and ef_search is None and rerank is None:
        return _NOTHING_ASKED if recall is None else _wanted_recall(recall)
    if recall is not None:
        inputs.check_fraction(recall, "recall")
    knobs = {"nprobe": nprobe, "ef_search": ef_search, "rerank": rerank}
    given = {name: inputs.check_count(value, name) for name, value in knobs.items() if value is not None}
    if len(given.keys() & {"nprobe", "ef_search"}) == 2:
        raise InvalidInputError("search() takes nprobe (for IVF) or ef_search (for HNSW), not both")
    if recall is not None and given:
        raise InvalidInputError(f"search() takes recall or {next(iter(given))}, not both")
    return Wanted(**given)


def _wanted_recall(recall: Any) -> Wanted:
    known = _recalls.get(recall) if type(recall) is float else None
    if known is None:
        known = Wanted(inputs.check_fraction(recall, "recall"))
        if len(_recalls) >= _RECALLS_KEPT:
            _recalls.clear()
        _recalls[known.target] = known
    return known


@dataclass(frozen=True, slots=True)
class Plan:
    """The path taken, what each possible one was forecast to cost in milliseconds, and the index's knobs.

    ``is_wide`` says that the index is asked for more, the dead being dropped from its answer: what is alive
    and near is then found wherever it is, also where all around it was deleted.
    """

    path: Path
    n_slots: int
    n_matching: int
    predicted_ms: dict[str, float]
    knobs: tuple[Knobs, ...] = ()
    target: float = 1.0
    is_wide: bool = False


def choose(snapshot: Snapshot, nq: int, k: int, selection: Selection, wanted: Wanted) -> Plan:
    """The cheapest path for ``nq`` queries that reaches what is wanted."""
    n, m = snapshot.view.n, selection.count
    if wanted.is_explicit:  # also where no segment will be asked: what is wrong does not hang on the filter
        for live in snapshot.segments:
            wanted.effort_for(live.index.family)
    if not m or not nq:
        return Plan("none", n, m, {})
    if selection.mask is snapshot.alive and snapshot.view.is_whole:  # the same for every query of this moment
        key = (nq, k, wanted)
        plan = snapshot.plans.get(key)
        if plan is None:
            if len(snapshot.plans) >= _PLANS_KEPT:
                snapshot.plans.clear()
            plan = snapshot.plans[key] = _chosen(snapshot, nq, k, selection, wanted)
        return plan
    return _chosen(snapshot, nq, k, selection, wanted)


def _chosen(snapshot: Snapshot, nq: int, k: int, selection: Selection, wanted: Wanted) -> Plan:
    n, m = snapshot.view.n, selection.count
    predicted = _exact_ms(snapshot.view, nq, m)
    is_wide = selection.mask is snapshot.alive and _MOSTLY_ALIVE <= m / n < 1.0
    choices = _choices(snapshot, k, selection, wanted, is_wide=is_wide)
    if choices:
        predicted["index"] = _index_ms(snapshot, nq, m, choices)
    elif wanted.target < 1.0 and _is_unmeasured(snapshot, m / n):
        cheapest = min(predicted.values())
        snapshot.tuning.wants_filters |= cheapest > _WORTH_MEASURING_MS * nq
    codes_knobs = _codes_knobs(snapshot, nq, selection, wanted)
    if codes_knobs is not None:
        _forecast_codes(predicted, snapshot, nq, codes_knobs.depth(k, m), selection)
    if not snapshot.view.is_whole:
        depth = max((choice.knobs.depth(k, m) for choice in choices), default=0)
        _forecast_waiting(predicted, snapshot.view, m, nq * depth)
    is_forced = wanted.is_explicit and bool(choices)
    path: Path = "index" if is_forced else min(predicted, key=lambda name: predicted[name])
    costs = {str(name): cost for name, cost in predicted.items()}
    knobs: tuple[Knobs, ...] = ()
    if path == "index":
        knobs = tuple(choice.knobs for choice in choices)
    elif path == "codes" and codes_knobs is not None:
        knobs = (codes_knobs,)
    return Plan(path, n, m, costs, knobs, wanted.target, is_wide)


def _codes_knobs(snapshot: Snapshot, nq: int, selection: Selection, wanted: Wanted) -> Knobs | None:
    """How deep to re-rank a scan of the codes of what a filter leaves; None where that cannot be done."""
    if wanted.is_explicit or wanted.target >= 1.0 or nq >= GATHER_QUERIES:
        return None
    if selection.mask is snapshot.alive or not snapshot.segments:
        return None
    if snapshot.tuning.factor(selection.count / selection.n) > 1.0:  # such filters have missed their target
        return None
    codes = snapshot.codes
    if codes is None or selection.n_undecided > _UNDECIDED_MOST or not selection.may_gather(codes):
        return None
    reranks = [live.curve.scan_rerank(wanted.target) if live.curve else None for live in snapshot.segments]
    if None in reranks:
        return None
    return Knobs(effort=0, rerank=max(_LEAST_RERANK, *(rerank or 0 for rerank in reranks)))


def _forecast_codes(
    predicted: dict[Path, float], snapshot: Snapshot, nq: int, depth: int, selection: Selection
) -> None:
    """Add what a scan of codes costs, and keep in mind what it would have spared.

    Gathering costs as much as a few scans, so it is done once that much could have been spared: whatever
    comes after, no more than twice the least possible is spent.

    **Source**: R. Karp, On-line algorithms versus off-line algorithms, 1992 (rent or buy).
    """
    numbers = selection.count * snapshot.view.d / 1e6
    ranking_ms = depth * snapshot.view.d * _SUBSET_MANY_NS / 1e6
    codes_ns = max(live.curve.scan_ns for live in snapshot.segments if live.curve)
    scan_ms = nq * ((numbers * codes_ns + ranking_ms) / min(nq, MAX_THREADS) + _CODES_MS)
    cheapest = min(predicted.values())
    to_gather_ms = 0.0 if selection.is_gathered else numbers * _GATHER_CODES_NS - selection.spared_ms
    predicted["codes"] = scan_ms + max(0.0, to_gather_ms)
    if not selection.is_gathered:
        selection.spared_ms += max(0.0, cheapest - scan_ms)


def _forecast_waiting(predicted: dict[Path, float], view: FlatView, m: int, n_ranked: int) -> None:
    """Add what it takes until the vectors are here that a path reads: some rows, or all of them."""
    all_ms = view.n * view.d * _ARRIVING_NS / 1e6
    rows_ms = {"subset": m * _ARRIVING_ROW_MS, "index": n_ranked * _ARRIVING_ROW_MS}
    for path in predicted:
        predicted[path] += min(all_ms, rows_ms.get(path, all_ms))


def _exact_ms(view: FlatView, nq: int, m: int) -> dict[Path, float]:
    if m == view.n:
        return {"scan": _scan_ms(view, nq)}
    return {"wide scan": _scan_ms(view, nq), "subset": _subset_ms(m, view.n, view.d, nq)}


def _scan_ms(view: FlatView, nq: int) -> float:
    numbers = view.n * view.d / 1e6
    if nq == 1:
        return float(numbers * (_HALF_SCAN_NS if view.is_halved else SCAN_NS))
    return float(numbers * _batch_ns(nq, view.d))


def _batch_ns(nq: int, d: int) -> float:
    """What a batch costs for each number of the vectors searched."""
    rows = product_rows(nq, d)
    return (rows * _BLAS_NS if rows else nq * SCAN_NS) / min(nq, MAX_THREADS)


def _subset_ms(m: int, n: int, d: int, nq: int) -> float:
    if nq >= GATHER_QUERIES:
        return m * d * (_GATHER_NS + _batch_ns(nq, d)) / 1e6
    ns = _SUBSET_NS if m < n / 4 else _SUBSET_MANY_NS
    return m * d * nq * ns / min(nq, MAX_THREADS) / 1e6


def _choices(
    snapshot: Snapshot, k: int, selection: Selection, wanted: Wanted, *, is_wide: bool
) -> tuple[Choice, ...]:
    """The parameters for each segment; none where one of them cannot reach what is wanted."""
    share = selection.count / selection.n
    found = []
    for live in snapshot.segments:
        selected = selection.share_of(live.row.first_slot, live.stop)
        if not selected:  # it is not asked
            found.append(_NOTHING)
            continue
        if is_wide:
            measured = live.wide_choice(wanted.target, selected, k)
        else:
            measured = live.choice_for(wanted.target, share, k)
        choice = _choice(live, measured, wanted)
        if choice is None:
            return ()
        is_measured = not wanted.is_explicit
        found.append(choice.harder(snapshot.tuning.factor(share)) if is_measured else choice)
    return tuple(found)


def _is_unmeasured(snapshot: Snapshot, share: float) -> bool:
    """Whether it is not known yet what a filter does to the index."""
    curves = [live.curve for live in snapshot.segments]
    return share < 1.0 and any(curve is not None and not curve.knows_filters for curve in curves)


def _choice(live: LiveSegment, measured: Choice | None, wanted: Wanted) -> Choice | None:
    if not wanted.is_explicit:
        return measured if wanted.target < 1.0 else None
    standard = measured.knobs if measured else _UNMEASURED
    asked = wanted.effort_for(live.index.family)
    effort = standard.effort if asked is None else asked
    knobs = Knobs(effort, standard.rerank if wanted.rerank is None else wanted.rerank)
    return (
        replace(measured, knobs=knobs, recall_low=0.0, settled=1.0) if measured else Choice(knobs, 0.0, 0.0)
    )


def _index_ms(snapshot: Snapshot, nq: int, m: int, choices: tuple[Choice, ...]) -> float:
    """All segments and the tail; queries that the index leaves open are searched exactly after it."""
    share = m / snapshot.view.n
    at_once = min(nq, MAX_THREADS)
    index_ms = sum(choice.usual_us for choice in choices) * nq / at_once / 1e3
    open_share = 1.0 - min(choice.settled for choice in choices)
    exact_ms = open_share * _subset_ms(m, snapshot.view.n, snapshot.view.d, nq) if open_share else 0.0
    tail = snapshot.tail
    tail_ms = 0.0 if tail is None else tail.n * share * tail.d * nq * SCAN_NS / at_once / 1e6
    return index_ms + exact_ms + tail_ms


def run(plan: Plan, snapshot: Snapshot, queries: Float32, k: int, selection: Selection) -> Neighbours:
    """The k nearest selected slots: ``(float32[nq, k'], int64[nq, k'])``, k' = min(k, matching)."""
    k = min(k, selection.count)
    view = snapshot.view
    if plan.path == "none":
        nq = len(queries)
        return np.empty((nq, 0), np.float32), np.empty((nq, 0), np.int64)
    if plan.path == "index":
        return _by_index(plan, snapshot, queries, k, selection)
    if plan.path == "codes":
        return _by_codes(plan, snapshot, queries, k, selection)
    if plan.path == "scan" or selection.mask is None:
        return view.search(queries, k)
    if plan.path == "subset":
        return view.search_subset(queries, k, selection.subset)
    return _wide_scan(view, queries, k, selection, selection.mask)


def _by_index(plan: Plan, snapshot: Snapshot, queries: Float32, k: int, selection: Selection) -> Neighbours:
    """Every segment and the tail, merged; a query that a segment left open is answered exactly."""
    # One in which nothing is selected finds nothing, and would leave every query open.
    segments = [
        (live, knobs)
        for live, knobs in zip(snapshot.segments, plan.knobs, strict=True)
        if selection.share_of(live.row.first_slot, live.stop)
    ]
    with threads_for(len(queries)):
        if plan.is_wide:
            pieces = [_living(live, queries, k, knobs, selection) for live, knobs in segments]
        else:
            pieces = [live.index.search(queries, k, knobs, selection.selector) for live, knobs in segments]
        # A segment that has met too few selected slots to be believed answers with none: see `Knobs.least`.
        openings = [slots[:, 0] for _, slots in pieces]
        tail = _search_tail(snapshot, queries, k, selection)
        if tail is not None:
            pieces.append(tail)
    distances, slots = pieces[0] if len(pieces) == 1 else _merged(pieces, k, snapshot.view.metric == "l2")
    if slots.shape[1] == k and all(_all_found(column) for column in (*openings, slots[:, -1])):
        return distances, slots
    is_answered = np.min(openings, axis=0, initial=0) >= 0
    return _filled_up(snapshot, queries, k, selection, distances, slots, is_answered)


def _by_codes(plan: Plan, snapshot: Snapshot, queries: Float32, k: int, selection: Selection) -> Neighbours:
    """A scan of the codes of what is selected, re-ranked, merged with the tail."""
    codes = snapshot.codes
    gathered = selection.gather(codes) if codes else None
    if not gathered:  # memory went to another filter meanwhile, or all that is selected lies in the tail
        return snapshot.view.search_subset(queries, k, selection.subset)
    view, depth = snapshot.view, plan.knobs[0].depth(k, selection.count)
    sign = np.float32(1.0 if view.metric == "l2" else -1.0)
    pieces = [each.candidates(queries, depth) for each in gathered]
    rough, slots = pieces[0] if len(pieces) == 1 else _merged(pieces, depth, view.metric == "l2")
    exact = view.distances_of(queries, slots)
    found = picked(exact, slots, np.argsort(sign * exact, axis=1, kind="stable")[:, :k])
    tail = _search_tail(snapshot, queries, k, selection)
    if tail is not None:
        found = _merged([found, tail], k, view.metric == "l2")
    is_decided = slots.min(axis=1) >= 0
    if depth < sum(len(each.slots) for each in gathered):
        is_decided &= _may_believe(sign * rough, sign * exact, sign * found[0][:, -1])
    n_open = int(np.count_nonzero(~is_decided))
    selection.n_undecided = max(0, selection.n_undecided + 2 * n_open - len(queries))
    return found if not n_open else _filled_up(snapshot, queries, k, selection, *found, is_decided)


def _may_believe(rough: Float32, exact: Float32, kth: Float32) -> Mask:
    """Whether nothing that the codes put behind the candidates is likely to be nearer than the k-th found.

    All are distances that are smaller when nearer. How far codes are off is seen in the candidates, and
    `_SIGMAS` of that are allowed for.
    """
    off = exact - rough
    believed: Mask = kth <= rough[:, -1] + off.mean(axis=1) - _SIGMAS * off.std(axis=1)
    return believed


def _living(live: LiveSegment, queries: Float32, k: int, knobs: Knobs, selection: Selection) -> Neighbours:
    """The k nearest living slots of a segment: more are asked for and the dead dropped.

    Queries left with fewer than k, as where a whole topic was deleted, are asked again for many more.
    """
    share = max(selection.share_of(live.row.first_slot, live.stop), LEAST_ALIVE)
    depth = math.ceil(knobs.depth(k, live.index.n) / share)
    found = _asked_wide(live, queries, k, knobs.effort, depth, selection)
    short = np.flatnonzero(found[1][:, -1] < 0)
    if len(short):
        again = _asked_wide(live, queries[short], k, _WIDER * knobs.effort, _WIDER * depth, selection)
        found[0][short], found[1][short] = again
    return found


def _asked_wide(
    live: LiveSegment, queries: Float32, k: int, effort: int, depth: int, selection: Selection
) -> Neighbours:
    assert selection.mask is not None
    distances, slots = live.index.search(queries, depth, Knobs(effort, rerank=1))
    is_alive = selection.mask[slots] & (slots >= 0)
    order = np.argsort(~is_alive, axis=1, kind="stable")[:, : min(k, live.index.n)]
    slots = np.where(is_alive, slots, -1)
    return picked(distances, slots, order)


def _all_found(slots: Slots) -> bool:
    return bool((slots.item(0) if len(slots) == 1 else slots.min()) >= 0)


def _search_tail(snapshot: Snapshot, queries: Float32, k: int, selection: Selection) -> Neighbours | None:
    tail = snapshot.tail
    if tail is None:
        return None
    first = snapshot.view.n - tail.n
    if len(queries) == 1 and tail.n <= _SHORT_TAIL and selection.mask is not None:
        return _search_short_tail(tail, first, queries, k, selection.mask)
    if selection.mask is None:
        distances, slots = tail.search(queries, min(k, tail.n))
    else:
        matching = np.flatnonzero(selection.mask[first:])
        if not len(matching):
            return None
        distances, slots = tail.search_subset(queries, min(k, len(matching)), Subset(matching))
    return distances, np.where(slots >= 0, slots + first, slots)


def _search_short_tail(tail: FlatView, first: int, query: Float32, k: int, mask: Mask) -> Neighbours | None:
    """One query: all of the tail where nearly all of it is selected, else what is."""
    matching = mask[first:]
    n_matching = int(np.count_nonzero(matching))
    n_dropped = tail.n - n_matching
    if not n_matching:
        return None
    if n_dropped > _FEW_DROPPED:
        distances, rows = tail.nearest_of(query, k, np.flatnonzero(matching)[None])
        return distances, rows + first
    distances, rows = tail.search(query, min(tail.n, k + n_dropped))
    if n_dropped:
        kept = np.flatnonzero(matching[rows[0]])[:k]
        distances, rows = picked(distances, rows, kept[None])
    return distances, rows + first


def _merged(pieces: list[Neighbours], k: int, is_l2: bool) -> Neighbours:
    distances = np.concatenate([piece[0] for piece in pieces], axis=1)
    slots = np.concatenate([piece[1] for piece in pieces], axis=1)
    worst = np.float32(np.inf if is_l2 else -np.inf)
    distances = np.where(slots >= 0, distances, worst)
    order = np.argsort(distances if is_l2 else -distances, axis=1, kind="stable")[:, :k]
    return picked(distances, slots, order)


def _filled_up(
    snapshot: Snapshot,
    queries: Float32,
    k: int,
    selection: Selection,
    distances: Float32,
    slots: Slots,
    is_answered: Mask,
) -> Neighbours:
    """The answers again where a query is open or has fewer than k: all that is selected is looked at."""
    found_distances = np.empty((len(queries), k), np.float32)
    found_slots = np.empty((len(queries), k), np.int64)
    is_full = is_answered & ((slots >= 0).sum(axis=1) >= k)
    found_distances[is_full], found_slots[is_full] = distances[is_full], slots[is_full]
    short = np.flatnonzero(~is_full)
    exact = snapshot.view.search_subset(queries[short], k, selection.subset)
    found_distances[short], found_slots[short] = exact
    return found_distances, found_slots


def _wide_scan(view: FlatView, queries: Float32, k: int, selection: Selection, mask: Mask) -> Neighbours:
    """Search everything for more than k, drop what is not selected; queries left short search the subset."""
    dropped = view.n - selection.count
    wide = k + dropped if dropped <= _FEW_DROPPED else math.ceil(1.2 * k * view.n / selection.count) + 10
    distances, slots = view.search(queries, min(wide, view.n))
    keep = mask[slots] & (slots >= 0)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    distances, slots = picked(distances, slots, order)
    short = np.flatnonzero(keep.sum(axis=1) < k)
    if len(short):
        distances[short], slots[short] = view.search_subset(queries[short], k, selection.subset)
    return distances, slots


def range_search(
    view: FlatView, query: Float32, radius: float, selection: Selection
) -> tuple[Float32, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Every selected slot nearer than ``radius`` to one query, nearest first."""
    distances, slots = view.range_search(query, radius)
    if selection.mask is not None:
        keep = selection.mask[slots]
        distances, slots = distances[keep], slots[keep]
    order = np.argsort(distances if view.metric == "l2" else -distances, kind="stable")
    return distances[order], slots[order]

"""What one moment of a collection answers: nearest vectors, text, both, records. Reads only."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
import orjson

from faissbase.ann.flat import Neighbours
from faissbase.ann.segment import Knobs
from faissbase.collection import planner
from faissbase.collection.bounds import NUMBER_BYTES, RECORD_BYTES
from faissbase.collection.inputs import Rows
from faissbase.collection.integrity import checked_rows
from faissbase.collection.planner import Plan, Wanted
from faissbase.collection.selected import Selection
from faissbase.collection.selection import Selector
from faissbase.collection.store import Snapshot, Store
from faissbase.errors import CorruptionError, InvalidInputError
from faissbase.filters.tree import Filter
from faissbase.storage.records import ReadTransaction, StoredRow
from faissbase.types import Float32, Hit, Record, SearchResult, Slots, hits_of

T = TypeVar("T")

# Reciprocal rank fusion. **Source**: Cormack, Clarke, Büttcher, SIGIR 2009, which sets 60.
_RRF_OFFSET = 60
_FUSION_DEPTH_MIN = 50
_FUSION_DEPTH_FACTOR = 4


@dataclass(slots=True)  # not frozen: one is made for every search
class Moment:
    """One snapshot with what reads it; ``transaction`` is set where rows are pinned to it too."""

    store: Store
    selector: Selector
    snapshot: Snapshot
    transaction: ReadTransaction | None = None

    def select(self, where: Filter) -> Selection:
        return self.selector.select(self.snapshot, where, self.transaction)


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a search was run. Prints readably.

    Attributes
    ----------
    plan : Plan
        The path taken and what each path was forecast to cost.
    times_ms : dict
        What filter, search and reading rows took, in milliseconds.
    result : SearchResult
    """

    plan: Plan
    times_ms: dict[str, float]
    result: SearchResult = field(repr=False)

    def __str__(self) -> str:
        plan = self.plan
        share = 100 * plan.n_matching / plan.n_slots if plan.n_slots else 0.0
        forecast = ", ".join(f"{path} {cost:.3f} ms" for path, cost in plan.predicted_ms.items())
        taken = ", ".join(f"{step} {cost:.3f} ms" for step, cost in self.times_ms.items())
        lines = [
            f"{_kind(plan)} search, path: {plan.path}",
            f"  matching   {plan.n_matching} of {plan.n_slots} slots ({share:.3g} %)",
            f"  forecast   {forecast or 'nothing to search'}",
            f"  taken      {taken}",
        ]
        if len(self.result):  # a server tells of its shards how each was searched, not what it found
            lines.append(f"  returned   {', '.join(str(len(hits)) for hits in self.result[:8])} hits")
        return "\n".join(lines)


def _kind(plan: Plan) -> str:
    if plan.path not in ("index", "codes"):
        return "exact"
    knobs = ", ".join(_knobs(each) for each in plan.knobs)
    return f"approximate (recall {plan.target:g} wanted{knobs and f': {knobs}'})"


def _knobs(knobs: Knobs) -> str:
    effort = f"effort {knobs.effort} " if knobs.effort else ""  # none in a scan of codes
    return f"{effort}rerank {knobs.rerank}"


def nearest(moment: Moment, queries: Float32, k: int, where: Filter, wanted: Wanted) -> SearchResult:
    """The k nearest records that match, for each query."""
    distances, slots = nearest_slots(moment, queries, k, where, wanted)
    return _result(moment, distances, slots, k)


def nearest_slots(moment: Moment, queries: Float32, k: int, where: Filter, wanted: Wanted) -> Neighbours:
    """``(float32[nq, k'], int64[nq, k'])`` of the k nearest that match, k' = min(k, matching)."""
    return planned_slots(moment, queries, k, where, wanted)[1]


def planned_slots(
    moment: Moment, queries: Float32, k: int, where: Filter, wanted: Wanted
) -> tuple[Plan, Neighbours]:
    """`nearest_slots`, and the plan by which they were found."""
    snapshot, selection = moment.snapshot, moment.select(where)
    plan = planner.choose(snapshot, len(queries), k, selection, wanted)
    return plan, planner.run(plan, snapshot, queries, k, selection)


def nearest_to_one(moment: Moment, query: Float32, k: int, where: Filter, wanted: Wanted) -> list[Hit]:
    """The k nearest records that match one query ``float32[1, d]``: `nearest` without arrays of results."""
    store = moment.store
    found, at = nearest_slots(moment, query, k, where, wanted)
    slots, distances = at[0].tolist(), found[0].tolist()
    metric = store.config.metric
    if metric == "cosine" and distances and (distances[0] > 1.0 or distances[-1] < -1.0):
        distances = [max(-1.0, min(1.0, distance)) for distance in distances]
    return hits_of(slots, distances, metric, store.rows(moment.snapshot, slots, moment.transaction))


def explained(moment: Moment, queries: Float32, k: int, where: Filter, wanted: Wanted) -> Explanation:
    """`nearest`, with the plan and the time of each step."""
    snapshot = moment.snapshot
    marks = [time.perf_counter()]
    selection = moment.select(where)
    marks.append(time.perf_counter())
    plan = planner.choose(snapshot, len(queries), k, selection, wanted)
    distances, slots = planner.run(plan, snapshot, queries, k, selection)
    marks.append(time.perf_counter())
    result = _result(moment, distances, slots, k)
    marks.append(time.perf_counter())
    steps = zip(("filter", "search", "rows"), np.diff(marks).tolist(), strict=True)
    return Explanation(plan, {step: 1000 * seconds for step, seconds in steps}, result)


def _result(moment: Moment, distances: Float32, slots: Slots, k: int) -> SearchResult:
    metric = moment.store.config.metric
    if metric == "cosine":
        np.clip(distances, -1.0, 1.0, out=distances)
    n_found = slots.shape[1]
    if n_found < k:
        room = ((0, 0), (0, k - n_found))
        distances = np.pad(distances, room, constant_values=np.nan)
        slots = np.pad(slots, room, constant_values=-1)
    wanted = slots[:, :n_found].ravel().tolist()
    rows = moment.store.rows(moment.snapshot, wanted, moment.transaction)
    return SearchResult(slots, distances, metric, rows)


def within(moment: Moment, queries: Float32, radius: float, where: Filter, k: int | None) -> SearchResult:
    """Every matching record nearer than ``radius``, or the first k, for each query, nearest first."""
    selection = moment.select(where)
    view = moment.snapshot.view
    if view.metric == "cosine":
        radius = _within_cosine(radius)
    whole = (planner.range_search(view, query[None], radius, selection) for query in queries)
    found = [(near[:k], at[:k]) for near, at in whole]
    width = max((len(slots) for _, slots in found), default=0)
    distances = np.full((len(queries), width), np.nan, np.float32)
    slots = np.full((len(queries), width), -1, np.int64)
    for i, (near, at) in enumerate(found):
        distances[i, : len(near)], slots[i, : len(at)] = near, at
    if moment.store.config.metric == "cosine":
        np.clip(distances, -1.0, 1.0, out=distances)
    wanted = list(set(slots[slots >= 0].tolist()))
    rows = moment.store.rows(moment.snapshot, wanted, moment.transaction)
    return SearchResult(slots, distances, moment.store.config.metric, rows)


def _within_cosine(radius: float) -> float:
    """The radius for cosines that are not clipped to [-1, 1] yet, so that a rounding error passes no end."""
    if radius >= 1.0:
        return math.inf
    return radius if radius >= -1.0 else -math.inf


def by_text(moment: Moment, text: str, k: int, where: Filter) -> list[Hit]:
    """The k matching records whose documents rank highest by BM25."""
    return _hits(moment, [(slot, score, None) for slot, score in _text_ranking(moment, text, k, where)])


def _text_ranking(moment: Moment, text: str, k: int, where: Filter) -> list[tuple[int, float]]:
    assert moment.transaction is not None
    mask = moment.select(where).mask
    ranking: Iterable[tuple[int, float]] = moment.transaction.text_ranking(text)
    if mask is not None:
        ranking = (ranked for ranked in ranking if mask[ranked[0]])
    return list(islice(ranking, k))


def by_both(moment: Moment, text: str, query: Float32, k: int, where: Filter) -> list[Hit]:
    """Reciprocal rank fusion of `by_text` and `nearest`."""
    depth = fusion_depth(k)
    ranked_by_text = [slot for slot, _ in _text_ranking(moment, text, depth, where)]
    near = nearest(moment, query, depth, where, Wanted())
    distances = dict(zip(near.slots[0].tolist(), near.distances[0].tolist(), strict=True))
    distances.pop(-1, None)
    fused = fused_ranks(ranked_by_text, list(distances))
    best = sorted(fused, key=lambda slot: (-fused[slot], slot))[:k]
    return _hits(moment, [(slot, fused[slot], distances.get(slot)) for slot in best])


def fusion_depth(k: int) -> int:
    """How much of each ranking is looked at for the k best of both."""
    return max(_FUSION_DEPTH_MIN, _FUSION_DEPTH_FACTOR * k)


def fused_ranks(*rankings: Sequence[T]) -> dict[T, float]:
    """What each item of some rankings scores: the sum of ``1 / (60 + rank)``, ranks from 1."""
    scores: dict[T, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (_RRF_OFFSET + rank)
    return scores


def _hits(moment: Moment, found: Sequence[tuple[int, float, float | None]]) -> list[Hit]:
    rows = moment.store.rows(moment.snapshot, [slot for slot, _, _ in found], moment.transaction)
    return [Hit(rows[slot], score, distance) for slot, score, distance in found]


def by_ids(moment: Moment, ids: list[str], include_vectors: bool) -> list[Record]:
    """The records with these ids, in their order; unknown ids are left out."""
    slot_of = slots_of(moment, ids)
    _check_fits(moment, np.sort(np.array(list(slot_of.values()), np.int64)), include_vectors)
    rows = {row.id: row for row in _checked(moment, list(slot_of.values()))}
    if rows.keys() != slot_of.keys():
        raise CorruptionError(f"{moment.store.folder}: ids lead to records of other ids; run repair()")
    return [record(rows[id], moment.snapshot, include_vectors) for id in ids if id in rows]


def slots_of(moment: Moment, ids: list[str]) -> dict[str, int]:
    """The slot of each id that has a record."""
    found = _transaction(moment).slots_of(ids) if ids else {}
    alive = moment.snapshot.alive
    if alive is None or not len(moment.snapshot.hidden):
        return found
    return {id: slot for id, slot in found.items() if alive[slot]}


def stored(moment: Moment, slots: Slots) -> Rows:
    """The records in ``slots``, ascending, as they are stored, each checked against its checksum."""
    rows = _checked(moment, slots) if len(slots) else []
    return Rows(
        [row.id for row in rows],
        np.ascontiguousarray(moment.snapshot.view.rows(slots)),
        [row.norm for row in rows],
        [row.metadata_json for row in rows],
        [row.document for row in rows],
        [row.checksum for row in rows],
    )


def parse_cursor(cursor: str | None) -> tuple[int | None, int]:
    """Generation and slot that a cursor of `scroll` names; None and 0 for the first page."""
    if cursor is None:
        return None, 0
    try:
        generation, slot = cursor.split("-")
        return int(generation), int(slot)
    except (ValueError, AttributeError) as error:
        raise InvalidInputError(f"cursor {cursor!r} was not made by scroll()") from error


def by_filter(
    moment: Moment, where: Filter, first_slot: int, limit: int | None, include_vectors: bool
) -> tuple[list[Record], int | None]:
    """The matching records from ``first_slot`` on, and the slot where the next page begins, if any.

    A page ends early where it would pass the bound of an answer.
    """
    slots = moment.select(where).slots
    slots = slots[slots.searchsorted(first_slot) :]
    chosen = _fitting(moment, slots[:limit], include_vectors)
    rows = _checked(moment, chosen)
    next_slot = int(slots[len(chosen)]) if len(chosen) < len(slots) else None
    return [record(row, moment.snapshot, include_vectors) for row in rows], next_slot


def all_by_filter(moment: Moment, where: Filter, limit: int | None, include_vectors: bool) -> list[Record]:
    """The matching records, or the first ``limit`` of them, oldest first."""
    slots = moment.select(where).slots[:limit]
    _check_fits(moment, slots, include_vectors)
    return [record(row, moment.snapshot, include_vectors) for row in _checked(moment, slots)]


def _fitting(moment: Moment, slots: Slots, include_vectors: bool) -> Slots:
    """The first of ``slots``, ascending, whose records do not pass the bound of an answer; one at least."""
    store, most = moment.store, moment.store.bounds.answer_bytes
    if not most or len(slots) < 2:
        return slots
    each = RECORD_BYTES + (NUMBER_BYTES * store.config.dimension if include_vectors else 0)
    slots = slots[: max(1, most // each)]
    sizes = np.array(_transaction(moment).sizes(slots), np.int64) + each
    n_fitting = int(sizes.cumsum().searchsorted(most, side="right"))
    return slots[: max(1, n_fitting)]


def _check_fits(moment: Moment, slots: Slots, include_vectors: bool) -> None:
    """Raise `TooLarge` where `_fitting` leaves a slot out."""
    if len(_fitting(moment, slots, include_vectors)) < len(slots):
        moment.store.bounds.check_answer(moment.store.bounds.answer_bytes + 1)


def _checked(moment: Moment, slots: Slots | list[int]) -> list[StoredRow]:
    vectors = moment.store.vector_file(moment.snapshot.state.generation)
    return checked_rows(_transaction(moment), slots, vectors)


def _transaction(moment: Moment) -> ReadTransaction:
    assert moment.transaction is not None
    return moment.transaction


def record(row: StoredRow, snapshot: Snapshot, include_vectors: bool) -> Record:
    """A stored row as its owner gave it."""
    vector = given_vector(snapshot.view.rows(row.slot), row.norm) if include_vectors else None
    return Record(row.id, orjson.loads(row.metadata_json), row.document, vector)


def given_vector(stored: Float32, norm: float) -> Float32:
    """The vector as it was given, from its stored form; always a copy."""
    return stored.copy() if norm == 1.0 else (stored * norm).astype(np.float32)

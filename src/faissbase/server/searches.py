"""Routes of searches: by vectors, by text, by both, and the special ones."""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from faissbase.ann.flat import one_thread_a_batch
from faissbase.collection.bounds import NUMBER_BYTES, RECORD_BYTES, Bounds, TooLarge
from faissbase.errors import AccessError, InvalidInputError, NotFoundError
from faissbase.server import named
from faissbase.server.bodies import ARROW, decoded, media_of
from faissbase.server.databases import ServedCollection
from faissbase.server.operations import Call, IsFaiss, Operation, matrix
from faissbase.sharded.reports import ShardedExplanation
from faissbase.types import Float32, Hit, Row, SearchResult
from faissbase.wire import (
    Batch,
    HitOut,
    ManyResults,
    PlanOut,
    Results,
    Search,
    SpecializedSearch,
)

_MOST_HITS = 200_000
_MANY, _FEW = 64, 8  # searches in one call
_DECODER = msgspec.json.Decoder(Search)
_Raw = msgspec.Raw


@dataclass(frozen=True, slots=True)
class _Queries:
    """A search for many vectors that came in a column, ``float32[nq, d]``; the rest of it as JSON has it."""

    vectors: Float32
    asked: Search


class _Answer:
    """What hits of one collection are sent as, as long as the bytes of one answer last."""

    def __init__(self, call: Call, collection: ServedCollection) -> None:
        self._collection = collection
        self._most_bytes = call.settings.max_answer_bytes
        self._n_bytes = 0

    def hits(self, hits: Sequence[Hit], include: Sequence[str]) -> list[HitOut]:
        """Hits with what of their records is included; `TooLarge` before more is read than may be sent."""
        distances = [hit.distance for hit in hits]
        return self.rows([hit.row for hit in hits], [hit.score for hit in hits], distances, include)

    def of_each(self, found: SearchResult, include: Sequence[str]) -> list[list[HitOut]]:
        """`hits` of many queries."""
        return [self.rows(rows, scores, near, include) for rows, scores, near in found.by_query()]

    def rows(
        self,
        rows: Sequence[Row],
        scores: Sequence[float],
        distances: Sequence[float | None],
        include: Sequence[str],
    ) -> list[HitOut]:
        """`hits`, from what they are made of."""
        self.count(rows, include)
        triples = zip(rows, scores, distances, strict=True)
        if "metadata" in include:
            out = [HitOut(row.id, score, near, _Raw(row.metadata_json)) for row, score, near in triples]
        else:
            out = [HitOut(row.id, score, near) for row, score, near in triples]
        if "document" in include:
            for each, row in zip(out, rows, strict=True):
                each.document = row.document
        if "vector" in include:
            records = self._collection.get([row.id for row in rows], include_vectors=True)
            vector_of = {record.id: record.vector for record in records}
            for each in out:
                vector = vector_of.get(each.id)  # missing where it was deleted meanwhile
                each.values = [] if vector is None else vector.tolist()
        return out

    def count(self, rows: Sequence[Row], include: Sequence[str]) -> None:
        """Take note of records that are to be sent."""
        n_bytes = RECORD_BYTES * len(rows)
        if "metadata" in include:
            n_bytes += sum([len(row.metadata_json) for row in rows])
        if "document" in include:
            n_bytes += sum([len(row.document or "") for row in rows])
        if "vector" in include:
            n_bytes += NUMBER_BYTES * self._collection.dimension * len(rows)
        self._n_bytes += n_bytes
        if self._n_bytes > self._most_bytes:
            Bounds(answer_bytes=self._most_bytes).check_answer(self._n_bytes)


def search(call: Call) -> Results | ManyResults | bytes:
    if isinstance(call.body, _Queries):
        return _answer_columns(call, call.body.asked, call.body.vectors)
    try:
        collection = call.collection()
    except IsFaiss:
        return named.search(call, call.path["index"])
    return _answered(call, collection, call.body, _Answer(call, collection))


def _answered(
    call: Call, collection: ServedCollection, body: Search, answer: _Answer
) -> Results | ManyResults:
    call.check_k(body.k)
    if body.vector is not None and body.vectors is not None:
        raise InvalidInputError("give vector or vectors, not both")
    if body.text is not None:
        return _by_text(collection, body, answer)
    if body.vector is None and body.vectors is None:
        raise InvalidInputError("give vector, vectors or text: what to search for")
    queries = _queries(call, collection, body)
    knobs = _knobs(call, body)
    if body.explain:
        return _explained(collection, queries, body, knobs, answer)
    found = collection.search(queries, body.k, body.filter, **knobs)
    if body.vector is not None:
        return Results(answer.hits(found, body.include))
    return ManyResults(answer.of_each(found, body.include))


def _from_arrow(call: Call, body: bytes) -> _Queries:
    from faissbase.server import arrow

    dimension, most_rows = call.collection().dimension, call.settings.max_vectors
    vectors, text = arrow.read_queries(body, dimension, most_rows)
    asked: Search = decoded(text, "", _DECODER, call.key.tenant)
    others = (asked.vector, asked.vectors, asked.text)
    if any(each is not None for each in others) or asked.explain:
        raise InvalidInputError("vector, vectors, text and explain are for searches in JSON")
    return _Queries(_as_float32(vectors), asked)


def _answer_columns(call: Call, asked: Search, queries: Float32) -> ManyResults | bytes:
    call.check_k(asked.k)
    _check_hits(len(queries), asked.k)
    collection = call.collection()
    answer = _Answer(call, collection)
    found = collection.search(queries, asked.k, asked.filter, **_knobs(call, asked))
    if ARROW not in map(media_of, call.accept.split(",")):
        return ManyResults(answer.of_each(found, asked.include))
    from faissbase.server import arrow

    call.media = ARROW
    for rows, _, _ in found.by_query():
        answer.count(rows, asked.include)
    vectors = _vectors_of(collection, found) if "vector" in asked.include else None
    return arrow.hits(found, asked.include, vectors)


def _vectors_of(collection: ServedCollection, found: Sequence[Sequence[Hit]]) -> Float32:
    """The vectors of all hits, ``float32[n, d]``; zero where a record was deleted meanwhile."""
    ids = [hit.id for hits in found for hit in hits]
    records = collection.get(list(dict.fromkeys(ids)), include_vectors=True)
    vector_of = {record.id: record.vector for record in records}
    nothing = np.zeros(collection.dimension, np.float32)
    rows = [vector_of.get(id, nothing) for id in ids]
    return np.array(rows, np.float32).reshape(len(ids), collection.dimension)


def likeness(call: Call) -> Hashable:
    """What searches must have in common to be run as one: all but the vector; None for one that cannot be."""
    if isinstance(call.body, _Queries):
        return None
    body: Search = call.body
    if body.vector is None or body.vectors is not None or body.text is not None or body.explain:
        return None
    asked = msgspec.structs.replace(body, vector=None)
    return (call.key.id, call.path["index"], msgspec.json.encode(asked), len(body.vector))


def most_together(call: Call) -> int | None:
    """A few where a graph answers each by itself: 8 in one call take a seventh longer each than 32 do."""
    if isinstance(call.body, _Queries) or call.body.filter is not None:
        return None
    is_by_graph = call.collection().is_by_graph(_MANY, call.body.k, **_knobs(call, call.body))
    return _FEW if is_by_graph else None


def search_together(calls: list[Call]) -> list[Results]:
    """The answers to single searches of one `likeness`."""
    first = calls[0]
    try:
        collection, body = first.collection(), first.body
    except IsFaiss:
        return [named.search_one(call, call.path["index"]) for call in calls]
    first.check_k(body.k)
    rows = [call.body.vector for call in calls]
    queries = _rows(rows, collection.dimension, lambda _: "vector")
    with one_thread_a_batch():
        found = collection.search(queries, body.k, body.filter, **_knobs(first, body))
    return [
        Results(_Answer(first, collection).rows(rows, scores, distances, body.include))
        for rows, scores, distances in found.by_query()
    ]


def _queries(call: Call, collection: ServedCollection, body: Search) -> Any:
    """``float32[d]`` for one vector, else ``float32[nq, d]``."""
    if body.vectors is None:
        assert body.vector is not None
        _check_hits(1, body.k)
        return _rows([body.vector], collection.dimension, lambda _: "vector")[0]
    call.check_many(len(body.vectors), "vectors")
    _check_hits(len(body.vectors), body.k)
    return _rows(body.vectors, collection.dimension, lambda i: f"vectors[{i}]")


def _check_hits(nq: int, k: int) -> None:
    if nq * k > _MOST_HITS:
        raise TooLarge(f"{nq:,} vectors of k={k:,} ask for more than {_MOST_HITS:,} hits")


def _rows(rows: Sequence[Sequence[float]], dimension: int, names: Callable[[int], str]) -> Float32:
    """`matrix` in single precision."""
    try:
        if all(len(row) == dimension for row in rows):
            packed = b"".join([struct.pack(f"{dimension}f", *row) for row in rows])
            return np.frombuffer(packed, np.float32).reshape(len(rows), dimension)
    except OverflowError:
        pass
    return _as_float32(matrix(rows, dimension, names))


def _as_float32(rows: Any) -> Float32:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and that is refused
        found: Float32 = rows.astype(np.float32, copy=False)
    return found


def _knobs(call: Call, body: Search) -> dict[str, Any]:
    knobs = {"nprobe": body.nprobe, "ef_search": body.ef_search, "rerank": body.rerank}
    for name, value in knobs.items():
        if value is not None and value > call.settings.max_effort:
            raise TooLarge(f"{name} is {value:,}, at most {call.settings.max_effort:,} is allowed")
    return {"recall": body.recall, **knobs}


def _by_text(collection: ServedCollection, body: Search, answer: _Answer) -> Results:
    if body.explain or any(
        each is not None for each in (body.recall, body.nprobe, body.ef_search, body.rerank)
    ):
        raise InvalidInputError(
            "explain, recall, nprobe, ef_search and rerank are for searches by vector alone"
        )
    if body.vectors is not None:
        raise InvalidInputError("text goes with one vector, or with none")
    assert body.text is not None
    if body.vector is None:
        found = collection.text_search(body.text, body.k, body.filter)
    else:
        found = collection.hybrid_search(body.text, body.vector, body.k, body.filter)
    return Results(answer.hits(found, body.include))


def _explained(
    collection: ServedCollection, queries: Float32, body: Search, knobs: dict[str, Any], answer: _Answer
) -> Results | ManyResults:
    explanation = collection.explain(queries, body.k, body.filter, **knobs)
    plan, hits = _plan(explanation), [answer.hits(each, body.include) for each in explanation.result]
    return Results(hits[0], plan) if body.vector is not None else ManyResults(hits, plan)


def _plan(explanation: Any) -> PlanOut:
    """How a search was run; of shards all together, and each."""
    plan = explanation.plan
    told = PlanOut(
        plan.path, plan.n_slots, plan.n_matching, plan.predicted_ms, explanation.times_ms, plan.target
    )
    if isinstance(explanation, ShardedExplanation):
        told.version = explanation.version
        told.shards = {name: _plan(each) for name, each in explanation.shards.items()}
    return told


# ---- the special ones ----------------------------------------------------------------------------


def specialized(call: Call) -> Results | Batch:
    body: SpecializedSearch = call.body
    collection = call.collection()
    if body.k is not None:
        call.check_k(body.k)
    _check_fields(body)
    answer = _Answer(call, collection)
    if body.type == "batch":
        return _batch(call, collection, body.searches, answer)
    if body.type == "range":
        return Results(answer.hits(_within(call, collection, body), body.include))
    query, named = _by_example(call, collection, body)
    k = 10 if body.k is None else body.k
    found = collection.search(query, k + len(named), body.filter, recall=body.recall)
    return Results(answer.hits([hit for hit in found if hit.id not in named][:k], body.include))


_FIELDS = {
    "range": {"vector", "radius", "k", "filter", "include"},
    "by_id": {"id", "k", "filter", "recall", "include"},
    "recommend": {"positive", "negative", "k", "filter", "recall", "include"},
    "batch": {"searches"},
}
_NEEDED = {
    "range": ("vector", "radius"),
    "by_id": ("id",),
    "recommend": ("positive",),
    "batch": ("searches",),
}


def _check_fields(body: SpecializedSearch) -> None:
    """Refuse what a type has no use for, and what it lacks."""
    defaults = SpecializedSearch(type=body.type)
    for name in body.__struct_fields__:
        is_given = getattr(body, name) != getattr(defaults, name)
        if is_given and name not in {*_FIELDS[body.type], "type", "tenant_id"}:
            raise InvalidInputError(f"a search of type {body.type!r} has no use for {name!r}")
    for name in _NEEDED[body.type]:
        if getattr(body, name) in (None, []):
            raise InvalidInputError(f"a search of type {body.type!r} needs {name!r}")


def _batch(call: Call, collection: ServedCollection, bodies: Sequence[Search], answer: _Answer) -> Batch:
    call.check_many(len(bodies), "searches")
    if sum(max(0, body.k) for body in bodies) > _MOST_HITS:
        raise TooLarge(f"the searches of this batch ask for more than {_MOST_HITS:,} hits")
    answers = []
    for i, body in enumerate(bodies):
        if body.tenant_id not in (None, call.key.tenant):
            raise AccessError(f"searches[{i}]: its tenant_id is not the tenant of this key")
        found = None if body.vectors is not None else _answered(call, collection, body, answer)
        if not isinstance(found, Results):
            raise InvalidInputError(f"searches[{i}]: a search of a batch takes one vector, not vectors")
        answers.append(found)
    return Batch(answers)


def _within(call: Call, collection: ServedCollection, body: SpecializedSearch) -> list[Hit]:
    query = matrix([body.vector or []], collection.dimension, lambda _: "vector")[0]
    assert body.radius is not None
    most = call.settings.max_k
    k = most + 1 if body.k is None else body.k
    found: list[Hit] = collection.first_within(query, body.radius, body.filter, k)
    if len(found) > most:
        raise TooLarge(f"more than {most:,} records are within the radius, as many are sent: give k")
    return found


def _by_example(
    call: Call, collection: ServedCollection, body: SpecializedSearch
) -> tuple[Float32, set[str]]:
    """The query that stored records make, and their ids: towards the positive ones, away from the negative.

    **Source**: J. J. Rocchio, Relevance feedback in information retrieval, 1971, its three weights 1.
    """
    call.check_many(len(body.positive) + len(body.negative), "ids")
    positive, negative = ([body.id], []) if body.id is not None else (body.positive, body.negative)
    records = collection.get([*positive, *negative], include_vectors=True)
    vector_of = {record.id: record.vector for record in records if record.vector is not None}
    for id in (*positive, *negative):
        if id not in vector_of:
            raise NotFoundError(f"no record {id[:80]!r}")
    query = np.mean([vector_of[id] for id in positive], axis=0)
    if negative:
        query = query + (query - np.mean([vector_of[id] for id in negative], axis=0))
    return query.astype(np.float32), {*positive, *negative}


_INDEX = "/index/{index}"
OPERATIONS = (
    Operation(
        ("POST", "GET"),
        f"{_INDEX}/search",
        "read",
        "The k nearest records",
        search,
        (Results, ManyResults),
        Search,
        likeness=likeness,
        together=search_together,
        most_together=most_together,
        read_arrow=_from_arrow,
    ),
    Operation(
        ("POST",),
        f"{_INDEX}/specialized_search",
        "read",
        "By radius, by stored records, or many at once",
        specialized,
        (Results, Batch),
        SpecializedSearch,
    ),
)

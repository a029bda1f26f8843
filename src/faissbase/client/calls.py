"""The operations of a remote collection and database, as exchanges; see `exchange`. Knows no network.

Input is checked as the library checks it, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import orjson

from faissbase.client.exchange import Exchange, Forms, NotTaken, Steps, segment
from faissbase.collection import inputs
from faissbase.collection.answers import Explanation
from faissbase.collection.care import OptimizeReport
from faissbase.collection.planner import Plan, wanted_from
from faissbase.collection.recall import Band, RecallReport
from faissbase.collection.stats import Stats
from faissbase.collection.telling import Told, told
from faissbase.collection.transfer import bar_of
from faissbase.errors import ConflictError, InvalidInputError
from faissbase.filters.tree import Everything, parse
from faissbase.filters.values import shown
from faissbase.sharded.reports import ShardedExplanation, ShardedOptimizeReport, ShardedStats
from faissbase.types import (
    Float32,
    Hit,
    Metric,
    Page,
    Problem,
    Record,
    RepairReport,
    Row,
    SearchResult,
    VerifyReport,
    Where,
)

_PIECE_ROWS = 1000
_PIECE_IDS = 10_000  # what a server takes at once unless it is told otherwise
_PIECE_NUMBERS = 1 << 20
# Fewer numbers travel as JSON; pieces of Arrow are within the usual limits of a server.
_ARROW_NUMBERS = 1 << 16
_ARROW_ROWS, _ARROW_BYTES = 10_000, 16 << 20
_PAGE = 1000
_INCLUDED = ["metadata", "document"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a remote index is; never changes."""

    id: str
    name: str
    dimension: int
    metric: Metric
    index_type: str

    @property
    def path(self) -> str:
        return f"/v1/index/{self.id}"


def _facts(info: dict[str, Any]) -> Facts:
    return Facts(info["id"], info["name"], info["dimension"], info["metric"], info["index_type"])


# ---- the database --------------------------------------------------------------------------------


def create(name: str, dimension: int, metric: str, index_type: str) -> Steps[Facts]:
    body = {"name": name, "dimension": dimension, "metric": metric, "index_type": index_type}
    info = yield Exchange("POST", "/v1/index", body, is_safe=False)
    return _facts(info)


def describe(name: str) -> Steps[Facts]:
    info = yield Exchange("GET", f"/v1/index/{segment(name)}")
    return _facts(info)


def check_same(found: Facts, dimension: int, metric: str, index_type: str) -> Facts:
    """``found``, where it is what was asked for."""
    for what, asked in (("dimension", dimension), ("metric", metric), ("index_type", index_type)):
        has = getattr(found, what)
        if has != asked:
            raise ConflictError(f"collection {found.name!r} exists with {what}={has!r}, not {asked!r}")
    return found


def names() -> Steps[list[str]]:
    answer = yield Exchange("GET", "/v1/index")
    return sorted(info["name"] for info in answer["indexes"])


def backup() -> Exchange:
    """Answered by a file."""
    return Exchange("POST", "/v1/backup", {})


def delete_index(name: str) -> Steps[None]:
    yield Exchange("DELETE", f"/v1/index/{segment(name)}", is_safe=False)


# ---- writing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Records:
    """Checked records, metadata as JSON text."""

    ids: list[str]
    vectors: Float32
    metadatas: list[bytes]
    documents: list[str | None]

    def part(self, rows: slice) -> _Records:
        return _Records(self.ids[rows], self.vectors[rows], self.metadatas[rows], self.documents[rows])

    def sizes(self) -> Iterator[int]:
        """About how many bytes each record takes."""
        width = 4 * self.vectors.shape[1]
        for metadata, document in zip(self.metadatas, self.documents, strict=True):
            yield width + len(metadata) + 4 * len(document or "")


def put(
    facts: Facts,
    forms: Forms,
    ids: Any,
    vectors: Any,
    metadatas: Any,
    documents: Any,
    *,
    mode: str,
    progress: bool = False,
) -> Steps[int]:
    """Store records in pieces, each whole or not at all; as Arrow where they are many."""
    id_list = inputs.check_ids(ids)
    n = len(id_list)
    matrix = _matrix(vectors, n, facts)
    encoded = inputs.encode_metadatas(metadatas, n)
    texts = inputs.check_documents(documents, n)
    records, done = _Records(id_list, matrix, encoded, texts), 0
    with bar_of(f"store in {facts.name}", n, 0, progress) as bar:
        if forms.arrow and matrix.size >= _ARROW_NUMBERS:
            done = yield from _put_columns(facts, forms, records, mode, bar)
        step = max(1, min(_PIECE_ROWS, _PIECE_NUMBERS // facts.dimension))
        for start in range(done, n, step):
            piece = records.part(slice(start, start + step))
            columns = zip(piece.ids, piece.vectors, piece.metadatas, piece.documents, strict=True)
            body = {"vectors": [_record_in(*record) for record in columns]}
            yield Exchange("POST", f"{facts.path}/vectors?mode={mode}", body, is_safe=mode == "upsert")
            bar.update(len(piece.ids))
    return n


def _put_columns(facts: Facts, forms: Forms, records: _Records, mode: str, bar: Any) -> Steps[int]:
    """Store records as Arrow, as far as the server takes it; how many are stored."""
    from faissbase.client import arrow

    done = 0
    for stop in _cuts(list(records.sizes())):
        piece = records.part(slice(done, stop))
        body = arrow.records(piece.ids, piece.vectors, piece.metadatas, piece.documents)
        try:
            yield Exchange("POST", f"{facts.path}/vectors?mode={mode}", body, is_safe=mode == "upsert")
        except NotTaken as error:
            forms.arrow = forms.arrow and not error.is_form
            return done
        bar.update(stop - done)
        done = stop
    return done


def _cuts(sizes: Sequence[int]) -> Iterator[int]:
    """Where each piece ends: after as many rows and bytes as one body may have."""
    n_rows, n_bytes = 0, 0
    for row, size in enumerate(sizes):
        if n_rows and (n_rows == _ARROW_ROWS or n_bytes + size > _ARROW_BYTES):
            yield row
            n_rows, n_bytes = 0, 0
        n_rows, n_bytes = n_rows + 1, n_bytes + size
    if n_rows:
        yield len(sizes)


def _matrix(vectors: Any, n: int, facts: Facts) -> Float32:
    inputs.check_vectors(vectors, n, facts.dimension, facts.metric)
    return inputs.as_matrix(vectors, facts.dimension)[0]


def _record_in(id: str, vector: Float32, metadata: bytes, document: str | None) -> dict[str, Any]:
    record: dict[str, Any] = {"id": id, "values": vector, "metadata": orjson.Fragment(metadata)}
    if document is not None:
        record["document"] = document
    return record


def update(
    facts: Facts, ids: Any, metadatas: Any, documents: Any, vectors: Any, *, replace: bool
) -> Steps[int]:
    id_list = inputs.check_ids(ids)
    n = len(id_list)
    if metadatas is None and documents is None and vectors is None:
        raise InvalidInputError("update() needs metadatas, documents or vectors")
    body: dict[str, Any] = {"ids": id_list, "replace": bool(replace)}
    if metadatas is not None:
        given = [metadatas] if isinstance(metadatas, Mapping) else inputs.as_list(metadatas, "metadatas")
        encoded = inputs.encode_metadatas(given, n)
        body["metadatas"] = [
            None if one is None else orjson.Fragment(text) for one, text in zip(given, encoded, strict=True)
        ]
    if documents is not None:
        body["documents"] = inputs.check_documents(documents, n)
    if vectors is not None:
        body["vectors"] = _matrix(vectors, n, facts)
    answer = yield Exchange("POST", f"{facts.path}/vectors/update", body)
    return int(answer["updated"])


def delete(facts: Facts, ids: Any, where: Where | None) -> Steps[int]:
    if (ids is None) == (where is None):
        raise InvalidInputError("delete() needs either ids or where")
    if where is not None:
        if isinstance(parse(where), Everything):
            raise InvalidInputError("delete(where={}) would remove every record: use reset() for that")
        answer = yield Exchange(
            "POST", f"{facts.path}/vectors/delete", {"filter": _filter(where)}, is_safe=False
        )
        return int(answer["deleted"])
    names, n = inputs.check_ids(ids), 0
    for start in range(0, len(names), _PIECE_IDS):
        body = {"ids": names[start : start + _PIECE_IDS]}
        answer = yield Exchange("POST", f"{facts.path}/vectors/delete", body, is_safe=False)
        n += int(answer["deleted"])
    return n


def reset(facts: Facts) -> Steps[int]:
    answer = yield Exchange("POST", f"{facts.path}/reset", is_safe=False)
    return int(answer["deleted"])


# ---- reading -------------------------------------------------------------------------------------


def _filter(where: Where | None) -> Any:
    """A filter as it travels; checked here, so that a wrong one raises what the library raises."""
    parse(where)
    if where is None:
        return None
    # As a field of metadata: at their top, an operator is refused, and a filter may begin with one.
    try:
        [encoded] = inputs.encode_metadatas([{"where": dict(where)}], 1)
    except InvalidInputError as error:
        raise InvalidInputError(f"filter {shown(dict(where))} is no JSON: {error.__cause__}") from error
    return orjson.Fragment(encoded[len(b'{"where":') : -1])


def ntotal(facts: Facts) -> Steps[int]:
    answer = yield Exchange("GET", f"{facts.path}/ntotal")
    return int(answer["ntotal"])


def count(facts: Facts, where: Where | None) -> Steps[int]:
    answer = yield Exchange("POST", f"{facts.path}/vectors/count", {"filter": _filter(where)})
    return int(answer["count"])


def get(
    facts: Facts, ids: Any, where: Where | None, limit: int | None, *, include_vectors: bool
) -> Steps[list[Record]]:
    if ids is not None and where is not None:
        raise InvalidInputError("get() takes ids or where, not both")
    stop = None if limit is None else inputs.check_count(limit, "limit")
    if ids is not None:
        found = yield from _get_by_ids(facts, inputs.check_ids(ids), include_vectors=include_vectors)
        return found[:stop]
    records: list[Record] = []
    cursor: str | None = None
    while stop is None or len(records) < stop:
        n = _PAGE if stop is None else min(_PAGE, stop - len(records))
        page = yield from scroll(facts, where, n, cursor, include_vectors=include_vectors)
        records += page.records
        cursor = page.cursor
        if cursor is None:
            break
    return records


def _get_by_ids(facts: Facts, ids: list[str], *, include_vectors: bool) -> Steps[list[Record]]:
    records: list[Record] = []
    page = max(1, min(_PAGE, _PIECE_NUMBERS // facts.dimension)) if include_vectors else _PAGE
    for start in range(0, len(ids), page):
        body = {"ids": ids[start : start + page], "include_vectors": bool(include_vectors)}
        answer = yield Exchange("POST", f"{facts.path}/vectors/get", body)
        records += [_record(each) for each in answer["vectors"]]
    return records


def scroll(
    facts: Facts, where: Where | None, limit: int, cursor: str | None, *, include_vectors: bool
) -> Steps[Page]:
    body = {
        "filter": {} if where is None else _filter(where),
        "limit": inputs.check_count(limit, "limit"),
        "cursor": cursor,
        "include_vectors": bool(include_vectors),
    }
    answer = yield Exchange("POST", f"{facts.path}/vectors/get", body)
    return Page([_record(each) for each in answer["vectors"]], answer["cursor"])


def _record(found: dict[str, Any]) -> Record:
    values = found.get("values")
    vector = None if values is None else np.array(values, np.float32)
    return Record(found["id"], found["metadata"], found.get("document"), vector)


# ---- searches ------------------------------------------------------------------------------------


def search(
    facts: Facts, forms: Forms, xq: Any, k: int, where: Where | None, knobs: dict[str, Any]
) -> Steps[Any]:
    body, is_single = _search_body(facts, xq, k, where, knobs)
    if forms.arrow and not is_single and body["vectors"].size >= _ARROW_NUMBERS:
        try:
            return (yield from _search_columns(facts, dict(body)))
        except NotTaken as error:
            forms.arrow = forms.arrow and not error.is_form
    answer = yield Exchange("POST", f"{facts.path}/search", body)
    if is_single:
        return [_hit(each) for each in answer["results"]]
    return _result(answer["results"], body["k"], facts.metric)


def _search_columns(facts: Facts, body: dict[str, Any]) -> Steps[SearchResult]:
    from faissbase.client import arrow

    queries = body.pop("vectors")
    answer = yield Exchange("POST", f"{facts.path}/search", arrow.queries(queries, body))
    return arrow.result(answer, len(queries), body["k"], facts.metric)


def _search_body(
    facts: Facts, xq: Any, k: int, where: Where | None, knobs: dict[str, Any]
) -> tuple[dict[str, Any], bool]:
    inputs.check_queries(xq, facts.dimension, facts.metric)
    queries, is_single = inputs.as_matrix(xq, facts.dimension)
    wanted_from(**knobs)
    body: dict[str, Any] = {"k": inputs.check_k(k, len(queries)), "include": _INCLUDED}
    body["filter"] = _filter(where)
    body |= {name: value for name, value in knobs.items() if value is not None}
    body |= {"vector": queries[0]} if is_single else {"vectors": queries}
    return body, is_single


def _row(found: dict[str, Any]) -> Row:
    return Row(found["id"], orjson.dumps(found["metadata"]), found.get("document"))


def _hit(found: dict[str, Any]) -> Hit:
    distance = found["distance"]
    return Hit(_row(found), found["score"], distance)


def _result(results: list[list[dict[str, Any]]], width: int, metric: Metric) -> SearchResult:
    """Lists of hits as arrays; slots are numbers of this answer alone."""
    slots = np.full((len(results), width), -1, np.int64)
    distances = np.full((len(results), width), np.nan, np.float32)
    slot_of: dict[str, int] = {}
    rows: dict[int, Row] = {}
    for query, hits in enumerate(results):
        for rank, found in enumerate(hits):
            slot = slot_of.setdefault(found["id"], len(slot_of))
            if slot not in rows:
                rows[slot] = _row(found)
            slots[query, rank], distances[query, rank] = slot, found["distance"]
    return SearchResult(slots, distances, metric, rows)


def explain(
    facts: Facts, xq: Any, k: int, where: Where | None, knobs: dict[str, Any]
) -> Steps[Explanation | ShardedExplanation]:
    body, is_single = _search_body(facts, xq, k, where, knobs)
    answer = yield Exchange("POST", f"{facts.path}/search", {**body, "explain": True})
    results = [answer["results"]] if is_single else answer["results"]
    told, result = answer["explain"], _result(results, body["k"], facts.metric)
    if "version" not in told:
        return _explanation(told, result)
    nothing = _result([], body["k"], facts.metric)
    shards = {name: _explanation(each, nothing) for name, each in told.get("shards", {}).items()}
    return ShardedExplanation(told["version"], shards, {}, result)


def _explanation(told: dict[str, Any], result: SearchResult) -> Explanation:
    plan = Plan(told["path"], told["n_slots"], told["n_matching"], told["predicted_ms"], (), told["target"])
    return Explanation(plan, told["times_ms"], result)


def range_search(facts: Facts, xq: Any, radius: float, where: Where | None) -> Steps[Any]:
    inputs.check_queries(xq, facts.dimension, facts.metric)
    queries, is_single = inputs.as_matrix(xq, facts.dimension)
    limit = inputs.check_radius(radius)
    results = []
    for query in queries:
        body = {"type": "range", "vector": query, "radius": limit, "filter": _filter(where)}
        body["include"] = _INCLUDED
        answer = yield Exchange("POST", f"{facts.path}/specialized_search", body)
        results.append(answer["results"])
    if is_single:
        return [_hit(each) for each in results[0]]
    return _result(results, max(map(len, results), default=0), facts.metric)


def text_search(facts: Facts, text: str, k: int, where: Where | None, vector: Any = None) -> Steps[list[Hit]]:
    """By words, and by a vector too where one is given."""
    body: dict[str, Any] = {"text": inputs.check_text(text), "k": inputs.check_k(k), "include": _INCLUDED}
    body["filter"] = _filter(where)
    if vector is not None:
        inputs.check_queries(vector, facts.dimension, facts.metric)
        queries = inputs.as_matrix(vector, facts.dimension)[0]
        if len(queries) != 1:
            raise InvalidInputError(f"hybrid_search takes one vector, got {len(queries)}")
        body["vector"] = queries[0]
    answer = yield Exchange("POST", f"{facts.path}/search", body)
    return [_hit(each) for each in answer["results"]]


# ---- care ----------------------------------------------------------------------------------------


def train(facts: Facts, xt: Any) -> Steps[None]:
    body = {} if xt is None else {"vectors": inputs.as_matrix(xt, facts.dimension)[0]}
    yield Exchange("POST", f"{facts.path}/train", body, is_long=True)


def optimize(
    facts: Facts, wait: bool, progress: bool | Told
) -> Steps[OptimizeReport | ShardedOptimizeReport]:
    with told(progress, "vectors") as tell:
        answer = yield Exchange(
            "POST",
            f"{facts.path}/optimize",
            {"wait": bool(wait)},
            is_long=True,
            told=tell if progress else None,
        )
    if "shards_after" in answer:
        return ShardedOptimizeReport(**answer)
    return OptimizeReport(**answer)


def stats(facts: Facts, url: str) -> Steps[Stats | ShardedStats]:
    answer = yield Exchange("GET", f"{facts.path}/stats")
    if answer.get("placement") == "sharded":
        return ShardedStats.of_dict({**answer, "url": f"{url}{facts.path}"})
    return Stats(**answer, path=f"{url}{facts.path}")


def recall_report(facts: Facts, budget_s: float) -> Steps[RecallReport]:
    answer = yield Exchange("POST", f"{facts.path}/recall", {"budget_s": budget_s}, is_long=True)
    bands = tuple(Band(**cast("Any", each)) for each in answer.pop("bands"))
    return RecallReport(bands, **answer)


def verify(facts: Facts) -> Steps[VerifyReport]:
    answer = yield Exchange("POST", f"{facts.path}/verify", is_long=True)
    return VerifyReport(answer["rows_checked"], [Problem(**cast("Any", each)) for each in answer["problems"]])


def repair(facts: Facts) -> Steps[RepairReport]:
    return RepairReport(**(yield Exchange("POST", f"{facts.path}/repair", is_safe=False, is_long=True)))

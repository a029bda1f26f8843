"""Routes of records: stored, read, listed, deleted."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import orjson

from faissbase.collection.bounds import TooLarge
from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.server.operations import Call, Operation, matrix
from faissbase.storage.integers import LargeInteger, refuse_large_integers
from faissbase.types import Record
from faissbase.wire import (
    Count,
    Counted,
    Deleted,
    DeleteVectors,
    GetVectors,
    PutVectors,
    RecordOut,
    RecordPage,
    Stored,
    Updated,
    UpdateVectors,
)

_MODES = ("upsert", "add")
_FLAGS = ("false", "true")


@dataclass(frozen=True, slots=True)
class _Records:
    """Records in columns, as a collection takes them."""

    ids: list[str]
    vectors: Any
    metadatas: list[dict[str, Any]]
    documents: list[str | None]
    raws: list[bytes]  # the metadata as JSON text


def put(call: Call) -> Stored:
    mode = call.choice("mode", _MODES)
    collection = call.collection()
    records = call.body if isinstance(call.body, _Records) else _from_json(call, call.body)
    store = collection.add if mode == "add" else collection.upsert
    parts = chain(records.raws, records.ids, records.documents)
    with call.room(collection.dimension * len(records.ids), parts, records.ids):
        return Stored(store(records.ids, records.vectors, records.metadatas, records.documents))


def _from_json(call: Call, body: PutVectors) -> _Records:
    call.check_many(len(body.vectors), "vectors")
    names = [f"vectors[{i}] ({record.id[:80]!r})" for i, record in enumerate(body.vectors)]
    vectors = matrix(
        [record.values for record in body.vectors], call.collection().dimension, names.__getitem__
    )
    raws = [_raw(record.metadata) for record in body.vectors]
    metadatas = [_object(raw, raw, name, call) or {} for raw, name in zip(raws, names, strict=True)]
    ids = [record.id for record in body.vectors]
    return _Records(ids, vectors, metadatas, [record.document for record in body.vectors], raws)


def _from_arrow(call: Call, body: bytes) -> _Records:
    from faissbase.server import arrow

    dimension, most_rows = call.collection().dimension, call.settings.max_vectors
    ids, vectors, given, documents = arrow.read_records(body, dimension, most_rows)
    raws = list(map(_raw, given))
    metadatas = [
        _object(each, raw, f"row {row}", call) or {}
        for row, (each, raw) in enumerate(zip(given, raws, strict=True))
    ]
    return _Records(ids, vectors, metadatas, documents, raws)


def _raw(given: Any) -> bytes:
    """Metadata as JSON text, which they came as, or decoded, or not at all."""
    if isinstance(given, dict):
        return orjson.dumps(given)
    return b"null" if given in (None, msgspec.UNSET) else bytes(given)


def _object(given: Any, raw: bytes, of: str, call: Call) -> dict[str, Any] | None:
    """Metadata as they came, decoded or as JSON text, which is ``raw``: an object, or None."""
    most = call.settings.max_metadata_bytes
    if len(raw) > most:
        raise TooLarge(f"metadata of {of} has {len(raw):,} bytes, at most {most:,} are taken")
    try:
        found = given if isinstance(given, dict) else orjson.loads(raw)
        refuse_large_integers(found, raw)
    except (orjson.JSONDecodeError, LargeInteger) as error:
        raise InvalidInputError(f"metadata of {of}: {error}") from error
    if found is not None and not isinstance(found, dict):
        raise InvalidInputError(f"metadata of {of} must be an object")
    return found


def _out(record: Record) -> RecordOut:
    values = None if record.vector is None else record.vector.tolist()
    return RecordOut(record.id, record.metadata, record.document, values)


def get_one(call: Call) -> RecordOut:
    found = call.collection().get([call.path["vector"]], include_vectors=True)
    if not found:
        raise NotFoundError(f"no record {call.path['vector'][:80]!r}")
    return _out(found[0])


def get_many(call: Call) -> RecordPage:
    body: GetVectors = call.body
    ids, where = _ids_or_filter(call, body.ids, body.filter)
    if not 1 <= body.limit <= call.settings.max_vectors:
        raise InvalidInputError(f"limit must be from 1 to {call.settings.max_vectors:,}, got {body.limit}")
    if ids is not None:
        if body.cursor is not None:
            raise InvalidInputError("cursor goes with filter, not with ids")
        found = call.collection().get(ids, include_vectors=body.include_vectors)
        return RecordPage([_out(record) for record in found], None)
    page = call.collection().scroll(
        where, limit=body.limit, cursor=body.cursor, include_vectors=body.include_vectors
    )
    return RecordPage([_out(record) for record in page.records], page.cursor)


def update(call: Call) -> Updated:
    body: UpdateVectors = call.body
    call.check_many(len(body.ids), "ids")
    collection, vectors, metadatas = call.collection(), None, None
    if body.vectors is not None:
        vectors = matrix(body.vectors, collection.dimension, lambda i: f"vectors[{i}]")
    if body.metadatas is not None:
        given = enumerate(body.metadatas)
        metadatas = [_object(one, bytes(one), f"metadatas[{i}]", call) for i, one in given]
    parts = chain(map(bytes, body.metadatas or ()), body.documents or ())
    with call.room(collection.dimension * len(body.ids), parts):  # a changed record takes a new slot
        n = collection.update(body.ids, metadatas, body.documents, vectors, replace=body.replace)
    return Updated(n)


def count(call: Call) -> Counted:
    body: Count = call.body
    return Counted(call.collection().count(body.filter))


def _ids_or_filter(
    call: Call, ids: list[str] | None, where: dict[str, Any] | None
) -> tuple[list[str] | None, dict[str, Any] | None]:
    if (ids is None) == (where is None):
        raise InvalidInputError("give ids or filter, one of both")
    call.check_many(len(ids or ()), "ids")
    return ids, where


def list_page(call: Call) -> RecordPage:
    page = call.collection().scroll(
        limit=call.whole("limit", 100, call.settings.max_vectors),
        cursor=call.query.get("cursor"),
        include_vectors=call.choice("include_vectors", _FLAGS) == "true",
    )
    return RecordPage([_out(record) for record in page.records], page.cursor)


def delete_one(call: Call) -> Deleted:
    n = call.collection().delete([call.path["vector"]])
    if not n:
        raise NotFoundError(f"no record {call.path['vector'][:80]!r}")
    return Deleted(n)


def delete_many(call: Call) -> Deleted:
    body: DeleteVectors = call.body
    ids, where = _ids_or_filter(call, body.ids, body.filter)
    return Deleted(call.collection().delete(ids, where=where))


_VECTORS = "/index/{index}/vectors"
OPERATIONS = (
    Operation(
        ("POST",),
        _VECTORS,
        "write",
        "Store records, all or none; those of the same ids are replaced",
        put,
        Stored,
        PutVectors,
        query={"mode": "upsert (default), or add: refuse ids that exist"},
        read_arrow=_from_arrow,
    ),
    Operation(
        ("GET",),
        _VECTORS,
        "read",
        "All records, page by page",
        list_page,
        RecordPage,
        query={
            "limit": "records of one page, 100 where nothing is said",
            "cursor": "continues the page before",
            "include_vectors": "true or false (default)",
        },
    ),
    Operation(
        ("POST",), f"{_VECTORS}/get", "read", "Records by ids or filter", get_many, RecordPage, GetVectors
    ),
    Operation(
        ("POST",),
        f"{_VECTORS}/delete",
        "write",
        "Delete records by ids or filter",
        delete_many,
        Deleted,
        DeleteVectors,
    ),
    Operation(
        ("POST",), f"{_VECTORS}/update", "write", "Change parts of records", update, Updated, UpdateVectors
    ),
    Operation(("POST",), f"{_VECTORS}/count", "read", "How many records match", count, Counted, Count),
    Operation(
        ("GET",), f"{_VECTORS}/{{vector:rest}}", "read", "One record, with its vector", get_one, RecordOut
    ),
    Operation(("DELETE",), f"{_VECTORS}/{{vector:rest}}", "write", "Delete one record", delete_one, Deleted),
)

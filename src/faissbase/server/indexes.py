"""Routes of indexes: made, listed, described, deleted, and cared for."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from faissbase.collection.store import Config
from faissbase.errors import (
    AccessError,
    AlreadyExistsError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from faissbase.server import named
from faissbase.server.operations import Call, Operation, matrix
from faissbase.types import Problem
from faissbase.wire import (
    CreateIndex,
    Deleted,
    Empty,
    IndexInfo,
    IndexList,
    MeasureRecall,
    Ntotal,
    Optimize,
    Train,
)

_MOST_BUDGET_S = 60
_LIKE_AN_ID = re.compile("[0-9a-f]{32}")


def _info(call: Call, config: Config, ntotal: int | None) -> IndexInfo:
    return IndexInfo(
        config.uuid,
        config.name,
        call.key.tenant,
        config.dimension,
        config.metric,
        config.index_type,
        ntotal,
        placement=call.tenants.database(call.key.tenant).placement(config),
    )


def create(call: Call) -> IndexInfo:
    body: CreateIndex = call.body
    database = call.tenants.database(call.key.tenant)
    if _LIKE_AN_ID.fullmatch(body.name):
        raise InvalidInputError(f"an index may not be called like an id, got {body.name!r}")
    if not call.key.may_use((body.name,)):
        raise AccessError(f"this key is not good for an index named {body.name!r}")
    with call.tenants.claims.held(call.key.tenant, body.name):
        if named.is_there(call, body.name):
            raise AlreadyExistsError(f"there is a FAISS index {body.name!r} already")
        with call.tenants.usage(call.key.tenant).room_for_index(call.settings):
            database.create_collection(body.name, body.dimension, body.metric, body.index_type)
    return _info(call, database.describe(body.name), 0)


def list_all(call: Call) -> IndexList:
    database, found = call.tenants.database(call.key.tenant), []
    for config in database.describe_all():
        if call.key.may_use((config.name, config.uuid)):
            try:
                found.append(_info(call, config, database.totals(config).records))
            except NotFoundError:  # deleted meanwhile
                continue
            except (CorruptionError, UnavailableError):  # the others are to be listed all the same
                found.append(_info(call, config, None))
    return IndexList(found + named.list_all(call))


def describe(call: Call) -> IndexInfo:
    if _is_faiss(call):
        return named.describe(call, call.path["index"])
    config = call.tenants.find(call.key, call.path["index"])
    try:
        return _info(call, config, call.collection().ntotal)
    except CorruptionError:  # who is to verify or repair it has to find it
        return _info(call, config, None)


def delete(call: Call) -> None:
    if _is_faiss(call):
        named.delete(call, call.path["index"])
        return
    config = call.tenants.find(call.key, call.path["index"])
    call.tenants.database(call.key.tenant).delete_collection(config.name)


def _is_faiss(call: Call) -> bool:
    """Whether the path names a FAISS index, and no collection."""
    if not named.is_there(call, call.path["index"]):
        return False
    try:
        call.tenants.find(call.key, call.path["index"])
    except NotFoundError:
        return True
    return False


def ntotal(call: Call) -> Ntotal:
    if _is_faiss(call):
        return Ntotal(named.ntotal(call, call.path["index"]))
    return Ntotal(call.collection().ntotal)


def reset(call: Call) -> Deleted:
    return Deleted(call.collection().reset())


def train(call: Call) -> Ntotal:
    body: Train = call.body
    collection = call.collection()
    if body.vectors is not None:
        call.check_many(len(body.vectors), "training vectors")
    rows = body.vectors
    collection.train(None if rows is None else matrix(rows, collection.dimension, lambda i: f"vectors[{i}]"))
    return Ntotal(collection.ntotal)


def optimize(call: Call) -> dict[str, Any]:
    return asdict(call.collection().optimize(wait=call.body.wait, progress=call.tell or False))


def stats(call: Call) -> dict[str, Any]:
    found = asdict(call.collection().stats())
    for where in ("path", "url"):
        found.pop(where, None)
    for reasons in ("damaged_segments", "shards_missing"):
        if reasons in found:
            found[reasons] = {name: call.tenants.tidy(text) for name, text in found[reasons].items()}
    return found


def verify(call: Call) -> dict[str, Any]:
    report = call.collection().verify()
    tidy = call.tenants.tidy
    problems = [Problem(each.kind, tidy(each.where), tidy(each.message)) for each in report.problems]
    return {"ok": report.ok, "rows_checked": report.rows_checked, "problems": problems}


def repair(call: Call) -> dict[str, Any]:
    if _is_faiss(call):
        call.collection()  # raises what is wrong with that
    report = call.tenants.repair(call.key, call.path["index"])
    kept = report.quarantine_path
    tidy = call.tenants.tidy
    return {
        "actions": [tidy(each) for each in report.actions],
        "quarantined_ids": report.quarantined_ids,
        "quarantine_path": None if kept is None else tidy(kept),
    }


def recall(call: Call) -> dict[str, Any]:
    body: MeasureRecall = call.body
    if not 0 < body.budget_s <= _MOST_BUDGET_S:
        raise InvalidInputError(f"budget_s must be above 0 and at most {_MOST_BUDGET_S}, got {body.budget_s}")
    return asdict(call.collection().recall_report(budget_s=body.budget_s))


_INDEX = "/index/{index}"
OPERATIONS = (
    Operation(("POST",), "/index", "write", "Make an empty index", create, IndexInfo, CreateIndex, 201),
    Operation(("GET",), "/index", "read", "The indexes there are", list_all, IndexList),
    Operation(("GET",), _INDEX, "read", "One index", describe, IndexInfo),
    Operation(("DELETE",), _INDEX, "write", "Delete an index and all it holds", delete, None, status=204),
    Operation(("GET",), f"{_INDEX}/ntotal", "read", "How many records it holds", ntotal, Ntotal),
    Operation(("POST",), f"{_INDEX}/reset", "write", "Delete every record", reset, Deleted, Empty),
    Operation(
        ("POST",), f"{_INDEX}/train", "write", "Learn anew and build", train, Ntotal, Train, is_long=True
    ),
    Operation(
        ("POST",),
        f"{_INDEX}/optimize",
        "write",
        "Compact, and build to the end",
        optimize,
        dict,
        Optimize,
        is_long=True,
        tells=True,
    ),
    Operation(("GET",), f"{_INDEX}/stats", "read", "Sizes and debts", stats, dict),
    Operation(
        ("POST",),
        f"{_INDEX}/verify",
        "read",
        "Read every byte and tell what is damaged",
        verify,
        dict,
        Empty,
        is_long=True,
    ),
    Operation(
        ("POST",),
        f"{_INDEX}/repair",
        "admin",
        "Make whole again what is damaged, out of what is sound",
        repair,
        dict,
        Empty,
        is_long=True,
    ),
    Operation(
        ("POST",),
        f"{_INDEX}/recall",
        "write",
        "Ask recent questions again exactly, and fit the effort to them",
        recall,
        dict,
        MeasureRecall,
        is_long=True,
    ),
)

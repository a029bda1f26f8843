"""FAISS indexes that have a name, as REST knows them: listed by files, searched by the tenant's process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from faissbase.dropin import frames
from faissbase.dropin.facts import FOLDER, Facts, is_named, names_in, read_facts
from faissbase.errors import (
    CorruptionError,
    FaissbaseError,
    InternalError,
    InvalidInputError,
    UnavailableError,
)
from faissbase.server.operations import Call, matrix
from faissbase.types import Metric, is_name, score_of
from faissbase.wire import HitOut, IndexInfo, ManyResults, Results, Search

_INNER_PRODUCT, _L2 = 0, 1
_METRICS = {_INNER_PRODUCT: "ip", _L2: "l2"}
_NO_USE = ("text", "filter", "recall", "nprobe", "ef_search", "rerank")
_NOTHING = msgspec.Raw(b"{}")
_MOST_HITS = 200_000


def is_there(call: Call, name: str) -> bool:
    """Whether there is a FAISS index of that name which the key is good for."""
    is_open = call.tenants.has_faiss and is_name(name) and call.key.may_use((name,))
    return is_open and is_named(_folder(call) / name)


def _folder(call: Call) -> Path:
    return call.tenants.folder / call.key.tenant / FOLDER


def _info(call: Call, name: str, facts: Facts, ntotal: int | None) -> IndexInfo:
    metric = _METRICS.get(facts.metric, f"faiss:{facts.metric}")
    return IndexInfo(name, name, call.key.tenant, facts.d, metric, facts.kind, ntotal, "faiss")


def list_all(call: Call) -> list[IndexInfo]:
    """All that the key is good for, by their files; ``ntotal`` is told where one is asked for by name."""
    found: list[IndexInfo] = []
    for name in names_in(_folder(call)) if call.tenants.has_faiss else ():
        if call.key.may_use((name,)):
            try:
                facts = read_facts(_folder(call) / name)
            except CorruptionError:  # deleted meanwhile, or damaged: asking for it tells
                continue
            found.append(_info(call, name, facts, None))
    return found


def describe(call: Call, name: str) -> IndexInfo:
    return _info(call, name, read_facts(_folder(call) / name), ntotal(call, name))


def ntotal(call: Call, name: str) -> int:
    return int(_asked(call, {"op": "count", "name": name}, [])[0])


def delete(call: Call, name: str) -> None:
    _asked(call, {"op": "delete", "name": name}, [])


def search(call: Call, name: str) -> Results | ManyResults:
    """The k nearest as FAISS gives them; the ids are its labels."""
    body: Search = call.body
    call.check_k(body.k)
    for field in _NO_USE:
        if getattr(body, field) is not None:
            raise InvalidInputError(f"{name!r} is a FAISS index: a search in it has no use for {field!r}")
    if body.explain or "vector" in body.include or "document" in body.include:
        raise InvalidInputError(f"{name!r} is a FAISS index: it has no documents, vectors or plans to send")
    if (body.vector is None) == (body.vectors is None):
        raise InvalidInputError("give vector or vectors: what to search for")
    rows = body.vectors if body.vector is None else [body.vector]
    assert rows is not None
    call.check_many(len(rows), "vectors")
    if len(rows) * body.k > _MOST_HITS:
        raise InvalidInputError(
            f"{len(rows):,} vectors of k={body.k:,} ask for more than {_MOST_HITS:,} hits"
        )
    hits = _hits(call, name, rows, body)
    return Results(hits[0]) if body.vector is not None else ManyResults(hits)


def search_one(call: Call, name: str) -> Results:
    """`search` for one vector."""
    found = search(call, name)
    assert isinstance(found, Results)
    return found


def _hits(call: Call, name: str, rows: Any, body: Search) -> list[list[HitOut]]:
    facts = read_facts(_folder(call) / name)
    n_numbers = facts.d // 8 if facts.is_binary else facts.d
    queries = matrix(rows, n_numbers, lambda i: "vector" if body.vector is not None else f"vectors[{i}]")
    x = _packed(name, facts, queries) if facts.is_binary else _finite(queries)
    distances, labels = _asked(call, {"op": "find", "name": name, "args": [{"array": 0}, body.k]}, [x])
    metric: Metric = "ip" if facts.metric == _INNER_PRODUCT else "l2"
    metadata = _NOTHING if "metadata" in body.include else msgspec.UNSET
    return [
        [HitOut(str(i), score_of(d, metric), d, metadata) for d, i in zip(ds, labels_, strict=True) if i >= 0]
        for ds, labels_ in zip(distances.tolist(), labels.tolist(), strict=True)
    ]


def _finite(queries: frames.Array) -> frames.Array:
    with np.errstate(over="ignore"):
        x: frames.Array = queries.astype(np.float32)
    if not np.isfinite(x).all():
        raise InvalidInputError("the numbers of a vector must be finite")
    return x


def _packed(name: str, facts: Facts, queries: frames.Array) -> frames.Array:
    """Vectors of bits: each number is a byte with 8 of them, as FAISS takes them."""
    if not ((queries >= 0) & (queries <= 255) & (queries == np.floor(queries))).all():
        raise InvalidInputError(
            f"{name!r} is a {facts.kind} of {facts.d} bits: "
            f"a vector is {facts.d // 8} whole numbers from 0 to 255"
        )
    x: frames.Array = queries.astype(np.uint8)
    return x


def _asked(call: Call, body: dict[str, Any], arrays: list[frames.Array]) -> Any:
    """What the tenant's process answers; its errors are raised as ours."""
    assert call.faiss is not None
    answer, found = call.faiss.ask(call.key, body | {"session": "rest"}, arrays)
    if "error" in answer:
        raise _error_of(answer["error"])
    return frames.decode(answer["result"], found, lambda *it: it)


def _error_of(fault: dict[str, Any]) -> FaissbaseError:
    text = " ".join(map(str, fault.get("args", ())))
    if "ours" in fault:
        return _kinds(FaissbaseError).get(fault["ours"], InternalError)(text)
    if fault.get("type") == "MemoryError":
        return UnavailableError("not enough memory for this among the FAISS objects of this tenant")
    return InvalidInputError(text or "FAISS refuses it")


def _kinds(of: type[FaissbaseError]) -> dict[str, type[FaissbaseError]]:
    found = {of.kind: of}
    for kind in of.__subclasses__():
        found = _kinds(kind) | found
    return found

"""What a collection should hold, as a plain dict, and operations that follow from a seed alone.

Two processes that know the seed agree on every operation, so a writer need not tell what it wrote, only how
far it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from faissbase.collection.collection import LocalCollection
from faissbase.errors import NotFoundError
from faissbase.types import Float32

D = 256  # 1 KiB a vector: where limits are `quartered`, 65 rows are a large batch, 256 slots a block
N_FEW_IDS = 40
N_MANY_IDS = 105
N_GROUPS = 5

Kind = Literal["few", "many", "delete", "delete_where", "update", "reset", "optimize"]


@dataclass(frozen=True, slots=True)
class Kept:
    """One record, comparable."""

    vector: bytes
    metadata: Mapping[str, Any]
    document: str | None


Model: TypeAlias = dict[str, Kept]


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a collection, with its arguments."""

    kind: Kind
    ids: list[str] = field(default_factory=list)
    vectors: Float32 | None = None
    metadatas: list[dict[str, Any]] = field(default_factory=list)
    documents: list[str | None] = field(default_factory=list)
    where: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{self.kind} of {len(self.ids)} ids {self.ids[:3]} {self.where}"


def upsert_of(kind: Kind, ids: list[str], rng: np.random.Generator, tag: str, d: int = D) -> Operation:
    """An upsert with random vectors; ``tag`` is in the metadata of every row and in most documents."""
    n = len(ids)
    groups = rng.integers(N_GROUPS, size=n).tolist()
    with_text = (rng.random(n) < 0.7).tolist()
    metadatas: list[dict[str, Any]] = [{"tag": tag, "group": f"{tag[0]}{group}"} for group in groups]
    documents = [
        f"{tag} row{i} group{tag[0]}{groups[i]}" if text else None for i, text in enumerate(with_text)
    ]
    vectors = rng.standard_normal((n, d), dtype=np.float32)
    return Operation(kind, ids, vectors, metadatas, documents)


def operation(seed: int, thread: int, seq: int, *, may_reset: bool) -> Operation:
    """Operation ``seq`` of a thread; threads never touch one another's ids, unless one resets."""
    rng = np.random.default_rng((seed, thread, seq))
    kinds: list[Kind] = ["few", "many", "delete", "delete_where", "update", "reset", "optimize"]
    weights = np.array([40, 18, 12, 6, 18, 2 if may_reset else 0, 4 if may_reset else 1], np.float64)
    kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
    tag = f"{'abcdefgh'[thread]}{seed}x{seq}"
    few = [f"{thread}:few{i}" for i in rng.permutation(N_FEW_IDS)[: rng.integers(1, 12)].tolist()]
    if kind == "few":
        return upsert_of(kind, few, rng, tag)
    if kind == "many":
        n = int(rng.integers(65, N_MANY_IDS))
        many = rng.permutation(N_MANY_IDS)[:n].tolist()
        return upsert_of(kind, [f"{thread}:many{i}" for i in many], rng, tag)
    if kind == "delete":
        gone = rng.permutation(N_MANY_IDS)[: rng.integers(1, 15)].tolist()
        return Operation(kind, [*few, *(f"{thread}:many{i}" for i in gone)])
    if kind == "delete_where":
        return Operation(kind, where={"group": f"{tag[0]}{rng.integers(N_GROUPS)}"})
    if kind == "update":
        chosen = few[:2]
        return Operation(kind, chosen, metadatas=[{"updated": tag} for _ in chosen])
    return Operation(kind)


def apply(model: Model, op: Operation) -> Model:
    """The model after ``op``; the one given stays as it is."""
    if op.kind in ("few", "many"):
        assert op.vectors is not None
        raw = (vector.tobytes() for vector in op.vectors)
        rows = zip(op.ids, raw, op.metadatas, op.documents, strict=True)
        return model | {id: Kept(vector, metadata, document) for id, vector, metadata, document in rows}
    if op.kind == "delete":
        return {id: kept for id, kept in model.items() if id not in set(op.ids)}
    if op.kind == "delete_where":
        return {id: kept for id, kept in model.items() if kept.metadata["group"] != op.where["group"]}
    if op.kind == "update":
        return _updated(model, op)
    return {} if op.kind == "reset" else model


def _updated(model: Model, op: Operation) -> Model:
    if any(id not in model for id in op.ids):
        return model
    changed = {
        id: Kept(model[id].vector, {**model[id].metadata, **metadata}, model[id].document)
        for id, metadata in zip(op.ids, op.metadatas, strict=True)
    }
    return model | changed


def perform(collection: LocalCollection, op: Operation) -> None:
    """Run ``op``; an update of ids that are not stored changes nothing."""
    if op.kind in ("few", "many"):
        collection.upsert(op.ids, op.vectors, op.metadatas, op.documents)
    elif op.kind == "delete":
        collection.delete(op.ids)
    elif op.kind == "delete_where":
        collection.delete(where=op.where)
    elif op.kind == "reset":
        collection.reset()
    elif op.kind == "optimize":
        collection.optimize()
    else:
        with suppress(NotFoundError):
            collection.update(op.ids, metadatas=op.metadatas)


def contents(collection: LocalCollection) -> Model:
    """Everything that ``get`` returns."""
    found: Model = {}
    for record in collection.get(include_vectors=True):
        assert record.vector is not None
        found[record.id] = Kept(record.vector.tobytes(), record.metadata, record.document)
    return found


def differences(found: Model, wanted: Model) -> str:
    """What is missing, what should not be there and what differs, in one line; empty where nothing."""
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    changed = sorted(id for id in wanted.keys() & found.keys() if wanted[id] != found[id])
    told = [
        f"{len(ids)} {what}: {ids[:3]}"
        for what, ids in (("missing", missing), ("not deleted", extra), ("changed", changed))
        if ids
    ]
    return ", ".join(told)


def assert_holds(
    collection: LocalCollection, wanted: Model, context: str = "", found: Model | None = None
) -> None:
    """Every way of asking gives exactly ``wanted``; ``found`` are its `contents`, where already read."""
    wrong = differences(contents(collection) if found is None else found, wanted)
    assert not wrong, f"{context}: {wrong}"
    n = len(wanted)
    assert (len(collection), collection.count(), collection.ntotal) == (n, n, n), context
    if n:
        _assert_searches(collection, wanted, context)
        _assert_filters_and_texts(collection, wanted, context)


def _assert_searches(collection: LocalCollection, wanted: Model, context: str) -> None:
    ids = list(wanted)
    xq = np.stack([np.frombuffer(wanted[id].vector, np.float32) for id in ids])
    nearest = collection.search(xq, k=1)
    assert nearest.ids == [[id] for id in ids], context
    assert not nearest.distances.any(), context
    everything = collection.search(xq[0], k=len(ids) + 3)
    assert sorted(hit.id for hit in everything) == sorted(ids), context
    distances = ((xq.astype(np.float64) - xq[0]) ** 2).sum(axis=1)
    expected = dict(zip(ids, distances.tolist(), strict=True))
    found = [hit.distance for hit in everything]
    np.testing.assert_allclose(found, [expected[hit.id] for hit in everything], rtol=1e-4, err_msg=context)
    assert found == sorted(found), context


def _assert_filters_and_texts(collection: LocalCollection, wanted: Model, context: str) -> None:
    by_group: dict[str, set[str]] = {}
    by_word: dict[str, set[str]] = {}
    for id, kept in wanted.items():
        by_group.setdefault(kept.metadata["group"], set()).add(id)
        if kept.document:
            by_word.setdefault(kept.document.split()[-1], set()).add(id)
    for group, ids in by_group.items():
        assert collection.count(where={"group": group}) == len(ids), context
    for word, ids in by_word.items():
        assert {hit.id for hit in collection.text_search(word, k=len(wanted) + 1)} == ids, context

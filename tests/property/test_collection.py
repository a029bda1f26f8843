"""A collection equals a dict and NumPy after any sequence of operations, through any of two connections."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.property.model import Model, ModelChange, ModelRecord, words

import faissbase
from faissbase.collection import writer
from faissbase.collection.collection import LocalCollection
from faissbase.storage import checksums
from faissbase.types import METRICS, Durability, Float32, Hit, Metric, Record

IDS = ["a", "b", "c", "d", "é", "f g", "0", "a" * 40]
WORDS = ["red", "Green", "blue", "deep"]

numbers = st.integers(-2, 2) | st.floats(-100, 100, width=32, allow_subnormal=False)
scalars = st.sampled_from([None, True, False, 0, 1, 2, 1.0, 0.5, -1, "a", "b", ""])
metadatas = st.fixed_dictionaries(
    {},
    optional={
        "n": scalars | st.integers(-3, 3),
        "tags": st.lists(scalars, max_size=3),
        "place": st.fixed_dictionaries({"room": st.integers(0, 2)}),
    },
)
documents = st.none() | st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
names = st.sampled_from(["n", "tags", "place.room"])
conditions = st.one_of(
    scalars.map(lambda value: {"$eq": value}),
    scalars.map(lambda value: {"$ne": value}),
    st.integers(-1, 2).map(lambda value: {"$gte": value}),
    st.integers(-1, 2).map(lambda value: {"$lt": value}),
    st.lists(scalars, max_size=3).map(lambda values: {"$in": values}),
    scalars.map(lambda value: {"$contains": value}),
    st.booleans().map(lambda value: {"$exists": value}),
)
comparisons = st.builds(lambda name, condition: {name: condition}, names, conditions)
any_filter = st.one_of(
    comparisons,
    comparisons.map(lambda part: {"$not": part}),
    st.lists(comparisons, min_size=2, max_size=2).map(lambda parts: {"$or": parts}),
    st.lists(comparisons, min_size=2, max_size=2).map(lambda parts: {"$and": parts}),
)
# Mostly the same two again, so that what was remembered for them meets records that have come and gone.
favourites = st.runner().flatmap(lambda machine: st.sampled_from(machine.favourites))
filters = st.one_of(favourites, favourites, favourites, any_filter)
wheres = st.none() | filters
connections = st.integers(0, 1)
id_lists = st.lists(st.sampled_from(IDS), min_size=1, max_size=5, unique=True)
counts = st.integers(1, 12)


class CollectionMachine(RuleBasedStateMachine):
    """Two connections to one folder, both of which read and write, beside the model."""

    metric: Metric
    durability: Durability

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="faissbase-model-")
        self.databases = [self.connect(), self.connect()]
        self.model = Model(self.metric)
        self.d = 0
        self.favourites: list[dict[str, Any]] = []

    def connect(self) -> faissbase.Database:
        return faissbase.connect(Path(self.folder.name) / "db", durability=self.durability)

    def teardown(self) -> None:
        for database in self.databases:
            database.close()
        self.folder.cleanup()

    @initialize(data=st.data(), d=st.integers(2, 6), favourites=st.lists(any_filter, min_size=2, max_size=2))
    def create(self, data: st.DataObject, d: int, favourites: list[dict[str, Any]]) -> None:
        self.d, self.favourites = d, favourites
        self.databases[0].create_collection("docs", d, self.metric)
        self.upsert(data, 0, data.draw(id_lists))

    def collection(self, at: int) -> LocalCollection:
        return self.databases[at].get_collection("docs")

    def vector(self, data: st.DataObject) -> Float32:
        vectors = st.lists(numbers, min_size=self.d, max_size=self.d)
        if self.metric == "cosine":
            vectors = vectors.filter(any)
        return np.array(data.draw(vectors), np.float32)

    def new_records(self, data: st.DataObject, ids: list[str]) -> list[ModelRecord]:
        return [ModelRecord(id, self.vector(data), data.draw(metadatas), data.draw(documents)) for id in ids]

    # ---- writes ----------------------------------------------------------------------------------

    @rule(data=st.data(), at=connections, ids=id_lists)
    def add(self, data: st.DataObject, at: int, ids: list[str]) -> None:
        records = self.new_records(data, ids)
        if any(id in self.model.records for id in ids):
            with pytest.raises(faissbase.AlreadyExistsError):
                self.collection(at).add(*columns(records))
        else:
            assert self.collection(at).add(*columns(records)) == len(ids)
            self.model.put(records)

    @rule(data=st.data(), at=connections, ids=id_lists)
    def upsert(self, data: st.DataObject, at: int, ids: list[str]) -> None:
        records = self.new_records(data, ids)
        assert self.collection(at).upsert(*columns(records)) == len(ids)
        self.model.put(records)

    @rule(data=st.data(), at=connections, ids=id_lists, replaces=st.booleans())
    def update(self, data: st.DataObject, at: int, ids: list[str], replaces: bool) -> None:
        has_vectors = data.draw(st.booleans())
        changes = [
            ModelChange(
                id,
                self.vector(data) if has_vectors else None,
                data.draw(st.none() | metadatas),
                data.draw(documents),
            )
            for id in ids
        ]
        arguments: dict[str, Any] = {
            "metadatas": [change.metadata for change in changes],
            "documents": [change.document for change in changes],
            "vectors": [change.vector for change in changes] if has_vectors else None,
            "replace": replaces,
        }
        if all(id in self.model.records for id in ids):
            assert self.collection(at).update(ids, **arguments) == len(ids)
            self.model.update(changes, replaces=replaces)
        else:
            with pytest.raises(faissbase.NotFoundError):
                self.collection(at).update(ids, **arguments)

    @rule(at=connections, ids=id_lists)
    def delete_by_ids(self, at: int, ids: list[str]) -> None:
        assert self.collection(at).delete(ids) == self.model.delete(ids)

    @rule(at=connections, where=filters)
    def delete_by_filter(self, at: int, where: dict[str, Any]) -> None:
        matching = [record.id for record in self.model.matching(where)]
        assert self.collection(at).delete(where=where) == self.model.delete(matching)

    @precondition(lambda self: len(self.model.records) > 4)
    @rule(at=connections)
    def reset(self, at: int) -> None:
        assert self.collection(at).reset() == len(self.model.records)
        self.model.records.clear()

    @rule(data=st.data(), at=connections, ids=id_lists, fault=st.integers(0, 6))
    def refuse_bad_input(self, data: st.DataObject, at: int, ids: list[str], fault: int) -> None:
        given_ids, vectors, metadata, texts = columns(self.new_records(data, ids))
        row = data.draw(st.integers(0, len(ids) - 1))
        if fault == 0:
            vectors[row, -1] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        elif fault == 1:
            vectors = np.column_stack([vectors, vectors[:, 0]])
        elif fault == 2:
            given_ids, vectors = [*given_ids, given_ids[row]], np.vstack([vectors, vectors[row]])
            metadata, texts = [*metadata, {}], [*texts, None]
        elif fault == 3:
            vectors = np.vstack([vectors, vectors[row]])
        elif fault == 4:
            metadata[row] = {"n": float("nan")}
        elif fault == 5:
            given_ids[row] = ""
        else:
            vectors[row] = 0 if self.metric == "cosine" else 2e19
        with pytest.raises(faissbase.InvalidInputError):
            self.collection(at).upsert(given_ids, vectors, metadata, texts)

    @rule(at=st.sampled_from([(0,), (1,), (0, 1)]))
    def reopen(self, at: tuple[int, ...]) -> None:
        for i in at:
            self.databases[i].close()
        for i in at:
            self.databases[i] = self.connect()

    # ---- reads -----------------------------------------------------------------------------------

    @rule(at=connections, ids=st.lists(st.sampled_from(IDS), unique=True), limit=st.none() | counts)
    def get_by_ids(self, at: int, ids: list[str], limit: int | None) -> None:
        found = self.collection(at).get(ids, include_vectors=True, limit=limit)
        known = [self.model.records[id] for id in ids if id in self.model.records][:limit]
        self.assert_records(found, known)

    @rule(at=connections, where=wheres, limit=st.none() | counts)
    def get_by_filter(self, at: int, where: dict[str, Any] | None, limit: int | None) -> None:
        found = self.collection(at).get(where=where, include_vectors=True, limit=limit)
        self.assert_records(found, self.model.matching(where)[:limit])

    @rule(at=connections, where=wheres)
    def count(self, at: int, where: dict[str, Any] | None) -> None:
        assert self.collection(at).count(where) == len(self.model.matching(where))

    @rule(at=connections, where=wheres, limit=counts)
    def scroll(self, at: int, where: dict[str, Any] | None, limit: int) -> None:
        records: list[Record] = []
        cursor: str | None = None
        while True:
            page = self.collection(at).scroll(where, limit=limit, cursor=cursor, include_vectors=True)
            assert len(page.records) == limit or page.cursor is None
            records += page.records
            cursor = page.cursor
            if cursor is None:
                break
        self.assert_records(records, self.model.matching(where))

    @rule(data=st.data(), at=connections, k=counts, where=wheres)
    def search_one(self, data: st.DataObject, at: int, k: int, where: dict[str, Any] | None) -> None:
        query = self.vector(data)
        self.assert_hits(self.collection(at).search(query, k, where), query, k, where)

    @rule(data=st.data(), at=connections, nq=st.sampled_from([1, 2, 25]), k=counts, where=wheres)
    def search_batch(
        self, data: st.DataObject, at: int, nq: int, k: int, where: dict[str, Any] | None
    ) -> None:
        queries = np.tile([self.vector(data), self.vector(data)], (13, 1))[:nq]
        result = self.collection(at).search(queries, k, where)
        assert len(result) == nq
        assert result.distances.shape == result.scores.shape == (nq, k)
        for query, hits in zip(queries, result, strict=True):
            self.assert_hits(hits, query, k, where)

    @rule(data=st.data(), at=connections, where=wheres, shift=st.floats(-2, 2, width=32))
    def range_search(self, data: st.DataObject, at: int, where: dict[str, Any] | None, shift: float) -> None:
        query = self.vector(data)
        expected = self.model.distances(query, where)
        radius = float(np.float32(next(iter(expected.values()), (1.0, 0.0))[0] + shift))
        hits = self.collection(at).range_search(query, radius, where)
        sign = 1 if self.metric == "l2" else -1
        inside = {id for id, (value, room) in expected.items() if sign * (radius - value) > room}
        border = {id for id, (value, room) in expected.items() if abs(radius - value) <= room}
        assert inside <= {hit.id for hit in hits} <= inside | border
        self.assert_distances(hits, expected)

    @rule(at=connections, query=st.sets(st.sampled_from([*WORDS, "absent"]), min_size=1), k=counts)
    def text_search(self, at: int, query: set[str], k: int) -> None:
        self.assert_text_hits(at, " ".join(sorted(query)), k, None)

    @rule(at=connections, word=st.sampled_from(WORDS), k=counts, where=filters)
    def text_search_with_filter(self, at: int, word: str, k: int, where: dict[str, Any]) -> None:
        self.assert_text_hits(at, word.upper(), k, where)

    # ---- comparing -------------------------------------------------------------------------------

    @invariant()
    def both_connections_hold_what_the_model_holds(self) -> None:
        if self.d:
            for at in (0, 1):
                assert len(self.collection(at)) == len(self.model.records)
                found = self.collection(at).get(include_vectors=True)
                self.assert_records(found, list(self.model.records.values()))

    def assert_records(self, found: list[Record], expected: list[ModelRecord]) -> None:
        assert [(x.id, x.metadata, x.document) for x in found] == [
            (x.id, x.metadata, x.document) for x in expected
        ]
        for record, wanted in zip(found, expected, strict=True):
            assert record.vector is not None
            if self.metric == "cosine":
                room = 1e-6 * float(np.linalg.norm(wanted.vector))
                np.testing.assert_allclose(record.vector, wanted.vector, rtol=0, atol=room)
            else:
                np.testing.assert_array_equal(record.vector, wanted.vector)

    def assert_hits(self, hits: list[Hit], query: Float32, k: int, where: dict[str, Any] | None) -> None:
        expected = self.model.distances(query, where)
        assert len(hits) == min(k, len(expected))
        self.assert_distances(hits, expected)
        nearest = sorted(expected.values(), reverse=self.metric != "l2")
        for hit, (value, room) in zip(hits, nearest, strict=False):
            assert hit.distance == pytest.approx(value, rel=0, abs=2 * room)

    def assert_distances(self, hits: list[Hit], expected: dict[str, tuple[float, float]]) -> None:
        """Every hit is its record, as far away as it says; none twice, nearest first."""
        assert len({hit.id for hit in hits}) == len(hits)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            value, room = expected[hit.id]
            assert hit.distance == pytest.approx(value, rel=0, abs=room)
            score = 1 / (1 + value) if self.metric == "l2" else value
            assert hit.score == pytest.approx(score, rel=1e-5, abs=room)
            record = self.model.records[hit.id]
            assert (hit.metadata, hit.document) == (record.metadata, record.document)

    def assert_text_hits(self, at: int, query: str, k: int, where: dict[str, Any] | None) -> None:
        hits = self.collection(at).text_search(query, k, where)
        matching = {
            record.id: record
            for record in self.model.matching(where)
            if record.document and words(record.document) & words(query)
        }
        assert len(hits) == len({hit.id for hit in hits}) == min(k, len(matching))
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            record = matching[hit.id]
            assert (hit.metadata, hit.document, hit.distance) == (record.metadata, record.document, None)


def columns(
    records: list[ModelRecord],
) -> tuple[list[str], Float32, list[dict[str, Any]], list[str | None]]:
    """Records as `upsert` takes them."""
    return (
        [record.id for record in records],
        np.array([record.vector for record in records], np.float32),
        [record.metadata for record in records],
        [record.document for record in records],
    )


def machine(metric: Metric, durability: Durability) -> type[CollectionMachine]:
    return type("Machine", (CollectionMachine,), {"metric": metric, "durability": durability})


def run(metric: Metric, durability: Durability, max_examples: int) -> None:
    run_state_machine_as_test(
        machine(metric, durability),
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


@pytest.mark.parametrize("metric", METRICS)
def test_a_collection_equals_the_model_after_any_sequence(metric: Metric) -> None:
    run(metric, "relaxed", max_examples=50)


def test_a_collection_equals_the_model_where_every_write_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots are synced instead of copied, copies are dropped often, blocks are completed all the time."""
    monkeypatch.setattr(writer, "_REDO_BYTES_A_COMMIT", 48)
    monkeypatch.setattr(writer, "_REDO_BYTES_KEPT", 100)
    monkeypatch.setattr(checksums, "BLOCK_BYTES", 64)
    run("l2", "full", max_examples=25)

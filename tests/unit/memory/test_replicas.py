"""The vector stores of conversations agree with the database whatever was done to either."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine, delete, select, update
from sqlalchemy.orm import Session

from faissbase.errors import InvalidInputError, UnavailableError
from faissbase.memory import databases, replicas
from faissbase.memory.databases import open_engine
from faissbase.memory.models import Base, Conversation, Memory, Removed
from faissbase.memory.replicas import (
    get_vector_store,
    rebuild_index_from_db,
    save_vector_store,
    search_similar_memories,
)

NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def _nothing_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(replicas, "_replicas", replicas._Replicas())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(tmp_path / "memory.db")
    yield engine
    engine.dispose()


@pytest.fixture
def db(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def memory(number: int, conversation: str = "c", **given: Any) -> Memory:
    embedding = np.eye(8, dtype=np.float32)[number % 8] + np.float32(0.01 * number)
    return Memory(conversation_id=conversation, text=f"memory {number}", embedding=embedding, **given)


def axis(number: int) -> Any:
    return np.eye(8, dtype=np.float32)[number]


def texts(found: list[Memory]) -> list[str]:
    return [each.text for each in found]


def next_process() -> None:
    replicas._replicas = replicas._Replicas()


def test_similar_memories_come_in_order_of_similarity(db: Session) -> None:
    db.add_all([memory(number) for number in range(8)])
    db.commit()
    query = axis(3) * 3 + axis(1) * 2 + axis(6)
    assert texts(search_similar_memories(db, "c", query, limit=3)) == ["memory 3", "memory 1", "memory 6"]


def test_a_conversation_without_memories_has_nothing_similar_in_any_dimension(db: Session) -> None:
    assert search_similar_memories(db, "unknown", np.ones(384)) == []
    db.add(memory(0, "unknown"))
    db.commit()
    assert texts(search_similar_memories(db, "unknown", np.ones(8))) == ["memory 0"]


def test_of_several_queries_the_nearest_counts(db: Session) -> None:
    db.add_all([memory(number) for number in range(8)])
    db.commit()
    found = search_similar_memories(db, "c", [axis(5), axis(2)], limit=2)
    assert sorted(texts(found)) == ["memory 2", "memory 5"]


def test_inactive_and_ended_memories_are_not_found(db: Session) -> None:
    db.add_all(
        [memory(0), memory(1, active=False), memory(2, valid_to=NOW - timedelta(seconds=1)), memory(3)]
    )
    db.commit()
    assert sorted(texts(search_similar_memories(db, "c", np.ones(8), now=NOW))) == ["memory 0", "memory 3"]


def test_no_memory_of_another_conversation_is_found(db: Session) -> None:
    db.add_all([memory(0, "a"), memory(0, "b")])
    db.commit()
    [found] = search_similar_memories(db, "a", axis(0))
    assert found.conversation_id == "a"


def test_bulk_changes_are_noticed(db: Session) -> None:
    db.add_all([memory(number) for number in range(4)])
    db.commit()
    assert get_vector_store("c", db).count == 4
    db.execute(update(Memory).where(Memory.text.in_(["memory 0", "memory 1"])).values(active=False))
    db.execute(delete(Memory).where(Memory.text == "memory 2"))
    db.commit()
    assert get_vector_store("c", db).count == 1
    db.execute(update(Memory).values(active=True))
    db.commit()
    assert get_vector_store("c", db).count == 3


def test_a_memory_moved_to_another_conversation_and_back_is_where_it_is(db: Session) -> None:
    db.add_all([memory(0, "a"), memory(1, "b")])
    db.commit()
    assert [get_vector_store(name, db).count for name in "ab"] == [1, 1]
    db.execute(update(Memory).where(Memory.text == "memory 0").values(conversation_id="b"))
    db.commit()
    assert [get_vector_store(name, db).count for name in "ab"] == [0, 2]
    db.execute(update(Memory).where(Memory.text == "memory 0").values(conversation_id="a"))
    db.commit()
    assert [get_vector_store(name, db).count for name in "ab"] == [1, 1]


def test_what_is_not_committed_is_not_found_and_what_is_taken_back_never_was(db: Session) -> None:
    db.add(memory(0))
    db.commit()
    db.add(memory(1))
    db.flush()
    assert get_vector_store("c", db).count == 1
    db.rollback()
    db.add(memory(2))
    db.commit()
    assert texts(search_similar_memories(db, "c", axis(2), limit=1)) == ["memory 2"]
    assert get_vector_store("c", db).count == 2


def test_a_rollback_of_a_database_in_memory_is_noticed() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as db:
        db.add(memory(0))
        db.commit()
        db.add(memory(1))
        assert get_vector_store("c", db).count == 2
        db.rollback()
        db.add(memory(2))
        db.commit()
        assert sorted(texts(search_similar_memories(db, "c", np.ones(8)))) == ["memory 0", "memory 2"]


def test_another_process_continues_from_the_file_and_the_changes_since(db: Session) -> None:
    db.add_all([memory(number) for number in range(4)])
    db.commit()
    path = save_vector_store("c", db)
    assert path.is_relative_to(Path("memory.db.faiss").resolve())
    db.add(memory(4))
    db.execute(update(Memory).where(Memory.text == "memory 0").values(active=False))
    db.commit()
    next_process()
    store = get_vector_store("c", db)
    assert store.count == 4
    assert 1 not in store
    assert store.stamps == sum(each.stamp for each in db.query(Memory).filter(Memory.active))


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut", "empty", "foreign"])
def test_a_file_that_cannot_serve_is_made_anew(db: Session, damage: str) -> None:
    db.add_all([memory(number) for number in range(4)])
    db.commit()
    path = save_vector_store("c", db)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-40] ^= 1
    contents = {"flipped": bytes(flipped), "cut": whole[:-5], "empty": b"", "foreign": b"x" * 400}
    path.unlink()
    if damage != "missing":
        path.write_bytes(contents[damage])
    next_process()
    assert texts(search_similar_memories(db, "c", axis(2), limit=1)) == ["memory 2"]
    save_vector_store("c", db)
    next_process()
    assert get_vector_store("c", db).count == 4


def test_a_file_ahead_of_its_database_is_made_anew(tmp_path: Path, db: Session, engine: Engine) -> None:
    """A backup of the database was put back; the index is from the future."""
    db.add(memory(0))
    db.commit()
    backup = b"".join(line.encode() + b"\n" for line in _dump(engine))
    db.add_all([memory(1), memory(2)])
    db.commit()
    save_vector_store("c", db)
    _restore(engine, backup)
    next_process()
    assert get_vector_store("c", db).count == 1
    db.add_all([memory(3), memory(4), memory(5)])  # past the change that the file has seen
    db.commit()
    next_process()
    assert sorted(texts(search_similar_memories(db, "c", np.ones(8)))) == [
        f"memory {n}" for n in (0, 3, 4, 5)
    ]


def _dump(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        return list(raw.iterdump())


def _restore(engine: Engine, backup: bytes) -> None:
    engine.dispose()
    path = Path(engine.url.database or "")
    for each in path.parent.glob("memory.db*"):
        if each.is_file():
            each.unlink()
    connection = sqlite3.connect(path)
    connection.executescript(backup.decode())
    connection.close()


def test_a_live_store_notices_that_a_backup_was_put_back(db: Session, engine: Engine) -> None:
    db.add(memory(0))
    db.commit()
    backup = b"".join(line.encode() + b"\n" for line in _dump(engine))
    db.add_all([memory(1), memory(2)])
    db.commit()
    assert get_vector_store("c", db).count == 3
    db.close()
    _restore(engine, backup)
    assert get_vector_store("c", db).count == 1


def test_two_databases_never_share_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "indexes"
    paths: list[Path] = []
    for name in ("one", "two"):
        engine = open_engine(tmp_path / f"{name}.db")
        replicas.attach(engine, folder)
        with Session(engine) as db:
            db.add(memory(len(paths)))
            db.commit()
            paths.append(save_vector_store("c", db))
            assert texts(search_similar_memories(db, "c", np.ones(8))) == [f"memory {len(paths) - 1}"]
    assert paths[0] != paths[1]


@pytest.mark.parametrize("folder", [None, "indexes"])
def test_a_database_and_its_copy_in_one_process_share_nothing(
    tmp_path: Path, db: Session, engine: Engine, folder: str | None
) -> None:
    db.add_all([memory(0), memory(1)])
    db.commit()
    save_vector_store("c", db)
    with sqlite3.connect(tmp_path / "memory.db") as one, sqlite3.connect(tmp_path / "copy.db") as other:
        one.backup(other)
    copied = open_engine(tmp_path / "copy.db")
    for each in (engine, copied):
        replicas.attach(each, None if folder is None else tmp_path / folder)
    with Session(copied) as copy:
        db.add(memory(2))
        db.commit()
        copy.add_all([memory(4), memory(5)])
        copy.commit()
        for _ in range(2):
            assert texts(search_similar_memories(db, "c", axis(2), limit=1)) == ["memory 2"]
            assert texts(search_similar_memories(copy, "c", axis(5), limit=1)) == ["memory 5"]
            assert (get_vector_store("c", db).count, get_vector_store("c", copy).count) == (3, 4)
            save_vector_store("c", db)
            save_vector_store("c", copy)
            next_process()


def test_only_the_stores_used_last_stay_in_memory(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"conversation {number}" for number in range(6)]
    db.add_all([memory(number, names[number]) for number in range(6)])
    db.commit()
    one = replicas.replica_of(databases.engine_of(db), names[0]).synced().size_bytes + replicas._REPLICA_BYTES
    monkeypatch.setattr(replicas, "_MOST_BYTES", 3 * one)
    for _ in range(2):
        for number, name in enumerate(names):
            store = replicas.replica_of(databases.engine_of(db), name).synced()
            assert store.search(axis(number), 1)[0]["memory_id"] == number + 1
    assert [name for _, name in replicas._replicas._held] == names[-3:]
    replicas.detach(databases.engine_of(db))
    assert (replicas._replicas._n_bytes, replicas._replicas._sizes) == (0, {})


def test_an_index_that_can_be_neither_read_nor_written_is_done_without(
    tmp_path: Path, db: Session, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    db.add(memory(3))
    db.commit()
    (tmp_path / "no folder").write_text("")
    replicas.attach(engine, tmp_path / "no folder")
    assert texts(search_similar_memories(db, "c", axis(3))) == ["memory 3"]
    replicas.detach(engine)
    assert "is not kept" in caplog.text
    replicas.attach(engine, tmp_path / "no folder")
    with pytest.raises(UnavailableError):
        save_vector_store("c", db)


def test_without_a_session_the_database_used_last_is_meant(tmp_path: Path) -> None:
    engines = [open_engine(tmp_path / f"{name}.db") for name in ("one", "two")]
    for number, engine in enumerate(engines):
        with Session(engine) as db:
            db.add_all([memory(each) for each in range(number + 1)])
            db.commit()
            rebuild_index_from_db(db, "c")
        assert get_vector_store("c").count == number + 1
    replicas.detach(engines[1])
    assert get_vector_store("c").count == 1


def test_a_conversation_that_was_deleted_begins_anew(db: Session) -> None:
    db.add_all([memory(number) for number in range(3)])
    db.commit()
    assert get_vector_store("c", db).count == 3
    db.execute(delete(Conversation))
    db.commit()
    db.add_all([memory(number) for number in range(3, 8)])  # more changes than the store had seen
    db.commit()
    assert get_vector_store("c", db).count == 5
    assert sorted(texts(search_similar_memories(db, "c", np.ones(8), limit=9))) == [
        f"memory {number}" for number in range(3, 8)
    ]


@pytest.mark.parametrize("is_reopened", [False, True])
def test_the_file_of_a_conversation_that_was_deleted_goes_too(db: Session, is_reopened: bool) -> None:
    db.add(memory(0))
    db.commit()
    path = save_vector_store("c", db)
    db.execute(delete(Conversation))
    db.commit()
    if is_reopened:
        next_process()
    assert search_similar_memories(db, "c", axis(0)) == []
    assert not path.exists()


def test_a_conversation_that_has_begun_anew_with_as_many_changes_is_read_anew(db: Session) -> None:
    db.add_all([memory(number) for number in range(3)])
    db.commit()
    assert get_vector_store("c", db).count == 3
    db.execute(delete(Conversation))
    db.add_all([memory(number) for number in range(3, 6)])
    db.commit()
    assert texts(search_similar_memories(db, "c", axis(4))) == ["memory 4", "memory 5", "memory 3"]


def test_rows_can_be_deleted_from_a_conversation_that_has_begun_anew(db: Session) -> None:
    for _ in range(2):
        db.add_all([memory(0), memory(1)])
        db.commit()
        db.execute(delete(Memory).where(Memory.text == "memory 0"))
        db.commit()
        assert texts(search_similar_memories(db, "c", axis(0))) == ["memory 1"]
        db.execute(delete(Conversation))
        db.commit()
    assert not db.scalars(select(Removed)).all()


def test_an_embedding_without_a_direction_is_kept_and_not_compared(
    db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.add_all([memory(0), Memory(conversation_id="c", text="nothing", embedding=np.zeros(8))])
    db.commit()
    assert get_vector_store("c", db).count == 1
    monkeypatch.setattr(replicas.Replica, "_rebuild", None)  # would be for nothing
    db.add(memory(1))
    db.commit()
    assert get_vector_store("c", db).count == 2


def test_a_store_without_a_database_is_kept_where_it_is_saved(tmp_path: Path) -> None:
    get_vector_store("c", dimension=8).add("m", axis(0))
    path = save_vector_store("c")
    assert path.exists()
    next_process()
    assert get_vector_store("c", dimension=8).search(axis(0)) == [{"memory_id": "m", "score": 1.0}]


def test_embeddings_of_another_dimension_have_the_index_made_anew(db: Session) -> None:
    db.add_all([memory(number) for number in range(4)])
    db.commit()
    assert get_vector_store("c", db).dimension == 8
    for each in db.query(Memory):
        each.embedding = np.eye(5)[each.id % 5]
    db.commit()
    store = get_vector_store("c", db)
    assert (store.dimension, store.count) == (5, 4)


def test_rebuilding_gives_what_is_in_the_database(db: Session) -> None:
    db.add_all([memory(number) for number in range(4)])
    db.commit()
    get_vector_store("c", db).remove(1)
    assert rebuild_index_from_db(db, "c").count == 4


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_limit_below_one_is_refused(db: Session, limit: Any) -> None:
    with pytest.raises(InvalidInputError, match="limit must be a whole number from 1 on"):
        search_similar_memories(db, "c", np.ones(8), limit=limit)


@pytest.mark.parametrize("conversation", ["", None, 1.5, True, "x" * 256, "half \ud800", "nul \x00"])
def test_a_conversation_id_that_is_none_is_refused(db: Session, conversation: Any) -> None:
    with pytest.raises(InvalidInputError, match="a conversation id is"):
        get_vector_store(conversation, db)


def test_a_relative_path_stays_where_it_was_when_the_process_changes_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine("why?.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert databases.default_folder(engine) == tmp_path / "why?.db.faiss"
    engine.dispose()
    open_engine(engine).dispose()
    assert (tmp_path / "why?.db").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_no_path_is_no_memory_that_is_lost_at_the_end() -> None:
    with pytest.raises(InvalidInputError, match="a memory needs a file or a URL, got ''"):
        open_engine("")

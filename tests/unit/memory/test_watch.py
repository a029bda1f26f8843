"""A watch notices every commit to its file, by whomever."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import create_engine

from faissbase.memory.watch import Watch


def test_every_commit_gives_another_version(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (x)")
    watch = Watch(create_engine(f"sqlite:///{path}"))
    seen = {watch.version()}
    assert watch.version() in seen
    for number in range(5):
        writer.execute("INSERT INTO t VALUES (?)", (number,))
        assert watch.version() not in seen
        seen.add(watch.version())
    writer.close()
    watch.close()


def test_another_file_in_its_place_gives_another_version(tmp_path: Path) -> None:
    path, other = tmp_path / "m.db", tmp_path / "other.db"
    for each in (path, other):
        connection = sqlite3.connect(each)
        connection.execute("CREATE TABLE t (x)")
        connection.close()
    watch = Watch(create_engine(f"sqlite:///{path}"))
    before = watch.version()
    other.replace(path)
    assert watch.version() != before
    watch.close()


def test_where_there_is_no_file_nothing_is_known(tmp_path: Path) -> None:
    assert Watch(create_engine("sqlite://")).version() is None
    assert Watch(create_engine(f"sqlite:///{tmp_path / 'missing' / 'm.db'}")).version() is None

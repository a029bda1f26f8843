"""Opening the database of record: SQLite or PostgreSQL, its tables, its transactions, its own id.

A writing transaction of SQLite takes the write lock at once: one that began by reading could not be let in
later without starting again.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from faissbase.errors import (
    CorruptionError,
    FaissbaseError,
    InvalidInputError,
    NotReadyError,
    UnavailableError,
)
from faissbase.memory.models import Base, Conversation, Fact
from faissbase.memory.triggers import FORMAT
from faissbase.storage import forks

DIALECTS = ("sqlite", "postgresql")
_BUSY_TIMEOUT_MS = 30_000
_WRITES = "faissbase_writes"
_DAMAGE = ("not a database", "malformed")  # in SQLite's words


def open_engine(source: str | os.PathLike[str] | Engine | Session) -> Engine:
    """The engine of a database, its tables made where there are none.

    Parameters
    ----------
    source : URL, path, Engine or Session
        A URL of SQLAlchemy (``sqlite:///memory.db``, ``postgresql+psycopg://...``), the path of an SQLite
        file, or ``":memory:"``, which lasts as long as the engine.

    Raises
    ------
    InvalidInputError
        Neither SQLite nor PostgreSQL, or something else than the above.
    CorruptionError
        Written by a newer faissbase.
    """
    if isinstance(source, Session):
        engine = engine_of(source)
    elif isinstance(source, Engine):
        engine = source
    elif isinstance(source, str | os.PathLike):
        return _prepared(_own_engine(_url_of(os.fspath(source))))
    else:
        raise InvalidInputError(f"expected a URL, a path, an Engine or a Session, got {source!r}")
    _check_dialect(engine.dialect.name)
    if engine.dialect.name == "sqlite" and not is_in_memory(engine):
        engine = _own_engine(engine.url)  # with foreign keys, WAL and a busy timeout
    return _prepared(engine)


def engine_of(db: Session) -> Engine:
    """The engine that a session talks to."""
    bind = db.get_bind()
    return bind if isinstance(bind, Engine) else bind.engine


def is_in_memory(engine: Engine) -> bool:
    """Whether it is an SQLite database without a file, which every connection of a thread shares."""
    database = engine.url.database
    is_named = bool(database) and database != ":memory:" and "mode=memory" not in str(engine.url)
    return engine.dialect.name == "sqlite" and not is_named


def _url_of(text: str) -> Any:
    if text == ":memory:":
        folder = tempfile.TemporaryDirectory(prefix="faissbase-conversations-")
        url = make_url(f"sqlite:///{folder.name}/memory.db")
        _folders[url.database or ""] = folder
        return url
    if not text:
        raise InvalidInputError("a memory needs a file or a URL, got '': ':memory:' keeps it in memory")
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).absolute()))
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise InvalidInputError(f"not a database URL: {text!r}") from error
    if url.get_backend_name() == "postgresql" and url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return url


_folders: dict[str, tempfile.TemporaryDirectory[str]] = {}


def _check_dialect(name: str) -> None:
    if name not in DIALECTS:
        raise InvalidInputError(f"a conversation memory is kept in sqlite or postgresql, not in {name!r}")


def _own_engine(url: Any) -> Engine:
    _check_dialect(url.get_backend_name())
    try:
        engine = create_engine(url)
    except ModuleNotFoundError as error:
        raise NotReadyError(f"{url.drivername} needs {error.name}: pip install {error.name}") from error
    if engine.dialect.name == "sqlite" and not is_in_memory(engine):
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
        folder = _folders.pop(url.database, None)
        if folder is not None:
            weakref.finalize(engine, folder.cleanup)
    if not is_in_memory(engine):
        _idle[engine] = idle = _Idle(engine)
        forks.rest_before(idle)
    return engine


class _Idle:
    """An engine's connections while nobody uses them: a fork can share neither SQLite's nor a socket."""

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)

    def rest(self) -> None:
        engine = self._engine()
        if engine is not None:
            engine.dispose()


_idle: weakref.WeakKeyDictionary[Engine, _Idle] = weakref.WeakKeyDictionary()


def _set_up(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says
    for pragma in (
        f"busy_timeout = {_BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepared(engine: Engine) -> Engine:
    with database_errors(engine):
        tables = inspect(engine).get_table_names()
        if Fact.__tablename__ not in tables:
            _create_tables(engine)
        with Session(engine) as session:
            found = session.get(Fact, "format")
        if found is not None and found.value != FORMAT:
            raise CorruptionError(
                f"the database has format {found.value}, this faissbase knows {FORMAT}: use a newer one"
            )
    return engine


def _create_tables(engine: Engine) -> None:
    """Two processes may both get here; the second finds them."""
    with writing(engine) as session:
        connection = session.connection()
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7291150)")
        Base.metadata.create_all(connection)


def put_fact(session: Session, name: str, value: str) -> str:
    """Say something of the database unless it was said before; what it says now."""
    session.execute(insert_if_new(session, Fact).values(name=name, value=value).on_conflict_do_nothing())
    return session.scalars(select(Fact.value).where(Fact.name == name)).one()


def insert_if_new(session: Session, table: Any) -> Any:
    """An insert that can be told what to do about a row that is there."""
    dialect = session.get_bind().dialect.name
    return (sqlite if dialect == "sqlite" else postgresql).insert(table)


def database_id(session: Session) -> str:
    """The database's own id, made with it: a copy under another name has it too, a new file has not."""
    return session.scalars(select(Fact.value).where(Fact.name == "id")).one()


def lock_conversation(session: Session, conversation_id: str) -> Conversation:
    """The conversation, made where there is none, and nobody else's until the transaction ends."""
    new = insert_if_new(session, Conversation).values(id=conversation_id, seq=0, n_messages=0)
    session.execute(new.on_conflict_do_nothing())
    found = select(Conversation).where(Conversation.id == conversation_id).with_for_update()
    return session.scalars(found.execution_options(populate_existing=True)).one()


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A transaction that writes; committed at the end of the block, undone where it raises."""
    with database_errors(engine), Session(engine, expire_on_commit=False) as session:
        session.connection(execution_options={_WRITES: True})
        yield session
        session.commit()


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A transaction that reads what is committed."""
    with database_errors(engine), Session(engine, expire_on_commit=False) as session:
        yield session
        session.commit()  # of a database in memory, a rollback would look like somebody's change of mind


@contextmanager
def connected(engine: Engine) -> Iterator[Connection]:
    """`reading`, for statements that are made once: a fifth of the time of a session and a new statement."""
    with database_errors(engine), engine.connect() as connection:
        yield connection
        connection.commit()


@contextmanager
def database_errors(engine: Engine) -> Iterator[None]:
    """Turn what a database cannot do now into `UnavailableError`; no fork happens in the block."""
    try:
        with forks.holding_off(engine.url.database or ""):
            yield
    except (OperationalError, InterfaceError) as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise UnavailableError(f"the database {shown} cannot serve now: {error.orig}") from error
    except DBAPIError as error:
        if isinstance(error.__cause__, FaissbaseError):
            raise error.__cause__ from error
        if engine.dialect.name == "sqlite" and any(word in str(error.orig) for word in _DAMAGE):
            raise CorruptionError(f"{engine.url.database} is no whole database: {error.orig}") from error
        raise


def default_folder(engine: Engine) -> Path | None:
    """Where indexes of a database are kept: beside an SQLite file; nowhere where there is no file."""
    if engine.dialect.name != "sqlite" or is_in_memory(engine):
        return None
    database = Path(engine.url.database or "").absolute()
    return database.with_name(f"{database.name}.faiss")

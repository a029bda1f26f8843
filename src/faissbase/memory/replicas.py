"""The vector stores of conversations, kept in agreement with the database that they are derived from.

A store says up to which change of its conversation it has come. Whoever asks for one gets it after what was
committed since, by whichever process, has been read; where that cannot be done with certainty,
it is made anew. Nothing has to be written twice, and a crash can leave nothing to repair.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, RowMapping, event, func, select
from sqlalchemy.orm import Session

from faissbase.errors import AccessError, InvalidInputError, NotReadyError, UnavailableError
from faissbase.memory import databases
from faissbase.memory.files import Origin
from faissbase.memory.models import Base, Conversation, Memory, Removed
from faissbase.memory.said import NAME_LENGTH, is_storable
from faissbase.memory.standing import Standing, seconds_of, standing
from faissbase.memory.store import FAISSVectorStore, MemoryId
from faissbase.memory.watch import Watch

_log = logging.getLogger(__name__)

DIMENSION = 1536
_MOST_BYTES = 4 << 30
_REPLICA_BYTES = 4096  # what one takes that holds no vectors
_ROWS_AT_ONCE = 5_000
_CHECKED_MAX = 10_000
_UNATTACHED_FOLDER = Path("faissbase-memory")
_COLUMNS = [
    Memory.__table__.c[name]
    for name in ("id", "embedding", "importance", "occurred_at", "kind", "active", "valid_to", "seq", "stamp")
]


def conversation_key(conversation_id: object) -> str:
    """A conversation's id as the database has it: a string of 1 to 255 characters, or a number as one."""
    is_number = isinstance(conversation_id, int) and not isinstance(conversation_id, bool)
    key = str(conversation_id) if is_number else conversation_id
    if not isinstance(key, str) or not 1 <= len(key) <= NAME_LENGTH or not is_storable(key):
        raise InvalidInputError(
            f"a conversation id is an int or a str of 1 to {NAME_LENGTH} characters, got {conversation_id!r}"
        )
    return key


class Replica:
    """The store of one conversation of one database."""

    def __init__(
        self,
        engine: Engine,
        watch: Watch,
        database: str,
        conversation: str,
        path: Path | None,
        key: tuple[str, str],
    ) -> None:
        self.key = key
        self._engine = engine
        self._watch = watch
        self._seen: tuple[int, int] | None = None
        self._origin = Origin(database, conversation)
        self.path = path
        self.lock = threading.RLock()
        self.n_unsaved = 0
        self.store: FAISSVectorStore | None = None
        self._skipped: dict[int, int] = {}

    def forget(self) -> None:
        """Have it made anew when it is next asked for."""
        with self.lock:
            self.store = self._seen = None

    def synced(
        self,
        db: Session | None = None,
        dimension: int | None = None,
        version: tuple[int, int] | None = None,
    ) -> FAISSVectorStore:
        """The store with everything that is committed; since `version` was asked, where it is given."""
        with self.lock:
            if version is None:  # before anything is read: what comes later is read the next time
                version = self._watch.version()
            is_current = version is not None and version == self._seen
            if not is_current or self.store is None:
                self._read(db, dimension)
                self._seen = version
            store = self.store
            assert store is not None
        if not is_current:
            _replicas.weigh(self)
        return store

    @property
    def version(self) -> tuple[int, int] | None:
        """Another value after every commit to the database; None where that is not known."""
        return self._watch.version()

    def _read(self, db: Session | None, dimension: int | None) -> None:
        with _committed(self._engine, db) as session:
            seq = self._seq(session)
            if self.store is None:
                self._open(session, seq, dimension)
            store = self.store
            assert store is not None
            if seq < store.origin.seq or not self._follow(session, store, seq):
                self._rebuild(session, seq, dimension)

    def _follow(self, session: Session, store: FAISSVectorStore, seq: int) -> bool:
        """`_catch_up`, and where that costs little, whether it now holds what the database does.

        It may not where a conversation was deleted and has begun again, with as many changes maybe.
        """
        is_small = store.count <= _CHECKED_MAX
        return self._catch_up(session, store, seq) and (not is_small or self._agrees(session, store))

    def rebuilt(self, db: Session | None = None) -> FAISSVectorStore:
        """The store, made anew from the database."""
        with self.lock, _committed(self._engine, db) as session:
            found = self._rebuild(session, self._seq(session), None)
        _replicas.weigh(self)
        return found

    def save(self) -> Path:
        """Write the store to its file."""
        with self.lock:
            if self.path is None or self.store is None:
                raise NotReadyError(
                    f"there is no folder for the index of conversation {self._origin.conversation!r}: its "
                    "database is no SQLite file, so say folder= where it is opened"
                )
            self.store.save(self.path)
            self.n_unsaved = 0
            return self.path

    def keep(self) -> None:
        """`save`, where there is something to be saved. What cannot be written is made anew when needed."""
        with self.lock:
            if self.path is None or self.store is None or not self.n_unsaved:
                return
            try:
                self.save()
            except (UnavailableError, AccessError) as error:
                _log.warning("the index is not kept: %s", error)

    def _seq(self, session: Session) -> int:
        wanted = select(Conversation.seq).where(Conversation.id == self._origin.conversation)
        return session.execute(wanted).scalar() or 0

    def _open(self, session: Session, seq: int, dimension: int | None) -> None:
        """From its file where that agrees with the database, and otherwise anew."""
        store = FAISSVectorStore(dimension or self._dimension(session))
        if self.path is not None and _is_loaded(store, self.path):
            self.store = store
            origin = replace(store.origin, seq=0)
            is_ours = origin == self._origin and store.origin.seq <= seq
            if is_ours and self._catch_up(session, store, seq) and self._agrees(session, store):
                return
            _log.info("index %s does not agree with its database: it is made anew", self.path)
        self._rebuild(session, seq, dimension)

    def _dimension(self, session: Session) -> int:
        """That of the newest embedding."""
        newest = (
            select(Memory.embedding)
            .where(Memory.conversation_id == self._origin.conversation, Memory.active)
            .order_by(Memory.seq.desc())
            .limit(1)
        )
        found = session.execute(newest).scalar()
        return DIMENSION if found is None else len(found)

    def _agrees(self, session: Session, store: FAISSVectorStore) -> bool:
        """Whether it holds the very rows of the database: a backup put back has other stamps."""
        held = select(func.count(), func.coalesce(func.sum(Memory.stamp), 0)).where(
            Memory.conversation_id == self._origin.conversation, Memory.active
        )
        n, stamps = session.execute(held).one()
        skipped = self._skipped
        return (store.count + len(skipped), store.stamps + sum(skipped.values())) == (int(n), int(stamps))

    def _rebuild(self, session: Session, seq: int, dimension: int | None) -> FAISSVectorStore:
        store = FAISSVectorStore(dimension or self._dimension(session))
        store.origin = self._origin
        self.n_unsaved = 0
        self._skipped = {}
        self._catch_up(session, store, seq, is_new=True)
        if seq == 0 and self.path is not None:  # of a conversation that is gone, nothing is to stay
            with suppress(OSError):
                self.path.unlink()
        self.store = store
        return store

    def _catch_up(self, session: Session, store: FAISSVectorStore, seq: int, *, is_new: bool = False) -> bool:
        """Apply what has changed since; False where other dimensions say that all was embedded anew."""
        since = store.origin.seq
        if seq == since:
            return True
        for rows in self._changed(session, since):
            fitting = [row for row in rows if len(row["embedding"]) == store.dimension]
            if len(fitting) < len(rows) and not is_new:
                return False
            self._skip(rows, _apply(store, fitting))
            self.n_unsaved += len(rows)
        removed = select(Removed.memory_id).where(
            Removed.conversation_id == self._origin.conversation, Removed.seq > since
        )
        # What has come back since is among the changed: it was added, and has to stay.
        gone = set(session.scalars(removed)) - self._still_here(session, since)
        for memory_id in gone:
            store.remove(memory_id)
            self._skipped.pop(memory_id, None)
        store.origin = replace(self._origin, seq=seq)
        return True

    def _skip(self, rows: Sequence[RowMapping], kept: Collection[int]) -> None:
        """Note those that are active and cannot be compared: a text may have no direction."""
        for row in rows:
            self._skipped.pop(row["id"], None)
            if row["active"] and row["id"] not in kept:
                self._skipped[row["id"]] = row["stamp"]

    def _still_here(self, session: Session, since: int) -> set[int]:
        changed = select(Memory.id).where(
            Memory.conversation_id == self._origin.conversation, Memory.seq > since
        )
        return set(session.scalars(changed))

    def _changed(self, session: Session, since: int) -> Iterator[Sequence[RowMapping]]:
        changed = select(*_COLUMNS).where(Memory.conversation_id == self._origin.conversation)
        # From the start, what is not active needs no removing.
        changed = changed.where(Memory.seq > since) if since else changed.where(Memory.active)
        found = session.execute(changed.order_by(Memory.seq).execution_options(yield_per=_ROWS_AT_ONCE))
        yield from found.mappings().partitions()


def _is_loaded(store: FAISSVectorStore, path: Path) -> bool:
    try:
        return store.load(path)
    except (UnavailableError, AccessError) as error:
        _log.warning("the index is made anew: %s", error)
        return False


def _apply(store: FAISSVectorStore, rows: Sequence[RowMapping]) -> set[int]:
    """Bring changes into a store; the ids of those that it holds now."""
    kept = usable_rows([row for row in rows if row["active"]], store.dimension)
    if kept:
        vectors = np.stack([row["embedding"] for row in kept])
        store.add_many([row["id"] for row in kept], vectors, [_standing(row) for row in kept])
    ids = {row["id"] for row in kept}
    for row in rows:
        if row["id"] not in ids:
            store.remove(row["id"])
    return ids


def usable_rows(rows: Sequence[RowMapping], dimension: int) -> list[RowMapping]:
    """Those whose embedding can be compared: of this dimension, finite, and with a direction."""
    found = []
    for row in rows:
        vector = row["embedding"]
        if len(vector) == dimension and np.isfinite(vector).all() and vector.any():
            found.append(row)
    return found


def _standing(row: RowMapping) -> Standing:
    return standing(
        row["importance"],
        row["occurred_at"],
        is_episodic=row["kind"] == "bubble",
        ends_at=row["valid_to"],
        stamp=row["stamp"],
    )


@contextmanager
def _committed(engine: Engine, db: Session | None) -> Iterator[Session]:
    """A session that sees what is committed, and nothing of what ``db`` may yet take back.

    A database in memory has one connection, so that there ``db`` itself is read.
    """
    shared = db if db is not None and databases.is_in_memory(engine) else None
    with nullcontext(shared) if shared is not None else databases.reading(engine) as session:
        yield session


class _Scope:
    """A database in use, and where its indexes are kept."""

    def __init__(self, engine: Engine, database: str, folder: Path | None) -> None:
        self.engine = engine
        self.watch = Watch(engine)
        self.database = database
        # A copy of a database has its id, too.
        self.key = f"{database} {_place_of(engine)}"
        self.folder = folder

    def path(self, conversation: str) -> Path | None:
        return None if self.folder is None else _file(self.folder / self.database, conversation)


def _place_of(engine: Engine) -> str:
    has_file = engine.dialect.name == "sqlite" and not databases.is_in_memory(engine)
    return os.path.realpath(engine.url.database or "") if has_file else str(engine.url)


def _file(folder: Path, conversation: str) -> Path:
    # A hash, for a conversation's id may be no file name.
    return folder / f"{hashlib.sha256(conversation.encode()).hexdigest()[:32]}.vectors"


class _Replicas:
    """All replicas of this process, the least recently used let go where they take too much memory."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._scopes: weakref.WeakKeyDictionary[Engine, _Scope] = weakref.WeakKeyDictionary()
        self._held: OrderedDict[tuple[str, str], Replica] = OrderedDict()
        self._sizes: dict[tuple[str, str], int] = {}
        self._n_bytes = 0
        self._unattached: dict[str, FAISSVectorStore] = {}
        self._last: Engine | None = None

    def use(self, engine: Engine, folder: Path | None = None, db: Session | None = None) -> _Scope:
        """The scope of a database, noted when it is first used."""
        with self._lock:
            scope = self._scopes.get(engine)
            self._last = engine
        if scope is None:
            scope = _Scope(engine, _database_id(engine, db), folder or databases.default_folder(engine))
            if databases.is_in_memory(engine):
                event.listen(engine, "rollback", lambda _: self._forget(scope.key))
            with self._lock:
                self._scopes[engine] = scope
        if folder is not None and folder != scope.folder:
            scope.folder = folder
            with self._lock:
                for (database, conversation), replica in self._held.items():
                    if database == scope.key:
                        replica.path = scope.path(conversation)
        return scope

    def last_engine(self) -> Engine | None:
        """The database that was used last, unless it was closed; None where there is none."""
        with self._lock:
            is_open = self._last is not None and self._last in self._scopes
            return self._last if is_open else next(iter(self._scopes), None)

    def replica(self, scope: _Scope, conversation: str) -> Replica:
        key = scope.key, conversation
        with self._lock:
            found = self._held.get(key)
            if found is None:
                path = scope.path(conversation)
                found = Replica(scope.engine, scope.watch, scope.database, conversation, path, key)
                self._held[key] = found
            self._held.move_to_end(key)
            return found

    def unattached(self, conversation: str, dimension: int) -> FAISSVectorStore:
        with self._lock:
            store = self._unattached.get(conversation)
            if store is None:
                store = self._unattached[conversation] = FAISSVectorStore(dimension)
                store.load(_file(_UNATTACHED_FOLDER, conversation))
            return store

    def weigh(self, replica: Replica) -> None:
        """Let go of those used longest ago, as far as all take too much memory; their files are written."""
        with self._lock:
            if self._held.get(replica.key) is not replica:
                return
            store = replica.store
            size = _REPLICA_BYTES + (0 if store is None else store.size_bytes)
            self._n_bytes += size - self._sizes.get(replica.key, 0)
            self._sizes[replica.key] = size
            leaving = []
            while self._n_bytes > _MOST_BYTES and (oldest := next(iter(self._held))) != replica.key:
                leaving.append(self._let_go(oldest))
        for each in leaving:
            each.keep()

    def _let_go(self, key: tuple[str, str]) -> Replica:
        self._n_bytes -= self._sizes.pop(key, 0)
        return self._held.pop(key)

    def release(self, engine: Engine) -> None:
        """Write the files of a database that have changes, and let go of its stores."""
        with self._lock:
            scope = self._scopes.pop(engine, None)
            if scope is None:
                return
            is_used = any(other.key == scope.key for other in self._scopes.values())
            keys = [] if is_used else [key for key in self._held if key[0] == scope.key]
            leaving = [self._let_go(key) for key in keys]
        for each in leaving:
            each.keep()
        scope.watch.close()

    def _forget(self, key: str) -> None:
        with self._lock:
            held = [each for (name, _), each in self._held.items() if name == key]
        for each in held:
            each.forget()


_replicas = _Replicas()


def _database_id(engine: Engine, db: Session | None) -> str:
    if databases.is_in_memory(engine) and db is not None:
        Base.metadata.create_all(db.connection())
        return databases.database_id(db)
    own = databases.open_engine(engine)
    with databases.reading(own) as session:
        found = databases.database_id(session)
    if own is not engine:
        own.dispose()
    return found


def attach(engine: Engine, folder: Path | None = None) -> None:
    """Note a database, and where its indexes are to be kept."""
    _replicas.use(engine, folder)


def detach(engine: Engine) -> None:
    """Write what is not written, and forget the database."""
    _replicas.release(engine)


def replica_of(engine: Engine, conversation_id: object, db: Session | None = None) -> Replica:
    """The replica of a conversation of a database."""
    return _replicas.replica(_replicas.use(engine, db=db), conversation_key(conversation_id))


def get_vector_store(
    conversation_id: int | str, db: Session | None = None, *, dimension: int | None = None
) -> FAISSVectorStore:
    """The vectors of a conversation, with all that is committed to its database.

    Parameters
    ----------
    conversation_id : str or int
    db : Session, optional
        Which database; without, the one that this process has used last: say it where there are several.
        Where there was none, a store that belongs to no database, kept in the folder ``faissbase-memory``
        once it is saved.
    dimension : int, optional
        Of a store that is empty still; 1536 where it is left out.
    """
    engine = databases.engine_of(db) if db is not None else _replicas.last_engine()
    if engine is None:
        return _replicas.unattached(conversation_key(conversation_id), dimension or DIMENSION)
    return replica_of(engine, conversation_id, db).synced(db, dimension)


def save_vector_store(conversation_id: int | str, db: Session | None = None) -> Path:
    """Write the vectors of a conversation to their file, so that the next process need not read the database.

    Raises
    ------
    NotReadyError
        The database is no file and no folder was named for its indexes.
    """
    engine = databases.engine_of(db) if db is not None else _replicas.last_engine()
    if engine is None:
        key = conversation_key(conversation_id)
        path = _file(_UNATTACHED_FOLDER, key)
        _replicas.unattached(key, DIMENSION).save(path)
        return path
    replica = replica_of(engine, conversation_id, db)
    replica.synced(db)
    return replica.save()


def rebuild_index_from_db(db: Session, conversation_id: int | str) -> FAISSVectorStore:
    """The vectors of a conversation, made anew from what is committed to the database.

    Not needed: it is done where a store is missing, damaged or does not agree with the database.
    """
    return replica_of(databases.engine_of(db), conversation_id, db).rebuilt(db)


def search_similar_memories(
    db: Session,
    conversation_id: int | str,
    query_embeddings: Any,
    limit: int = 10,
    *,
    now: datetime | None = None,
) -> list[Memory]:
    """The active memories of a conversation nearest to a query by cosine, nearest first.

    Parameters
    ----------
    db : Session
        What is not committed yet is not found.
    conversation_id : str or int
    query_embeddings : array_like, (d,) or (n, d)
        Of several, the nearest counts.
    limit : int
    now : datetime, optional
        What has ended by then is left out; the present where it is not given.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise InvalidInputError(f"limit must be a whole number from 1 on, got {limit!r}")
    store = get_vector_store(conversation_id, db)
    now_s = seconds_of(now or datetime.now(timezone.utc))
    nearest = nearest_of(store, query_embeddings, limit, now_s)
    wanted = select(Memory).where(Memory.id.in_(nearest), Memory.active)
    found = {memory.id: memory for memory in db.scalars(wanted)}
    return [found[int(each)] for each in nearest if int(each) in found]


def nearest_of(store: FAISSVectorStore, queries: Any, k: int, now_s: float) -> dict[MemoryId, float]:
    """The k nearest ids and their cosines, nearest first; of several queries, the nearest counts."""
    if not store.count:  # of what dimension it will be, nobody has said yet
        return {}
    rows = np.atleast_2d(np.asarray(queries, np.float64)) if len(queries) else np.empty((0, 0))
    best: dict[MemoryId, float] = {}
    for row in rows:
        for each in store.ranked(row, k, where=lambda standings: standings.ends_s > now_s):
            best[each.memory_id] = max(each.similarity, best.get(each.memory_id, -np.inf))
    order = sorted(best, key=lambda memory_id: -best[memory_id])[:k]
    return {memory_id: best[memory_id] for memory_id in order}

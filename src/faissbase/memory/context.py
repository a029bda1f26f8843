"""The memory of conversations as its users hold it. Composes what the other modules do.

A database is committed first, and what is derived from it follows when it is next asked: a process that is
killed anywhere in between leaves nothing that disagrees.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from faissbase.embedding import Embedder, EmbedderSource, HashedEmbedder, as_embedder, check_same_embedder
from faissbase.errors import InvalidInputError, NotReadyError, UnavailableError
from faissbase.memory import databases, replicas
from faissbase.memory.changes import Changes, New, active_memory_of, memory_of
from faissbase.memory.learning import NOT_TALK, Learner, entry_of, last_summary, scope_of
from faissbase.memory.linking import cosine, near_to
from faissbase.memory.llm import ChatSource, as_chat_model
from faissbase.memory.models import KINDS, Event, Fact, Memory, Message
from faissbase.memory.past import Past
from faissbase.memory.replicas import conversation_key, replica_of
from faissbase.memory.said import (
    Messages,
    Said,
    Scope,
    checked_importance,
    checked_limit,
    checked_messages,
    checked_moment,
    checked_name,
    checked_text,
)
from faissbase.memory.searching import Hits, Notes, Told, Wanted, answer, links_of, present_hits
from faissbase.memory.store import MemoryId
from faissbase.memory.talk import Talks, TurnsWanted
from faissbase.types import Float32

_log = logging.getLogger(__name__)

Clock = Callable[[], datetime]

_SAVED_AFTER = 1_000  # changes


def _present() -> datetime:
    return datetime.now(timezone.utc)


class ContextMemory:
    """Conversations kept word for word, what they tell of, and how to find it. Use it with ``with``.

    Parameters
    ----------
    db : URL, path, Engine or Session
        The database of record: ``"memory.db"``, ``"postgresql://..."``, ``":memory:"``. A session says which
        database; it is not used itself.
    embedder : Embedder, callable or model, optional
        What turns texts into vectors; `HashedEmbedder` where none is given, which needs no download and knows
        words by their letters, not by their meaning. Stored by name: another one is refused later.
    llm : ChatModel or function of messages, optional
        Notes facts and episodes, keeps facts up to date, and writes the summary. Without, every turn is an
        episode as it was said.
    folder : path, optional
        Where indexes are kept. Beside an SQLite file by default; for PostgreSQL, in memory alone.
    clock : callable
        Gives the present.

    Raises
    ------
    ConflictError
        The database was written with another embedder.
    """

    def __init__(
        self,
        db: str | os.PathLike[str] | Engine | Session = ":memory:",
        embedder: EmbedderSource | None = None,
        llm: ChatSource | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        clock: Clock = _present,
    ) -> None:
        self._embedder: Embedder = HashedEmbedder() if embedder is None else as_embedder(embedder)
        model = None if llm is None else as_chat_model(llm)
        self._clock = clock
        self._opened = databases.open_engine(db)
        self._is_closed = False
        self._owns_engine = self._opened is not db
        replicas.attach(self._engine, None if folder is None else Path(folder))
        self._learner = None if model is None else Learner(self._engine, self._embedder, model)
        self._talks = Talks(self._engine)
        self._notes = Notes(self._engine)
        self._past = Past(self._engine)
        self._is_checked = False
        with databases.reading(self._engine) as session:
            self._check_embedder(session.get(Fact, "embedder"))

    def __enter__(self) -> ContextMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write the indexes to their files, for the next process to begin with, and close the database."""
        if self._is_closed:
            return
        self._is_closed = True
        replicas.detach(self._opened)
        if self._owns_engine:
            self._opened.dispose()

    @property
    def engine(self) -> Engine:
        """The database, for sessions of one's own."""
        return self._engine

    @property
    def _engine(self) -> Engine:
        self._check_open()
        return self._opened

    def _check_open(self) -> None:
        if self._is_closed:  # SQLAlchemy would open it again
            raise NotReadyError("the ContextMemory is closed: make a new one")

    # ---- writing ---------------------------------------------------------------------------------

    def add(
        self,
        messages: Messages,
        conversation_id: str | int,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
    ) -> dict[str, list[dict[str, Any]]]:
        """Keep messages word for word, durably, and note what they tell of.

        Parameters
        ----------
        messages : str, dict, or list of them
            ``{"role", "content"}`` as OpenAI has it; ``name`` or ``speaker``, and ``occurred_at``, where they
            are known.
        conversation_id : str or int
        user_id, agent_id, session_id : str, optional
            Whose they are, beside the conversation.

        Returns
        -------
        dict
            ``{"semantic": [...], "bubbles": [...]}``: the memories that were added or changed, each with its
            ``memory_id``, ``memory`` and ``event``. A model that fails loses nothing: it is asked again by
            the next ``add``, and the turns can be found meanwhile.

        Raises
        ------
        InvalidInputError
            Something is wrong with a message; nothing was stored.
        """
        key, now = conversation_key(conversation_id), self._now()
        said = checked_messages(messages, now)
        scope = Scope(user_id, agent_id, session_id)
        changed = self._keep_turns(key, said, scope, now) if said else []
        changed += self._learned(key, now)
        try:
            self._follow(key)
        except UnavailableError as error:  # the next search does it
            _log.warning("conversation %r: its index is left as it was: %s", key, error)
        return {
            "semantic": [each for each in changed if each["type"] == "semantic"],
            "bubbles": [each for each in changed if each["type"] == "bubble"],
        }

    def _learned(self, key: str, now: datetime) -> list[dict[str, Any]]:
        if self._learner is None:
            return []
        changed = self._learner.learn(key, now)
        self._learner.summarize(key, now)
        return changed

    def _keep_turns(self, key: str, said: list[Said], scope: Scope, now: datetime) -> list[dict[str, Any]]:
        """Commit the turns; without a model, with an episode of each."""
        vectors = self._embedder.embed([each.spoken for each in said])
        told = [each for each in said if self._learner is None and each.role not in NOT_TALK]
        bubbles = list(self._embedder.embed([each.content for each in told])) if told else []
        near = [near_to(self._engine, key, vector, now, scope) for vector in bubbles]
        with databases.writing(self._engine) as session:
            self._claim_embedder(session)
            conversation = databases.lock_conversation(session, key)
            for each, vector in zip(said, vectors, strict=True):
                conversation.n_messages += 1
                message = self._message(each, key, conversation.n_messages, vector, scope)
                is_read = self._learner is None or each.role in NOT_TALK
                message.extracted_at = now if is_read else None
                session.add(message)
            changes = self._changes(session, key, now, "turns")
            kept: list[tuple[Memory, Float32]] = []
            for each, vector, few in zip(told, bubbles, near, strict=True):
                new = New(
                    "bubble",
                    each.content,
                    vector,
                    each.occurred_at,
                    each.occurred_at,
                    speaker=each.speaker,
                    scope=scope,
                )
                memory = changes.add(new)
                changes.link(memory, few | {other.id: cosine(vector, own) for other, own in kept})
                kept.append((memory, vector))
            return [entry_of(memory, "ADD") for memory, _ in kept]

    def _message(self, said: Said, key: str, position: int, vector: Float32, scope: Scope) -> Message:
        return Message(
            conversation_id=key,
            position=position,
            role=said.role,
            speaker=said.speaker,
            content=said.content,
            occurred_at=said.occurred_at,
            offset_s=said.offset_s,
            embedding=vector,
            embedder=self._embedder.name,
            n_tries=0,
            user_id=scope.user_id,
            agent_id=scope.agent_id,
            session_id=scope.session_id,
        )

    def update(
        self,
        memory_id: int,
        memory: str | None = None,
        *,
        importance: float | None = None,
        occurred_at: datetime | str | None = None,
        conversation_id: str | int | None = None,
        reason: str | None = None,
        by: str = "user",
    ) -> dict[str, Any]:
        """Change what a memory says, how much it matters or when it occurred; what it said before is kept.

        Raises
        ------
        NotFoundError
            There is no such memory, or it is of another conversation than the one said.
        ConflictError
            It has ended.
        """
        values: dict[str, Any] = {}
        if memory is not None:
            values["text"] = checked_text(memory, "memory")
            values["embedding"] = self._embedder.embed([values["text"]])[0]
        if importance is not None:
            values["importance"] = checked_importance(importance)
        if occurred_at is not None:
            values["occurred_at"] = checked_moment(occurred_at, "occurred_at")
        if not values:
            raise InvalidInputError("update() needs memory, importance or occurred_at")
        key = None if conversation_id is None else conversation_key(conversation_id)
        checked_name(by, "by")
        now = self._now()
        near = self._near(memory_id, values.get("embedding"), now)
        with databases.writing(self._engine) as session:
            found = self._locked(session, memory_id, key)
            self._claim_embedder(session)
            changes = self._changes(session, found.conversation_id, now, by)
            changes.update(found, values, now, reason)
            if "embedding" in values:
                changes.unlink(found)
                changes.link(found, near)
            entry = entry_of(found, "UPDATE")
        self._follow(found.conversation_id)
        return entry

    def delete(
        self,
        memory_id: int,
        *,
        conversation_id: str | int | None = None,
        reason: str | None = None,
        by: str = "user",
    ) -> bool:
        """End a memory: it is not found again, and stays in the history. False where it had ended already.

        Raises
        ------
        NotFoundError
            There is no such memory, or it is of another conversation than the one said.
        """
        key = None if conversation_id is None else conversation_key(conversation_id)
        checked_name(by, "by")
        now = self._now()
        with databases.writing(self._engine) as session:
            found = self._locked(session, memory_id, key, is_ended_too=True)
            was_active = found.active
            if was_active:
                self._changes(session, found.conversation_id, now, by).delete(found, now, reason)
        self._follow(found.conversation_id)
        return was_active

    # ---- reading ---------------------------------------------------------------------------------

    def search(  # noqa: PLR0913  # each filter is a name of its own, none of them needed
        self,
        query: str,
        conversation_id: str | int | None = None,
        limit: int = 10,
        include_connections: bool = True,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        speaker: str | Collection[str] | None = None,
        type: str | Collection[str] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        as_of: datetime | str | None = None,
    ) -> dict[str, Any]:
        """The memories of the highest score: ``similarity × importance × exp(-0.05 × days)``.

        The age counts for episodes alone. An importance that is not set counts 0.5.

        Parameters
        ----------
        query : str
        conversation_id : str or int, optional
            All conversations that have memories of the scope, where it is left out.
        limit : int
        include_connections : bool
            Also tell what each hit is linked to, up to two, and append up to three of those, with score 0.
        user_id, agent_id, session_id : str, optional
        speaker : str or list of str, optional
        type : {"semantic", "bubble"}, or both, optional
        since, until : datetime or ISO 8601, optional
            When it occurred; ``until`` itself is left out.
        as_of : datetime or ISO 8601, optional
            What held at that moment, with the age that it had then. The first such question to a
            conversation, and the first after a change of it, reads its whole history.

        Returns
        -------
        dict
            ``{"query", "total", "results"}``; each result ``{"memory_id", "memory", "type", "occurred_at",
            "score", "connections"}``, the type ``"semantic"``, ``"bubble"`` or ``"connected"``.
        """
        scope = Scope(user_id, agent_id, session_id)
        keys = self._conversations(conversation_id, scope)
        wanted = Wanted(
            checked_limit(limit),
            self._now() if as_of is None else checked_moment(as_of, "as_of"),
            as_of is not None,
            scope,
            _names(speaker, "speaker"),
            _kinds(type),
            None if since is None else checked_moment(since, "since"),
            None if until is None else checked_moment(until, "until"),
        )
        vector = self._embedder.embed([checked_text(query, "query")])[0]
        results = self._results(keys, vector, wanted, include_connections)
        return {"query": query, "total": len(results), "results": results}

    def _results(
        self, keys: Sequence[str] | None, vector: Float32, wanted: Wanted, include_connections: bool
    ) -> list[dict[str, Any]]:
        hits: list[Hits] = []
        links: dict[MemoryId, list[Told]] = {}
        for key in keys if keys is not None else self._owned(wanted.scope):
            found = self._hits(key, vector, wanted)
            hits.append(found)
            if include_connections:
                links |= links_of(self._notes, self._engine, found, key, wanted)
        return answer(_best(hits, wanted.limit), links)

    def _hits(self, key: str, vector: Float32, wanted: Wanted) -> Hits:
        if wanted.as_of:
            return self._past.hits(key, vector, wanted)
        return present_hits(self._engine, self._notes, key, vector, wanted)

    def search_turns(  # noqa: PLR0913  # as above
        self,
        query: str,
        conversation_id: str | int | None = None,
        limit: int = 10,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        speaker: str | Collection[str] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        recency: float | None = None,
        asker: str | None = None,
        neighbours: int = 0,
    ) -> dict[str, Any]:
        """The turns that answer a question, word for word, by words, vectors and what stands around them.

        Parameters
        ----------
        query, conversation_id, limit, user_id, agent_id, session_id, speaker, since, until
            As in `search`.
        recency : float, optional
            How much the oldest turn loses against the newest, 0 to 1; what the question asks for by default.
        asker : str, optional
            The speaker who is meant by "I" and "my".
        neighbours : int
            Also tell so many turns before and after each.

        Returns
        -------
        dict
            ``{"query", "total", "results"}``; each result ``{"message_id", "conversation_id", "position",
            "role", "speaker", "content", "occurred_at", "score"}``, and ``"neighbours"`` where asked for.
        """
        scope = Scope(user_id, agent_id, session_id)
        keys = self._conversations(conversation_id, scope)
        if not isinstance(neighbours, int) or isinstance(neighbours, bool) or neighbours < 0:
            raise InvalidInputError(f"neighbours must be a whole number from 0 on, got {neighbours!r}")
        wanted = TurnsWanted(
            checked_limit(limit),
            scope,
            _names(speaker, "speaker"),
            None if since is None else checked_moment(since, "since"),
            None if until is None else checked_moment(until, "until"),
            recency,
            asker,
            self._now(),
        )
        question = checked_text(query, "query")
        vector = self._embedder.embed([question])[0]
        self._check_open()
        results = self._talks.search(keys, question, vector, wanted, neighbours)
        return {"query": query, "total": len(results), "results": results}

    def history(self, memory_id: int, *, conversation_id: str | int | None = None) -> list[dict[str, Any]]:
        """All that was done to a memory, oldest first, also where it has ended.

        Raises
        ------
        NotFoundError
            There is no such memory.
        """
        key = None if conversation_id is None else conversation_key(conversation_id)
        with databases.reading(self._engine) as session:
            memory_of(session, memory_id, key)
            events = session.scalars(select(Event).where(Event.memory_id == memory_id).order_by(Event.id))
            return [
                {
                    "event": event.event,
                    "old_memory": event.old_text,
                    "new_memory": event.new_text,
                    "by": event.by,
                    "reason": event.reason,
                    "happened_at": event.happened_at,
                }
                for event in events
            ]

    def summary(self, conversation_id: str | int) -> str | None:
        """What a conversation was about, up to the last twenty turns; None where there is no summary yet."""
        key = conversation_key(conversation_id)
        with databases.reading(self._engine) as session:
            found = last_summary(session, key)
            return None if found is None else found.text

    # ---- parts -----------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return checked_moment(self._clock(), "what the clock says")

    def _changes(self, session: Session, key: str, now: datetime, by: str) -> Changes:
        return Changes(session, key, embedder=self._embedder.name, now=now, by=by)

    def _near(self, memory_id: int, vector: Float32 | None, now: datetime) -> dict[int, float]:
        """What an episode may be linked to once it says something else."""
        if vector is None:
            return {}
        with databases.reading(self._engine) as session:
            found = memory_of(session, memory_id)
        if found.kind != "bubble":
            return {}
        return near_to(self._engine, found.conversation_id, vector, now, scope_of(found))

    def _locked(
        self, session: Session, memory_id: int, key: str | None, *, is_ended_too: bool = False
    ) -> Memory:
        """The memory, its conversation locked, as it is once that is so."""
        found = memory_of(session, memory_id, key)
        databases.lock_conversation(session, found.conversation_id)
        session.refresh(found)
        return found if is_ended_too else active_memory_of(session, memory_id, key)

    def _follow(self, key: str) -> None:
        """Have the index read what was committed; written to its file now and then."""
        replica = replica_of(self._engine, key)
        store = replica.synced(dimension=self._embedder.dimension)
        if replica.n_unsaved >= max(_SAVED_AFTER, store.count // 4):
            replica.keep()

    def _conversations(self, conversation_id: str | int | None, scope: Scope) -> list[str] | None:
        if conversation_id is not None:
            return [conversation_key(conversation_id)]
        if not scope.asked:
            raise InvalidInputError("say which conversation_id, or whose: user_id, agent_id or session_id")
        return None

    def _owned(self, scope: Scope) -> list[str]:
        conditions = [getattr(Memory, name) == value for name, value in scope.asked.items()]
        with databases.reading(self._engine) as session:
            return list(session.scalars(select(Memory.conversation_id).where(*conditions).distinct()))

    def _claim_embedder(self, session: Session) -> None:
        """Store which embedder this is with the first thing that it has embedded."""
        if not self._is_checked:
            value = orjson.dumps([self._embedder.name, self._embedder.dimension]).decode()
            databases.put_fact(session, "embedder", value)
            self._check_embedder(session.get(Fact, "embedder"))

    def _check_embedder(self, fact: Fact | None) -> None:
        if fact is not None:
            name, dimension = orjson.loads(fact.value)
            check_same_embedder((name, dimension), self._embedder, "this memory")
            self._is_checked = True


def _best(hits: Sequence[Hits], limit: int) -> Hits:
    if len(hits) == 1:
        return hits[0]
    told = {
        one.memory_id: each.told[one.memory_id]
        for each in hits
        for one in each.found
        if one.memory_id in each.told
    }
    found = sorted((one for each in hits for one in each.found), key=lambda one: -one.score)
    return Hits(found[:limit], told)


def _names(names: str | Collection[str] | None, what: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, Iterable):
        raise InvalidInputError(f"{what} is a text or several of them, got {names!r}")
    return tuple(checked_name(name, what) for name in ([names] if isinstance(names, str) else names))


def _kinds(kinds: str | Collection[str] | None) -> tuple[str, ...] | None:
    found = _names(kinds, "type")
    for kind in found or ():
        if kind not in KINDS:
            raise InvalidInputError(f"type must be one of {', '.join(KINDS)}, got {kind!r}")
    return found

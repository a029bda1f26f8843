"""One question to many workers: each shard answers once, from whichever replica is there.

A worker that takes longer than 19 of 20 of its answers did is helped by another (a hedge, for one call in ten
at most); one that is gone, damaged or talks nonsense is replaced; one that says nothing for long is passed
over by the calls that follow. Knows calls and futures, and no transport; the clock is passed in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from faissbase.errors import CorruptionError, FaissbaseError, NotFoundError, UnavailableError
from faissbase.sharded.latencies import Latencies
from faissbase.sharded.placement import Placement
from faissbase.sharded.worker import Call, Reply, Worker, WorkerGoneError

_FIRST_HEDGE_S = 0.5
_SILENT_S = 1.0
_SILENT_TIMES = 10
_DOUBTED_S = 5.0
_HEDGED_SHARE = 0.1  # of calls: what comes together beyond is work that everybody waits for
_HEDGES_AT_ONCE = 3.0
_ELSEWHERE = (UnavailableError, CorruptionError, NotFoundError)
"""What another replica may do better: anything else is about the call itself."""

IsSound = Callable[[Any], bool]


class Routes(Protocol):
    """Who can be asked now. It changes while calls are under way."""

    def placement(self, dataset: str, version: int) -> Placement:
        """By shard, the workers that hold it."""
        ...

    def worker(self, name: str) -> Worker:
        """The worker of that name, or `WorkerGoneError`."""
        ...

    def doubt(self, name: str) -> None:
        """A worker has failed: whoever keeps the placement should look at it soon."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """What some shards have answered together."""

    shards: tuple[str, ...]
    value: Any


@dataclass(frozen=True, slots=True)
class Gathered:
    """The answers of all shards; ``failed`` tells of those that have none, and why."""

    parts: tuple[Part, ...]
    failed: Mapping[str, FaissbaseError]


class Tally:
    """What is known of the workers: how much each has to do, how fast it is, whether it is to be doubted.

    Parameters
    ----------
    now : callable
        Seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.n_calls = 0
        self.n_hedges = 0
        self.n_retries = 0
        self._hedges_left = _HEDGES_AT_ONCE
        self._lock = threading.Lock()
        self._busy: dict[str, int] = {}
        self._doubted: dict[str, float] = {}
        self._latencies = Latencies()

    def began(self, name: str) -> None:
        with self._lock:
            self.n_calls += 1
            self._hedges_left = min(_HEDGES_AT_ONCE, self._hedges_left + _HEDGED_SHARE)
            self._busy[name] = self._busy.get(name, 0) + 1

    def ended(self, name: str, key: object, began: float, is_answered: bool) -> None:
        with self._lock:
            self._busy[name] -= 1
            if is_answered:
                self._doubted.pop(name, None)
        if is_answered:
            self._latencies.add((name, key), self.now() - began)

    def doubt(self, name: str) -> None:
        """Ask this worker last for a while."""
        self._doubted[name] = self.now() + _DOUBTED_S

    def rank(self, name: str) -> tuple[bool, int]:
        """Who is asked first: the smallest."""
        return self._doubted.get(name, 0.0) > self.now(), self._busy.get(name, 0)

    def p95_s(self, name: str, key: object) -> float | None:
        return self._latencies.p95_s((name, key))

    def may_hedge(self) -> bool:
        """Whether a hedge more is within a tenth of the last calls; counts it where it is.

        All workers are late together when there is much to do, and hedges would double it: so few may be
        saved up.
        """
        with self._lock:
            if self._hedges_left < 1.0:
                return False
            self._hedges_left -= 1.0
            self.n_hedges += 1
            return True


@dataclass
class _Piece:
    """Some shards that one worker was asked about, and who was asked instead."""

    shards: tuple[str, ...]
    worker: str | None
    future: Future[Reply] | None
    hedge_at: float
    silent_at: float
    tried: frozenset[str]
    reply: Reply | None = None
    error: FaissbaseError | None = None
    instead: list[_Piece] = field(default_factory=list)

    def is_settled(self) -> bool:
        if self.reply is not None:
            return all(piece.is_settled() for piece in self.instead) if self.reply.refused else True
        if self.instead:
            return all(piece.is_settled() for piece in self.instead) and (
                self.future is None or not any(piece.has_failed() for piece in self.instead)
            )
        return self.future is None

    def has_failed(self) -> bool:
        if self.reply is None and not self.instead:
            return True
        return any(piece.has_failed() for piece in self.instead)

    def waiting(self) -> list[_Piece]:
        """The pieces whose workers have not answered yet, of which an answer would count."""
        if self.reply is not None and not self.reply.refused:
            return []
        below = [each for piece in self.instead for each in piece.waiting()]
        return [self, *below] if self.future is not None else below

    def collect(self, parts: list[Part], failed: dict[str, FaissbaseError]) -> None:
        if self.reply is not None:
            parts.append(Part(self.reply.shards, self.reply.value))
            if not self.reply.refused:
                return
        elif not self.instead:
            for shard in self.shards:
                failed[shard] = self.error or UnavailableError("no worker holds it")
        for piece in self.instead:
            piece.collect(parts, failed)


class Fanout:
    """Asks the workers about one version of a dataset.

    Parameters
    ----------
    routes : Routes
    tally : Tally
        Shared by all that ask the same workers.
    timeout_s : float
        How long an answer may take.
    """

    def __init__(self, dataset: str, version: int, routes: Routes, tally: Tally, timeout_s: float) -> None:
        self._dataset = dataset
        self._version = version
        self._routes = routes
        self._tally = tally
        self._timeout_s = timeout_s

    def ask(
        self, shards: Sequence[str], method: str, args: tuple[Any, ...], is_sound: IsSound, size: int = 1
    ) -> Gathered:
        """Have every shard answer.

        Parameters
        ----------
        is_sound : callable
            Whether a value can be an answer at all.
        size : int
            Questions in this one: what is long for one is not for many.
        """
        return _Asking(self, method, args, is_sound, size).of(shards)


class _Asking:
    """One question on its way."""

    def __init__(
        self, fanout: Fanout, method: str, args: tuple[Any, ...], is_sound: IsSound, size: int
    ) -> None:
        self._dataset, self._version = fanout._dataset, fanout._version
        self._routes, self._tally = fanout._routes, fanout._tally
        self._method, self._args, self._is_sound = method, args, is_sound
        self._key = (method, size.bit_length())
        self._give_up_at = self._tally.now() + fanout._timeout_s

    def of(self, shards: Sequence[str]) -> Gathered:
        pieces = self._sent(shards, frozenset(), None)
        while not all(piece.is_settled() for piece in pieces):
            waiting = [each for piece in pieces for each in piece.waiting()]
            if self._tally.now() >= self._give_up_at:
                self._give_up(waiting)
                break
            self._wait(waiting)
            for piece in waiting:
                self._look_at(piece)
        parts: list[Part] = []
        failed: dict[str, FaissbaseError] = {}
        for piece in pieces:
            piece.collect(parts, failed)
        return Gathered(tuple(parts), failed)

    def _sent(
        self, shards: Sequence[str], tried: frozenset[str], error: FaissbaseError | None
    ) -> list[_Piece]:
        """Ask somebody about these shards who was not asked yet; one piece for each worker."""
        by_worker: dict[str, list[str]] = {}
        pieces: list[_Piece] = []
        placement = self._routes.placement(self._dataset, self._version)
        for shard in shards:
            free = [name for name in placement.get(shard, ()) if name not in tried]
            if free:  # of equals, the one with the least of this question: they work side by side
                best = min(free, key=lambda name: (self._tally.rank(name), len(by_worker.get(name, ()))))
                by_worker.setdefault(best, []).append(shard)
            else:
                pieces.append(_Piece((shard,), None, None, 0.0, 0.0, tried, error=error))
        return pieces + [self._asked(name, tuple(part), tried) for name, part in by_worker.items()]

    def _asked(self, name: str, shards: tuple[str, ...], tried: frozenset[str]) -> _Piece:
        began = self._tally.now()
        usual = self._tally.p95_s(name, self._key)
        piece = _Piece(
            shards,
            name,
            None,
            hedge_at=began + (_FIRST_HEDGE_S if usual is None else usual),
            silent_at=began + max(_SILENT_S, _SILENT_TIMES * (usual or 0.0)),
            tried=tried | {name},
        )
        self._tally.began(name)
        try:
            call = Call(self._dataset, self._version, shards, self._method, self._args)
            future = self._routes.worker(name).call(call)
        except WorkerGoneError as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(
            lambda done: self._tally.ended(name, self._key, began, done.exception() is None)
        )
        piece.future = future
        return piece

    def _wait(self, waiting: Sequence[_Piece]) -> None:
        """Until somebody answers, or somebody else should be asked."""
        moments = [self._give_up_at]
        for piece in waiting:
            if not piece.instead:
                moments += [piece.hedge_at, piece.silent_at]
        pause = max(0.0, min(moments) - self._tally.now())
        wait([piece.future for piece in waiting if piece.future], pause, FIRST_COMPLETED)

    def _look_at(self, piece: _Piece) -> None:
        if piece.future is None:
            return
        if piece.future.done():
            self._settle(piece, piece.future)
        elif not piece.instead:
            self._help(piece)

    def _help(self, piece: _Piece) -> None:
        """Ask another replica where it is time to."""
        now = self._tally.now()
        is_silent = now >= piece.silent_at
        if not is_silent and now < piece.hedge_at:
            return
        piece.hedge_at = float("inf")
        if is_silent:
            piece.silent_at = float("inf")
            self._doubt(piece)
        elif not self._has_others(piece) or not self._tally.may_hedge():
            return
        if self._has_others(piece):
            piece.instead = self._sent(piece.shards, piece.tried, None)

    def _has_others(self, piece: _Piece) -> bool:
        """Whether every shard of a piece has another replica."""
        placement = self._routes.placement(self._dataset, self._version)
        return all(set(placement.get(shard, ())) - piece.tried for shard in piece.shards)

    def _settle(self, piece: _Piece, future: Future[Reply]) -> None:
        """Take the answer of a worker, or ask others instead."""
        piece.future = None
        try:
            reply = self._checked(piece, future.result())
        except _ELSEWHERE as error:
            piece.error = error
            if isinstance(error, WorkerGoneError):
                self._doubt(piece)
            if not piece.instead:
                self._tally.n_retries += 1
                piece.instead = self._sent(piece.shards, piece.tried, error)
            return
        if not reply.refused:
            piece.reply, piece.instead = reply, []
        elif not piece.instead:
            piece.reply = reply
            for shard, why in reply.refused.items():
                piece.instead += self._sent((shard,), piece.tried, why)

    def _checked(self, piece: _Piece, reply: Any) -> Reply:
        """A reply that can be one, with a value; raises what it brings, or `WorkerGoneError` for nonsense."""
        if not isinstance(reply, Reply) or reply.version != self._version:
            raise WorkerGoneError(f"worker {piece.worker} answered {reply!r:.80}, expected a reply")
        if reply.error is not None:
            raise reply.error
        told = sorted((*reply.shards, *reply.refused))
        if told != sorted(piece.shards) or not self._is_sound(reply.value):
            raise WorkerGoneError(
                f"worker {piece.worker} answered {self._method} with {type(reply.value).__name__} of shards "
                f"{told}, which cannot be the answer"
            )
        return reply

    def _doubt(self, piece: _Piece) -> None:
        if piece.worker is not None:
            self._tally.doubt(piece.worker)
            self._routes.doubt(piece.worker)

    def _give_up(self, waiting: Sequence[_Piece]) -> None:
        for piece in waiting:
            piece.future = None
            piece.error = UnavailableError(f"worker {piece.worker} gave no answer in time")

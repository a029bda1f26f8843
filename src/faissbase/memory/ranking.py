"""Which turns of a conversation answer a question: words and vectors, with what stands around a turn.

Knows only plain values: no database, no embedder, no clock. One index holds one scope.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np

from faissbase.errors import InvalidInputError
from faissbase.memory.bm25 import BM25, Scores, Slots
from faissbase.memory.columns import Columns, Mask
from faissbase.memory.ranked import Ranked, Turn, Weights, Where, seconds_of
from faissbase.memory.renewal import DEPTH, Statement, successors
from faissbase.memory.when import Asked, Period, asked
from faissbase.memory.words import words_of

NEAREST = 100
"""How many of the nearest vectors a search wants to be given; more do no harm."""

_CANDIDATES = 1_000
_ASKER = frozenset({"i", "me", "my", "mine", "myself", "i'm", "i've", "i'd"})
_TOLD_WITHIN = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class _Question:
    """A question with all that was said about it."""

    text: str
    words: list[str]
    nearest: Mapping[str, float]
    asker: str | None
    time: Asked
    recency: float


class TurnIndex:
    """The turns of one scope, searchable as soon as they are added.

    Not thread-safe: its owner has the lock.
    """

    def __init__(self, weights: Weights | None = None) -> None:
        self._weights = weights or Weights()
        self._start()

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, id: object) -> bool:
        return id in self._slots

    def add(self, turns: Iterable[Turn]) -> None:
        """Add turns in the order in which they were said; an id that is known is replaced."""
        for turn in turns:
            self._drop(turn.id)
            self._append(turn)

    def remove(self, ids: Iterable[str]) -> int:
        """Forget turns; their neighbours become neighbours of each other. Returns how many there were."""
        n = sum(self._drop(id) for id in ids)
        if len(self._turns) > 64 and len(self._slots) < len(self._turns) / 2:
            alive = [turn for turn in self._turns if turn]
            self._start()
            for turn in alive:
                self._append(turn)
        return n

    def search(
        self,
        question: str,
        k: int = 10,
        *,
        nearest: Mapping[str, float] | None = None,
        where: Where | None = None,
        asker: str | None = None,
        now: datetime | None = None,
        recency: float | None = None,
    ) -> list[Ranked]:
        """The up to ``k`` best turns, best first; of equal ones the newer first.

        Parameters
        ----------
        nearest
            Cosine similarity of the question to turns by id: the `NEAREST` largest, or all. Ids that are
            not in the index are passed over. Without it, words alone decide.
        asker
            The speaker who is meant by "I" and "my".
        now
            The moment of the question; else that of the newest turn there ever was.
        recency
            How much the oldest turn loses against the newest, 0 to 1; None: what the question asks for.
        """
        if k < 1:
            raise InvalidInputError(f"k must be at least 1, got {k}")
        is_number = isinstance(recency, int | float) and not isinstance(recency, bool)
        if recency is not None and not (is_number and 0 <= recency <= 1):
            raise InvalidInputError(f"recency must be a number between 0 and 1, got {recency!r}")
        if not self._slots:
            return []
        time = asked(question, now or self._newest())
        if recency is None:
            recency = self._weights.newest if time.wants_newest else 0.0
        asking = _Question(question, words_of(question), nearest or {}, asker, time, recency)
        return self._best(asking, k, where)

    def _start(self) -> None:
        self._turns: list[Turn | None] = []
        self._slots: dict[str, int] = {}
        self._columns = Columns()
        self._words = BM25(k1=0.9, b=0.4)
        self._session_words = BM25(k1=1.2, b=0.75)

    def _append(self, turn: Turn) -> None:
        slot, words = len(self._turns), words_of(turn.text)
        self._session_words.add(self._columns.append(turn), words)
        self._words.add(slot, words)
        self._turns.append(turn)
        self._slots[turn.id] = slot

    def _drop(self, id: str) -> bool:
        slot = self._slots.pop(id, None)
        if slot is None:
            return False
        words = words_of(self._turn(slot).text)
        self._words.remove(slot, words)
        self._session_words.remove(self._columns.remove(slot), words)
        self._turns[slot] = None
        return True

    def _turn(self, slot: int) -> Turn:
        turn = self._turns[slot]
        assert turn is not None
        return turn

    def _newest(self) -> datetime:
        return datetime.fromtimestamp(max(0.0, self._columns.newest_s), timezone.utc)

    def _best(self, asking: _Question, k: int, where: Where | None) -> list[Ranked]:
        """Candidates by what they hold themselves, then with their neighbours, each looked at closely."""
        allowed = self._columns.allowed(where, self._slots) if where else None
        wanted = max(k, _CANDIDATES)
        enough = 2 * wanted if allowed is None else math.inf
        words = _to_one(self._words.scores(asking.words, len(self._turns), enough), allowed)
        vectors = self._weights.vectors * self._nearness(asking.nearest)
        slots = self._candidates(words + vectors, allowed, wanted)
        parts = self._parts(asking, words, vectors, slots)
        factor = self._factor(asking, slots)
        scores = sum(parts.values()) * factor / self._weights.largest
        is_present = asking.time.is_present or asking.time.wants_newest
        order = self._order(slots, scores, max(k, DEPTH) if is_present else k)
        ranked = self._ranked(slots[order], scores[order], [*parts.items(), ("factor", factor)], order)
        return self._renewed(asking, ranked)[:k] if is_present else ranked

    def _candidates(self, own: Scores, allowed: Mask | None, n: int) -> Slots:
        """The allowed among the best and those beside them, whoever said the best."""
        if allowed is None:
            return self._columns.beside(_largest(own, n))
        best = np.concatenate([_largest(own, n), _largest(np.where(allowed, own, 0.0), n)])
        around = self._columns.beside(best)
        among: Slots = around[allowed[around]]
        return among

    def _renewed(self, asking: _Question, ranked: list[Ranked]) -> list[Ranked]:
        """The best turn after those that may replace it."""
        statements = [self._statement(hit, asking.nearest) for hit in ranked[:DEPTH]]
        places = successors(statements, self._weights.successors)
        moved = [_brought_to(ranked[0].score, ranked[place]) for place in places]
        return [*moved, *(hit for place, hit in enumerate(ranked) if place not in places)]

    def _statement(self, hit: Ranked, nearest: Mapping[str, float]) -> Statement:
        turn = self._turn(self._slots[hit.id])
        own = hit.parts["words"] + hit.parts["vectors"]
        return Statement(
            turn.text, turn.speaker, seconds_of(turn.occurred_at), own, nearest.get(turn.id, 0.0)
        )

    def _parts(self, asking: _Question, words: Scores, vectors: Scores, slots: Slots) -> dict[str, Scores]:
        weights, columns = self._weights, self._columns
        sessions = _to_one(self._session_words.scores(asking.words, len(columns.sessions.numbers)))
        return {
            "words": words[slots],
            "vectors": vectors[slots],
            "neighbours": columns.lent(words + vectors, slots, weights.before, weights.after),
            "session": weights.session * sessions[columns.session.values[slots]],
        }

    def _nearness(self, nearest: Mapping[str, float]) -> Scores:
        """0 for the last of the `NEAREST` and beyond, 1 for the nearest."""
        near = np.zeros(len(self._turns))
        known = ((value, self._slots[id]) for id, value in nearest.items() if id in self._slots)
        values_slots = heapq.nlargest(NEAREST, known)
        if not values_slots or values_slots[0][0] <= 0:
            return near
        values = np.array([value for value, _ in values_slots])
        # The last of few is not far away; the fewer there are, the more it keeps.
        floor = max(0.0, values[-1]) * len(values) / NEAREST
        if values[0] > floor:
            slots = [slot for _, slot in values_slots]
            near[slots] = np.maximum(values - floor, 0) / (values[0] - floor)
        return near

    def _factor(self, asking: _Question, slots: Slots) -> Scores:
        weights, columns = self._weights, self._columns
        factor: Scores = 1.0 - weights.asking * columns.asking.values[slots]
        meant = self._meant(asking)
        factor[~meant[columns.speaker.values[slots]]] *= weights.other_speaker
        times = columns.time.values[slots]
        if asking.time.periods:
            inside = np.any([_within(period, times) for period in asking.time.periods], axis=0)
            factor[~inside] *= weights.outside
        if asking.recency:
            factor *= 1 - asking.recency * _age(times)
        return factor

    def _meant(self, asking: _Question) -> Mask:
        """``bool[n]``: the speakers that the question names; all of them where it names none."""
        said = set(re.findall(r"[\w']+", asking.text.lower().replace("\u2019", "'")))
        said |= {word.removesuffix("'s") for word in said}
        speakers = self._columns.speakers
        named = speakers.mask(
            speaker
            for speaker in speakers.numbers
            if said & set(speaker.lower().split()) or (speaker == asking.asker and said & _ASKER)
        )
        return named if named.any() else ~named

    def _order(self, slots: Slots, scores: Scores, k: int) -> Slots:
        """The places of the ``k`` best in ``slots``."""
        times = np.nan_to_num(self._columns.time.values[slots], nan=-math.inf)
        order = np.lexsort((-slots, -times, -scores))[:k]
        found: Slots = order[scores[order] > 0]
        return found

    def _ranked(
        self, slots: Slots, scores: Scores, parts: Sequence[tuple[str, Scores]], order: Slots
    ) -> list[Ranked]:
        names = [name for name, _ in parts]
        columns = [
            (v if name == "factor" else v / self._weights.largest)[order].tolist() for name, v in parts
        ]
        return [
            Ranked(self._turn(slot).id, score, dict(zip(names, values, strict=True)))
            for slot, score, *values in zip(slots.tolist(), scores.tolist(), *columns, strict=True)
        ]


def _brought_to(score: float, hit: Ranked) -> Ranked:
    return Ranked(hit.id, score, {**hit.parts, "renewal": score - hit.score})


def _to_one(scores: Scores, among: Mask | None = None) -> Scores:
    """Scores over the largest of ``among``; cut to 1 elsewhere."""
    # Nothing that was removed has a score, so that without a condition all may be looked at.
    largest = scores.max(initial=0.0) if among is None else scores[among].max(initial=0.0)
    return np.minimum(scores / largest, 1.0) if largest > 0 else np.zeros_like(scores)


def _largest(scores: Scores, n: int) -> Slots:
    """The slots of the ``n`` largest scores above 0, and of what equals the last of them."""
    found = np.flatnonzero(scores > 0)
    if len(found) <= n:
        return found
    best: Slots = found[scores[found] >= np.partition(scores[found], -n)[-n]]
    return best


def _within(period: Period, times: Scores) -> Mask:
    # People tell within days what has happened.
    start, end = seconds_of(period.start), seconds_of(period.end + _TOLD_WITHIN)
    inside: Mask = (times >= start) & (times < end)
    return inside


def _age(times: Scores) -> Scores:
    """0 for the newest, 1 for the oldest, by order; 1 where nobody knows."""
    if not len(times):
        return times
    _, order = np.unique(np.nan_to_num(times, nan=-math.inf), return_inverse=True)
    age: Scores = 1.0 - order / max(1, int(order.max()))
    return age

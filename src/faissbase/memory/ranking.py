"""Which turns of a conversation answer a question: words and vectors, with what stands around a turn.

Knows only plain values: no database, no embedder, no clock. One index holds one scope.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from faissbase.errors import InvalidInputError
from faissbase.memory.bm25 import BM25, Scores
from faissbase.memory.columns import Column, Neighbours
from faissbase.memory.ranked import Ranked, Turn, Where, seconds_of
from faissbase.memory.when import Asked, Period, asked
from faissbase.memory.words import words_of

NEAREST = 100
"""How many of the nearest vectors a search wants to be given; more do no harm."""

_ENDS = ".!?\u3002\uff01\uff1f"
_SENTENCE = re.compile(rf"[^{_ENDS}]*[{_ENDS}]+|[^{_ENDS}]+$")
_ASKS = re.compile("[?\uff1f]")
_ASKER = frozenset({"i", "me", "my", "mine", "myself", "i'm", "i've", "i'd"})


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each sign counts, the words of the turn itself being 1.

    Each default is a round number in the middle of a wide range that does equally well; see
    ``benchmarks/results/dialogue.md``.

    Attributes
    ----------
    vectors
        Nearness of the turn's vector.
    before, after
        The share of a neighbour's score that a turn takes: an answer follows its question.
    session
        Whether the words of the question come together in the session.
    other_speaker
        What is left of a score where the question names somebody else.
    asking
        How much a turn loses that only asks.
    outside
        What is left of a score outside the period that the question names.
    newest
        How much the oldest turn loses where the newest is wanted.
    """

    vectors: float = 0.7
    before: float = 0.5
    after: float = 0.2
    session: float = 0.6
    other_speaker: float = 0.85
    asking: float = 0.3
    outside: float = 0.7
    newest: float = 0.3


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
            The moment of the question; else the newest turn's.
        recency
            How much the oldest turn loses against the newest, 0 to 1; None: what the question asks for.
        """
        if k < 1:
            raise InvalidInputError(f"k must be at least 1, got {k}")
        if recency is not None and not 0 <= recency <= 1:
            raise InvalidInputError(f"recency must be between 0 and 1, got {recency}")
        if not self._slots:
            return []
        allowed = self._allowed(where or Where())
        parts = self._parts(question, nearest or {}, allowed)
        factor = self._factor(question, asker, self._asked(question, now), recency)
        scores = np.where(allowed, sum(parts.values()) * factor / self._largest(), 0.0)
        return [self._ranked(slot, scores, parts, factor) for slot in self._best(scores, k)]

    def _start(self) -> None:
        self._turns: list[Turn | None] = []
        self._slots: dict[str, int] = {}
        self._words = BM25(k1=0.9, b=0.4)
        self._session_words = BM25(k1=1.2, b=0.75)
        self._numbers: dict[str, int] = {}
        self._speakers: dict[str, int] = {}
        self._kinds: dict[str, int] = {}
        self._neighbours = Neighbours()
        self._session, self._speaker, self._kind = Column(np.int64), Column(np.int64), Column(np.int64)
        self._time, self._asking, self._alive = Column(np.float64), Column(np.float64), Column(np.bool_)

    def _append(self, turn: Turn) -> None:
        slot = len(self._turns)
        # A turn without a session is a session of its own; the names cannot meet.
        session = _number(self._numbers, f"s{turn.session}" if turn.session is not None else f"t{turn.id}")
        words = _words(turn)
        self._words.add(slot, words)
        self._session_words.add(session, words)
        self._neighbours.append(session)
        self._session.append(session)
        self._speaker.append(_number(self._speakers, turn.speaker))
        self._kind.append(_number(self._kinds, turn.kind))
        self._time.append(seconds_of(turn.occurred_at))
        self._asking.append(asking_share(turn.text))
        self._alive.append(True)
        self._turns.append(turn)
        self._slots[turn.id] = slot

    def _drop(self, id: str) -> bool:
        slot = self._slots.pop(id, None)
        if slot is None:
            return False
        turn, session = self._turns[slot], int(self._session.values[slot])
        assert turn is not None
        words = _words(turn)
        self._words.remove(slot, words)
        self._session_words.remove(session, words)
        self._neighbours.remove(slot, session)
        self._alive.values[slot] = False
        self._turns[slot] = None
        return True

    def _allowed(self, where: Where) -> NDArray[np.bool_]:
        allowed: NDArray[np.bool_] = self._alive.values.copy()
        if where.speakers is not None:
            allowed &= np.isin(self._speaker.values, _known(self._speakers, where.speakers))
        if where.kinds is not None:
            allowed &= np.isin(self._kind.values, _known(self._kinds, where.kinds))
        if where.since is not None:
            allowed &= self._time.values >= seconds_of(where.since)
        if where.until is not None:
            allowed &= self._time.values < seconds_of(where.until)
        if where.among is not None:
            among = np.zeros(len(allowed), np.bool_)
            among[_known(self._slots, where.among)] = True
            allowed &= among
        return allowed

    def _parts(
        self, question: str, nearest: Mapping[str, float], allowed: NDArray[np.bool_]
    ) -> dict[str, Scores]:
        weights, words = self._weights, words_of(question)
        own = _to_one(self._words.scores(words, len(self._turns)), allowed)
        near = weights.vectors * self._nearness(nearest)
        sessions = _to_one(self._session_words.scores(words, len(self._numbers)))
        return {
            "words": own,
            "vectors": near,
            "neighbours": self._neighbours.share(own + near, weights.before, weights.after),
            "session": weights.session * sessions[self._session.values],
        }

    def _nearness(self, nearest: Mapping[str, float]) -> Scores:
        """0 for the last of the `NEAREST` and beyond, 1 for the nearest."""
        near = np.zeros(len(self._turns))
        known = sorted(
            ((value, self._slots[id]) for id, value in nearest.items() if id in self._slots), reverse=True
        )[:NEAREST]
        if not known or known[0][0] <= 0:
            return near
        values = np.array([value for value, _ in known])
        # The last of few is not far away; the fewer there are, the more it keeps.
        floor = max(0.0, values[-1]) * len(known) / NEAREST
        if values[0] > floor:
            near[[slot for _, slot in known]] = np.maximum(values - floor, 0) / (values[0] - floor)
        return near

    def _asked(self, question: str, now: datetime | None) -> Asked:
        if now is None:
            times = self._time.values[self._alive.values]
            newest = float(np.nanmax(times)) if not np.isnan(times).all() else 0.0
            now = datetime.fromtimestamp(newest, timezone.utc)
        return asked(question, now)

    def _factor(self, question: str, asker: str | None, asked: Asked, recency: float | None) -> Scores:
        weights = self._weights
        factor = 1.0 - weights.asking * self._asking.values
        meant = self._meant(question, asker)
        if meant:
            factor[~np.isin(self._speaker.values, meant)] *= weights.other_speaker
        if asked.periods:
            inside = np.any([self._within(period) for period in asked.periods], axis=0)
            factor[~inside] *= weights.outside
        if recency is None:
            recency = weights.newest if asked.wants_newest else 0.0
        return factor * (1 - recency * self._age()) if recency else factor

    def _meant(self, question: str, asker: str | None) -> list[int]:
        """The speakers that the question names; none where it names all."""
        said = set(re.findall(r"[\w']+", question.lower().replace("\u2019", "'")))
        said |= {word.removesuffix("'s") for word in said}
        named = {
            number
            for speaker, number in self._speakers.items()
            if said & set(speaker.lower().split()) or (speaker == asker and said & _ASKER)
        }
        return sorted(named) if len(named) < len(self._speakers) else []

    def _within(self, period: Period) -> NDArray[np.bool_]:
        # People tell within days what has happened.
        end = period.end + timedelta(days=7)
        times = self._time.values
        inside: NDArray[np.bool_] = (times >= seconds_of(period.start)) & (times < seconds_of(end))
        return inside

    def _age(self) -> Scores:
        """0 for the newest turn, 1 for the oldest, by order; 1 where nobody knows."""
        alive = self._alive.values
        times = np.where(np.isnan(self._time.values) | ~alive, -math.inf, self._time.values)
        _, order = np.unique(times, return_inverse=True)
        return 1.0 - order / max(1, int(order.max()))

    def _best(self, scores: Scores, k: int) -> list[int]:
        found = np.flatnonzero(scores > 0)
        if len(found) > k:
            least = np.partition(scores[found], -k)[-k]
            found = found[scores[found] >= least]
        times = np.nan_to_num(self._time.values[found], nan=-math.inf)
        order = np.lexsort((-found, -times, -scores[found]))
        return [int(slot) for slot in found[order[:k]]]

    def _ranked(self, slot: int, scores: Scores, parts: Mapping[str, Scores], factor: Scores) -> Ranked:
        turn = self._turns[slot]
        assert turn is not None
        shares = {name: float(values[slot]) / self._largest() for name, values in parts.items()}
        return Ranked(turn.id, float(scores[slot]), {**shares, "factor": float(factor[slot])})

    def _largest(self) -> float:
        weights = self._weights
        return (1 + weights.vectors) * (1 + weights.before + weights.after) + weights.session


def asking_share(text: str) -> float:
    """The share of the sentences of ``text`` that are questions.

    >>> asking_share("I moved to Porto. And you?")
    0.5
    """
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]
    return sum(bool(_ASKS.search(s)) for s in sentences) / len(sentences) if sentences else 0.0


def _words(turn: Turn) -> list[str]:
    return words_of(f"{turn.speaker} {turn.text}")


def _to_one(scores: Scores, among: NDArray[np.bool_] | None = None) -> Scores:
    """Scores over the largest of ``among``; at most 1 there and cut to 1 elsewhere."""
    largest = scores.max(initial=0.0) if among is None else scores[among].max(initial=0.0)
    return np.minimum(scores / largest, 1.0) if largest > 0 else np.zeros_like(scores)


def _number(numbers: dict[str, int], name: str) -> int:
    return numbers.setdefault(name, len(numbers))


def _known(numbers: Mapping[str, int], names: Iterable[str]) -> list[int]:
    return [numbers[name] for name in names if name in numbers]

"""What is known of turns, as columns of numbers by slot: who, when, which session, who stands beside whom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from faissbase.memory.bm25 import Scores, Slots
from faissbase.memory.ranked import Turn, Where, seconds_of
from faissbase.memory.words import asking_share

Mask = NDArray[np.bool_]


class Column:
    """A NumPy array that can be appended to; `values` is a view and ends at the last value."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._array: NDArray[Any] = np.zeros(64, dtype)
        self._n = 0

    @property
    def values(self) -> NDArray[Any]:
        return self._array[: self._n]

    def append(self, value: float) -> None:
        if self._n == len(self._array):
            self._array = np.concatenate([self._array, np.zeros_like(self._array)])
        self._array[self._n] = value
        self._n += 1


class Names:
    """Numbers for names, in the order in which they are met."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))

    def mask(self, names: Iterable[str]) -> Mask:
        """``bool[n]``: whether each number's name is among ``names``."""
        mask = np.zeros(len(self.numbers), np.bool_)
        mask[[self.numbers[name] for name in names if name in self.numbers]] = True
        return mask


class Columns:
    """The columns of all turns that were ever added; `is_alive` says which are still there."""

    def __init__(self) -> None:
        self.sessions, self.speakers, self.kinds = Names(), Names(), Names()
        self.session, self.speaker, self.kind = Column(np.int64), Column(np.int64), Column(np.int64)
        self.time, self.asking, self.is_alive = Column(np.float64), Column(np.float64), Column(np.bool_)
        self.before, self.after = Column(np.int64), Column(np.int64)
        self.newest_s = -math.inf
        self._last: dict[int, int] = {}

    def append(self, turn: Turn) -> int:
        """The number of the turn's session; the turn stands beside the one that ended it so far."""
        # A turn without a session is a session of its own; the two kinds of names cannot meet.
        name = f"t{turn.id}" if turn.session is None else f"s{turn.session}"
        session, time_s = self.sessions.number(name), seconds_of(turn.occurred_at)
        self.session.append(session)
        self.speaker.append(self.speakers.number(turn.speaker))
        self.kind.append(self.kinds.number(turn.kind))
        self.time.append(time_s)
        self.asking.append(asking_share(turn.text))
        self.is_alive.append(True)
        self.newest_s = max(self.newest_s, -math.inf if math.isnan(time_s) else time_s)
        self._stand_last(session)
        return session

    def remove(self, slot: int) -> int:
        """The number of the session that loses ``slot``; those beside it become neighbours."""
        session = int(self.session.values[slot])
        before, after = int(self.before.values[slot]), int(self.after.values[slot])
        if after >= 0:
            self.before.values[after] = before
        if before >= 0:
            self.after.values[before] = after
        if self._last[session] == slot:
            self._last[session] = before
        self.is_alive.values[slot] = False
        self.before.values[slot] = self.after.values[slot] = -1
        return session

    def allowed(self, where: Where, slots: Mapping[str, int]) -> Mask:
        """``bool[n]``: the turns that are there and meet ``where``."""
        allowed: Mask = self.is_alive.values.copy()
        if where.speakers is not None:
            allowed &= self.speakers.mask(where.speakers)[self.speaker.values]
        if where.kinds is not None:
            allowed &= self.kinds.mask(where.kinds)[self.kind.values]
        if where.since is not None:
            allowed &= self.time.values >= seconds_of(where.since)
        if where.until is not None:
            allowed &= self.time.values < seconds_of(where.until)
        if where.among is not None:
            among = np.zeros(len(allowed), np.bool_)
            among[[slots[id] for id in where.among if id in slots]] = True
            allowed &= among
        return allowed

    def beside(self, slots: Slots) -> Slots:
        """``slots`` with those before and after each of them, rising."""
        marked = np.zeros(len(self.before.values) + 1, np.bool_)  # -1 is its last place
        for around in (slots, self.before.values[slots], self.after.values[slots]):
            marked[around] = True
        return np.flatnonzero(marked[:-1])

    def lent(self, scores: Scores, slots: Slots, before: float, after: float) -> Scores:
        """For each of ``slots``, these shares of the scores of the one before and the one after."""
        return before * _at(scores, self.before.values[slots]) + after * _at(scores, self.after.values[slots])

    def _stand_last(self, session: int) -> None:
        slot, before = len(self.before.values), self._last.get(session, -1)
        self.before.append(before)
        self.after.append(-1)
        if before >= 0:
            self.after.values[before] = slot
        self._last[session] = slot


def _at(scores: Scores, slots: Slots) -> Scores:
    """The scores of ``slots``, 0 for the slot -1."""
    taken: Scores = np.where(slots >= 0, scores[slots], 0.0)
    return taken

"""BM25 over texts that come and go: which texts hold the rare words of a question.

Knows only words and slot numbers. **Source**: Robertson and Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond" (2009), with Lucene's inverse document frequency, which is never negative.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Slots = NDArray[np.int64]


class BM25:
    """Texts by slot; a slot may be added to, so that a session grows with each of its turns.

    Parameters
    ----------
    k1
        How soon further repetitions of a word stop counting.
    b
        How far a long text must hold a word more often than a short one, 0 to 1.
    """

    def __init__(self, *, k1: float, b: float) -> None:
        self._k1, self._b = k1, b
        self._postings: dict[str, _Posting] = {}
        self._lengths = array("d")
        self._total = 0
        self._texts: Counter[int] = Counter()

    def add(self, slot: int, words: Sequence[str]) -> None:
        """Count ``words`` in ``slot`` beside what it has."""
        if slot >= len(self._lengths):
            self._lengths.extend([0.0] * (slot + 1 - len(self._lengths)))
        self._texts[slot] += 1
        self._lengths[slot] += len(words)
        self._total += len(words)
        for word in words:
            posting = self._postings.get(word)
            if posting is None:
                posting = self._postings[word] = _Posting()
            posting.add(slot)

    def remove(self, slot: int, words: Sequence[str]) -> None:
        """Take back what one `add` with the same arguments counted."""
        self._texts[slot] -= 1
        if not self._texts[slot]:
            del self._texts[slot]
        self._lengths[slot] -= len(words)
        self._total -= len(words)
        for word in words:
            self._postings[word].remove(slot)
            if not self._postings[word].slots:
                del self._postings[word]

    def scores(self, words: Sequence[str], n: int, enough: float = math.inf) -> Scores:
        """``float64[n]``: the score of each slot below ``n``; 0 where no word is found.

        The rarest word is looked up first. Once ``enough`` slots hold a word, the commoner ones add to these
        and find no others.
        """
        found = np.zeros(n)
        seen, chosen = 0, None
        known = sorted((w for w in dict.fromkeys(words) if w in self._postings), key=self._rarity)
        for word in known:
            if chosen is None and seen >= enough:
                chosen = np.flatnonzero(found)
            slots, counts = self._postings[word].arrays(chosen)
            found[slots] += self._weight(word) * self._saturated(slots, counts)
            seen += len(slots)
        return found

    def _rarity(self, word: str) -> tuple[int, str]:
        return len(self._postings[word].slots), word

    def _weight(self, word: str) -> float:
        holding = len(self._postings[word].slots)
        return math.log1p((len(self._texts) - holding + 0.5) / (holding + 0.5))

    def _saturated(self, slots: Slots, counts: Scores) -> Scores:
        mean = self._total / len(self._texts)
        lengths = np.frombuffer(self._lengths)[slots]
        norms = self._k1 * (1 - self._b + self._b * lengths / mean)
        saturated: Scores = counts * (self._k1 + 1) / (counts + norms)
        return saturated


class _Posting:
    """The slots that hold a word, rising, and how often."""

    __slots__ = ("counts", "slots")

    def __init__(self) -> None:
        self.slots, self.counts = array("q"), array("d")

    def add(self, slot: int) -> None:
        if not self.slots or slot > self.slots[-1]:
            self.slots.append(slot)
            self.counts.append(1.0)
            return
        place = bisect_left(self.slots, slot)
        if self.slots[place] == slot:
            self.counts[place] += 1.0
        else:
            self.slots.insert(place, slot)
            self.counts.insert(place, 1.0)

    def remove(self, slot: int) -> None:
        place = bisect_left(self.slots, slot)
        self.counts[place] -= 1.0
        if not self.counts[place]:
            del self.slots[place], self.counts[place]

    def arrays(self, among: Slots | None) -> tuple[Slots, Scores]:
        """Slots and counts, those of ``among`` only where given."""
        # A view keeps the array from growing, so it must not outlive the search.
        slots, counts = np.frombuffer(self.slots, np.int64), np.frombuffer(self.counts)
        if among is None:
            return slots, counts
        places = np.minimum(np.searchsorted(slots, among), len(slots) - 1)
        held = slots[places] == among
        return among[held], counts[places[held]]

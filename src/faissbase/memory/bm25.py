"""BM25 over texts that come and go: which texts hold the rare words of a question.

Knows only words and slot numbers. **Source**: Robertson and Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond" (2009), with Lucene's inverse document frequency, which is never negative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
_Posting = tuple[NDArray[np.int64], NDArray[np.float64]]


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
        self._counts: dict[str, dict[int, int]] = {}
        self._postings: dict[str, _Posting] = {}
        self._lengths = np.zeros(64)
        self._total = 0
        self._alive: Counter[int] = Counter()

    def add(self, slot: int, words: Sequence[str]) -> None:
        """Count ``words`` in ``slot`` beside what it has."""
        self._room_for(slot)
        self._alive[slot] += 1
        self._lengths[slot] += len(words)
        self._total += len(words)
        for word in words:
            counts = self._counts.setdefault(word, {})
            counts[slot] = counts.get(slot, 0) + 1
            self._postings.pop(word, None)

    def remove(self, slot: int, words: Sequence[str]) -> None:
        """Take back what one `add` with the same arguments counted."""
        self._alive[slot] -= 1
        if not self._alive[slot]:
            del self._alive[slot]
        self._lengths[slot] -= len(words)
        self._total -= len(words)
        for word in words:
            self._forget(word, slot)

    def scores(self, words: Sequence[str], n: int) -> Scores:
        """``float64[n]``: the score of each slot below ``n``; 0 where no word is found."""
        found = np.zeros(n)
        mean = self._total / max(1, len(self._alive)) or 1.0
        for word in dict.fromkeys(words):
            if word in self._counts:
                slots, counts = self._posting(word)
                lengths = 1 - self._b + self._b * self._lengths[slots] / mean
                found[slots] += (
                    self._weight(len(slots)) * counts * (self._k1 + 1) / (counts + self._k1 * lengths)
                )
        return found

    def best_possible(self, words: Sequence[str]) -> float:
        """What a text would score that held each of ``words`` without end; words nobody said included."""
        return (self._k1 + 1) * sum(
            self._weight(len(self._counts.get(word, ()))) for word in dict.fromkeys(words)
        )

    def _weight(self, n_texts: int) -> float:
        return float(np.log1p((len(self._alive) - n_texts + 0.5) / (n_texts + 0.5)))

    def _posting(self, word: str) -> _Posting:
        if word not in self._postings:
            counts = self._counts[word]
            size = len(counts)
            self._postings[word] = (
                np.fromiter(counts.keys(), np.int64, size),
                np.fromiter(counts.values(), np.float64, size),
            )
        return self._postings[word]

    def _forget(self, word: str, slot: int) -> None:
        counts = self._counts[word]
        counts[slot] -= 1
        if not counts[slot]:
            del counts[slot]
        if not counts:
            del self._counts[word]
        self._postings.pop(word, None)

    def _room_for(self, slot: int) -> None:
        if slot >= len(self._lengths):
            grown = np.zeros(max(slot + 1, 2 * len(self._lengths)))
            grown[: len(self._lengths)] = self._lengths
            self._lengths = grown

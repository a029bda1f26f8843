"""Embeddings without a model: hashed words and parts of words. Needs no download and no network.

What it can: find texts that share words, inflections and spellings. What it cannot: know that *car* and
*automobile* mean the same, or that *not* turns a sentence round. It keeps examples and tests running
offline, and is a fair baseline; a real model finds more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from xxhash import xxh3_64_intdigest

from faissbase.embedding.embedder import Checked, check_texts
from faissbase.errors import InvalidInputError
from faissbase.types import MAX_DIMENSION, Float32

_WORD = re.compile(r"\w+")
_LEAST_DIMENSION = 64
_PAIR_WEIGHT = 0.2
_COMMON_WEIGHT = 0.25
_PARTS_WEIGHT = 1.2
_PARTS = (3, 4, 5)
_LONGEST_WORD = 64  # of what is longer (base64, DNA) only the beginning is cut into parts
_COMMON_TEXT = """
a an and are as at be been but by can could did do does for from had has have he her his how i if in
is it its me my of on or our she should so than that the their them then there these they this to
was we were what when where which who why will with would you your
"""
_COMMON = frozenset(_COMMON_TEXT.split())


class HashedEmbedder(Checked):
    """Unit vectors of hashed words, pairs of words, and parts of 3 to 5 letters of words.

    Parameters
    ----------
    dimension : int
        At least 64. The more, the fewer features share a number; 1,024 is plenty for sentences.

    Notes
    -----
    Each feature adds its weight, with a sign, to one number of the vector, both told by a hash. A feature
    that occurs n times counts 1 + ln n; common English words count a quarter.

    **Source**: Weinberger, Dasgupta, Langford, Smola and Attenberg, "Feature Hashing for Large Scale
    Multitask Learning" (ICML 2009); parts of words after Bojanowski, Grave, Joulin and Mikolov, "Enriching
    Word Vectors with Subword Information" (TACL 2017).

    >>> red, crimson, reddish = HashedEmbedder().embed(["a red car", "a crimson boat", "reddish cars"])
    >>> bool(red @ reddish > red @ crimson)
    True
    """

    def __init__(self, dimension: int = 1024) -> None:
        if not _LEAST_DIMENSION <= dimension <= MAX_DIMENSION:
            raise InvalidInputError(
                f"dimension must be {_LEAST_DIMENSION} to {MAX_DIMENSION}, got {dimension}"
            )
        self.dimension = dimension
        self.name = f"hashed-{dimension}"

    def embed(self, texts: Sequence[str]) -> Float32:
        """One unit vector a text, ``float32[n, dimension]``.

        A text without words is known by all of its characters.
        """
        asked = check_texts(texts)
        found = np.zeros((len(asked), self.dimension), np.float32)
        for row, text in zip(found, asked, strict=True):
            self._fill(row, text)
        return found

    def _fill(self, row: Float32, text: str) -> None:
        counts: dict[int, tuple[float, int]] = {}
        for feature, weight in _features(text):
            _, seen = counts.get(feature, (weight, 0))
            counts[feature] = weight, seen + 1
        hashes = np.fromiter(counts, np.uint64, len(counts))
        weights = [weight * (1 + math.log(seen)) for weight, seen in counts.values()]
        signs = np.where(hashes >> np.uint64(63), -1.0, 1.0)
        places = (hashes % np.uint64(self.dimension)).astype(np.intp)
        row[:] = np.bincount(places, signs * weights, self.dimension)
        norm = float(np.linalg.norm(row))
        if norm == 0:  # no features, or all of them cancelled
            row[_hash(text) % self.dimension] = norm = 1.0
        row /= norm


def _hash(text: str) -> int:
    return xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def _features(text: str) -> Iterator[tuple[int, float]]:
    """Hash and weight of each feature of ``text``."""
    before: str | None = None
    for word in _WORD.findall(text.lower()):
        yield from _word_features(word)
        if before is not None:
            yield _hash(f"{before} {word}"), _PAIR_WEIGHT
        before = word


@lru_cache(maxsize=50_000)
def _word_features(word: str) -> tuple[tuple[int, float], ...]:
    weight = _COMMON_WEIGHT if word in _COMMON else 1.0
    marked = f"<{word[:_LONGEST_WORD]}>"
    parts = [marked[at : at + size] for size in _PARTS for at in range(len(marked) - size + 1)]
    share = _PARTS_WEIGHT * weight / math.sqrt(len(parts) or 1)
    return ((_hash(word), weight), *((_hash(f"#{part}"), share) for part in parts))

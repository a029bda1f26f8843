"""Pairs of prompts that somebody has labelled, checked and scored as look-ups would score them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from faissbase.cache.matching import Guard
from faissbase.cache.scope import check_prompt
from faissbase.embedding import Embedder
from faissbase.errors import InvalidInputError

Pair = tuple[str, str, bool]


def checked_pairs(pairs: Iterable[Any]) -> list[Pair]:
    """``(prompt, prompt, same meaning)`` each, or `InvalidInputError` that names the pair."""
    return [_pair(position, pair) for position, pair in enumerate(pairs)]


def scores_of(pairs: list[Pair], embedder: Embedder, guard: Guard | None) -> list[float]:
    """The cosine of each pair; −inf where the guard refuses it, as it would a hit."""
    texts = list(dict.fromkeys(text for a, b, _ in pairs for text in (a, b)))
    if not texts:
        return []
    vectors = embedder.embed(texts).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = dict(zip(texts, vectors / np.where(lengths > 0, lengths, 1), strict=True))
    return [
        -np.inf if guard is not None and guard(a, b) is not None else float(units[a] @ units[b])
        for a, b, _ in pairs
    ]


def _pair(position: int, pair: Any) -> Pair:
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 3:
        raise InvalidInputError(f"pair {position} must be (prompt, prompt, same meaning), got {pair!r}")
    a, b, same = pair
    if not isinstance(same, bool | int | np.bool_ | np.integer) or int(same) not in (0, 1):
        raise InvalidInputError(
            f"pair {position} says {same!r}: True or False wanted, the same meaning or not"
        )
    return check_prompt(a), check_prompt(b), bool(same)

"""Embeddings that a test has chosen, and a clock that it sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from faissbase.types import Float32

START = datetime(2026, 5, 1, 12, 0, tzinfo=timezone.utc)


class Planted:
    """Gives each text the vector that was planted for it; others get one that is like nothing else."""

    def __init__(self, dimension: int = 64, name: str = "planted") -> None:
        self.dimension = dimension
        self.name = name
        self.vectors: dict[str, Float32] = {}
        self.asked: list[str] = []

    def at(self, text: str, cosine: float, other: int = 1) -> str:
        """Plant ``text`` at this cosine from the query ``"query"``, which is the first axis."""
        vector = np.zeros(self.dimension, np.float32)
        vector[0], vector[other] = cosine, math.sqrt(max(0.0, 1 - cosine * cosine))
        self.vectors[text] = vector
        return text

    def embed(self, texts: Sequence[str]) -> Float32:
        self.asked += texts
        return np.stack([self._of(text) for text in texts])

    def _of(self, text: str) -> Float32:
        if text == "query":
            first: Float32 = np.eye(self.dimension, dtype=np.float32)[0]
            return first
        if text not in self.vectors:
            rng = np.random.default_rng(list(text.encode()))
            vector = rng.standard_normal(self.dimension).astype(np.float32)
            vector[: self.dimension // 2] = 0  # nothing that was planted is like it
            self.vectors[text] = vector
        return self.vectors[text]


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def pass_days(self, days: float) -> datetime:
        self.now += timedelta(days=days)
        return self.now


def texts_of(answer: dict[str, Any]) -> list[str]:
    return [each["memory"] for each in answer["results"]]


def scores_of(answer: dict[str, Any]) -> dict[str, float]:
    return {each["memory"]: each["score"] for each in answer["results"]}

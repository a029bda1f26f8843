"""Embedders and clocks that tests of the cache can steer."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from faissbase.cache import SemanticCache
from faissbase.types import Float32

D = 32
Make = Callable[..., SemanticCache]


class Topics:
    """A prompt ``"topic: 0.95"`` has that cosine with ``"topic"``, and other topics are elsewhere."""

    name = "topics-32"
    dimension = D

    def __init__(self) -> None:
        self.n_embedded = 0

    def embed(self, texts: Sequence[str]) -> Float32:
        self.n_embedded += len(texts)
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Float32:
        topic, _, cosine = text.partition(": ")
        rng = np.random.default_rng(zlib.crc32(topic.encode()))
        base, other = np.linalg.qr(rng.standard_normal((D, 2)))[0].T
        near = float(cosine) if cosine else 1.0
        vector: Float32 = (near * base + (1 - near**2) ** 0.5 * other).astype(np.float32)
        return vector


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Gate:
    """A computation that waits until it is let go, and counts how often it was begun."""

    def __init__(self, value: object = "answer") -> None:
        self.value = value
        self.n_calls = 0
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self._lock = threading.Lock()

    def __call__(self) -> object:
        with self._lock:
            self.n_calls += 1
        self.has_begun.set()
        assert self.may_end.wait(30)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def responses(cache: SemanticCache, *prompts: str) -> list[Any]:
    hits = [cache.check(prompt) for prompt in prompts]
    return [hit.response if hit else None for hit in hits]

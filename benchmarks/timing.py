"""Timing several ways to do one thing in turn, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

Call = Callable[[], object]


def seconds(call: Call) -> float:
    """The wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(arms: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each arm returns in each round; every round begins with another arm."""
    names = list(arms)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken[name].append(arms[name]())
    return taken


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """``above / below`` round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]

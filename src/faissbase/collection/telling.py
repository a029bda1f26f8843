"""How far long work is: told to whoever wants to know, or shown as a bar. Knows neither work nor network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from tqdm import tqdm

Told: TypeAlias = Callable[[str, int, int], None]
"""Is called with a phase of the work, how much of it is done, and of how much; it must not take long."""

_SHOWN_AFTER_S = 0.5


@contextmanager
def told(progress: bool | Told, unit: str) -> Iterator[Told]:
    """Who is to be told: nobody, a bar that counts ``unit``, or what was given."""
    if callable(progress):
        yield progress
        return
    with tqdm(
        total=0, unit=f" {unit}", unit_scale=True, disable=not progress, delay=_SHOWN_AFTER_S, leave=True
    ) as bar:
        yield _Moving(bar)


class _Moving:
    """Moves a bar, which begins anew with each phase."""

    def __init__(self, bar: tqdm) -> None:  # type: ignore[type-arg]  # not generic at run time
        self._bar = bar
        self._phase = ""

    def __call__(self, phase: str, done: int, total: int) -> None:
        bar = self._bar
        if bar.disable:
            return
        bar.total = total
        if phase != self._phase:
            self._phase = phase
            bar.set_description(phase, refresh=False)
            bar.initial = bar.n = bar.last_print_n = done
        bar.update(done - bar.n)

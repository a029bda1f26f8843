"""Questions that come while others are on their way: those that wait become one. Nobody waits for company.

Knows threads only.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Found = TypeVar("Found")


class _Waiting(Generic[Asked, Found]):
    """One question, and what became of it."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.turn = threading.Event()
        self.found: tuple[Found] | None = None
        self.error: Exception | None = None


class Gathering(Generic[Asked, Found]):
    """Asks at most ``at_once`` questions; who comes meanwhile waits and goes along with others. Thread-safe.

    Parameters
    ----------
    answer : callable
        Answers several questions as one, in their order; where it raises, each is asked alone.
    fits : callable
        Whether a question may go along with those that were taken, of which there is one at least.
    at_once : int
    patience_s : float, optional
        Who has waited so long goes all the same: those before may wait for something that does not come.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Found]],
        fits: Callable[[Sequence[Asked], Asked], bool],
        at_once: int,
        patience_s: float | None = None,
    ) -> None:
        self._answer = answer
        self._fits = fits
        self._patience_s = patience_s
        self._free = at_once
        self._lock = threading.Lock()
        self._line: deque[_Waiting[Asked, Found]] = deque()

    def ask(self, asked: Asked) -> Found:
        """The answer to one question, or its error."""
        mine = _Waiting[Asked, Found](asked)
        with self._lock:
            is_free = self._free > 0
            if is_free:
                self._free -= 1
            else:
                self._line.append(mine)
        if not is_free and not mine.turn.wait(self._patience_s):
            self._leave(mine)
        if mine.found is None and mine.error is None:
            self._run(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.found is not None
        return mine.found[0]

    def _leave(self, mine: _Waiting[Asked, Found]) -> None:
        """Go at once, one more than ``at_once``; or wait for the others where it was taken along just now."""
        with self._lock:
            is_in_line = mine in self._line
            if is_in_line:
                self._line.remove(mine)
                self._free -= 1
        if not is_in_line:
            mine.turn.wait()

    def _run(self, mine: _Waiting[Asked, Found]) -> None:
        """Ask for ``mine`` and for who waits and fits; then it is the next one's turn."""
        group = self._taken(mine)
        try:
            self._settle(group)
        finally:
            for other in group[1:]:
                other.turn.set()
            with self._lock:
                self._free += 1
                following = self._line.popleft() if self._line and self._free > 0 else None
                self._free -= following is not None
            if following is not None:
                following.turn.set()

    def _taken(self, mine: _Waiting[Asked, Found]) -> list[_Waiting[Asked, Found]]:
        group, asked = [mine], [mine.asked]
        with self._lock:
            while self._line and self._fits(asked, self._line[0].asked):
                group.append(self._line.popleft())
                asked.append(group[-1].asked)
        return group

    def _settle(self, group: list[_Waiting[Asked, Found]]) -> None:
        if len(group) > 1:
            try:
                answers = self._answer([each.asked for each in group])
            except Exception:  # noqa: BLE001  # one of them may be at fault: each is asked alone
                pass
            else:
                for each, found in zip(group, answers, strict=True):
                    each.found = (found,)
                return
        for each in group:
            try:
                each.found = (self._answer([each.asked])[0],)
            except Exception as error:  # noqa: BLE001  # it is the answer
                each.error = error

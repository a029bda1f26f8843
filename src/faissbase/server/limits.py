"""How often a tenant may ask, and what was answered to requests that must not be run twice."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from faissbase.errors import FaissbaseError, InvalidInputError, UnavailableError

_BURST_S = 2.0
_KEPT = 1000  # for each API key
_KEPT_BYTES = 4 << 20
_KEPT_S = 3600.0
KEY_LONGEST = 200


class TooMany(FaissbaseError):
    """The tenant asks more often than it may."""

    kind = "rate_limited"
    retryable = True

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rates:
    """So many requests a second for each tenant, and two seconds' worth at once. 0 is no limit.

    **Source**: the token bucket of J. Turner, New directions in communications, IEEE Communications 1986.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, tenant: str) -> None:
        """Count a request.

        Raises
        ------
        TooMany
            It is one too many; says when the next one will do.
        """
        if not self._per_s:
            return
        most = max(1.0, self._per_s * _BURST_S)
        with self._lock:
            now = self._clock()
            left, then = self._left.get(tenant, (most, now))
            left = min(most, left + (now - then) * self._per_s)
            self._left[tenant] = (left - 1.0 if left >= 1.0 else left), now
        if left < 1.0:
            wait_s = (1.0 - left) / self._per_s
            raise TooMany(f"this tenant may ask {self._per_s:g} times a second", wait_s)


@dataclass(slots=True)
class _Answer:
    """What a request was answered; ``content`` None while it runs."""

    digest: bytes
    at_s: float
    status: int = 0
    content: bytes | None = None


class Answered:
    """Answers to requests that came with an ``Idempotency-Key``: for an hour, in memory, by caller.

    ``caller`` is the id of an API key, ``what`` names the request.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[str, OrderedDict[tuple[str, ...], _Answer]] = {}

    def begin(self, caller: str, what: tuple[str, ...], body: bytes) -> tuple[int, bytes] | None:
        """The answer given to this request before; None where it is to be run now.

        Raises
        ------
        InvalidInputError
            Another request came with the same key.
        UnavailableError
            The same request is being run: ask again later.
        """
        digest = hashlib.sha256(body).digest()
        with self._lock:
            answers = self._answers.setdefault(caller, OrderedDict())
            _drop_old(answers, self._clock())
            known = answers.get(what)
            if known is None:
                answers[what] = _Answer(digest, self._clock())
                return None
        if known.digest != digest:
            raise InvalidInputError(f"Idempotency-Key {what[-1]!r} came before, with another request")
        if known.content is None:
            raise UnavailableError(f"the request with Idempotency-Key {what[-1]!r} is being run")
        return known.status, known.content

    def end(self, caller: str, what: tuple[str, ...], status: int, content: bytes) -> None:
        """Keep what a request was answered."""
        with self._lock:
            known = self._answers[caller][what]
            known.status, known.content = status, content

    def fail(self, caller: str, what: tuple[str, ...]) -> None:
        """Nothing was done: the same request may be run again."""
        with self._lock:
            del self._answers[caller][what]


def _drop_old(answers: OrderedDict[tuple[str, ...], _Answer], now_s: float) -> None:
    """Drop the oldest, as far as there are too many or their hour is over; not what is being run."""
    n_bytes = sum(len(each.content or b"") for each in answers.values())
    for what, each in list(answers.items()):
        is_full = len(answers) >= _KEPT or n_bytes > _KEPT_BYTES
        if not is_full and now_s - each.at_s < _KEPT_S:
            return
        if each.content is not None:
            n_bytes -= len(each.content)
            del answers[what]


def checked_key(sent: bytes | None) -> str | None:
    """An ``Idempotency-Key`` as it was sent, where it is one."""
    if sent is None:
        return None
    text = sent.decode("latin-1")
    if not text or len(text) > KEY_LONGEST or not text.isprintable():
        raise InvalidInputError(f"an Idempotency-Key is one line of 1 to {KEY_LONGEST} letters")
    return text

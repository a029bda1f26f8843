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
_KEPT = 10_000
_KEPT_BYTES = 32 << 20
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
    """Answers to requests that came with an ``Idempotency-Key``: for an hour, in memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[str, ...], _Answer] = OrderedDict()
        self._n_bytes = 0

    def begin(self, key: tuple[str, ...], body: bytes) -> tuple[int, bytes] | None:
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
            self._drop_old()
            known = self._answers.get(key)
            if known is None:
                self._answers[key] = _Answer(digest, self._clock())
                return None
        if known.digest != digest:
            raise InvalidInputError(f"Idempotency-Key {key[-1]!r} came before, with another request")
        if known.content is None:
            raise UnavailableError(f"the request with Idempotency-Key {key[-1]!r} is being run")
        return known.status, known.content

    def end(self, key: tuple[str, ...], status: int, content: bytes) -> None:
        """Keep what a request was answered."""
        with self._lock:
            known = self._answers.get(key)
            if known is not None and known.content is None:
                known.status, known.content = status, content
                self._n_bytes += len(content)

    def fail(self, key: tuple[str, ...]) -> None:
        """Nothing was done: the same request may be run again."""
        with self._lock:
            self._answers.pop(key, None)

    def _drop_old(self) -> None:
        now = self._clock()
        while self._answers:
            key, oldest = next(iter(self._answers.items()))
            is_full = len(self._answers) >= _KEPT or self._n_bytes > _KEPT_BYTES
            if not is_full and now - oldest.at_s < _KEPT_S:
                return
            del self._answers[key]
            self._n_bytes -= len(oldest.content or b"")


def checked_key(text: str | None) -> str | None:
    """An ``Idempotency-Key`` as it was sent, where it is one."""
    if text is None:
        return None
    if not text or len(text) > KEY_LONGEST or not text.isprintable():
        raise InvalidInputError(f"an Idempotency-Key is one line of 1 to {KEY_LONGEST} letters")
    return text

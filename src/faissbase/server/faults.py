"""Errors as HTTP: which status each has, and their one shape. No traceback ever leaves the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from faissbase.collection.bounds import TooLarge
from faissbase.errors import (
    AccessError,
    AlreadyExistsError,
    ConflictError,
    CorruptionError,
    FaissbaseError,
    InternalError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.server.keys import Unauthenticated
from faissbase.server.limits import TooMany
from faissbase.server.quotas import QuotaExceeded
from faissbase.wire import Fault, FaultBody


class Malformed(InvalidInputError):
    """The body cannot be read at all."""

    kind = "malformed"


class WrongMedia(InvalidInputError):
    """A content type or encoding that is not understood."""

    kind = "unsupported_media_type"


class WrongMethod(InvalidInputError):
    """The path is there, but not for this method."""

    kind = "method_not_allowed"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        takes = set(allowed)
        self.allowed = ", ".join(sorted(takes | {"HEAD"} if "GET" in takes else takes))
        super().__init__(f"{method} is not for this path, it takes {self.allowed}")


class TooSlow(UnavailableError):
    """The body took too long to arrive."""

    kind = "timeout"


# The first class that fits counts.
STATUSES: tuple[tuple[type[FaissbaseError], int], ...] = (
    (TooLarge, 413),
    (Malformed, 400),
    (WrongMedia, 415),
    (WrongMethod, 405),
    (TooSlow, 408),
    (TooMany, 429),
    (QuotaExceeded, 429),
    (Unauthenticated, 401),
    (InvalidInputError, 422),
    (NotFoundError, 404),
    (AlreadyExistsError, 409),
    (ConflictError, 409),
    (NotReadyError, 409),
    (AccessError, 403),
    (UnavailableError, 503),
    (CorruptionError, 500),
    (InternalError, 500),
)
_HIDDEN = "something went wrong in the server; the log has more under the request id"


def status_of(error: FaissbaseError) -> int:
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def as_ours(error: Exception) -> FaissbaseError:
    """``error`` as one of ours; what is a bug says nothing of its inside."""
    if isinstance(error, FaissbaseError):
        return InternalError(_HIDDEN) if isinstance(error, InternalError) else error
    if isinstance(error, MemoryError):
        return UnavailableError("not enough memory for this request")
    return InternalError(_HIDDEN)


def body_of(error: FaissbaseError, request_id: str, tidy: Callable[[str], str]) -> bytes:
    """The answer's body; ``tidy`` takes out of a text what is nobody's business."""
    fault = Fault(error.kind, tidy(str(error)), request_id)
    return msgspec.json.encode(FaultBody(fault))

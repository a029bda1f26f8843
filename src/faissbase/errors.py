"""Every exception that faissbase raises, one tree. Knows nothing else.

Callers group by what they will do next: fix the call, pick another name, wait, call for help.
"""

from __future__ import annotations

from typing import ClassVar


class FaissbaseError(Exception):
    """Root of the tree.

    Attributes
    ----------
    kind : str
        Stable word for programs and the wire; never changes within a major version.
    retryable : bool
        True where the same call may succeed later, unchanged.
    """

    kind: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __str__(self) -> str:
        # KeyError would show the repr of its message; ours are sentences.
        return str(self.args[0]) if self.args else self.kind


class InvalidInputError(FaissbaseError, ValueError):
    """The call is wrong: dimension, filter, id, a value that is not finite. Nothing was stored."""

    kind = "invalid_input"


class NotFoundError(FaissbaseError, KeyError):
    """No such collection or id."""

    kind = "not_found"


class AlreadyExistsError(FaissbaseError):
    """The name or id is taken. Nothing was stored."""

    kind = "already_exists"


class NotReadyError(FaissbaseError):
    """Something must be done first: train, open for writing, install an extra."""

    kind = "not_ready"


class ConflictError(FaissbaseError):
    """Somebody else changed it first: reload and try again."""

    kind = "conflict"


class AccessError(FaissbaseError):
    """Not allowed: key, scope, tenant, quota, or a store opened read-only."""

    kind = "access"


class UnavailableError(FaissbaseError):
    """Storage cannot serve now: disk full, lock held too long, I/O error. Waiting may help."""

    kind = "unavailable"
    retryable = True


class CorruptionError(FaissbaseError):
    """A checksum, size or format does not agree. Never repaired silently: see ``verify`` and ``repair``."""

    kind = "corruption"


class InternalError(FaissbaseError):
    """Our own bug."""

    kind = "internal"

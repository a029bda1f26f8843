"""What the errors of obstore mean, in words that help. Knows texts and types of errors; no objects."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from faissbase.errors import AccessError, FaissbaseError, NotFoundError, NotReadyError, UnavailableError
from faissbase.storage.files import from_os_error

_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist")  # S3, Azure, GCS
_TOLD = re.compile("<Message>(.*?)</Message>", re.DOTALL)
_ALLOWED = frozenset({"PermissionDeniedError", "UnauthenticatedError"})
# What a cloud gives its own machines keys by: asked where no others are known.
_MACHINE_KEYS = re.compile(r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google\.internal")
_KEYS = {
    "S3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_REGION)",
    "GCS": "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
    "MicrosoftAzure": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_ACCOUNT = (
    "Account must be specified",
    ": set AZURE_STORAGE_ACCOUNT_NAME, or write abfss://container@account.dfs.core.windows.net/prefix",
)


# obstore has threads of its own from the first call on, and a fork without them would wait for ever.
_is_used = False
_is_fork = False


def _after_fork() -> None:
    global _is_fork
    _is_fork = _is_used


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """The errors of obstore as ours; ``what`` could not be done, and names the URL."""
    global _is_used
    if _is_fork:
        raise NotReadyError(
            f"{what}: a fork cannot use object storage that its parent has used: start it by spawn"
        )
    _is_used = True
    try:
        yield
    except FileNotFoundError as error:
        missing = "bucket" if _NO_BUCKET.search(str(error)) else "object"
        raise NotFoundError(f"{what}: there is no such {missing}") from error
    except FaissbaseError:
        raise
    except OSError as error:
        raise from_os_error(error, what) from error
    except Exception as error:
        if not type(error).__module__.startswith("obstore"):
            raise
        if _NO_BUCKET.search(str(error)):
            raise NotFoundError(f"{what}: there is no such bucket") from error
        kind = AccessError if type(error).__name__ in _ALLOWED else UnavailableError
        raise kind(f"{what}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Why, in one line, with what would help where that is known."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    first = lines[0].partition(": <?xml")[0]
    told = _TOLD.search(str(error))
    return first + (f": {told[1]}" if told else "") + _remedy(first)


def _remedy(line: str) -> str:
    if _ACCOUNT[0] in line:
        return _ACCOUNT[1]
    store = re.match(r"Generic (\w+) error", line)
    if store is None or store[1] not in _KEYS or not _MACHINE_KEYS.search(line):
        return ""
    return f"; no keys were given, and this machine has none of its own: set {_KEYS[store[1]]}"

"""How cached values are kept: as JSON beside their vectors, or as the very objects in this process.

Knows no vectors and no collections.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from faissbase.errors import InvalidInputError

_PLAIN = (str, int, float, bool, type(None))
_MAX_DEPTH = 200


class Values(Protocol):
    """A value's place in a record: `encode` gives the text that is stored, `decode` the value again.

    ``is_local`` says that values live in this process, so that they must be forgotten with their records.
    """

    is_local: bool

    def encode(self, value: Any) -> str: ...
    def decode(self, text: str) -> Any:
        """The value, or `KeyError` where it was forgotten meanwhile."""

    def forget(self, texts: Iterable[str]) -> None:
        """These records are gone, and so are their values."""

    def forget_all(self) -> None: ...

    def size_bytes(self, value: Any, text: str) -> int:
        """What keeping it costs."""

    def writing(self) -> AbstractContextManager[Any]:
        """Held by whoever changes records and values together."""


class JsonValues:
    """Values as JSON text: what comes back equals what was given, in any process."""

    is_local = False

    def encode(self, value: Any) -> str:
        """JSON text, or `InvalidInputError` that says which part of the value JSON cannot give back."""
        _check(value, "value", 0)
        return json.dumps(value, allow_nan=False, separators=(",", ":"))

    def decode(self, text: str) -> Any:
        return json.loads(text)

    def forget(self, texts: Iterable[str]) -> None:
        pass

    def forget_all(self) -> None:
        pass

    def size_bytes(self, value: Any, text: str) -> int:
        return len(text)

    def writing(self) -> AbstractContextManager[Any]:
        return nullcontext()


class ObjectValues:
    """Any Python objects, for as long as the cache is open. What comes back *is* what was given."""

    is_local = True

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()

    def encode(self, value: Any) -> str:
        text = str(next(self._numbers))
        self._objects[text] = value
        return text

    def decode(self, text: str) -> Any:
        return self._objects[text]

    def forget(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._objects.pop(text, None)

    def forget_all(self) -> None:
        self._objects.clear()

    def size_bytes(self, value: Any, text: str) -> int:
        """The JSON text of it, or where it has none what `sys.getsizeof` says, which does not look inside."""
        try:
            return len(json.dumps(value))
        except (TypeError, ValueError, RecursionError):
            return sys.getsizeof(value)

    def writing(self) -> AbstractContextManager[Any]:
        return self._lock


def _check(value: Any, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InvalidInputError(f"{where[:80]}... is nested deeper than {_MAX_DEPTH}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInputError(f"{where} is {value}, which JSON does not know")
    if type(value) in _PLAIN:
        return
    if type(value) is list:
        for position, item in enumerate(value):
            _check(item, f"{where}[{position}]", depth + 1)
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise InvalidInputError(f"{where} has the key {key!r}: JSON's keys are strings")
            _check(item, f"{where}[{key!r}]", depth + 1)
    else:
        kind = type(value).__qualname__
        raise InvalidInputError(
            f"{where} is of type {kind}, which JSON does not give back as it was: store text, numbers, "
            "lists and dicts, or keep the cache in memory"
        )

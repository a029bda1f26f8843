"""What a step of a program has given, in a form that can be compared, whichever module it ran with."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Outcome: TypeAlias = tuple[Any, ...]
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_OURS = ("Remote", "object")


def outcome(step: Callable[[], Any]) -> Outcome:
    """What ``step`` gives, or the exception it raises."""
    try:
        return ("gave", normal(step()))
    except Exception as error:  # noqa: BLE001  # it is compared
        return ("raised", type(error).__name__, _ADDRESS.sub("0x", str(error)))


def normal(value: Any) -> Any:
    """A value by its type and content; an object of FAISS's by the names of its classes."""
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.generic):
        return (type(value).__name__, value.tobytes())
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(normal, value))
    if isinstance(value, dict):
        return ("dict", *((key, normal(each)) for key, each in sorted(value.items())))
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return (type(value).__name__, repr(value))
    return ("object", *class_names(type(value)))


def class_names(kind: type) -> list[str]:
    """The names of a class and of what it is derived from."""
    return [each.__name__ for each in kind.__mro__ if each.__name__ not in _OURS]


def told(found: Outcome) -> str:
    """An outcome for a person to read."""
    text = repr(found)
    return text if len(text) < 500 else f"{text[:500]} ... ({len(text):,} letters)"

"""Which function it is whose answers are kept: the same in another process, another where answers may differ.

Knows functions: no cache.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
from collections.abc import Callable, Collection
from contextlib import suppress
from types import CodeType
from typing import Any

from faissbase.errors import InvalidInputError

_PLAIN = (str, int, float, bool, type(None))


def identity_of(fn: Callable[..., Any], ignored: Collection[str] = ()) -> dict[str, Any]:
    """What tells a function from others: its name, and what is bound to it.

    That are the arguments of a ``partial``, the text and numbers that a function within a function has taken
    from around it, as they are now, and the code of a lambda, which has no name. What is ``ignored`` is not.

    Raises
    ------
    InvalidInputError
        A method of an object, or an object that can be called, unless ``self`` is ignored.
    """
    if isinstance(fn, functools.partial):
        bound = {name: value for name, value in fn.keywords.items() if name not in ignored}
        return {**identity_of(fn.func, ignored), "bound": [list(fn.args), bound]}
    is_bound = inspect.ismethod(fn) and not inspect.isclass(fn.__self__)
    if (is_bound or not hasattr(fn, "__qualname__")) and "self" not in ignored:
        raise InvalidInputError(
            f"{fn!r} belongs to an object that its answers may depend on: say ignore=['self'] if they do "
            "not, or cache a function that is given what they depend on"
        )
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    captured = _captured(fn, ignored)
    found: dict[str, Any] = {"function": f"{named.__module__}.{named.__qualname__}"}
    if captured:
        found["captured"] = captured
    if found["function"].endswith("<lambda>"):
        found["code"] = hashlib.blake2b(_code_text(fn.__code__).encode(), digest_size=16).hexdigest()
    return found


def _captured(fn: Any, ignored: Collection[str]) -> dict[str, Any]:
    """What it reads from around it. What it also writes there, it keeps count with."""
    code, cells = getattr(fn, "__code__", None), getattr(fn, "__closure__", None) or ()
    if code is None:
        return {}
    written = {each.argval for each in dis.get_instructions(code) if each.opname == "STORE_DEREF"}
    found = {}
    for name, cell in zip(code.co_freevars, cells, strict=True):
        with suppress(ValueError):  # it holds nothing yet
            value = cell.cell_contents
            if name not in written and name not in ignored and type(value) in _PLAIN:
                found[name] = value
    return found


def _code_text(code: CodeType) -> str:
    constants = (_code_text(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts)
    return "\n".join([code.co_code.hex(), *code.co_names, *constants])

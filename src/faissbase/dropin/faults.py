"""Errors as they travel to a client, which raises them again."""

from __future__ import annotations

import builtins
from typing import Any

from faissbase.dropin import frames
from faissbase.dropin.refusals import Refused
from faissbase.errors import FaissbaseError


class Gone(RuntimeError):
    """The object is not there any more."""

    def __init__(self) -> None:
        super().__init__(
            "the server does not have this object any more: it was restarted, or had not heard from this "
            "process for longer than its lease; make or read it again, open_index gives what has a name"
        )


def fault(error: Exception) -> dict[str, Any]:
    """An error as it travels: its class, where Python or we have it, and what it was made with."""
    name = type(error).__name__
    if isinstance(error, FaissbaseError):
        return {"error": {"ours": error.kind, "args": [str(error)]}}
    if isinstance(error, Gone | Refused | frames.FrameError):
        return {"error": {"refused": name, "args": [str(error)]}}
    args = [each if isinstance(each, str) else repr(each) for each in error.args]
    if getattr(builtins, name, None) is not type(error):  # of NumPy's, say: what it is one of, and its text
        kinds = [each.__name__ for each in type(error).__mro__ if each.__module__ == "builtins"]
        name = kinds[0] if kinds[0] != "Exception" else "RuntimeError"
        args = [str(error)]
    return {"error": {"type": name, "args": args}}

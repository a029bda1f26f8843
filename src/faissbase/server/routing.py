"""Finds the operation that a request is for, by its method and path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.server.faults import WrongMethod
from faissbase.server.operations import Operation

PREFIX = "/v1"
_SHOWN = 200
_PARTS = re.compile(r"\{(\w+)(:rest)?\}")


def _pattern(path: str) -> re.Pattern[str]:
    """``{name}`` is one part of a path, ``{name:rest}`` all that follows."""
    parts = re.split(r"(\{.*?\})", path)
    for i, part in enumerate(parts):
        found = _PARTS.fullmatch(part)
        if found is None:
            parts[i] = re.escape(part)
        else:
            parts[i] = f"(?P<{found[1]}>{'.*' if found[2] else '[^/]+'})"
    return re.compile(PREFIX + "".join(parts), re.DOTALL)


class Router:
    """Operations by path. Of several that fit, the first which takes the method counts."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in operations:
            for method in operation.methods:
                by_path.setdefault(operation.path, {})[method] = operation
        self._routes = [(_pattern(path), choices) for path, choices in by_path.items()]

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]]:
        """The operation, and what the names in its path stand for. HEAD asks as GET does.

        Raises
        ------
        NotFoundError
            No such path.
        WrongMethod
            It is there for other methods.
        """
        method = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        for pattern, choices in self._routes:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            operation = choices.get(method)
            if operation is not None:
                return operation, found.groupdict()
            allowed |= choices.keys()
        if allowed:
            raise WrongMethod(method[:_SHOWN], allowed)
        raise NotFoundError(f"no path {path[:_SHOWN]!r}; see {PREFIX}/openapi.json")


def query_of(operation: Operation, query_string: bytes) -> dict[str, str]:
    """The parameters of a query string, which are those of the operation, each at most once."""
    if not query_string:
        return {}
    found: dict[str, str] = {}
    for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        if name not in operation.query:
            there = ", ".join(operation.query) or "none"
            raise InvalidInputError(f"unknown parameter {name[:_SHOWN]!r}; there are: {there}")
        if name in found:
            raise InvalidInputError(f"parameter {name!r} is given twice")
        found[name] = value
    return found

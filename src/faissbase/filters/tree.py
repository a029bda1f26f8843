"""The filter language as a tree: parsing, and what a filter means for one metadata object.

`matches` is the definition; `faissbase.filters.columns` must agree with it. Knows nothing of slots
or storage.

A missing field fails every comparison except ``{"$exists": False}``; negation turns each answer around, so
``$ne``, ``$nin`` and ``$not`` match it. Booleans are never numbers. Order is among numbers or among strings
(by code point), never across.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from faissbase.errors import InvalidInputError
from faissbase.filters.values import MAX_DEPTH, MISSING, plain_operand, shown, value_key

MAX_NODES = 4096

Operator: TypeAlias = Literal["$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$exists", "$contains"]


@dataclass(frozen=True, slots=True)
class Everything:
    """Matches every record."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one operand.

    Attributes
    ----------
    text : str
        The operand as canonical JSON. Equality and hash go by it, for Python holds ``True == 1``.
    operand : Any
        The operand as the test of this operator takes it: a `value_key` for ``$eq`` and ``$contains``,
        a frozenset of them for ``$in``, else the value itself.
    """

    field: str
    operator: Operator
    text: str
    operand: Any = dataclasses.field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    """Matches what ``part`` does not."""

    part: Filter


@dataclass(frozen=True, slots=True)
class And:
    """Matches what every one of at least two parts matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Matches what any of at least two parts matches."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = Everything | Comparison | Not | And | Or


def matches(where: Filter, metadata: Mapping[str, Any]) -> bool:
    """Whether a metadata object (as orjson loads it) passes the filter.

    Examples
    --------
    >>> recent = parse({"year": {"$gte": 2020}, "tags": {"$contains": "new"}})
    >>> matches(recent, {"year": 2024, "tags": ["new"]})
    True
    """
    match where:
        case Comparison():
            return TESTS[where.operator](lookup(metadata, where.field), where.operand)
        case Not():
            return not matches(where.part, metadata)
        case And():
            return all(matches(part, metadata) for part in where.parts)
        case Or():
            return any(matches(part, metadata) for part in where.parts)
        case Everything():
            return True


def comparisons(where: Filter) -> Iterator[Comparison]:
    """Every comparison in the filter, from left to right."""
    match where:
        case Comparison():
            yield where
        case Not():
            yield from comparisons(where.part)
        case And() | Or():
            for part in where.parts:
                yield from comparisons(part)


def fields(where: Filter) -> set[str]:
    """The fields that the filter looks at."""
    return {comparison.field for comparison in comparisons(where)}


def lookup(metadata: Mapping[str, Any], path: str) -> Any:
    """The value at a field, or ``MISSING``.

    A dot descends into an object, never into an array. At each level the longest literal key is tried first:
    ``"a.b"`` is the key ``a.b`` where there is one, else ``b`` within ``a``.
    """
    value = metadata.get(path, MISSING)
    if value is not MISSING or "." not in path:
        return value
    head = path
    while "." in head:
        head = head.rpartition(".")[0]
        child = metadata.get(head)
        if isinstance(child, dict):
            value = lookup(child, path[len(head) + 1 :])
            if value is not MISSING:
                return value
    return MISSING


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_ordered_with(value: Any, operand: Any) -> bool:
    return isinstance(value, str) if isinstance(operand, str) else _is_number(value)


def _is_in(value: Any, keys: frozenset[Any]) -> bool:
    if isinstance(value, list) and not keys.isdisjoint([value_key(item) for item in value]):
        return True
    return value_key(value) in keys


def _contains(value: Any, key: Any) -> bool:
    if isinstance(key, str):  # a string equals only itself, so `in` is exact for arrays too
        return isinstance(value, (str, list)) and key in value
    return isinstance(value, list) and any(value_key(item) == key for item in value)


TESTS: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = MappingProxyType(
    {
        "$eq": lambda value, key: value_key(value) == key,
        "$gt": lambda value, operand: _is_ordered_with(value, operand) and value > operand,
        "$gte": lambda value, operand: _is_ordered_with(value, operand) and value >= operand,
        "$lt": lambda value, operand: _is_ordered_with(value, operand) and value < operand,
        "$lte": lambda value, operand: _is_ordered_with(value, operand) and value <= operand,
        "$in": _is_in,
        "$exists": lambda value, wanted: (value is not MISSING) == wanted,
        "$contains": _contains,
    }
)
"""For each operator, the test of a field's value (or ``MISSING``) against `Comparison.operand`."""

_NEGATED: Final[Mapping[str, Operator]] = {"$ne": "$eq", "$neq": "$eq", "$nin": "$in"}
_FIELD_OPERATORS: Final = (*TESTS, *_NEGATED, "$not")
_ORDERED = ("a number or a string", lambda plain: isinstance(plain, str) or _is_number(plain))
_WANTED: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "$gt": _ORDERED,
    "$gte": _ORDERED,
    "$lt": _ORDERED,
    "$lte": _ORDERED,
    "$in": ("a list", lambda plain: isinstance(plain, list)),
    "$exists": ("True or False", lambda plain: isinstance(plain, bool)),
    "$contains": ("a string, number, boolean or None", lambda plain: not isinstance(plain, list | dict)),
}

_canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


_EVERYTHING = Everything()
_PLAIN = frozenset({str, int, float, bool, type(None)})
_PARSED_KEPT = 512
_KEY_PARTS, _KEY_DEPTH = 64, 8  # a filter of more is parsed each time
_parsed: dict[tuple[Any, ...], Filter] = {}


def parse(where: Mapping[str, Any] | None) -> Filter:
    """The filter that a ``where`` mapping says; None and ``{}`` say everything.

    ``{"field": value}`` is ``$eq``. Several fields, or several operators on one field, must all hold.

    Raises
    ------
    InvalidInputError
        Anything not understood, with the operator, field or value and what is allowed there. Also a filter
        nested more than ``MAX_DEPTH`` deep or of more than ``MAX_NODES`` nodes.

    Examples
    --------
    >>> parse({"price": {"$gt": 3}})
    Comparison(field='price', operator='$gt', text='3')
    """
    if where is None:
        return _EVERYTHING
    key = _plain_key(where)
    known = _parsed.get(key) if key is not None else None
    if known is None:
        known = _Parser().filter(where, depth=0)
        if key is not None:
            if len(_parsed) >= _PARSED_KEPT:
                _parsed.clear()
            _parsed[key] = known
    return known


def _plain_key(where: Any, depth: int = 0) -> tuple[Any, ...] | None:
    """A key for a filter of plain values alone, which says all of it; None for any other, or a long one.

    Types are part of it, for ``1``, ``1.0`` and ``True`` are equal in Python and not in a filter.
    """
    kind = type(where)
    if kind in _PLAIN:
        return kind, where
    if kind is dict:
        if not set(map(type, where)) <= {str}:
            return None
        parts = where.values()
    elif kind is list:
        parts = where
    else:
        return None
    if len(where) > _KEY_PARTS or depth > _KEY_DEPTH:
        return None
    keys = [_plain_key(part, depth + 1) for part in parts]
    return None if None in keys else (kind, *where, *keys) if kind is dict else (kind, *keys)


def _all_of(parts: list[Filter]) -> Filter:
    if not parts:
        return Everything()
    return parts[0] if len(parts) == 1 else And(tuple(parts))


class _Parser:
    """One pass over one ``where``; counts the nodes it builds."""

    def __init__(self) -> None:
        self._nodes = 0

    def filter(self, where: Any, depth: int) -> Filter:
        if not isinstance(where, Mapping):
            raise InvalidInputError(
                f"a filter must be a mapping such as {{'field': value}}, got {shown(where)}"
            )
        _check_depth(depth)
        if not where:
            self._count()
        return _all_of([self._clause(key, value, depth) for key, value in where.items()])

    def _clause(self, key: Any, value: Any, depth: int) -> Filter:
        if not isinstance(key, str) or not key:
            raise InvalidInputError(f"a field must be a non-empty string, got {shown(key)}")
        if key in ("$and", "$or"):
            return self._logical(key, value, depth)
        if key == "$not":
            self._count()
            return Not(self.filter(value, depth + 1))
        if key in _FIELD_OPERATORS:
            raise InvalidInputError(f"{key} needs a field around it: {{'field': {{{key!r}: ...}}}}")
        if key.startswith("$"):
            raise _unknown(key)
        return self._field(key, value, depth)

    def _logical(self, operator: str, value: Any, depth: int) -> Filter:
        if not isinstance(value, list | tuple) or not value:
            raise InvalidInputError(f"{operator} needs a list of at least one filter, got {shown(value)}")
        self._count()
        parts = [self.filter(part, depth + 1) for part in value]
        if len(parts) > 1 and operator == "$or":
            return Or(tuple(parts))
        return _all_of(parts)

    def _field(self, name: str, value: Any, depth: int) -> Filter:
        if name.count(".") >= MAX_DEPTH:
            raise InvalidInputError(f"field {shown(name)} nests more than {MAX_DEPTH} deep")
        if isinstance(value, Mapping):
            if _has_operator(value):
                return self._conditions(name, value, depth + 1)
            _check_is_object(name, value)
        self._count()
        return _comparison(name, "$eq", value)

    def _conditions(self, name: str, conditions: Mapping[Any, Any], depth: int) -> Filter:
        _check_depth(depth)
        return _all_of(
            [self._condition(name, operator, operand, depth) for operator, operand in conditions.items()]
        )

    def _condition(self, name: str, operator: Any, operand: Any, depth: int) -> Filter:
        self._count()
        if operator == "$not":
            if not isinstance(operand, Mapping) or not _has_operator(operand):
                raise InvalidInputError(
                    f"field {shown(name)}: $not needs a mapping of operators such as {{'$gt': 3}}, "
                    f"got {shown(operand)}; use $ne for a value"
                )
            return Not(self._conditions(name, operand, depth + 1))
        if operator in _NEGATED:
            return Not(_comparison(name, _NEGATED[operator], operand, written=operator))
        if operator not in TESTS:
            raise _unknown(operator, name)
        return _comparison(name, operator, operand)

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise InvalidInputError(
                f"the filter has more than {MAX_NODES:,} conditions; use $in for many values of one field"
            )


def _comparison(name: str, operator: Operator, operand: Any, written: str | None = None) -> Comparison:
    place = f"field {shown(name)}: {written or operator}"
    plain = plain_operand(operand, place)
    wanted = _WANTED.get(operator)
    if wanted and not wanted[1](plain):
        raise InvalidInputError(f"{place} needs {wanted[0]}, got {shown(operand)}")
    return Comparison(name, operator, _canonical_json(plain), _prepared(operator, plain))


def _prepared(operator: Operator, plain: Any) -> Any:
    if operator == "$in":
        return frozenset([value_key(item) for item in plain])
    return value_key(plain) if operator in ("$eq", "$contains") else plain


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise InvalidInputError(f"the filter is nested more than {MAX_DEPTH} deep")


def _has_operator(mapping: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and key.startswith("$") for key in mapping)


def _check_is_object(name: str, value: Mapping[Any, Any]) -> None:
    """Refuse what was probably meant as operators; ``$eq`` says without doubt that an object is meant."""
    if not value:
        raise InvalidInputError(
            f"field {shown(name)} has no operator; use {{'$eq': {{}}}} for an empty object"
        )
    for key in value:
        if f"${key}" in _FIELD_OPERATORS:
            raise InvalidInputError(
                f"field {shown(name)}: did you mean ${key}? For an object use {{'$eq': {shown(dict(value))}}}"
            )


def _unknown(operator: object, name: str | None = None) -> InvalidInputError:
    allowed = (*_FIELD_OPERATORS, "$and", "$or") if name is None else _FIELD_OPERATORS
    place = "" if name is None else f"field {shown(name)}: "
    return InvalidInputError(f"{place}unknown operator {shown(operator)}; allowed are {', '.join(allowed)}")

"""Objects of FAISS that travel by value: search parameters, selectors, parameter spaces."""

from __future__ import annotations

from typing import Any

import faiss

from faissbase.dropin.allowed import Refused, value_class
from faissbase.dropin.bounds import check_effort

_OF_ARRAYS = ("IDSelectorArray", "IDSelectorBatch", "IDSelectorBitmap")


def build(content: Any, decoded: Any) -> Any:
    """The object that ``content`` describes: its class, its arguments by ``decoded``, fields set since."""
    name, args, kwargs, fields = content
    the_class = value_class(str(name))
    args, kwargs = decoded(args), decoded(kwargs)
    _check(str(name), args)
    made = the_class(*args, **kwargs)
    fields = decoded(fields)
    for field, value in fields.items():
        if not isinstance(getattr(the_class, field, None), property):
            raise AttributeError(f"{name!r} object has no attribute {field!r}")
        if isinstance(made, faiss.IDSelector) and not isinstance(made, faiss.IDSelectorRange):
            raise Refused(f"{name}.{field} says where its ids lie, and cannot be set: make a new selector")
        setattr(made, field, value)
    for field in ("efSearch", "qb"):
        check_effort(field, getattr(made, field, None))
    # FAISS's own references cover most of this; what a selector is made of must outlive it in any case.
    made.__dict__["_made_of"] = (args, kwargs, decoded)
    made.__dict__["_given"] = {**kwargs, **fields}
    return made


def _check(name: str, args: Any) -> None:
    """Selectors of ids take them as one array, never as a length and a place in memory."""
    if name in _OF_ARRAYS and len(args) != 1:
        raise Refused(f"faiss.{name} wants its ids as one array on a server")


def ranges(space: Any) -> list[list[Any]]:
    """The parameters that a ParameterSpace knows of, and their values."""
    found = (space.parameter_ranges.at(n) for n in range(space.parameter_ranges.size()))
    return [[each.name, faiss.vector_to_array(each.values)] for each in found]

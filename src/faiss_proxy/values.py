"""Search parameters and selectors: FAISS's own objects, which remember how they were made.

They are used here as they are, and travel to a server as what they were made of.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import faiss
import numpy as np

from faiss_proxy import exploring, pointers

FAMILIES = (faiss.SearchParameters, faiss.IDSelector, faiss.ClusteringParameters, faiss.ParameterSpace)
_SPACE_METHODS = ("set_index_parameter", "set_index_parameters", "initialize", "explore")


class Alike(type):
    """Whatever is of FAISS's class is of this one, too."""

    def __instancecheck__(cls, thing: Any) -> bool:
        return isinstance(thing, cls.__dict__["_local"])

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, cls.__dict__["_local"])


def is_value(local: type) -> bool:
    """Whether objects of a class of FAISS's travel by value."""
    return (
        issubclass(local, FAMILIES)
        and not issubclass(local, faiss.Clustering | faiss.Clustering1D)
        and not local.__name__.startswith("PyCallback")
    )


@cache
def recording(local: type) -> type:
    """A class that is FAISS's ``local``, and remembers what its objects are made of."""
    initialise: Any = getattr(local, "__init__")  # noqa: B009  # of this very class
    set_field: Any = getattr(local, "__setattr__")  # noqa: B009

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **kwargs)
        self.__dict__["_made_of"] = (_kept(local, args), kwargs)
        self.__dict__["_fields"] = {}

    def __setattr__(self: Any, name: str, value: Any) -> None:
        set_field(self, name, value)
        is_field = name != "thisown" and isinstance(getattr(local, name, None), property)
        if is_field and "_fields" in self.__dict__:
            self.__dict__["_fields"][name] = value

    space = {name: _space_method(local, name) for name in _SPACE_METHODS if hasattr(local, name)}
    body = {
        "__init__": __init__,
        "__setattr__": __setattr__,
        "_local": local,
        "__doc__": local.__doc__,
        "__module__": "faiss_proxy",
        **space,
    }
    return Alike(local.__name__, (local,), body)


def _space_method(local: type, name: str) -> Any:
    def method(self: Any, index: Any, *args: Any, **kwargs: Any) -> Any:
        run = getattr(index, "_run_value", None)
        if run is None:
            return getattr(local, name)(self, index, *args, **kwargs)
        if name == "explore":
            return exploring.explore(self, index, *args, **kwargs)
        if name == "set_index_parameters" and len(args) == 1 and type(args[0]) is int:
            return exploring.set_combination(self, index, args[0])
        found = run(self, name, (index, *args))
        return exploring.add_ranges(self, found) if name == "initialize" else found

    return method


def _kept(local: type, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, with the ids that FAISS copies copied: what is done to them later does not change it."""
    if local not in (faiss.IDSelectorArray, faiss.IDSelectorBatch):
        return args
    if _is_place(args):
        return (pointers.numbers_at(args[1], args[0]).copy(),) if local is faiss.IDSelectorBatch else args
    if len(args) == 1:
        ids = np.ascontiguousarray(args[0], np.int64)  # FAISS's own conversion: often it is the array itself
    else:
        return args
    return (ids.copy() if local is faiss.IDSelectorBatch else ids,)


def _is_place(args: tuple[Any, ...]) -> bool:
    """Whether a selector was made of a length, and where it lies."""
    return len(args) == 2 and type(args[0]) is int and pointers.is_pointer(args[1])


def made_of(value: Any) -> tuple[str, list[Any], dict[str, Any], dict[str, Any]] | None:
    """Class, arguments and fields set of a recorded object; None of anything else."""
    made = getattr(value, "__dict__", {}).get("_made_of")
    if made is None or not isinstance(value, FAMILIES):
        return None
    args, kwargs = made
    if _is_place(args):
        args = (pointers.numbers_at(args[1], args[0]),)
    name = next(each.__name__ for each in type(value).__mro__ if "_local" in vars(each))  # not a user's own
    return name, list(args), kwargs, value.__dict__["_fields"]

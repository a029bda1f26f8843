"""Search parameters and selectors: FAISS's own objects, which remember how they were made.

They are used here as they are, and travel to a server as what they were made of.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import faiss
import numpy as np

from faiss_proxy.connection import RemoteError
from faiss_proxy.pointers import Pointer

FAMILIES = (faiss.SearchParameters, faiss.IDSelector, faiss.ClusteringParameters, faiss.ParameterSpace)
_SPACE_METHODS = ("set_index_parameter", "set_index_parameters", "initialize", "explore")


class _Meta(type):
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
        initialise(self, *(_unwrapped(each) for each in args), **kwargs)
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
    return _Meta(local.__name__, (local,), body)


def _space_method(local: type, name: str) -> Any:
    def method(self: Any, index: Any, *args: Any) -> Any:
        run = getattr(index, "_run_value", None)
        if run is None:
            return getattr(local, name)(self, index, *args)
        if name == "explore":
            raise RemoteError(
                "ParameterSpace.explore measures an index of this process: fetch it with .to_local()"
            )
        found = run(self, name, (index, *args))
        if name != "initialize":
            return found
        for parameter, choices in found:
            faiss.copy_array_to_vector(choices, self.add_range(parameter).values)
        return None

    return method


def _kept(local: type, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, with the ids that FAISS copies copied: what is done to them later does not change it."""
    if local not in (faiss.IDSelectorArray, faiss.IDSelectorBatch):
        return args
    if len(args) == 2 and isinstance(args[1], Pointer):  # a length, and where it lies
        ids = args[1].array.reshape(-1)[: args[0]]
    elif len(args) == 1:
        ids = np.ascontiguousarray(args[0], np.int64)  # FAISS's own conversion: often it is the array itself
    else:
        return args
    return (ids.copy() if local is faiss.IDSelectorBatch else ids,)


def _unwrapped(argument: Any) -> Any:
    return argument.pointer if isinstance(argument, Pointer) else argument


def made_of(value: Any) -> tuple[str, list[Any], dict[str, Any], dict[str, Any]] | None:
    """Class, arguments and fields set of a recorded object; None of anything else."""
    made = getattr(value, "__dict__", {}).get("_made_of")
    if made is None or not isinstance(value, FAMILIES):
        return None
    args, kwargs = made
    if len(args) == 2 and isinstance(args[1], Pointer):  # a length, and where it lies
        args = (args[1].array.reshape(-1)[: args[0]],)
    return type(value).__name__, list(args), kwargs, value.__dict__["_fields"]

"""FAISS's classes, made from FAISS's own: their objects live on a server, or here where none is configured.

A class here has the name, the bases, the methods and the fields of FAISS's class; what is called or read on
an object is called or read on the object there.
"""

from __future__ import annotations

import functools
import inspect
import os
import shutil
import types
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import faiss
import numpy as np

from faiss_proxy import pointers, pointing, standins, values
from faiss_proxy.connection import Connection, RemoteError, Transfer, show_progress
from faiss_proxy.settings import active
from faissbase.dropin import frames
from faissbase.dropin.allowed import NEW_BY, READING, is_offered
from faissbase.dropin.kinds import kind_of
from faissbase.dropin.places import numbers_of

_PICKLED = (faiss.Index,)
# Arrays that a method fills for its caller, and where they stand if not named.
_FILLED: dict[str, dict[str, int | None]] = {
    "search": {"D": None, "I": None},
    "search_and_reconstruct": {"D": None, "I": None, "R": None},
    "search_and_return_codes": {"D": None, "I": None, "codes": None},
    "search_preassigned": {"D": None, "I": None},
    "reconstruct": {"x": 1},
    "reconstruct_batch": {"x": 1},
    "reconstruct_n": {"x": 2},
    "assign": {"labels": 2},
    "sa_encode": {"codes": 1},
    "sa_decode": {"x": 1},
    "knn_gpu": {"D": 4, "I": 5},
    "pairwise_distance_gpu": {"D": 3},
}
_NOT_PICKLED = "cannot pickle 'swig_runtime_data5.SwigPyObject' object"
_OWNED_BY = ("make", "read", "copy", "open")  # other objects are parts of one that there was
_PLACES = (*pointers.GIVING, *pointers.RELEASING)
_OWN = frozenset(("_handle", "_this", "thisown", "referenced_objects"))


class _Handle:
    """An object on a server. When it goes, the server may let go of it, too."""

    __slots__ = ("connection", "number", "process")

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection, self.number, self.process = connection, number, os.getpid()
        connection.n_held += 1

    def __del__(self) -> None:
        self.connection.drop(self.number, self.process)


class _Filled:
    """An array of the caller's that is to be filled: it does not travel, its form does."""

    def __init__(self, array: frames.Array) -> None:
        self.array = array


class _Meta(type):
    """Makes objects where they belong, and counts FAISS's own objects as this class's, too."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], **more: Any) -> Any:
        is_derived = "_local" not in body
        if is_derived and active() is None:  # derived from by a user, for objects of this process
            locals_ = tuple(each.__dict__.get("_local", each) for each in bases)
            return types.new_class(name, locals_, {}, lambda made: made.update(body))
        return super().__new__(mcs, name, bases, body, **more)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if active() is None and "_local" in cls.__dict__:
            return cls.__dict__["_local"](*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def __instancecheck__(cls, thing: Any) -> bool:
        local = cls.__dict__.get("_local")
        return super().__instancecheck__(thing) or (local is not None and isinstance(thing, local))

    def __subclasscheck__(cls, other: type) -> bool:
        local = cls.__dict__.get("_local")
        if super().__subclasscheck__(other):
            return True
        return local is not None and not isinstance(other, _Meta) and issubclass(other, local)

    def __eq__(cls, other: object) -> bool:
        return cls is other or (other is not None and cls.__dict__.get("_local") is other)

    def __hash__(cls) -> int:
        return hash(cls.__dict__.get("_local", id(cls)))


class Remote:
    """An object of FAISS's that lives on a server."""

    _handle: _Handle

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        connection = active()
        made = next(each for each in type(self).__mro__ if "_local" in each.__dict__)
        if connection is None:
            raise RemoteError(
                f"{type(self).__name__} was derived from a {made.__name__} on a server, and none is chosen"
            )
        found = _called(connection, "make", made.__name__, None, args, kwargs)
        object.__setattr__(self, "_handle", found._handle)
        referenced = _referenced(made.__dict__["_local"], args)
        if referenced is not None:
            self.__dict__["referenced_objects"] = referenced

    # ---- FAISS's own manners ---------------------------------------------------------------------

    def __repr__(self) -> str:
        handle = self._handle
        return f"<faiss_proxy.{type(self).__name__}; object {handle.number} at {handle.connection.url}>"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        known = getattr(type(self), name, None)
        if isinstance(known, _Field):
            known.__set__(self, value)
        elif (
            name in _OWN or known is not None or name in self.__dict__ or not isinstance(self, faiss_index())
        ):
            object.__setattr__(self, name, value)
        else:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'.")

    @property
    def this(self) -> _This:
        """FAISS's pointer to the object; there is none here, but its owner may be spoken of."""
        # Kept: SWIG reads it after letting go of it, and one made for the call would be freed by then.
        found: _This = self.__dict__.setdefault("_this", _This())
        return found

    @property
    def thisown(self) -> bool:
        return self.this.own()

    @thisown.setter
    def thisown(self, value: bool) -> None:
        self.this.own(value)

    def __copy__(self) -> Any:
        if isinstance(self, faiss_index()):
            return self._cloned()
        return _alike(self, self._handle)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._cloned()

    def _cloned(self) -> Any:
        if not isinstance(self, faiss_index()):
            raise TypeError(_NOT_PICKLED)
        found = _sent(self._handle.connection, {"op": "copy", "target": self._handle.number}, [], [])
        return _alike(self, found._handle)

    def __reduce__(self) -> Any:
        if not isinstance(self, faiss_index()):
            raise TypeError(_NOT_PICKLED)
        is_derived = "_local" not in type(self).__dict__
        return restored, (self.fetch().tobytes(), *([type(self)] if is_derived else []))

    # ---- moving ----------------------------------------------------------------------------------

    def fetch(self, path: str | os.PathLike[str] | None = None) -> frames.Array:
        """The bytes ``uint8[n]`` of the file that FAISS would write of it; at ``path``, if one is given.

        A file that is there is replaced when all of it has come, and stays as it is if something fails.
        """
        handle = self._handle
        body = {"op": "fetch", "target": handle.number}
        found: frames.Array
        if path is None:
            found = _sent(handle.connection, body, [], [], is_safe=True)
            return found
        target = os.path.realpath(path)
        part = f"{target}.{uuid.uuid4().hex[:8]}.part"
        try:
            allocate = functools.partial(_mapped, part)
            found = _sent(handle.connection, body, [], [], is_safe=True, allocate=allocate)
            if os.path.exists(target):
                shutil.copymode(target, part)
            os.replace(part, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part)
            raise
        return found

    def to_local(self) -> Any:
        """A copy of the object in this process, of FAISS's own class; of one on a GPU, as it is off it."""
        off = standins.off(self)
        if off is not None:
            return _function(self._handle.connection, off, (self,), {}).to_local()
        data = self.fetch()
        if isinstance(self, faiss_index()):
            return faiss.deserialize_index(data)
        if isinstance(self, proxy(faiss.IndexBinary)):
            return faiss.deserialize_index_binary(data)
        reader = faiss.VectorIOReader()
        faiss.copy_array_to_vector(data, reader.data)
        if isinstance(self, proxy(faiss.VectorTransform)):
            return faiss.read_VectorTransform(reader)
        return faiss.read_ProductQuantizer(reader)

    def save_as(self, name: str) -> None:
        """Give an index a name on the server: durable from now on, and found by `open_index`.

        Raises
        ------
        AlreadyExistsError
            The name is taken.
        """
        handle = self._handle
        _sent(handle.connection, {"op": "save", "name": name, "target": handle.number}, [], [])

    def _memory(self, name: str, args: tuple[Any, ...], n_bytes: int) -> frames.Array:
        """The first ``n_bytes`` of what lies where a method of FAISS points to."""
        handle, arrays = self._handle, list[frames.Array]()
        tree = _Encoder(handle.connection, arrays)(list(args))
        body = {"op": "memory", "name": name, "args": tree, "target": handle.number, "n_bytes": n_bytes}
        found: frames.Array = _sent(handle.connection, body, arrays, [], is_safe=True)
        return found

    def _run_value(self, value: Any, name: str, args: tuple[Any, ...]) -> Any:
        """Run a method of an object that travels by value on the server."""
        arrays: list[frames.Array] = []
        encode = _Encoder(self._handle.connection, arrays)
        body = {"op": "value", "name": name, "value": encode(value), "args": encode(list(args))}
        return _sent(self._handle.connection, body, arrays, [])


@cache
def _kept_by(local: type) -> Any:
    """Which arguments FAISS's Python keeps of what a class is made of: a number, a slice, or by how many."""
    initialise = vars(local).get("__init__")
    if not isinstance(initialise, types.FunctionType):
        return None
    return inspect.getclosurevars(initialise).nonlocals.get("parameter_no")


def _referenced(local: type, args: tuple[Any, ...]) -> list[Any] | None:
    """``referenced_objects`` of a new object, as FAISS's Python sets it; None where it does not."""
    kept = _kept_by(local)
    if isinstance(kept, dict):
        return [args[at] for at in kept[len(args)]] if len(args) in kept else None
    return None if kept is None or not args else [args[kept]]


class _This:
    """Stands for SWIG's pointer. Who owns the object is told as it was said; what frees it is the server."""

    __slots__ = ("_is_own",)

    def __init__(self, *, is_own: bool = True) -> None:
        self._is_own = is_own

    def own(self, *value: Any) -> bool:
        before = self._is_own
        if value:
            (self._is_own,) = map(bool, value)
        return before

    def acquire(self) -> None:
        self._is_own = True

    def disown(self) -> None:
        self._is_own = False


class _Field:
    """A field of FAISS's class, read and set where the object is."""

    def __init__(self, name: str, local: property) -> None:
        self.name, self.__doc__ = name, local.__doc__
        self._local = local

    def __get__(self, thing: Any, owner: type | None = None) -> Any:
        if thing is None:
            return self
        handle = thing._handle
        body = {"op": "get", "name": self.name, "target": handle.number}
        return _sent(handle.connection, body, [], [], is_safe=True)

    def __set__(self, thing: Any, value: Any) -> None:
        handle, arrays = thing._handle, []  # type: ignore[var-annotated]
        tree = _Encoder(handle.connection, arrays)(value)
        _sent(
            handle.connection,
            {"op": "set", "name": self.name, "target": handle.number, "value": tree},
            arrays,
            [],
        )

    def __delete__(self, thing: Any) -> None:
        self._local.__delete__(thing)  # Python says that it cannot be


def _mapped(path: str | os.PathLike[str], shape: tuple[int, ...], dtype: np.dtype[Any]) -> frames.Array:
    return np.memmap(path, dtype, "w+", shape=shape)


def _method(name: str, local: Callable[..., Any]) -> Callable[..., Any]:
    kept = _kept_argument(local)

    @functools.wraps(local)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kept is not None and len(args) > kept:
            self.__dict__.setdefault("referenced_objects", []).append(args[kept])
        return _called(self._handle.connection, "call", name, self, args, kwargs)

    return method


def _kept_argument(local: Callable[..., Any]) -> int | None:
    """Which argument FAISS's Python keeps with the object whose method it is; None where it keeps none."""
    if not isinstance(local, types.FunctionType) or "original_method" not in local.__code__.co_freevars:
        return None
    kept: int | None = inspect.getclosurevars(local).nonlocals.get("parameter_no")
    return kept


def _place(name: str, local: Callable[..., Any]) -> Callable[..., Any]:
    """A method that gives a place in memory, or takes it back."""
    call = _method(name, local)

    @functools.wraps(local)
    def method(self: Any, *args: Any) -> Any:
        if name in pointers.GIVING:
            return pointers.Memory(self, name, args)
        return None if isinstance(args[-1], pointers.Memory) else call(self, *args)

    return method


def _data(*, is_method: bool) -> Any:
    """Where the numbers of a vector, or of a graph, lie."""

    def data(self: Any) -> pointers.Memory:
        return pointers.Memory(self, "data", ())

    return data if is_method else property(data)


def _pointed(name: str, local: Callable[..., Any], *, is_wrapped: bool) -> Callable[..., Any]:
    """A method that takes places in memory: called with what lies there.

    ``is_wrapped``: FAISS's Python gives the method of that name arrays instead.
    """
    call = _method(name, local)

    @functools.wraps(local)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_wrapped:
            return call(self, *args, **kwargs)
        if not pointing.takes(name, args):
            pointing.check_raw(name, local, args, kwargs)

        def called(name: str, *given: Any, **more: Any) -> Any:
            return _called(self._handle.connection, "call", name, self, given, more)

        return pointing.METHODS[name](called, self, *args, **kwargs)

    return method


def _refused(name: str, local: Callable[..., Any]) -> Callable[..., Any]:
    """A method that no server offers: what is wrong with its arguments is Python's to say first."""
    call = _method(name, local)

    @functools.wraps(local)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        pointing.check_arguments(local, args, kwargs)
        return call(self, *args, **kwargs)

    return method


def _made_method(of: type, name: str, local: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a class of FAISS's, as a method here."""
    if name in _PLACES:
        return _place(name, local)
    if name in pointing.METHODS:
        return _pointed(name, local, is_wrapped=hasattr(of, f"{name}_c"))
    return _method(name, local) if is_offered(of, name) else _refused(name, local)


def _called(
    connection: Connection, op: str, name: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    arrays: list[frames.Array] = []
    filled: list[frames.Array] = []
    if op != "make" and name in _FILLED:
        args, kwargs = _with_filled(name, args, kwargs)
    encode = _Encoder(connection, arrays, filled)
    body = {"op": op, "name": name, "args": encode(list(args)), "kwargs": encode(kwargs)}
    if target is not None:
        body["target"] = target._handle.number
    return _sent(connection, body, arrays, filled, is_safe=op == "call" and name in READING)


def _function(connection: Connection, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    args = tuple(map(_listed, args))
    kwargs = {key: _listed(value) for key, value in kwargs.items()}
    return _called(connection, "function", name, None, args, kwargs)


def _listed(argument: Any) -> Any:
    """A range as the numbers in it, as which FAISS takes the GPUs that it is given."""
    return list(argument) if isinstance(argument, range) else argument


def _with_filled(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with the arrays marked that are to be filled."""
    places = {at for at in _FILLED[name].values() if at is not None}
    marked = (_marked(each) if at in places else each for at, each in enumerate(args))
    return tuple(marked), {key: _marked(it) if key in _FILLED[name] else it for key, it in kwargs.items()}


def _marked(argument: Any) -> Any:
    return (
        _Filled(argument) if isinstance(argument, np.ndarray) and argument.dtype.kind in "biufc" else argument
    )


class _Encoder:
    """Makes arguments ready to travel to ``connection``; their arrays go into ``arrays``.

    No closures: two that call each other keep the arrays of each call until Python looks for cycles.
    """

    __slots__ = ("_arrays", "_connection", "_filled")

    def __init__(
        self, connection: Connection, arrays: list[frames.Array], filled: list[frames.Array] | None = None
    ) -> None:
        self._connection, self._arrays, self._filled = connection, arrays, filled

    def __call__(self, value: Any) -> Any:
        return frames.encode(value, self._arrays, self._special)

    def _special(self, value: Any) -> Any:
        if isinstance(value, _Filled) and self._filled is not None:
            self._filled.append(value.array)
            flags = value.array.flags
            shape = list(value.array.shape)
            return {"output": [value.array.dtype.str, shape, flags.c_contiguous, flags.writeable]}
        handle = getattr(value, "__dict__", {}).get("_handle")
        if isinstance(handle, _Handle):
            if handle.connection is not self._connection:
                raise RemoteError(
                    f"{value!r} was made with another server, key or setting than is used here, of "
                    f"{self._connection.url}: fetch it with .to_local() first"
                )
            return {"object": handle.number}
        if pointers.is_pointer(value):
            array = pointers.array_behind(value)
            return None if array is None else {"place": self(array)}
        if isinstance(value, pointers.Several):
            return {"tuple": list(map(self, value.things))}
        made = values.made_of(value)
        if made is not None:
            return {"value": [made[0], *map(self, made[1:])]}
        if isinstance(value, faiss.PyCallbackIDSelector):
            raise RemoteError(
                "PyCallbackIDSelector calls back into this process, and the index is on a server: use "
                "IDSelectorBatch or IDSelectorBitmap with the ids, or fetch the index with .to_local()"
            )
        if hasattr(value, "this") and type(value).__module__.startswith("faiss"):
            raise RemoteError(
                f"this {type(value).__name__} is in this process, and the index is on a server: "
                "send it there with faiss_proxy.to_remote(), or make it while the server is configured"
            )
        return None


def _sent(
    connection: Connection,
    body: dict[str, Any],
    arrays: list[frames.Array],
    filled: list[frames.Array],
    *,
    is_safe: bool = False,
    allocate: frames.Allocate = np.empty,
) -> Any:
    """What the server gives; arrays of the caller's are filled, objects become objects here."""

    is_own = body["op"] in _OWNED_BY or body.get("name") in NEW_BY

    def decoded(tree: Any, found: list[frames.Array]) -> Any:
        given = [_overwritten(ours, theirs) for ours, theirs in zip(filled, found, strict=False)]

        def special(tag: str, content: Any) -> Any:
            if tag == "output":
                return given[content]
            if tag == "pointer":
                return pointers.Elsewhere(str(content))
            return wrapped(connection, *content, is_own=is_own)

        return frames.decode(tree, found[len(filled) :], special)

    sent = show_progress(f"sending to {connection.url}") if arrays else None
    return connection.call(body, arrays, decoded, is_safe=is_safe, transfer=Transfer(sent, allocate))


def _overwritten(ours: frames.Array, theirs: frames.Array) -> frames.Array:
    """The caller's array, filled: FAISS writes into one that is read-only, too, if it can be written to."""
    if ours.flags.writeable:
        ours[...] = theirs
        return ours
    try:
        ours.flags.writeable = True
    except ValueError:  # memory of somebody else's
        return theirs
    ours[...] = theirs
    ours.flags.writeable = False
    return ours


def wrapped(connection: Connection, number: int, name: str, *, is_own: bool = True) -> Any:
    """An object on a server, as an object of the class of that name; not ``is_own``: a part of another."""
    the_class = proxy(getattr(faiss, name, None) or standins.local(connection, name))
    made = the_class.__new__(the_class)
    object.__setattr__(made, "_handle", _Handle(connection, number))
    if not is_own:
        made.__dict__["_this"] = _This(is_own=False)
    return made


def _alike(thing: Any, handle: _Handle) -> Any:
    """An object of the very class of ``thing``, for another object on the server."""
    the_class: Any = type(thing)
    made = the_class.__new__(the_class)
    object.__setattr__(made, "_handle", handle)
    return made


@cache
def proxy(local: type) -> Any:
    """The class whose objects are on a server, or FAISS's own where there is none, made from FAISS's."""
    bases = tuple(proxy(base) for base in local.__bases__ if base is not object) or (Remote,)
    body: dict[str, Any] = {"_local": local, "__doc__": local.__doc__, "__module__": "faiss_proxy"}
    for name, found in vars(local).items():
        if name.startswith("__") or name in ("this", "thisown"):
            continue
        if name == "data" and numbers_of(local.__name__) is not None:
            body[name] = _data(is_method=not isinstance(found, property))
        elif isinstance(found, property):
            body[name] = _Field(name, found)
        elif isinstance(found, types.FunctionType):
            body[name] = _made_method(local, name, found)
        elif not callable(found):
            body[name] = found
    return _Meta(local.__name__, bases, body)


@cache
def is_base(local: type) -> bool:
    """Whether a class of FAISS's is one that indexes are derived from, beside others."""
    return any(
        issubclass(each, local) for each in (faiss.IndexIVF, faiss.IndexShards, faiss.IndexBinaryShards)
    )


@cache
def faiss_index() -> Any:
    """The class of all indexes of floats."""
    return proxy(faiss.Index)


def to_remote(thing: Any) -> Any:
    """A copy, on the configured server, of an index or transform of this process.

    Raises
    ------
    RemoteError
        No server is configured.
    """
    connection = active()
    if connection is None:
        raise RemoteError("no server is configured: call configure(api_url=...) first")
    if isinstance(thing, Remote):
        return thing
    kind = kind_of(thing)
    if kind is None:
        raise RemoteError(f"a {type(thing).__name__} cannot be sent to a server")
    writer = faiss.VectorIOWriter()
    kind.write(thing, writer)
    return read(connection, faiss.vector_to_array(writer.data), kind.name)


def read(connection: Connection, data: frames.Array, kind: str) -> Any:
    """The object in the bytes of a file, made on the server."""
    arrays: list[frames.Array] = []
    args = _Encoder(connection, arrays)([data, kind])
    return _sent(connection, {"op": "read", "args": args}, arrays, [])


def restored(data: bytes, derived: Any = None) -> Any:
    """An index that was pickled, on the configured server or here; ``derived``: a user's class of it."""
    array, connection = np.frombuffer(data, np.uint8), active()
    if connection is None:
        is_here = derived is not None and issubclass(derived, faiss.Index) and not issubclass(derived, Remote)
        if not is_here:
            return faiss.deserialize_index(array)
        local = derived.__new__(derived)
        local.__setstate__({"this": data})
        return local
    made = read(connection, array, "index")
    if derived is None:
        return made
    alike = derived.__new__(derived)
    object.__setattr__(alike, "_handle", made._handle)
    return alike

"""FAISS's functions: what they are given decides where they run.

Those that make or read an index do so on the server where one is configured; given an object that is there, a
function runs there; everything else runs in this process, as ever.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from faiss_proxy import classes, gpus, pointers, pointing
from faiss_proxy.classes import Remote
from faiss_proxy.connection import Connection, RemoteError
from faiss_proxy.pointers import Memory
from faiss_proxy.settings import active
from faissbase.dropin.kinds import KINDS

_MAKING = frozenset(("index_factory", "index_binary_factory"))
_WRITING = {f"write_{kind.suffix}": kind for kind in KINDS.values()}
_READING = {f"read_{kind.suffix}": kind for kind in KINDS.values()}
_UNPACKING = {"deserialize_index": "index", "deserialize_index_binary": "binary"}
# They only read an index, and write files of this machine.
_COPYING = frozenset(("shard_ivf_index_centroids", "shard_binary_ivf_index_centroids"))
# How the reader keeps the file; a server has it in memory in any case.
_HARMLESS_FLAGS = faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_MMAP_IFC


def placed(name: str, local: Callable[..., Any]) -> Callable[..., Any]:
    """FAISS's function of that name, run where its arguments are."""

    @functools.wraps(local)
    def function(*args: Any, **kwargs: Any) -> Any:
        there = next((each for each in (*args, *kwargs.values()) if isinstance(each, Remote)), None)
        if there is not None:
            return _on_server(name, there._handle.connection, args, kwargs)
        if any(isinstance(each, Memory) for each in args):
            return _of_memory(name, args)
        connection = active()
        if connection is None:
            return local(*args, **kwargs)
        return _configured(name, local, connection, args, kwargs)

    return function


def _on_server(name: str, connection: Connection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if name in _WRITING:
        return _written(name, args, kwargs)
    if "gpu" in name and name not in connection.gpus()["functions"]:
        raise RemoteError(gpus.why_missing(connection, name))
    if name in _COPYING:
        here = (each.to_local() if isinstance(each, Remote) else each for each in args)
        return getattr(faiss, name)(*here, **kwargs)
    if name == "knn":
        return _knn(*args, **kwargs)
    if name in pointing.FUNCTIONS and pointing.takes(name, args):

        def called(name: str, *given: Any) -> Any:
            return classes._function(connection, name, given, {})

        return pointing.FUNCTIONS[name](called, *args, **kwargs)
    return classes._function(connection, name, args, kwargs)


def _knn(xq: Any, xb: Any, k: int, metric: int = faiss.METRIC_L2, metric_arg: float = 0.0) -> Any:
    """``faiss.knn`` among the vectors of a flat index on a server, which searches them where they are."""
    is_flat = isinstance(xb, classes.proxy(faiss.IndexFlat))
    if is_flat and (xb.metric_type, xb.metric_arg) == (metric, metric_arg):
        return xb.search(xq, k)
    raise RemoteError(
        "faiss.knn searches vectors of this process, or a flat index on a server by the index's own metric: "
        "call the index's search, or fetch it with .to_local()"
    )


def _configured(
    name: str,
    local: Callable[..., Any],
    connection: Connection,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if name in _MAKING:
        return classes._function(connection, name, args, kwargs)
    if name in _READING:
        return _read(name, local, connection, args, kwargs)
    if name in _UNPACKING and args and isinstance(args[0], np.ndarray) and args[0].dtype == np.uint8:
        return classes.read(connection, args[0], _UNPACKING[name])
    if name == "get_num_gpus":
        return connection.facts()["n_gpus"]
    if name == "omp_set_num_threads":
        connection.n_threads = args[0] if args and type(args[0]) is int else connection.n_threads
    if name == "swig_ptr" and args and isinstance(args[0], np.ndarray):
        return pointers.pointer_to(args[0])
    return local(*args, **kwargs)


def _of_memory(name: str, args: tuple[Any, ...]) -> Any:
    if name not in pointers.READING:
        raise RemoteError(
            f"faiss.{name} cannot take a place in the server's memory: fetch the index with .to_local()"
        )
    return pointers.read(name, *args)


def _written(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Write an object of the server to a file of this machine, or to a writer of FAISS's."""
    kind = _WRITING[name]
    thing, to, *_ = (*args, None, None)
    if kwargs or isinstance(to, os.PathLike) or not isinstance(thing, classes.proxy(kind.of)):
        here = (object() if isinstance(each, Remote) else each for each in args)
        kind.write(*here, **kwargs)  # FAISS says what it wants
    if len(args) != 2 or not isinstance(to, str):
        kind.write(thing.to_local(), *args[1:])
        return
    folder = os.path.dirname(os.path.realpath(to))
    if not os.path.isdir(folder):
        faiss.FileIOWriter(to)  # fails as FAISS does
    is_file = os.path.isfile(to) and os.access(to, os.W_OK)
    if os.access(folder, os.W_OK) and (is_file or not os.path.exists(to)):
        thing.fetch(to)
    else:
        kind.write(thing.to_local(), to)  # fetched first: what is in the file stays if that fails


def _read(
    name: str,
    local: Callable[..., Any],
    connection: Connection,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Read a file of this machine, or from a reader of FAISS's, into the server."""
    of, flags = args[:2] + (None, 0)[len(args) :]
    is_plain = isinstance(of, str) and type(flags) is int and _is_harmless(flags)
    if kwargs or len(args) > 2 or not (is_plain and os.path.isfile(of) and os.path.getsize(of)):
        return classes.to_remote(local(*args, **kwargs))  # or FAISS says what is wrong with it
    faiss.FileIOReader(of)  # opens it, or fails as FAISS does
    try:
        return classes.read(connection, np.memmap(of, np.uint8, "r"), _READING[name].name)
    except RuntimeError as error:
        if type(error) is not RuntimeError:
            raise
        raise RuntimeError(str(error).replace(" in the file:", f" in {of}:")) from None


def _is_harmless(flags: int) -> bool:
    if flags & faiss.IO_FLAG_MMAP == faiss.IO_FLAG_MMAP:  # one of its bits alone leaves lists out
        flags &= ~faiss.IO_FLAG_MMAP
    return not flags & ~_HARMLESS_FLAGS

"""Calls of which only FAISS can tell whether it survives them: tried first in a copy of this process.

A graph of few rows, or of equal ones, may be built or may end the process or never be done, by its data.
"""

from __future__ import annotations

import faulthandler
import os
import resource
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from faissbase.dropin.parts import parts
from faissbase.dropin.refusals import Refused

_GRAPHS = (faiss.IndexNSG, faiss.IndexNNDescent)
_ADDING = frozenset(("add", "add_with_ids", "train"))
_FEW = 2048
_LEAST_CPU_S, _ROWS_A_S = 10, 500
_DIED = "this ends FAISS's process, or never ends: {kind} wants more rows, and not so many equal ones"


def done(thing: Any, name: str, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """What ``method`` gives.

    Raises
    ------
    Refused
        The process would not survive it.
    """
    graphs = [each for each in parts(thing) if isinstance(each, _GRAPHS)] if name in _ADDING else []
    if not graphs or not _is_risky(graphs, args[0] if args else kwargs.get("x")):
        return method(*args, **kwargs)
    rows = args[0] if args else kwargs.get("x")
    cpu_s = _LEAST_CPU_S + np.shape(rows)[0] // _ROWS_A_S
    n_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # one thread alone always builds the same: as in the trial
    try:
        if not _survives(lambda: method(*args, **kwargs), cpu_s):
            raise Refused(_DIED.format(kind=type(graphs[0]).__name__))
        return method(*args, **kwargs)
    finally:
        faiss.omp_set_num_threads(n_threads)


def _is_risky(graphs: list[Any], rows: Any) -> bool:
    """Whether a graph of these rows has to be tried: there are few, or many that count as equal."""
    if not isinstance(rows, np.ndarray) or rows.ndim != 2:
        return False  # FAISS says what is wrong with it
    if len(rows) <= _FEW:
        return True
    if any(not isinstance(faiss.downcast_index(each.storage), faiss.IndexFlat) for each in graphs):
        return True
    packed = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.itemsize * rows.shape[1])))
    return int(np.unique(packed, return_counts=True)[1].max()) > 1


def _survives(run: Callable[[], object], cpu_s: int) -> bool:
    """Whether a copy of this process that does ``run`` is still there after it."""
    child = os.fork()
    if child == 0:
        _try(run, cpu_s)
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status)


def _try(run: Callable[[], object], cpu_s: int) -> None:
    try:
        faulthandler.disable()  # its end is an answer
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (1, 2):  # what FAISS prints is printed once
            os.dup2(null, fd)
        run()
    finally:  # an error of FAISS's is raised again where it is awaited
        os._exit(0)

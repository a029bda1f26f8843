"""Forks of a process that has SQLite's files open: at that moment none may be open.

What SQLite knows of its locks goes along into the child, the locks themselves do not. Of a file that its
parent had open a child would believe that it is locked: others would remove the log it writes to, and what it
had acknowledged with it. So before a fork whoever works with SQLite is waited for, nobody begins, and all
files are closed; both processes open them again when they next need them.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import get_ident
from typing import Protocol, TypeVar
from weakref import WeakSet

import apsw

from faissbase.errors import NotReadyError
from faissbase.storage.files import identity

T = TypeVar("T")
_PATIENCE_S = 5.0
_STEP_S = 0.001

_inside: dict[int, int] = {}  # how deep each thread is in its blocks
_owners: WeakSet[Resting] = WeakSet()
_renewed: WeakSet[Renewed] = WeakSet()
_connections: WeakSet[apsw.Connection] = WeakSet()
_lost: set[tuple[int, int]] = set()
"""Files that were in use when this process was forked: SQLite cannot be trusted with them here."""

_listing = threading.Lock()
_one_fork = threading.Lock()
_gate = threading.Event()
_gate.set()
_is_shut = False


class Resting(Protocol):
    """Keeps connections that are open while nobody uses them."""

    def rest(self) -> None:
        """Close them, but for what the thread that forks is at; each is opened again when it is needed."""


class Renewed(Protocol):
    """Has locks that a thread of the parent may have held when it forked."""

    def renew(self) -> None:
        """Make them anew, in the child."""


def rest_before(owner: Resting) -> None:
    """Have the connections that ``owner`` keeps closed before each fork."""
    with _listing:
        _owners.add(owner)


def renew_after(owner: Renewed) -> None:
    """Have the locks of ``owner`` made anew in each child."""
    with _listing:
        _renewed.add(owner)


def opened(connection: apsw.Connection) -> apsw.Connection:
    """The connection itself, noted as open until it is closed."""
    with _listing:
        _connections.add(connection)
    return connection


def enter(path: Path | str) -> None:
    """Begin to work with SQLite: waits while a fork is under way. `leave` ends it.

    Raises
    ------
    NotReadyError
        This process cannot use the file.
    """
    me = get_ident()
    if me in _inside:
        _inside[me] += 1
    else:
        _inside[me] = 1
        if _is_shut:
            _wait_outside(me)
    if _lost:
        _check(path)


def leave() -> None:
    """End what `enter` began."""
    me = get_ident()
    depth = _inside.pop(me) - 1
    if depth:
        _inside[me] = depth


class holding_off:
    """No fork happens in the block; to be entered before a lock that is held while SQLite is at work."""

    __slots__ = ("_path",)

    def __init__(self, path: Path | str) -> None:
        self._path = path

    def __enter__(self) -> None:
        enter(self._path)

    def __exit__(self, *_: object) -> None:
        leave()


def _wait_outside(me: int) -> None:
    while _is_shut:
        del _inside[me]
        try:
            _gate.wait()
        finally:
            _inside[me] = 1


def _check(path: Path | str) -> None:
    if identity(path) in _lost:
        leave()
        raise NotReadyError(
            f"{path} was in use by another thread when this process was forked: start it by spawn, or fork "
            "before threads work with the database"
        )


def _before() -> None:
    global _is_shut
    _one_fork.acquire()
    _is_shut = True
    _gate.clear()
    try:
        if _are_others_outside():
            for owner in _members(_owners):
                owner.rest()
    finally:  # an interrupt ends the wait, and not the fork
        _found_open[:] = _still_open()


_found_open: list[tuple[apsw.Connection, tuple[int, int]]] = []


def _members(found: WeakSet[T]) -> list[T]:
    with _listing:
        return list(found)


def _are_others_outside() -> bool:
    """Wait for the other threads that are at work; whether they have all left in time."""
    me, deadline = get_ident(), time.monotonic() + _PATIENCE_S
    while set(_inside) - {me}:
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP_S)
    return True


def _still_open() -> Iterator[tuple[apsw.Connection, tuple[int, int]]]:
    for connection in _members(_connections):
        with suppress(apsw.ConnectionClosedError):
            file = identity(connection.filename)
            if file is not None:
                yield connection, file


def _after_in_parent() -> None:
    global _is_shut
    _found_open.clear()
    _is_shut = False
    _gate.set()
    _one_fork.release()


def _after_in_child() -> None:
    global _is_shut, _listing, _one_fork, _gate
    depth = _inside.get(get_ident())
    _inside.clear()
    if depth:  # it was forked from within a block
        _inside[get_ident()] = depth
    for connection, file in _found_open:
        # To be neither used nor closed, at the end of the interpreter either.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        _lost.add(file)
    _found_open.clear()
    _is_shut = False
    _listing, _one_fork, _gate = threading.Lock(), threading.Lock(), threading.Event()
    _gate.set()
    for owner in list(_renewed):
        owner.renew()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

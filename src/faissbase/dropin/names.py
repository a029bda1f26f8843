"""The named indexes of one tenant: which there are, and each loaded once, when it is first asked for."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from faissbase.dropin import named as files
from faissbase.dropin.facts import is_named, names_in, read_facts
from faissbase.dropin.graphs import Held, locked
from faissbase.dropin.named import Named
from faissbase.errors import (
    AccessError,
    AlreadyExistsError,
    ConflictError,
    CorruptionError,
    FaissbaseError,
    InvalidInputError,
    NotFoundError,
)
from faissbase.storage.files import os_errors, sync_folder
from faissbase.types import NAME_RULE, is_name

_MOST_SHOWN = 20


class NoRoom(AccessError):
    """The tenant would hold more than it may."""

    kind = "quota_exceeded"


class Names:
    """Thread-safe. ``redo`` does a call of a journal again."""

    def __init__(self, folder: Path, redo: Any) -> None:
        self._folder = folder
        self._redo = redo
        self._lock = threading.Lock()
        self._loaded: dict[str, Named] = {}
        files.remove_leftovers(folder)

    def names(self) -> list[str]:
        return names_in(self._folder)

    def facts(self) -> list[dict[str, Any]]:
        """What each index is, by name."""
        found = []
        for name in self.names():
            try:
                facts = read_facts(self._folder / name)
            except CorruptionError:  # deleted meanwhile, or damaged: opening it tells
                continue
            loaded = self._loaded.get(name)
            ntotal = facts.ntotal if loaded is None else loaded.held.thing.ntotal
            found.append(
                {
                    "name": name,
                    "class": facts.kind,
                    "d": facts.d,
                    "metric": facts.metric,
                    "ntotal": ntotal,
                    "size_bytes": facts.size_bytes,
                }
            )
        return found

    def open(self, name: str) -> Held:
        """The index of that name. `NotFoundError` where there is none."""
        _check_name(name)
        with self._lock:
            known = self._loaded.get(name)
            if known is None:
                if not is_named(self._folder / name):
                    there = ", ".join(self.names()[:_MOST_SHOWN]) or "none"
                    raise NotFoundError(f"no FAISS index {name!r}; there are: {there}")
                known = self._loaded[name] = Named.opened(self._folder / name, self._redo)
            return known.held

    def save(self, name: str, held: Held, room_bytes: int | None = None) -> None:
        """Give an index a name, durably; its lock is held alone.

        Raises
        ------
        AlreadyExistsError
            The name is taken.
        NoRoom
            Its files have more than ``room_bytes``.
        """
        _check_name(name)
        folder = self._folder / name
        with self._lock:
            if is_named(folder):
                raise AlreadyExistsError(f"there is a FAISS index {name!r} already")
            with os_errors(f"cannot write {name!r}"):
                shutil.rmtree(folder, ignore_errors=True)  # one that was not written to its end
                folder.mkdir(mode=0o700)
            named = Named(folder, held)
            try:
                named.checkpoint()
                if room_bytes is not None and named.size_bytes > room_bytes:
                    raise NoRoom(
                        f"this tenant may hold {max(0, room_bytes):,} bytes more, and {name!r} has "
                        f"{named.size_bytes:,}"
                    )
                with os_errors(f"cannot write {name!r}"):
                    sync_folder(self._folder)
            except BaseException:
                named.close()
                shutil.rmtree(folder, ignore_errors=True)
                raise
            held.graph.root().named[name] = named
            self._loaded[name] = named

    def delete(self, name: str) -> None:
        """Delete an index and its files. `NotFoundError` where there is none."""
        _check_name(name)
        gone = None
        while gone is None:
            with self._lock:
                known = self._loaded.get(name)
            with locked([] if known is None else [known.held], alone=True), self._lock:
                gone = self._removed(name, known)
        shutil.rmtree(gone, ignore_errors=True)

    def _removed(self, name: str, known: Named | None) -> Path | None:
        """The folder of an index that is none any more; None where it was opened or let go meanwhile."""
        if self._loaded.get(name) is not known:
            return None
        folder = self._folder / name
        if not is_named(folder):
            raise NotFoundError(f"no FAISS index {name!r}")
        with os_errors(f"cannot delete {name!r}"):
            gone = files.remove(folder)
        self._loaded.pop(name, None)
        if known is not None:
            self._let_go(known)
        return gone

    def give_up(self, named: Named) -> None:
        """Let go of an index whose files are behind it; whoever opens it has what was acknowledged."""
        with self._lock:
            if self._loaded.get(named.name) is named:
                del self._loaded[named.name]
        self._let_go(named)

    def _let_go(self, named: Named) -> None:
        named.is_lost = True
        named.close()

    def settle(self) -> None:
        """Write every index whose journal is not empty, so that it is loaded soon next time."""
        with self._lock:
            every = list(self._loaded.values())
        for named in every:
            with locked([named.held], alone=True), suppress(FaissbaseError, RuntimeError):
                if not named.is_lost:  # where it fails, its journal has all
                    named.settle()


def _check_name(name: object) -> None:
    if not is_name(name):
        raise InvalidInputError(f"the name of an index must be {NAME_RULE}, got {name!r}")


def check_there(named: Named) -> None:
    """Refuse to go on with an index that was deleted, or let go because its files could not be written."""
    if named.is_lost:
        raise ConflictError(f"the index {named.name!r} was deleted or loaded anew: open it again")

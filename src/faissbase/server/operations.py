"""What a route is: its path, the scope it needs, what it takes and gives, and the call that it serves."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from faissbase.collection.bounds import TooLarge
from faissbase.collection.telling import Told
from faissbase.dropin.facts import FOLDER, is_named
from faissbase.errors import ConflictError, InvalidInputError, NotFoundError, NotReadyError
from faissbase.server.bodies import ARROW, JSON, check_arrow, decoded, media_of, unpacked
from faissbase.server.databases import ServedCollection
from faissbase.server.downloads import Download
from faissbase.server.keys import Key, Keys
from faissbase.server.metrics import Metrics
from faissbase.server.settings import Settings
from faissbase.server.tenants import Tenants, is_there
from faissbase.types import is_name

if TYPE_CHECKING:
    from faissbase.server.dropin import DropIn

Scope = Literal["read", "write", "admin"]
Float64: TypeAlias = npt.NDArray[np.float64]
_SHOWN = 80
_MOVING_S, _PAUSE_S = 10.0, 0.01
_NUMBER_BYTES = 4
_VALUES_STORED, _VALUES_ASKED = 20_000_000, 2_000_000


def matrix(rows: Sequence[Sequence[float]], dimension: int, names: Callable[[int], str]) -> Float64:
    """Rows of numbers as ``float64[n, d]``.

    Raises
    ------
    InvalidInputError
        One of them is of another length; ``names`` says which.
    """
    for i, row in enumerate(rows):
        if len(row) != dimension:
            raise InvalidInputError(f"{names(i)}: expected {dimension} values, got {len(row)}")
    packed = b"".join([struct.pack(f"{dimension}d", *row) for row in rows])  # a third of np.array's time
    return np.frombuffer(packed, np.float64).reshape(len(rows), dimension)


class IsFaiss(ConflictError):
    """The index is one of FAISS's own, and this route is for those of records."""


@dataclass(slots=True)
class Call:
    """One request that has been let in, with what serves it. ``media`` is the type of its answer."""

    key: Key
    tenants: Tenants
    keys: Keys
    settings: Settings
    metrics: Metrics
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    accept: str = ""
    media: str | None = JSON
    faiss: DropIn | None = None
    used: ServedCollection | None = None
    tell: Told | None = None

    def collection(self) -> ServedCollection:
        """The index that the path names.

        Raises
        ------
        IsFaiss
            It is none of records, but one that a drop-in client for FAISS has named.
        """
        name = self.path["index"]
        try:
            self.used = self.tenants.collection(self.key, name)
            return self.used
        except NotFoundError:
            folder = self.tenants.folder / self.key.tenant / FOLDER / name
            if self.tenants.has_faiss and is_name(name) and self.key.may_use((name,)) and is_named(folder):
                raise IsFaiss(
                    f"{name!r} is a FAISS index: it can be listed, searched and deleted here"
                ) from None
            raise

    def room(
        self, n_numbers: int, parts: Iterable[str | bytes | None], ids: Sequence[str] = ()
    ) -> AbstractContextManager[None]:
        """Room in the tenant's quotas for a write: so many numbers, these texts, records of ``ids``."""
        if not self.settings.has_quotas:
            return nullcontext()
        database = self.tenants.database(self.key.tenant)
        n_bytes = _NUMBER_BYTES * n_numbers + sum(len(part or "") for part in parts)

        def n_stored() -> int:
            return database.count_stored(self.tenants.find(self.key, self.path["index"]), list(ids))

        return self.tenants.usage(self.key.tenant).room_for(self.settings, len(ids), n_bytes, n_stored)

    def is_moving(self) -> bool:
        """Whether the index goes on elsewhere than where it was just used, as in `faissbase promote`."""
        if self.used is None or is_there(self.used):
            return False
        try:
            return bool(self.tenants.find(self.key, self.path["index"]))
        except NotFoundError:
            return False

    def whole(self, name: str, default: int, most: int) -> int:
        """A whole number of 1 or more from the query string."""
        text = self.query.get(name)
        if text is None:
            return min(default, most)
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= most):
            raise InvalidInputError(f"{name} must be a whole number from 1 to {most}, got {text[:_SHOWN]!r}")
        return int(text)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of some words from the query string; the first where none is given."""
        value = self.query.get(name, allowed[0])
        if value not in allowed:
            raise InvalidInputError(f"{name} must be one of {', '.join(allowed)}, got {value[:_SHOWN]!r}")
        return value

    def check_many(self, n: int, what: str) -> None:
        most = self.settings.max_vectors
        if n > most:
            raise TooLarge(f"{n:,} {what} in one request, at most {most:,} are taken")

    def check_k(self, k: int) -> int:
        if k < 1:
            raise InvalidInputError(f"k must be 1 or more, got {k}")
        if k > self.settings.max_k:
            raise TooLarge(f"k is {k:,}, at most {self.settings.max_k:,} is allowed")
        return k


def _alike_to_none(_: Call) -> None:
    return None


@dataclass(frozen=True)
class Operation:
    """A route.

    Attributes
    ----------
    methods : tuple of str
    path : str
        Below ``/v1``, with ``{names}``.
    scope : {'read', 'write', 'admin'}
        What the key must be good for.
    run : callable
        Serves a `Call`; blocks, and is called in a thread.
    body, answer : type
        Structs of `faissbase.wire`, or None for none; an ``answer`` of bytes is plain text, several are
        alternatives; a `Download` sends itself.
    query : dict
        Parameters of the query string, and what they are about.
    is_long : bool
        It may take seconds, so it must not hold up searches.
    tells : bool
        It calls ``Call.tell`` meanwhile, where that is set: for an answer in lines.
    is_about_data : bool
        It is refused while the data folder is not where it was.
    read_arrow : callable, optional
        Makes what ``run`` takes as ``call.body`` of a body that came as an Arrow IPC stream.
    likeness, together : callable
        Calls of equal likeness, not None, may be run by one call of ``together``, which gives their answers.
    most_together : callable
        How many like this one are worth running as one; None for as many as wait. Asked where more than 8 do.
    """

    methods: tuple[str, ...]
    path: str
    scope: Scope
    summary: str
    run: Callable[[Any], Any]
    answer: Any
    body: Any = None
    status: int = 200
    query: Mapping[str, str] = field(default_factory=dict)
    is_long: bool = False
    tells: bool = False
    is_about_data: bool = True
    read_arrow: Callable[[Any, bytes], Any] | None = None
    likeness: Callable[[Any], Hashable] = _alike_to_none
    together: Callable[[list[Any]], list[Any]] | None = None
    most_together: Callable[[Any], int | None] = _alike_to_none

    @cached_property
    def shown(self) -> str:
        """The path as it is written in the documentation."""
        return self.path.replace(":rest", "")

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any] | None:
        return None if self.body is None else msgspec.json.Decoder(self.body)

    def decode(self, call: Call) -> None:
        """Read the body that came with a call into the struct that this route takes."""
        if self._decoder is not None:
            packed, encoding, content_type = call.body
            raw = unpacked(packed, encoding, call.settings.max_body_bytes)
            if content_type != JSON and self.read_arrow is not None and media_of(content_type) == ARROW:
                check_arrow()
                call.body = self.read_arrow(call, raw)
                return
            most = _VALUES_STORED if self.scope == "write" else _VALUES_ASKED
            if len(raw) > most and raw.count(b",") > most:  # decoding them would hold up everybody
                raise TooLarge(f"the body holds more than {most:,} values: send them in pieces")
            call.body = decoded(raw, content_type, self._decoder, call.key.tenant)

    def serve(self, call: Call) -> Any:
        """What `run` gives; again where the index has just moved elsewhere, so that nothing was done."""
        until_s = time.monotonic() + _MOVING_S
        while True:
            try:
                return self.run(call)
            except (NotFoundError, NotReadyError):
                if not call.is_moving() or time.monotonic() > until_s:
                    raise
                time.sleep(_PAUSE_S)

    def encode(self, answer: Any) -> Any:
        """An answer as it is sent: bytes, or a `Download` that sends itself."""
        if isinstance(answer, bytes | Download):
            return answer
        return b"" if self.answer is None else msgspec.json.encode(answer)

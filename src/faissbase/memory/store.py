"""The vectors of one conversation, searched by cosine. Knows arrays and ids: no database, no clock.

Derived from the database and thrown away when in doubt. Vectors lie without holes, so what is removed costs
nothing afterwards: the last one takes its place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from faissbase.ann.sketch import Sketched, Sketcher, inner_products, inner_products_of
from faissbase.errors import CorruptionError, InvalidInputError
from faissbase.memory import files
from faissbase.memory.files import Origin
from faissbase.memory.standing import Standing, Standings, Weights
from faissbase.types import MAX_DIMENSION, Float32, Mask, Slots

MemoryId: TypeAlias = int | str
Weigh: TypeAlias = Callable[[Standings], Weights]

_ROOM_MIN = 16
_SKETCHED_NUMBERS = 1 << 22  # below, reading every vector takes a millisecond
_SKETCHED_FROM = 64  # dimensions; below, a sketch is no smaller than half the vector
_MIDDLE_ROWS = 20_000
_FIRST = 256  # candidates that are ranked by their true vectors at first
_DEVIATIONS = 3.0
# So many vectors, or one in 25, or _SKETCHED_NUMBERS, are read for a query at most.
_READ_MIN, _READ_SHARE = 2_000, 25


@dataclass(frozen=True, slots=True)
class Found:
    """One memory that a search has found."""

    memory_id: MemoryId
    similarity: float
    score: float


class FAISSVectorStore:
    """Embeddings by memory id, found by cosine. Any number of threads may use one.

    Exact up to some thousand memories. Beyond, every memory is compared by a sketch of one bit a number, and
    those that the sketches put near enough are ranked by their true vectors.

    Parameters
    ----------
    dimension : int
    """

    def __init__(self, dimension: int = 1536) -> None:
        is_whole = isinstance(dimension, int | np.integer) and not isinstance(dimension, bool)
        if not is_whole or not 1 <= dimension <= MAX_DIMENSION:
            raise InvalidInputError(
                f"dimension must be a whole number from 1 to {MAX_DIMENSION}, got {dimension!r}"
            )
        self.dimension = int(dimension)
        self.origin = Origin()
        self._lock = threading.RLock()
        self._clear()

    def _clear(self) -> None:
        self._ids: list[MemoryId] = []
        self._slots: dict[MemoryId, int] = {}
        self._vectors: Float32 = np.empty((0, self.dimension), np.float32)
        self._standings = Standings.empty(0)
        self._sketcher: Sketcher | None = None
        self._sketches = _no_sketches(0)
        self._n_at_middle = 0

    def __repr__(self) -> str:
        return f"<FAISSVectorStore: {self.count:,} memories, d={self.dimension}>"

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, memory_id: object) -> bool:
        return memory_id in self._slots

    @property
    def count(self) -> int:
        """How many memories there are."""
        return len(self._ids)

    @property
    def size_bytes(self) -> int:
        """Memory that the vectors take."""
        return self._vectors.nbytes + self._sketches.codes.nbytes

    @property
    def stamps(self) -> int:
        """The sum of the stamps of what is held, to compare with the database."""
        with self._lock:
            return int(self._standings.stamp[: self.count].sum())

    # ---- writing ---------------------------------------------------------------------------------

    def add(self, memory_id: MemoryId, embedding: Any) -> None:
        """Keep an embedding; one that is kept under this id already is replaced.

        Raises
        ------
        InvalidInputError
            Another dimension, a number that is not finite, only zeros, or an id that is neither int nor str.
        """
        self.add_many([memory_id], [embedding])

    def add_many(
        self, memory_ids: Sequence[MemoryId], embeddings: Any, standings: Sequence[Standing] | None = None
    ) -> None:
        """`add` for many at once, with what each weighs; all or none."""
        for memory_id in memory_ids:
            check_id(memory_id)
        rows = unit_rows(embeddings, self.dimension)
        if len(rows) != len(memory_ids):
            raise InvalidInputError(f"got {len(memory_ids)} memory ids and {len(rows)} embeddings")
        kept = Standings.of(list(standings) if standings is not None else [Standing()] * len(rows))
        with self._lock:
            self._make_room(len(self._ids) + len(rows))
            slots = np.array([self._slot_for(memory_id) for memory_id in memory_ids], np.int64)
            # Of one id given twice the last counts, as if they had come one by one.
            last = dict(zip(slots.tolist(), range(len(rows)), strict=True))
            where, which = np.fromiter(last, np.int64), np.fromiter(last.values(), np.int64)
            self._vectors[where] = rows[which]
            for column, values in zip(self._standings.columns, kept.columns, strict=True):
                column[where] = values[which]
            self._sketch(where)

    def remove(self, memory_id: MemoryId) -> bool:
        """Forget an embedding; whether there was one."""
        with self._lock:
            slot = self._slots.pop(memory_id, None)
            if slot is None:
                return False
            last = len(self._ids) - 1
            moved = self._ids.pop()
            if slot != last:
                self._ids[slot], self._slots[moved] = moved, slot
                sketches = self._sketches
                columns = [self._vectors, *self._standings.columns]
                if self._sketcher is not None:
                    columns += [sketches.codes, sketches.radius, sketches.along]
                for column in columns:
                    column[slot] = column[last]
            return True

    def clear(self) -> None:
        """Forget everything, and give the memory back."""
        with self._lock:
            self._clear()
            self.origin = Origin()

    def _slot_for(self, memory_id: MemoryId) -> int:
        slot = self._slots.get(memory_id)
        if slot is None:
            slot = self._slots[memory_id] = len(self._ids)
            self._ids.append(memory_id)
        return slot

    def _make_room(self, n: int) -> None:
        room = len(self._vectors)
        if n <= room:
            return
        n_new = max(n, room + room // 2, _ROOM_MIN)
        self._vectors = _grown(self._vectors, n_new)
        self._standings = Standings(*(_grown(column, n_new) for column in self._standings.columns))
        if self._sketcher is not None:
            old = self._sketches
            self._sketches = Sketched(
                _grown(old.codes, n_new), _grown(old.radius, n_new), _grown(old.along, n_new)
            )

    def _sketch(self, slots: Slots) -> None:
        """Sketch these slots, or all where there are enough now, or twice as many as the middle was for."""
        n = len(self._ids)
        if n * self.dimension < _SKETCHED_NUMBERS or self.dimension < _SKETCHED_FROM:
            return
        if self._sketcher is None or n >= 2 * self._n_at_middle:
            step = max(1, n // _MIDDLE_ROWS)
            self._sketcher = Sketcher(self._vectors[:n:step].mean(axis=0))
            self._n_at_middle = n
            self._sketches = _no_sketches(len(self._vectors), self._sketcher.code_bytes)
            slots = np.arange(n)
        made = self._sketcher.sketched(self._vectors[slots])
        self._sketches.codes[slots] = made.codes
        self._sketches.radius[slots] = made.radius
        self._sketches.along[slots] = made.along

    # ---- searching -------------------------------------------------------------------------------

    def search(self, query_embedding: Any, k: int = 10) -> list[dict[str, Any]]:
        """The k nearest by cosine, nearest first, as ``{"memory_id", "score"}``; fewer where there are fewer.

        Raises
        ------
        InvalidInputError
            Another dimension, a number that is not finite, only zeros, or k below 1.
        """
        found = self.ranked(query_embedding, k)
        return [{"memory_id": each.memory_id, "score": each.score} for each in found]

    def ranked(
        self,
        query_embedding: Any,
        k: int,
        weigh: Weigh | None = None,
        *,
        among: Collection[MemoryId] | None = None,
        where: Callable[[Standings], Mask] | None = None,
    ) -> list[Found]:
        """The k of the highest score, highest first; of equals, what is newer, and then what came first.

        No bound on what was fetched can hide one: all are weighed, by their sketches, before any is left out.

        Parameters
        ----------
        query_embedding : array_like, (d,)
        k : int
        weigh : callable, optional
            Standings to what cosines are multiplied by. Without, the score is the cosine.
        among : collection of ids, optional
            No others are found.
        where : callable, optional
            Standings to a mask of what may be found.
        """
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise InvalidInputError(f"k must be a whole number from 1 on, got {k!r}")
        [query] = unit_rows([query_embedding], self.dimension)
        with self._lock:
            allowed = self._allowed(among, where)
            standings = self._standings[slice(len(self._ids)) if allowed is None else allowed]
            weights = _EVEN if weigh is None else weigh(standings)
            places, cosines = self._candidates(query, int(k), weights, allowed)
            scores = _nan_last(weights[places].scored(cosines))
            if len(scores) > k:  # with all that equal the last of them, of which the newest come first
                near = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
                places, cosines, scores = places[near], cosines[near], scores[near]
            newest = _nan_last(standings.occurred_s[places])
            order = np.lexsort((places, -newest, -scores))[:k]
            slots = places if allowed is None else allowed[places]
            return [
                Found(self._ids[slots[at]], float(cosines[at]), float(scores[at])) for at in order.tolist()
            ]

    def _allowed(
        self, among: Collection[MemoryId] | None, where: Callable[[Standings], Mask] | None
    ) -> Slots | None:
        """The slots that may be found; None for all."""
        mask = None if where is None else where(self._standings[: len(self._ids)])
        if among is not None:
            slots = np.array(sorted(self._slots[each] for each in among if each in self._slots), np.int64)
            return slots if mask is None else slots[mask[slots]]
        return None if mask is None or mask.all() else np.flatnonzero(mask)

    def _candidates(
        self, query: Float32, k: int, weights: Weights | _Even, allowed: Slots | None
    ) -> tuple[Slots, Float32]:
        """Where, among what is allowed, the k of the highest score are, and some more; and their cosines."""
        n = len(self._ids) if allowed is None else len(allowed)
        if self._sketcher is not None and n * self.dimension >= _SKETCHED_NUMBERS and n > 2 * k:
            return self._by_sketches(self._sketcher, query, k, weights, allowed)
        if allowed is None:
            return np.arange(n), inner_products(query, self._vectors[:n])
        return np.arange(n), inner_products_of(query, self._vectors, allowed)

    def _by_sketches(
        self, sketcher: Sketcher, query: Float32, k: int, weights: Weights | _Even, allowed: Slots | None
    ) -> tuple[Slots, Float32]:
        """Those that the sketches do not put below the k of the highest true score found at first."""
        kept, which = self._sketches, slice(len(self._ids)) if allowed is None else allowed
        sketches = Sketched(kept.codes[which], kept.radius[which], kept.along[which])
        estimates = sketcher.estimates(query, sketches)
        first = _highest(weights.scored(estimates), max(_FIRST, 4 * k))
        cosines = self._cosines_of(query, first, allowed)
        true = weights[first].scored(cosines)
        least = np.partition(true, len(true) - k)[len(true) - k]
        best = weights.scored(estimates + _DEVIATIONS * sketcher.deviations(query, sketches))
        is_near = best >= least
        is_near[first] = False  # known already
        near = np.flatnonzero(is_near)
        most = max(_READ_MIN, len(best) // _READ_SHARE, _SKETCHED_NUMBERS // self.dimension)
        if len(near) > most:
            near = near[_highest(best[near], most)]
        return np.concatenate([first, near]), np.concatenate(
            [cosines, self._cosines_of(query, near, allowed)]
        )

    def _cosines_of(self, query: Float32, places: Slots, allowed: Slots | None) -> Float32:
        return inner_products_of(query, self._vectors, places if allowed is None else allowed[places])

    # ---- files -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a file: whole or not at all, with a checksum. Its folder is made."""
        with self._lock:
            n = len(self._ids)
            contents = files.Contents(
                self.origin, list(self._ids), self._vectors[:n].copy(), self._standings[np.arange(n)]
            )
        files.write(path, contents)

    def load(self, path: str | os.PathLike[str]) -> bool:
        """Replace everything by what a file holds; False, and nothing changed, where it cannot serve.

        That is where it is missing, damaged, of another format or another dimension.
        """
        try:
            contents = files.read(path)
        except (FileNotFoundError, CorruptionError):
            return False
        if contents.vectors.shape[1] != self.dimension:
            return False
        with self._lock:
            self._clear()
            self._ids = contents.ids
            self._slots = {memory_id: slot for slot, memory_id in enumerate(contents.ids)}
            self._vectors, self._standings = contents.vectors, contents.standings
            self.origin = contents.origin
            self._sketch(np.arange(0))
        return True


def check_id(memory_id: object) -> None:
    """Raise `InvalidInputError` where it is neither an int nor a string."""
    if not isinstance(memory_id, int | str) or isinstance(memory_id, bool):
        raise InvalidInputError(f"a memory id is an int or a str, got {memory_id!r}")


def unit_rows(embeddings: Any, dimension: int) -> Float32:
    """The embeddings as rows of length 1, a copy, ``float32[n, d]``."""
    try:
        rows = np.array(embeddings, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"embeddings must be numbers, n rows of d={dimension}: {error}") from error
    if not rows.size and rows.ndim < 2:
        rows = rows.reshape(0, dimension)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise InvalidInputError(f"expected embeddings of d={dimension}, got shape {rows.shape}")
    is_finite = np.isfinite(rows).all(axis=1)
    if not is_finite.all():
        raise InvalidInputError(f"embedding {int(np.argmin(is_finite))} has a number that is not finite")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not norms.all():
        raise InvalidInputError(f"embedding {int(np.argmin(norms))} is all zeros: it has no direction")
    units: Float32 = (rows / norms).astype(np.float32)
    return units


class _Even:
    """Weights of 1."""

    def __getitem__(self, which: Any) -> _Even:
        return self

    def scored(self, similarities: Float32) -> Float32:
        return similarities


_EVEN = _Even()


def _highest(scores: Float32, most: int) -> Slots:
    """Where the highest are, in no order."""
    if most >= len(scores):
        return np.arange(len(scores))
    return np.argpartition(scores, len(scores) - most)[len(scores) - most :]


def _nan_last(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.where(np.isnan(values), -np.inf, values)


def _grown(array: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    grown = np.empty((n, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


def _no_sketches(n: int, code_bytes: int = 8) -> Sketched:
    return Sketched(np.empty((n, code_bytes), np.uint8), np.empty(n, np.float32), np.empty(n, np.float32))

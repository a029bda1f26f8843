"""Collections that are filled once and then only read, also where some of their records count no more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from faissbase.ann.curve import Curve
from faissbase.ann.segment import Knobs
from faissbase.ann.spec import Spec
from faissbase.collection import answers
from faissbase.collection.answers import Moment
from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.collection.building import Measuring, Progress
from faissbase.collection.care import Care
from faissbase.collection.collection import LocalCollection, Parts
from faissbase.collection.folder import make_files
from faissbase.collection.inputs import Rows
from faissbase.collection.selection import Selector
from faissbase.collection.store import NOTHING, Config, Store, vectors_path
from faissbase.collection.writer import Put, Writer
from faissbase.errors import ConflictError
from faissbase.filters.tree import parse
from faissbase.storage.arrival import Arrival
from faissbase.storage.files import draft_folder, os_errors, publish
from faissbase.storage.records import State
from faissbase.types import Float32, Mask, SearchResult, Slots, VerifyReport, Where

T = TypeVar("T")

_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 8192


class Measurable(LocalCollection):
    """A collection whose one index is looked at by itself."""

    def curve(self) -> Curve | None:
        """What was measured of its index; None of one that is searched exactly."""
        segments = self._newest().segments
        return segments[0].curve if segments else None

    def search_index(self, queries: Float32, k: int, knobs: Knobs) -> SearchResult:
        """The k nearest that the index finds with these knobs, whatever else would be faster or exact."""
        family = self._newest().segments[0].index.family
        nprobe = knobs.effort if family == "ivf" else None
        ef_search = knobs.effort if family == "hnsw" else None
        found: SearchResult = self.search(queries, k, nprobe=nprobe, ef_search=ef_search, rerank=knobs.rerank)
        return found


class FrozenCollection(Measurable):
    """Reads a collection's folder, without the records in some slots.

    Parameters
    ----------
    folder : Path
    config : Config
    hidden : int64[h]
        Slots that count as dead, ascending.
    memory_budget : int, optional
    like : FrozenCollection, optional
        The same folder with other hidden slots: its open files are shared. Closing one closes both.
    bounds : Bounds
        How much one answer may bring.
    arriving : callable, optional
        What brings the vectors, asked for when the files are opened; None where they are in the folder.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        hidden: Slots = NOTHING,
        *,
        memory_budget: int | None = None,
        like: FrozenCollection | None = None,
        bounds: Bounds = UNBOUNDED,
        arriving: Callable[[], Arrival | None] = lambda: None,
    ) -> None:
        super().__init__(
            folder,
            config,
            read_only=True,
            durability="full",
            memory_budget=memory_budget,
            on_open=_nothing,
            on_work=_nothing,
            bounds=bounds,
        )
        self._hidden = hidden
        self._like = like
        self._arriving = arriving

    def hiding(self, hidden: Slots) -> FrozenCollection:
        """The same collection with other hidden slots. This one goes on as it is."""
        like = self._like or self  # not one that hangs on another, or a long row of them would
        return FrozenCollection(
            self._folder,
            self._config,
            hidden,
            memory_budget=self._memory_budget,
            like=like,
            bounds=self._bounds,
        )

    def slots_of(self, ids: list[str]) -> dict[str, int]:
        """The slots of those ids whose records count."""
        return self._pinned(lambda moment: answers.slots_of(moment, ids))

    def matching(self, where: Where | None) -> Slots:
        """The slots of the records that match and count, ascending."""
        filter = parse(where)
        return self._pinned(lambda moment: moment.select(filter).slots)

    def stamp(self) -> tuple[int, int, int]:
        """Changes with every change of its records, where somebody still writes to the folder."""
        return _stamp(self._newest().state)

    def stored(self, slots: Slots, stamp: tuple[int, int, int]) -> Rows:
        """The records in ``slots``, ascending, exactly as they are stored.

        Raises
        ------
        ConflictError
            The records are not those of ``stamp`` any more.
        """

        def read(moment: Moment) -> Rows | None:
            if _stamp(moment.snapshot.state) != stamp:
                return None
            return answers.stored(moment, slots)

        rows = self._pinned(read)
        if rows is None:
            raise ConflictError(f"collection {self.name!r} was changed meanwhile: start again")
        return rows

    def at_one_moment(self, read: Callable[[Moment], T]) -> T:
        """What ``read`` makes of one moment, which stays as it is to the end of it, whoever writes."""
        return self._pinned(read)

    @contextmanager
    def moment(self) -> Iterator[Moment]:
        """The newest moment, which stays as it is to the end of the block, whoever writes."""
        parts = self._parts()
        with parts.store.pinned() as (snapshot, transaction):
            yield Moment(parts.store, parts.selector, snapshot, transaction)

    @property
    def hidden(self) -> Slots:
        """The slots that count as dead, ascending."""
        return self._hidden

    def rows_of(self, ids: list[str]) -> Rows:
        """The records with these ids that count, in stored form, by slot."""
        return self._pinned(lambda moment: answers.stored(moment, _ascending(answers.slots_of(moment, ids))))

    def rows_at(self, slots: Slots) -> Rows:
        """The records in these slots, ascending, in stored form; hidden ones too."""
        return self._pinned(lambda moment: answers.stored(moment, slots))

    def batches(self) -> Iterator[Rows]:
        """Every record that counts, in stored form and by slot, a few MiB at a time."""
        slots = self.matching(None)
        step = max(1, min(_BATCH_ROWS, _BATCH_BYTES // (4 * self.dimension)))
        for start in range(0, len(slots), step):
            for part in self._fitting(slots[start : start + step]):
                yield self.rows_at(part)

    def _fitting(self, slots: Slots) -> list[Slots]:
        """The slots in parts whose metadata and documents take a few MiB, or that are of one record."""
        sizes = self._pinned(lambda moment: _sizes(moment, slots))
        part = np.cumsum(sizes) // _BATCH_BYTES
        return np.split(slots, np.flatnonzero(np.diff(part)) + 1)

    def _open(self) -> Parts:
        like, self._like = self._like, None
        if like is not None:
            shared = like._parts()
            store = shared.store.twin(self._hidden)
            selector = shared.selector  # metadata that filters have read are the same
        else:
            store = self._opened()
            selector = Selector(store.records, self._memory_budget)
        writer = Writer(store)
        return Parts(store, selector, writer, Care(store, writer, self._memory_budget), os.getpid())

    def _opened(self) -> Store:
        return Store(
            self._folder,
            self._config,
            read_only=True,
            durability="full",
            memory_bytes=self._memory_budget,
            hidden=self._hidden,
            bounds=self._bounds,
            arrival=self._arriving(),
        )

    def verify(self) -> VerifyReport:
        """`LocalCollection.verify`, once every vector is here."""
        self._newest().view.need_all()
        return super().verify()

    def begin_arrival(self) -> None:
        """Bring the vectors that are not here yet, in the background."""
        self._parts().store.begin_arrival()


def _sizes(moment: Moment, slots: Slots) -> list[int]:
    assert moment.transaction is not None
    return moment.transaction.sizes(slots)


def _ascending(slot_of: dict[str, int]) -> Slots:
    return np.sort(np.fromiter(slot_of.values(), np.int64, len(slot_of)))


def _nothing(collection: LocalCollection) -> None:
    return None


def _stamp(state: State) -> tuple[int, int, int]:
    return state.generation, state.next_slot, state.last_seq


class ArrivingCollection(LocalCollection):
    """A collection that one process fills, in as many attempts as it takes, before others know of it.

    What it has acknowledged is durable.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        """Open what an earlier attempt has left in ``folder``, or make it."""
        if not folder.exists():
            with draft_folder(folder.parent) as draft:
                made = draft / folder.name
                made.mkdir()
                make_files(made, "", config)
                publish(made, folder)
        super().__init__(
            folder,
            config,
            read_only=False,
            durability="full",
            memory_budget=None,
            on_open=_nothing,
            on_work=_nothing,
        )

    def put(self, rows: Rows) -> int:
        """Store checked records, replacing those whose ids exist; how many."""
        return self._parts().writer.run(Put(rows))


class FreshCollection(Measurable):
    """A collection that is filled once, and then closed for good: what becomes a frozen one.

    Nothing of it is promised to anybody before it is finished, so its writes need not be durable.
    """

    def __init__(self, folder: Path, config: Config, *, memory_budget: int | None = None) -> None:
        """Make the files of an empty collection in ``folder``, which is there and empty."""
        make_files(folder, "", config, is_lasting=False)
        super().__init__(
            folder,
            config,
            read_only=False,
            durability="relaxed",
            memory_budget=memory_budget,
            on_open=_nothing,
            on_work=_nothing,
        )

    def put(self, rows: Rows) -> int:
        """Store checked records; how many."""
        return self._parts().writer.run(Put(rows))

    def finish(
        self,
        spec: Spec,
        trained: Path | None = None,
        *,
        threads: int,
        progress: Progress,
        measuring: Measuring,
    ) -> None:
        """Drop replaced records and build the index in one go; see `Building.whole`."""
        self._parts().care.finish(spec, trained, threads=threads, progress=progress, measuring=measuring)

    def alive(self) -> Mask | None:
        """``bool[n]``: which of the rows that were put, in their order, count; None where all do."""
        return self._newest().alive

    def close(self) -> None:
        """Close for good; the slot file ends with its last slot then."""
        path, size = self._slots_end()
        super().close()
        with os_errors(f"cannot shorten {path}"):
            os.truncate(path, size)

    def _slots_end(self) -> tuple[Path, int]:
        state = self._newest().state
        return vectors_path(self._folder, state.generation), 4 * self.dimension * state.next_slot

    def dead_slots(self) -> Slots:
        """The slots whose records have been replaced since, ascending."""
        alive = self._newest().alive
        return NOTHING if alive is None else np.flatnonzero(~alive)

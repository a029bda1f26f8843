"""Building segments: what is to be built next, and building it.

One builder at a time works on a collection, whichever process it is in. Searches go on with what there is;
what has been built is published in between, so that an interrupted build goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import orjson

from faissbase.ann.advisor import EXACT_NUMBERS
from faissbase.ann.build import Builder
from faissbase.ann.calibrate import SHARES, measure
from faissbase.ann.curve import Curve
from faissbase.ann.flat import FlatView
from faissbase.ann.segment import open_segment
from faissbase.ann.spec import EXACT_TYPES, Spec, resolve
from faissbase.collection.segments import curve_of, spec_of
from faissbase.collection.store import Config, Snapshot, Store
from faissbase.collection.writer import Alone, Writer
from faissbase.errors import NotReadyError
from faissbase.storage.records import SegmentRow, State, WriteTransaction
from faissbase.storage.segments import SegmentFolder
from faissbase.types import Float32

# A tail of so many numbers costs a query a fifth of a millisecond.
TAIL_NUMBERS = 1 << 20
# A segment is grown rather than left beside a new one once what follows it is an eighth as long: a vector
# is then inserted once for each eightfold growth, and a query meets few segments.
_GROWTH = 8
_CHECKPOINT_SLOTS_MIN = 1 << 16
_CALIBRATION_SEED = 20
_CALIBRATION_QUERIES = 256
_CALIBRATION_BUDGET_S = 20.0

Progress = Callable[[int], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Measuring:
    """How recall is measured once an index is built.

    Attributes
    ----------
    seconds : float
        After so many no new setting is begun.
    queries : float32[nq, d] or None
        Real queries; made of stored vectors where there are none.
    """

    seconds: float = _CALIBRATION_BUDGET_S
    queries: Float32 | None = None


_USUAL = Measuring()


@dataclass(frozen=True, slots=True)
class Task:
    """A segment to build over slots ``first`` to ``stop``, going on from ``base`` where there is one."""

    spec: Spec
    first: int
    stop: int
    base: SegmentRow | None

    @property
    def done(self) -> int:
        """The slots that are in ``base`` already end here."""
        return self.base.stop_slot if self.base else self.first


def is_due(n: int, n_indexed: int, config: Config) -> bool:
    """Whether so many slots are searched without an index that building pays."""
    if config.index_type in EXACT_TYPES:
        return False
    least = TAIL_NUMBERS if n_indexed or config.index_type != "auto" else EXACT_NUMBERS
    return (n - n_indexed) * config.dimension >= least


def next_task(
    rows: Sequence[SegmentRow], n: int, config: Config, memory_bytes: int | None, *, is_final: bool
) -> Task | None:
    """What to build next for ``n`` slots, or None.

    Parameters
    ----------
    rows : sequence of SegmentRow
        The sound segments, which follow one another from slot 0 on.
    is_final : bool
        Build a short tail in, too, where an index pays at all.
    """
    n_indexed = rows[-1].stop_slot if rows else 0
    if n == n_indexed or not (is_final or is_due(n, n_indexed, config)):
        return None
    try:
        spec = resolve(config.index_type, n, config.dimension, config.metric, memory_bytes)
    except NotReadyError:  # too few to train on: searched exactly until there are more
        return None
    if spec.family == "flat":
        return None
    for row in rows:
        behind = n - row.stop_slot
        if is_final or behind * _GROWTH >= row.stop_slot - row.first_slot:
            # Made otherwise than one would be made now, it is made anew.
            return Task(spec, row.first_slot, n, row if spec_of(row) == spec else None)
    return Task(spec, n_indexed, n, None)


class Building:
    """Builds the segments of one open collection."""

    def __init__(self, store: Store, writer: Writer, *, memory_bytes: int | None, threads: int) -> None:
        self._store = store
        self._writer = writer
        self._config = store.config
        self._memory_bytes = memory_bytes
        self._threads = threads
        self._files = SegmentFolder(store.folder)

    def run(
        self, *, is_final: bool, progress: Progress, should_stop: ShouldStop, upto: int | None = None
    ) -> bool:
        """Build until nothing is due, or all before slot ``upto`` is built in.

        False where another builder has the lease or it was told to stop.
        """
        with self._files.building() as is_ours:
            if not is_ours:
                return False
            while not should_stop():
                snapshot, rows = self._moment()
                task = next_task(rows, snapshot.view.n, self._config, self._memory_bytes, is_final=is_final)
                if task is None or (upto is not None and task.done >= upto):
                    self._remove_others()
                    return True
                if not self._build(task, snapshot, progress, should_stop):
                    return False
            return False

    def train(self, xt: Float32 | None) -> bool:
        """Build the whole index anew, trained on ``xt``, ``float32[m, d]``, or on a sample of what is stored.

        False where another builder has the lease.

        Raises
        ------
        NotReadyError
            Too few vectors to train on.
        """
        with self._files.building() as is_ours:
            if not is_ours:
                return False
            snapshot, _ = self._moment()
            config, n = self._config, snapshot.view.n
            spec = resolve(config.index_type, n, config.dimension, config.metric, self._memory_bytes)
            self._build(Task(spec, 0, n, None), snapshot, no_progress, never, xt)
        return True

    def whole(
        self,
        spec: Spec,
        trained: Path | None,
        *,
        progress: Progress,
        should_stop: ShouldStop,
        measuring: Measuring,
    ) -> bool:
        """Build one segment over all there is, in one go: nothing is published before it is done.

        Parameters
        ----------
        spec : Spec
        trained : Path, optional
            A trained, empty index of that spec to go on from; trained on a sample of what is stored where
            there is none.
        measuring : Measuring

        Returns
        -------
        bool
            False where it was told to stop.
        """
        with self._files.building() as is_ours:
            if not is_ours:
                return False
            snapshot, _ = self._moment()
            view, started_s = snapshot.view, time.process_time()
            builder = Builder(spec, self._config.metric, view.vectors, 0, base=trained, threads=self._threads)
            builder.train()
            if not builder.add(view.n, progress=progress, should_stop=should_stop):
                return False
            cpu_s = time.process_time() - started_s
            return self._publish(builder, 0, snapshot, cpu_s, should_stop, measuring)

    def _moment(self) -> tuple[Snapshot, list[SegmentRow]]:
        """What is searched now, and the sound segments that are listed, opened yet or not."""
        with self._store.pinned() as (snapshot, transaction):
            listed = transaction.segments(snapshot.state)
        rows: list[SegmentRow] = []
        for row in listed:
            if row.name in self._store.damaged_segments:
                break
            rows.append(row)
        return snapshot, rows

    def _build(
        self,
        task: Task,
        snapshot: Snapshot,
        progress: Progress,
        should_stop: ShouldStop,
        xt: Float32 | None = None,
    ) -> bool:
        """Build one segment, publishing what is done each time it has doubled."""
        view, spec, row = snapshot.view, task.spec, task.base
        base = self._files.check(row.name, row.size_bytes, row.checksum) if row else None
        builder = Builder(
            spec,
            self._config.metric,
            view.vectors,
            task.first,
            base=base,
            threads=self._threads,
        )
        started_s = time.process_time() - (_build_cpu_s(task.base) if task.base else 0.0)
        builder.train(xt)
        for stop in _checkpoints(task):
            if not builder.add(stop, progress=progress, should_stop=should_stop):
                return False
            cpu_s = time.process_time() - started_s
            if not self._publish(builder, task.first, snapshot, cpu_s, should_stop):
                return False
        return True

    def _publish(
        self,
        builder: Builder,
        first: int,
        snapshot: Snapshot,
        cpu_s: float,
        should_stop: ShouldStop,
        measuring: Measuring = _USUAL,
    ) -> bool:
        """Make what is built live; False where the slots were numbered anew meanwhile or it was stopped."""
        spec, stop = builder.spec, builder.stop
        generation = snapshot.state.generation
        with self._files.draft(generation) as draft:
            builder.write(draft)
            curve = self._measured(draft, spec, (first, stop), snapshot, should_stop, measuring=measuring)
            if should_stop():
                return False
            name, size_bytes, checksum = self._files.keep(draft)
        facts = orjson.dumps({"curve": curve.as_dict(), "build_cpu_s": cpu_s})
        row = SegmentRow(name, first, stop, orjson.dumps(asdict(spec)).decode(), size_bytes, checksum, facts)

        def publish(transaction: WriteTransaction, state: State, _: object) -> int:
            if state.generation != generation:
                return 0
            kept = [live for live in transaction.segments(state) if live.stop_slot <= first]
            transaction.replace_segments([*kept, row], generation)
            return 1

        if not self._writer.run(Alone(publish)):
            return False
        self._remove_others()
        return True

    def _measured(
        self,
        path: Path,
        spec: Spec,
        slots: tuple[int, int],
        snapshot: Snapshot,
        should_stop: ShouldStop,
        *,
        with_filters: bool = False,
        measuring: Measuring = _USUAL,
    ) -> Curve:
        first, stop = slots
        until_s = time.perf_counter() + measuring.seconds
        vectors = snapshot.view.vectors
        index = open_segment(path, spec, self._config.metric, vectors, first, stop)
        index.warm(threads=self._threads)
        view = FlatView(vectors[first:stop], self._config.metric)
        alive = None if snapshot.alive is None else np.asarray(snapshot.alive[first:stop])
        return measure(
            index,
            view,
            alive,
            n_queries=_CALIBRATION_QUERIES,
            seed=_CALIBRATION_SEED,
            queries=measuring.queries,
            shares=SHARES if with_filters else (),
            is_over=lambda: time.perf_counter() > until_s,
            should_stop=should_stop,
        )

    def measure_filters(self, should_stop: ShouldStop) -> bool:
        """Measure what filters do to the segments, for a collection that is searched with some.

        That takes half as long as building, so it is not done for all. False where somebody else is building
        or it was told to stop.
        """
        with self._files.building() as is_ours:
            if not is_ours:
                return False
            snapshot, rows = self._moment()
            measured = [self._with_filters(row, snapshot, should_stop) for row in rows]
            if should_stop():
                return False
            self._store.tuning.wants_filters = False
            if measured != rows:
                self._replace(rows, measured, snapshot.state.generation)
        return True

    def _with_filters(self, row: SegmentRow, snapshot: Snapshot, should_stop: ShouldStop) -> SegmentRow:
        known = curve_of(row)
        if known is None or known.knows_filters:
            return row
        path, spec = self._files.path(row.name), spec_of(row)
        slots = row.first_slot, row.stop_slot
        curve = self._measured(path, spec, slots, snapshot, should_stop, with_filters=True)
        facts = {"curve": curve.as_dict(), "build_cpu_s": _build_cpu_s(row)}
        return replace(row, facts=orjson.dumps(facts))

    def _replace(self, old: list[SegmentRow], new: list[SegmentRow], generation: int) -> None:
        def put(transaction: WriteTransaction, state: State, _: object) -> int:
            if state.generation != generation or transaction.segments(state) != old:
                return 0
            transaction.replace_segments(new, generation)
            return 1

        self._writer.run(Alone(put))

    def _remove_others(self) -> None:
        if not self._store.records.is_in_place():
            return  # others lie there now
        with self._store.records.read_transaction() as transaction:
            live = [row.name for row in transaction.segments(transaction.state())]
        self._files.remove_others(live)


def no_progress(n_done: int) -> None:
    return None


def never() -> bool:
    return False


def _build_cpu_s(row: SegmentRow) -> float:
    """CPU seconds that a segment took, its calibration left out; what else the process did counts in."""
    return float(orjson.loads(row.facts)["build_cpu_s"])


def _checkpoints(task: Task) -> list[int]:
    """Where to publish on the way: each time the segment has doubled, and at the end."""
    stops = []
    size = max(_CHECKPOINT_SLOTS_MIN, 2 * (task.done - task.first))
    while task.first + size < task.stop - size // 2:
        if task.first + size > task.done:
            stops.append(task.first + size)
        size *= 2
    return [*stops, task.stop]

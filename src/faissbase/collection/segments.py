"""The live segments of one open collection: opened once, kept while a snapshot may use them.

A segment that is missing or damaged is left out: it is derived, the search is then exact and the builder
makes it again. Opening one takes a while, so where an older one still serves, the new one is opened in the
background and taken up when it is ready.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from faissbase.ann.curve import Choice, Curve
from faissbase.ann.segment import Segment, open_segment
from faissbase.ann.spec import Spec
from faissbase.errors import FaissbaseError
from faissbase.storage.arrival import Arrival
from faissbase.storage.records import SegmentRow
from faissbase.storage.segments import SegmentFolder
from faissbase.types import Float32, Metric

_CHOICES_KEPT = 1024
# Where fewer are alive, asking for as many more would cost more than what that finds is worth.
LEAST_ALIVE = 1 / 16
_SHARE_STEPS = 64


@dataclass(slots=True)
class LiveSegment:
    """An open segment with what was measured of it when it was built."""

    row: SegmentRow
    index: Segment
    curve: Curve | None
    choices: dict[tuple[float, float, int], Choice | None] = field(default_factory=dict, compare=False)

    @property
    def stop(self) -> int:
        return self.row.stop_slot

    def choice_for(self, recall: float, share: float, k: int) -> Choice | None:
        """`Curve.choice_for`, thought over once for each share that was measured."""
        if self.curve is None:
            return None
        key = (recall, self.curve.measured_share(share), k)
        if key in self.choices:
            return self.choices[key]
        return self._kept(key, self.curve.choice_for(recall, share, k))

    def wide_choice(self, recall: float, alive: float, k: int) -> Choice | None:
        """For a search of all slots whose dead are dropped after: harder, by the share that is alive."""
        choice = self.choice_for(recall, 1.0, k)
        if choice is None or alive == 1.0:
            return choice
        rounded = max(math.floor(alive * _SHARE_STEPS) / _SHARE_STEPS, LEAST_ALIVE)
        key = (recall, -rounded, k)  # below zero, apart from the measured shares
        return self.choices.get(key) or self._kept(key, choice.harder(1.0 / rounded))

    def _kept(self, key: tuple[float, float, int], choice: Choice | None) -> Choice | None:
        if len(self.choices) >= _CHOICES_KEPT:
            self.choices = {}  # another thread may be looking at the old ones
        self.choices[key] = choice
        return choice


def curve_of(row: SegmentRow) -> Curve | None:
    """What was measured of a segment, where anything was."""
    facts = orjson.loads(row.facts)
    return Curve.from_dict(facts["curve"]) if facts.get("curve") else None


def spec_of(row: SegmentRow) -> Spec:
    return Spec(**orjson.loads(row.spec))


class Segments:
    """Opens segment files, and keeps what is open of one generation."""

    def __init__(self, folder: Path, metric: Metric, arrival: Arrival | None = None) -> None:
        self._files = SegmentFolder(folder)
        self._metric = metric
        self._arrival = arrival
        self._lock = threading.Lock()
        self._generation = -1
        self._open: dict[str, LiveSegment] = {}
        self._opening: set[str] = set()
        self._damaged: dict[str, str] = {}
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self.has_news = False

    @property
    def damaged(self) -> dict[str, str]:
        """What is wrong with live segments that could not be opened, by name."""
        return dict(self._damaged)

    def current(
        self, rows: Sequence[SegmentRow], vectors: Float32, generation: int
    ) -> tuple[LiveSegment, ...]:
        """The open segments of a moment, ascending by slot; none overlaps another."""
        with self._lock:
            self.has_news = False
            if generation != self._generation:
                self._generation = generation
                self._open.clear()
                self._damaged.clear()
            wanted = [row for row in rows if row.name not in self._open and row.name not in self._damaged]
            older = [live for live in self._open.values() if live.stop <= len(vectors)]
            if wanted and older:
                for row in wanted:
                    self._start_opening(row, vectors)
                return _unbroken(older)
        for row in wanted:
            self._open_one(row, vectors)
        with self._lock:
            self._open = {row.name: self._open[row.name] for row in rows if row.name in self._open}
            self._damaged = {row.name: self._damaged[row.name] for row in rows if row.name in self._damaged}
            self._measured_again(rows)
            return _unbroken(list(self._open.values()))

    def _measured_again(self, rows: Sequence[SegmentRow]) -> None:
        """Take up what has been measured since a segment was opened."""
        for row in rows:
            live = self._open.get(row.name)
            if live is not None and live.row != row:
                self._open[row.name] = LiveSegment(row, live.index, curve_of(row))

    def _open_one(self, row: SegmentRow, vectors: Float32) -> None:
        try:
            path = self._files.check(row.name, row.size_bytes, row.checksum)
            place = row.first_slot, row.stop_slot, self._arrival
            index = open_segment(path, spec_of(row), self._metric, vectors, *place)
            live = LiveSegment(row, index, curve_of(row))
        except FaissbaseError as error:
            with self._lock:
                self._damaged[row.name] = str(error)
            return
        with self._lock:
            if row.name.split(".")[0] != str(self._generation):
                return  # the slots have been numbered anew meanwhile
            self._open[row.name] = live
        self._start(lambda: self._warm(index), "warm")

    def _warm(self, index: Segment) -> None:
        with suppress(FaissbaseError):  # its file was replaced meanwhile: the next one is warmed
            index.warm(self._closing.is_set)

    def _start_opening(self, row: SegmentRow, vectors: Float32) -> None:
        if row.name in self._opening:
            return
        self._opening.add(row.name)

        def open_late() -> None:
            self._open_one(row, vectors)
            with self._lock:
                self._opening.discard(row.name)
                self.has_news = True

        self._start(open_late, "open")

    def _start(self, work: Callable[[], object], name: str) -> None:
        if self._closing.is_set():
            return
        thread = threading.Thread(target=work, name=f"faissbase-{name}", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def settle(self) -> None:
        """Wait for what runs in the background."""
        while running := [thread for thread in self._threads if thread.is_alive()]:
            running[0].join()

    def close(self) -> None:
        """Stop what runs in the background."""
        self._closing.set()
        self.settle()


def _unbroken(segments: list[LiveSegment]) -> tuple[LiveSegment, ...]:
    """Segments that follow one another from slot 0 on, the widest first: what is behind a gap is left out."""
    stop, kept = 0, []
    for live in sorted(segments, key=lambda live: (live.row.first_slot, -live.stop)):
        if live.row.first_slot == stop:
            kept.append(live)
            stop = live.stop
    return tuple(kept)

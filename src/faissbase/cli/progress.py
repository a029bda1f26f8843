"""How far a build or a move has come: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from faissbase.cli import text
from faissbase.cli.console import Console
from faissbase.collection.telling import Told

EVERY_S = 10.0
_BAR = "{desc}{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"


@contextmanager
def shown(console: Console, title: str = "") -> Iterator[Told]:
    """Who is told of stages, and how many of how many rows are done. Silent with --quiet and --json."""
    if console.shows_progress:
        with _bar(title) as told:
            yield told
    elif console.logs_progress:
        with _lines(console, title) as told:
            yield told
    else:
        yield lambda stage, done, total: None


@contextmanager
def _bar(title: str) -> Iterator[Told]:
    """Over the rows of a stage; one that counts nothing is named."""
    with tqdm(total=0, unit=" rows", unit_scale=True, bar_format=_BAR) as bar:

        def show(stage: str, done: int, total: int) -> None:
            bar.set_description(f"{title} {stage}".strip(), refresh=False)
            if total and (bar.total != total or done < bar.n):
                bar.reset(total)  # the rate is that of this stage, not of what came before
                bar.initial = bar.n = bar.last_print_n = done
            bar.update(max(0, done - bar.n))
            bar.refresh()

        yield show


@contextmanager
def _lines(console: Console, title: str) -> Iterator[Told]:
    """By a thread: some stages take minutes and tell nothing meanwhile."""
    course, is_over = Course(title, time.monotonic), threading.Event()

    def write() -> None:
        while not is_over.wait(EVERY_S):
            line = course.line()
            if line is not None:
                console.note(line)

    thread = threading.Thread(target=write, name="faissbase-progress-lines", daemon=True)
    thread.start()
    try:
        yield course
    finally:
        is_over.set()
        thread.join()


class Course:
    """What was told last, as a line with the rate and the time that is left."""

    def __init__(self, title: str, now: Callable[[], float]) -> None:
        self._title = title
        self._now = now
        self._state: tuple[str, int, int] | None = None
        self._began = (now(), 0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        known = self._state
        if known is None or stage != known[0] or total != known[2] or done < known[1]:
            self._began = (self._now(), done)
        self._state = (stage, done, total)

    def line(self) -> str | None:
        """None where nothing was told yet."""
        if self._state is None:
            return None
        stage, done, total = self._state
        since_s, first = self._began
        seconds = self._now() - since_s
        what = f"{self._title}: {stage}" if self._title else stage
        if not total:
            return f"{what}, for {text.duration(seconds)}"
        line = f"{what}: {done:,} of {total:,} rows ({100 * done // total} %)"
        if done > first and seconds > 0:
            per_s = (done - first) / seconds
            line += f", {text.rate(per_s)}, {text.duration((total - done) / per_s)} left"
        return line

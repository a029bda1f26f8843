"""Everything about approximate search in one run: ``python -m benchmarks.ann``."""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import (
    ann_data,
    ann_filtered,
    ann_fleet,
    ann_grow,
    ann_ingest,
    ann_live,
    ann_search,
    ann_size,
    datasets,
    machine,
    plots,
    report,
)
from benchmarks.ann_data import AnnData
from benchmarks.ann_fleet import FULL, QUICK, Fleet, Pace
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure
from benchmarks.systems import registry

SEED = 42
TITLE = "Approximate search benchmarks"
_NOT_A_DISK = ("tmpfs", "ramfs", "overlay")
_N_QUERIES = 500
_QUICK_ROWS, _QUICK_QUERIES = 20_000, 192
_GROWN_D = 128
_REOPEN_ROWS, _QUICK_REOPEN_ROWS = 1_000_000, 50_000
_LOADED_PARTS = ("search", "filtered", "live")
PARTS = ("search", "filtered", "ingest", "live", "size")


@dataclass(eq=False)
class _Run:
    """What is asked for, and what has been found so far."""

    options: argparse.Namespace
    systems: list[str]
    facts: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)

    @property
    def pace(self) -> Pace:
        return QUICK if self.options.quick else FULL

    @property
    def title(self) -> str:
        return f"{TITLE} (--quick: the first {_QUICK_ROWS:,} rows)" if self.options.quick else TITLE

    def wants(self, part: str) -> bool:
        return part in (self.options.only or PARTS)

    def keep(self, figures: Iterator[Figure]) -> None:
        """Print the figures and write everything found so far."""
        found = list(figures)
        self.figures += found
        if found:
            print(f"\n{found[0].part}\n{report.table(found)}\n", flush=True)
        report.write(self.figures, {**self.facts, "curves": self.curves}, self.options.out, self.title)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts asked for on the data sets given, write the report and the plots."""
    options = _parser().parse_args(arguments)
    kind = machine.filesystem(options.tmp)
    if kind in _NOT_A_DISK:
        print(f"{options.tmp} is {kind}: pass --tmp with a folder on a disk", file=sys.stderr)
        return 2
    systems, skipped = registry.importable(options.systems)
    for one in skipped:
        print(f"skipped: {one.name}: {one.reason}", flush=True)
    run = _Run(options, systems, _facts(options, skipped))
    for number, make in enumerate(_sets(options)):
        _measure(run, make(), is_main=number == 0)
    _draw(options.out)
    return 0


def _facts(options: argparse.Namespace, skipped: list[registry.Skipped]) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "seed": SEED,
        "quick": options.quick,
        "skipped": {one.name: one.reason for one in skipped},
        **machine.facts(options.tmp),
    }


def _sets(options: argparse.Namespace) -> list[Callable[[], Dataset]]:
    """The data sets in order, each made when its turn comes; the first one is the main one."""
    main_set = (lambda: datasets.debian(options.debian)) if options.debian else datasets.demo
    sets: list[Callable[[], Dataset]] = [main_set]
    if options.fashion:
        sets.append(lambda: datasets.fashion(options.fashion))
    if options.sift:
        sets.append(lambda: ann_data.sift(options.sift))
    if options.rows:
        sets.append(lambda: _grown(options, main_set))
    return sets


def _grown(options: argparse.Namespace, main_set: Callable[[], Dataset]) -> Dataset:
    """Grown from the photographs where they were given, else from the main set's principal components."""
    small = ann_data.sift(options.sift) if options.sift else ann_grow.reduced(main_set(), _GROWN_D)
    return ann_grow.grown(small, options.rows, _N_QUERIES, SEED)


def _measure(run: _Run, dataset: Dataset, *, is_main: bool) -> None:
    quick = run.options.quick
    n_queries, n_rows = (_QUICK_QUERIES, _QUICK_ROWS) if quick else (_N_QUERIES, None)
    data = ann_data.prepared(dataset, n_queries, SEED, n_rows)
    gc.collect()
    gc.freeze()  # the data themselves are not to be walked through while others are timed
    tmp = run.options.tmp
    if any(run.wants(part) for part in _LOADED_PARTS):
        with ann_fleet.loaded(run.systems, data, tmp, run.pace) as fleet:
            _measure_loaded(run, fleet, is_main=is_main)
    if is_main and run.wants("ingest"):
        run.keep(ann_ingest.run(run.systems, data, tmp, run.pace))
    if is_main and run.wants("size"):
        run.keep(ann_size.run(run.systems, data, tmp))
        _reopening(run, dataset, data)


def _measure_loaded(run: _Run, fleet: Fleet, *, is_main: bool) -> None:
    """Live comes last: it changes what is stored."""
    if run.wants("search"):
        run.keep(ann_search.run(fleet, run.curves))
    if run.wants("filtered"):
        run.keep(ann_filtered.run(fleet, run.curves))
    if run.wants("live") and is_main:
        run.keep(ann_live.run(fleet, run.curves, SEED))


def _reopening(run: _Run, dataset: Dataset, data: AnnData) -> None:
    default = _QUICK_REOPEN_ROWS if run.options.quick else _REOPEN_ROWS
    n_rows = default if run.options.reopen_rows is None else run.options.reopen_rows
    if "faissbase" in run.systems and data.dataset.d == dataset.d:
        run.keep(ann_size.reopening(dataset, run.options.tmp, n_rows, SEED))


def _draw(out: Path) -> None:
    print(f"\nwritten: {out} and {out.with_suffix('.md')}")
    if importlib.util.find_spec("matplotlib") is None:
        print("no plots: matplotlib is not installed")
        return
    for path in plots.draw(out, out.parent):
        print(f"written: {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ann", description=__doc__)
    parser.add_argument("--debian", type=Path, metavar="FOLDER", help="full data set instead of the demo's")
    parser.add_argument("--fashion", type=Path, metavar="FOLDER", help="this data set too")
    parser.add_argument("--sift", type=Path, metavar="FOLDER", help="this data set too")
    parser.add_argument("--rows", type=int, default=0, metavar="N", help="a set of N x 128 grown too")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=registry.NAMES,
        default=registry.NAMES,
        metavar="NAME",
        help=", ".join(registry.NAMES),
    )
    parser.add_argument("--quick", action="store_true", help="a small part of the data, to see it work")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ann.json"))
    parser.add_argument("--tmp", type=Path, default=Path(tempfile.gettempdir()), metavar="FOLDER")
    parser.add_argument("--reopen-rows", type=int, default=None, metavar="N", help="0 leaves it out")
    return parser


if __name__ == "__main__":
    sys.exit(main())

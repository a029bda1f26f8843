"""Everything about the embedded store in one run: ``python -m benchmarks.embedded``."""

from __future__ import annotations

import argparse
import datetime
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import datasets, filtered, load, machine, memory, reopen, report, search, upsert
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure

SEED = 42
_NOT_A_DISK = ("tmpfs", "ramfs", "overlay")


@dataclass(frozen=True, slots=True)
class _Setting:
    main: Dataset
    others: list[Dataset]
    parent: Path
    load_copies: int
    reopen_rows: int


Part = Callable[[_Setting], Iterator[Figure]]


def _search(setting: _Setting) -> Iterator[Figure]:
    for dataset in (setting.main, *setting.others):
        yield from search.run(dataset, setting.parent)


def _reopen(setting: _Setting) -> Iterator[Figure]:
    return reopen.run(setting.main, setting.parent, setting.reopen_rows, SEED)


PARTS: dict[str, Part] = {
    "search": _search,
    "filtered": lambda setting: filtered.run(setting.main, setting.parent),
    "load": lambda setting: load.run(setting.main, setting.parent, setting.load_copies),
    "upsert": lambda setting: upsert.run(setting.main, setting.parent),
    "reopen": _reopen,
    "memory": lambda setting: memory.run(setting.parent),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts asked for and write the report."""
    options = _parser().parse_args(arguments)
    kind = machine.filesystem(options.tmp)
    if kind in _NOT_A_DISK:
        print(f"{options.tmp} is {kind}: pass --tmp with a folder on a disk", file=sys.stderr)
        return 2
    setting = _setting(options)
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "seed": SEED,
        **machine.facts(options.tmp),
    }
    gc.collect()
    gc.freeze()  # the data sets themselves are not to be walked through while others are timed
    figures: list[Figure] = []
    for name in options.only or PARTS:
        found = list(PARTS[name](setting))
        figures += found
        print(f"\n{found[0].part if found else name}\n{report.table(found)}", flush=True)
        report.write(figures, facts, options.out)
    print(f"\nwritten: {options.out} and {options.out.with_suffix('.md')}")
    return 0


def _setting(options: argparse.Namespace) -> _Setting:
    main_set = datasets.debian(options.debian) if options.debian else datasets.demo()
    others = [datasets.fashion(options.fashion)] if options.fashion else []
    return _Setting(main_set, others, options.tmp, options.load_copies, options.reopen_rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded", description=__doc__)
    parser.add_argument("--debian", type=Path, metavar="FOLDER", help="full data set instead of the demo's")
    parser.add_argument("--fashion", type=Path, metavar="FOLDER", help="search this one too")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/embedded.json"))
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--tmp", type=Path, default=Path(tempfile.gettempdir()), metavar="FOLDER")
    parser.add_argument("--load-copies", type=int, default=4, metavar="N", help="times the data is loaded")
    parser.add_argument("--reopen-rows", type=int, default=1_000_000, metavar="N", help="0 leaves it out")
    return parser


if __name__ == "__main__":
    sys.exit(main())

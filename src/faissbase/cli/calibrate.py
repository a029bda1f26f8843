"""``faissbase bench calibrate``: what work on vectors costs on this machine, for ``faissbase plan``."""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import orjson
from tqdm import tqdm

from faissbase.cli import text
from faissbase.cli.console import Answer, Console
from faissbase.cli.costs import costs_file, processor, save_costs
from faissbase.collection.collection import LocalCollection
from faissbase.database.database import connect
from faissbase.sharded import calibration
from faissbase.sharded.calibration import Effort, RecordCosts
from faissbase.sharded.costs import Costs

WORD = "calibrate"

_RECORD_ROWS, _RECORD_D = 6000, 8
_WRITTEN_AT_ONCE = 1000
_SEARCHES = 200
_SEED = 3


def run_calibrate(args: argparse.Namespace, console: Console) -> Answer:
    target = costs_file() if args.out is None else args.out
    effort = Effort() if args.rows is None else Effort.of_rows(args.rows)
    started = time.perf_counter()
    total = calibration.n_steps() + 1
    hidden = not console.shows_progress
    with tqdm(total=total, desc=WORD, unit=" costs", leave=False, disable=hidden) as bar:
        records = _record_costs()
        bar.update()
        costs = calibration.measure(
            time.process_time,
            records,
            machine=processor(),
            measured_on=date.today().isoformat(),
            effort=effort,
            on_step=bar.update,
        )
    save_costs(costs, target)
    seconds = time.perf_counter() - started
    document = {"out": str(target), "seconds": seconds, "costs": orjson.loads(costs.to_json())}
    return Answer(document, _lines(costs, target, seconds))


def _record_costs() -> RecordCosts:
    """Records stored and found, in a temporary database, without what vectors of d=8 cost."""
    with tempfile.TemporaryDirectory(prefix="faissbase-calibrate-") as folder:
        with connect(Path(folder) / "data", durability="relaxed") as db:
            collection = db.create_collection(WORD, _RECORD_D, "l2", index_type="Flat")
            written_s = _written_s(collection)
            search_us = _search_us(collection)
        size_bytes = sum(path.stat().st_size for path in Path(folder).rglob("records.sqlite*"))
    return RecordCosts(1e6 * written_s / _RECORD_ROWS, size_bytes / _RECORD_ROWS, search_us)


def _written_s(collection: LocalCollection) -> float:
    xb = np.random.default_rng(_SEED).random((_RECORD_ROWS, _RECORD_D), np.float32)
    ids = [f"record-{row}" for row in range(_RECORD_ROWS)]
    metadatas = [{"section": f"section {row % 17}", "year": 1990 + row % 40} for row in range(_RECORD_ROWS)]
    started = time.process_time()
    for at in range(0, _RECORD_ROWS, _WRITTEN_AT_ONCE):
        part = slice(at, at + _WRITTEN_AT_ONCE)
        collection.upsert(ids[part], xb[part], metadatas[part])
    return time.process_time() - started


def _search_us(collection: LocalCollection) -> float:
    xq = np.random.default_rng(_SEED + 1).random((_SEARCHES, _RECORD_D), np.float32)
    times = []
    for query in xq:
        started = time.process_time()
        collection.search(query, k=10)
        times.append(time.process_time() - started)
    return 1e6 * median(times)


def _lines(costs: Costs, target: Path, seconds: float) -> list[str]:
    d = 768
    rows = [["CPU time of one thread", "d=128", f"d={d}", ""]]

    def add(name: str, unit: str, values: tuple[float, float]) -> None:
        rows.append([name, *(f"{value:,.3g}" for value in values), unit])

    add("assign a vector to one of 1,000 lists", "µs", (costs.assign.at(128), costs.assign.at(d)))
    add("compare a query with 1,000 lists", "µs", (costs.coarse.at(128), costs.coarse.at(d)))
    add("  with 1,000 lists in groups", "µs", (costs.grouped.at(128), costs.grouped.at(d)))
    add("re-rank one candidate", "µs", (costs.rerank.at(128) / 1e3, costs.rerank.at(d) / 1e3))
    for codec, (small, large) in _CODE_BYTES.items():
        parts = costs.codecs[codec]
        add(f"encode {codec}", "µs", (parts.encode.at(128) / 1e3, parts.encode.at(d) / 1e3))
        add(f"scan a code of {codec}", "ns", (parts.scan.at(small), parts.scan.at(large)))
    return [
        f"{costs.machine}, {costs.measured_on}: measured in {text.duration(seconds)} over synthetic vectors "
        "in a thousand clusters",
        *text.table(rows, "<>><", gap="   "),
        f"a record: {costs.record_us:.3g} µs to store, {costs.record_bytes:.0f} bytes; a search around its "
        f"index: {costs.search_us:.3g} µs",
        f"assumed: {costs.read_us:g} µs for a read from disk, {costs.network_ms:g} ms for a round trip to "
        "all shards",
        f"written to {target}; faissbase plan reads {costs_file()}",
    ]


_CODE_BYTES = {
    "Flat": (512, 3072),
    "SQ8": (128, 768),
    "PQfs": (32, 192),
    "RaBitQfs": (16, 96),
    "PQ8": (8, 48),
}

"""Costs are measured with the clock that is given, written, and read back."""

from __future__ import annotations

import time
from collections.abc import Callable

import faiss
import orjson
import pytest

from faissbase.errors import InvalidInputError
from faissbase.sharded import calibration
from faissbase.sharded.calibration import Effort, RecordCosts, measure
from faissbase.sharded.costs import CODECS, Costs
from faissbase.sharded.default_costs import DEFAULT_COSTS
from faissbase.sharded.planning import plan_dataset

SMALL = Effort(1024, 3, 256, (32, 64), 1 << 18)
RECORDS = RecordCosts(10.0, 150.0, 100.0)


@pytest.fixture(autouse=True)
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_EVICTING_NUMBERS", 1000)


def _measured(clock: Callable[[], float] = time.process_time, **named: object) -> Costs:
    return measure(clock, RECORDS, machine="this", measured_on="2026-01-02", effort=SMALL, **named)  # type: ignore[arg-type]


def test_a_calibration_measures_every_cost() -> None:
    steps = []
    before = faiss.omp_get_max_threads()
    costs = _measured(on_step=lambda: steps.append(1))
    assert len(steps) == calibration.n_steps()
    assert faiss.omp_get_max_threads() == before
    assert (costs.machine, costs.measured_on, costs.record_us) == ("this", "2026-01-02", 10.0)
    for line in (costs.assign, costs.coarse, costs.grouped, costs.rerank):
        assert line.at(64) > 0
        assert line.base >= 0
        assert line.slope >= 0
    assert costs.codecs.keys() == set(CODECS)
    for parts in costs.codecs.values():
        assert parts.encode.at(64) >= 0
        assert parts.scan.at(16) + parts.probe.at(64) + parts.start.at(64) > 0
    assert costs.train_ratio >= 1
    assert plan_dataset(10**7, 64, costs=costs).cpu_ms_per_query > 0


def test_nothing_but_the_clock_tells_the_time() -> None:
    ticks = iter(range(10**9))
    costs = _measured(lambda: float(next(ticks)))
    assert costs.assign.at(32) == pytest.approx(1e9 / 1024 / 2048)


def test_times_are_split_into_start_lists_and_codes() -> None:
    scans = [
        calibration._Scanned(probes, codes, 1000 + 50 * probes + 2 * codes)
        for probes, codes in ((8, 100), (64, 900), (8, 1000), (64, 9000))
    ]
    assert calibration._solved(scans) == pytest.approx((1000, 50, 2))
    shrinking = [calibration._Scanned(probes, 10.0 * probes, 3.0 * probes) for probes in (8, 64)]
    assert min(calibration._solved(shrinking)) >= 0


def test_costs_come_back_from_their_file() -> None:
    assert Costs.from_json(DEFAULT_COSTS.to_json()) == DEFAULT_COSTS


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 1}, '"format": 2: measure them again'),
        ({"assign": {"base": 1}}, "assign must have base and slope"),
        ({"assign": {"base": 1, "slope": -1}}, "assign.slope must be a number of 0 or more, got -1"),
        ({"record_us": "fast"}, "record_us must be a number of 0 or more, got 'fast'"),
        ({"train_ratio": True}, "train_ratio must be a number"),
        ({"machine": 3}, "machine must be text"),
        ({"codecs": {}}, "codecs must be Flat, SQ8"),
        ({"codecs": {codec: {} for codec in CODECS}}, "Flat must have encode, scan, probe, start"),
        ({"speed": 1}, "missing or unknown fields: speed"),
    ],
)
def test_files_that_hold_no_costs_are_refused(change: dict[str, object], told: str) -> None:
    document = orjson.loads(DEFAULT_COSTS.to_json()) | change
    with pytest.raises(InvalidInputError, match=told):
        Costs.from_json(orjson.dumps(document))
    with pytest.raises(InvalidInputError, match="costs must be JSON"):
        Costs.from_json(b"not json")


def test_too_few_rows_to_measure_on_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="expected 1024 rows or more to measure on, got 100"):
        Effort.of_rows(100)
    assert Effort.of_rows(2000).queries == 10

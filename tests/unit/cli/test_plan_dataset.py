"""Plans of shards on the command line, and the costs they count with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from faissbase.cli import calibrate
from faissbase.sharded import calibration
from faissbase.sharded.default_costs import DEFAULT_COSTS

BILLION = ("plan", "--n", "1e9", "--d", "768", "--ram", "64G", "--machines", "6")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without costs."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FAISSBASE_COSTS", raising=False)
    return tmp_path / "home"


def test_a_billion_vectors_are_planned_over_machines(cli: Any) -> None:
    plan = cli(*BILLION, "--recall", "0.95", "--json").json
    assert (plan["machines"], plan["replicas"], plan["shards"]) == (6, 2, 18)
    assert plan["factory"] == "RR768,IVF32768(IVF512,SQfp16),RaBitQfs"
    assert 115e9 < plan["index_bytes"] < 125e9
    assert plan["ram_bytes_per_machine"] < 64e9
    assert 5 < plan["build_core_hours"] < 420
    assert plan["cpu_ms_per_query_easy"] < plan["cpu_ms_per_query"]
    assert plan["costs"] == {
        "is_calibrated": False,
        "machine": DEFAULT_COSTS.machine,
        "measured_on": DEFAULT_COSTS.measured_on,
    }


def test_each_figure_says_what_it_was_computed_from(cli: Any) -> None:
    told = cli(*BILLION).out
    lines = {line.strip().split("  ")[0]: line for line in told.splitlines()}
    assert "18" in lines["shards"]
    assert "code 104 + id 8" in lines["bytes a vector"]
    assert "6 x (55,555,556 x 117.6 bytes" in lines["RAM a machine"]
    assert "51.2 GB usable, 80% of 64 GB" in lines["RAM a machine"]
    assert "vectors 3.08 TB (float32)" in lines["object storage"]
    assert "µs a vector" in lines["build"]
    assert "ns each" in lines["one query"]
    assert "assumed" in lines["p50, idle"]
    assert "it fits 9 machines of 64 GB" in told
    assert (
        f"costs: built in, measured on AMD EPYC, {DEFAULT_COSTS.measured_on}; faissbase bench calibrate"
        in told
    )


@pytest.mark.parametrize("n", ["1e9", "1_000_000_000", "1,000,000,000", "1000M", "1G", "1B"])
@pytest.mark.parametrize("ram", ["64G", "64GB", "64000MB"])
def test_numbers_are_read_as_people_write_them(cli: Any, n: str, ram: str) -> None:
    plan = cli("plan", "--n", n, "--d", "768", "--ram", ram, "--machines", "6", "--json").json
    assert (plan["n"], plan["ram_bytes_allowed"]) == (10**9, 64 * 10**9)


@pytest.mark.parametrize("n", ["1.5", "0", "-3", "1e30", "many", "1e", "nan", ""])
def test_numbers_that_are_none_are_refused(cli: Any, n: str) -> None:
    done = cli("plan", f"--n={n}", "--d", "8")
    assert done.code == 2
    assert "expected a whole number such as 1000000, 1e6 or 1M" in done.err


def test_shards_may_be_given_by_number_or_size(cli: Any) -> None:
    words = ("plan", "--n", "200M", "--d", "64", "--json")
    assert cli(*words, "--shards", "8").json["rows_per_shard"] == 25_000_000
    assert cli(*words, "--rows-per-shard", "25M").json["shards"] == 8
    done = cli(*words, "--shards", "8", "--rows-per-shard", "25M")
    assert (done.code, "not allowed with" in done.err) == (2, True)


def test_one_machine_holds_one_replica_unless_more_are_asked(cli: Any) -> None:
    words = ("plan", "--n", "50M", "--d", "64", "--json")
    assert cli(*words, "--machines", "1").json["replicas"] == 1
    assert cli(*words, "--replicas", "3").json["machines"] == 3
    done = cli(*words, "--machines", "1", "--replicas", "2")
    assert "2 replicas are 2 machines at least, got 1" in done.err


def test_what_one_machine_cannot_hold_is_planned_over_several(cli: Any) -> None:
    words = ("plan", "--n", "1e9", "--d", "768")
    given = cli(*words, "--ram", "64G")
    assert given.code == 0
    assert "one machine does not do (1,000,000,000 vectors of d=768 need at least" in given.out
    assumed = cli(*words, "--json").json
    assert assumed["machines"] == 5
    assert "machines of 64 GB assumed: give --ram" in assumed["notes"]


def test_what_one_machine_holds_is_planned_as_before(cli: Any) -> None:
    assert "family" in cli("plan", "--n", "50e6", "--d", "384", "--ram", "20G", "--json").json


def test_what_fits_no_machines_given_says_how_many_would(cli: Any) -> None:
    done = cli("plan", "--n", "1e9", "--d", "768", "--ram", "8G", "--machines", "3")
    assert done.code == 2
    assert "machines of 8 GB or" in done.err


def test_a_plan_says_when_its_costs_were_measured_here(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = orjson.loads(DEFAULT_COSTS.to_json()) | {
        "machine": "Abacus 9",
        "record_us": 10 * DEFAULT_COSTS.record_us,
    }
    path = tmp_path / "mine.json"
    path.write_bytes(orjson.dumps(document))
    built_in = cli(*BILLION, "--json").json
    monkeypatch.setenv("FAISSBASE_COSTS", str(path))
    plan = cli(*BILLION, "--json").json
    assert plan["costs"]["is_calibrated"]
    assert plan["build"]["records_s"] == pytest.approx(10 * built_in["build"]["records_s"])
    assert f"costs: calibrated on Abacus 9, {DEFAULT_COSTS.measured_on} ({path})" in cli(*BILLION).out


def test_costs_that_are_missing_or_damaged_are_an_error(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.json"
    monkeypatch.setenv("FAISSBASE_COSTS", str(path))
    assert cli(*BILLION).code == 3
    path.write_text("{}")
    done = cli(*BILLION)
    assert done.code == 2
    assert "faissbase bench calibrate writes it anew" in done.err


def test_calibrate_writes_what_plan_reads(cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_EVICTING_NUMBERS", 1000)
    monkeypatch.setattr(calibrate, "_RECORD_ROWS", 100)
    small = calibration.Effort(1024, 3, 256, (32, 64), 1 << 18)
    monkeypatch.setattr(calibration.Effort, "of_rows", lambda rows: small)
    done = cli("bench", "calibrate", "--rows", 1024)
    path = home / ".config" / "faissbase" / "costs.json"
    assert done.code == 0
    assert f"written to {path}; faissbase plan reads {path}" in done.out
    assert "encode RaBitQfs" in done.out
    plan = cli(*BILLION, "--json").json
    assert plan["costs"]["is_calibrated"]
    assert plan["records_bytes"] > 0
    other = home / "other.json"
    assert cli("bench", "calibrate", "--rows", 1024, "--out", other, "--json").json["out"] == str(other)
    assert [file.name for file in path.parent.iterdir() if not file.name.startswith(".")] == ["costs.json"]


def test_options_of_calibrate_are_for_it_alone(cli: Any) -> None:
    assert "--out and --rows are for faissbase bench calibrate" in cli("bench", "--out", "x").err
    assert "expected 1024 rows or more" in cli("bench", "calibrate", "--rows", "10").err

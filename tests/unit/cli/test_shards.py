"""``faissbase shards``: built, listed, looked at and checked from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.unit.cli.conftest import Cli

from faissbase.cli.console import Console
from faissbase.cli.shards import _shown_progress
from faissbase.database.database import connect
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.dataset import Dataset

D = 8


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for i in range(2):
        np.save(tmp_path / f"x{i}.npy", np.random.default_rng(i).standard_normal((40, D), np.float32))
    return tmp_path


BUILD = ("shards", "build", "x*.npy", "--out", "./bucket", "--name", "docs", "--metric", "l2")
HERE = ("--executor", "inline", "--work", "work")


def test_what_was_built_is_listed_shown_and_sound(cli: Cli, files: Path) -> None:
    built = cli(*BUILD, *HERE, "--rows-per-shard", "30")
    assert built.code == 0, built.err
    assert "published 'docs' version 2: 80 records in 3 shards" in built.out
    assert "recall@10  1.0000" in built.out
    listed = cli("shards", "list", "./bucket")
    assert listed.out.split("\n")[1].split() == ["docs", "80", "3", "2"]
    shown = cli("shards", "info", "./bucket", "docs")
    assert "80, d=8, l2" in shown.out
    assert shown.out.count("Flat") == 3
    verified = cli("shards", "verify", "./bucket", "docs", "--work", "work")
    assert (verified.code, verified.out) == (0, "docs: ok, 80 records in 3 shards checked\n")


class Watched(Console):
    """Somebody looks at the terminal."""

    shows_progress = True


def test_progress_has_the_stage_the_rate_and_the_time_left(capfd: pytest.CaptureFixture[str]) -> None:
    with _shown_progress(Watched(as_json=False, is_quiet=False)) as progress:
        progress("training", 0, 0)
        progress("building", 100, 400)  # of an earlier run
        progress("building", 200, 400)
        progress("measuring recall", 0, 0)
    shown = capfd.readouterr().err.split("\r")
    assert any(line.startswith("training:") for line in shown)
    assert any(line.startswith("building:  25%") for line in shown)
    [half] = {line.split("[")[0] for line in shown if line.startswith("building:  50%")}
    assert "200/400" in half
    assert all("rows/s" in line for line in shown if line.startswith("building"))
    assert any(line.startswith("measuring recall:  50%") for line in shown)


def test_as_json(cli: Cli, files: Path) -> None:
    built = cli(*BUILD, *HERE, "--json").json
    assert (built["n_rows"], built["shards"], built["recall"]["mean"]) == (80, 1, 1.0)
    assert cli("shards", "list", "./bucket", "--json").json["datasets"][0]["ntotal"] == 80
    info = cli("shards", "info", "./bucket", "docs", "--json").json
    assert (info["measured_recall"], info["shards"][0]["rows"]) == (1.0, 80)
    assert cli("shards", "verify", "./bucket", "docs", "--work", "work", "--json").json["ok"] is True


def test_damage_is_found(cli: Cli, files: Path) -> None:
    cli(*BUILD, *HERE)
    [shard] = Dataset(open_bucket(str(files / "bucket")), "docs").newest().shards
    path = files / "bucket" / next(file.key for file in shard.files if file.path.startswith("vectors"))
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.unlink()  # a name of its own, not the same file under another one
    path.write_bytes(content)
    verified = cli("shards", "verify", "./bucket", "docs", "--work", "work")
    assert verified.code == 1
    assert "is damaged: expected" in verified.out


def test_a_collection_is_built_with_its_metric(cli: Cli, tmp_path: Path) -> None:
    with connect(tmp_path / "data") as db:
        mine = db.create_collection("mine", D, metric="ip")
        mine.upsert([f"i{i}" for i in range(30)], np.ones((30, D), np.float32))
    built = cli("shards", "build", "mine", "--out", "./bucket", "--name", "docs", *HERE)
    assert built.code == 0, built.err
    assert cli("shards", "info", "./bucket", "docs", "--json").json["metric"] == "ip"
    other = cli("shards", "build", "mine", "--out", "./b", "--name", "docs", "--metric", "l2", *HERE)
    assert (other.code, "is of metric 'ip', not 'l2'" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("nix", "--name", "docs"), 3, "'nix' is no file"),
        (("nix.npy", "--name", "docs"), 3, "no file nix.npy"),
        (("x0.npy", "--name", "no/name"), 2, "collection name must be"),
        (("x0.npy", "--name", "docs", "--codec", "zip"), 2, "codec 'zip' is none of"),
        (("x0.npy", "--name", "docs", "--ram", "lots"), 2, "expected a size"),
        (("x0.npy", "--name", "docs", "--executor", "cloud"), 2, "--executor"),
    ],
)
def test_what_is_wrong_is_told(words: tuple[str, ...], code: int, told: str, cli: Cli, files: Path) -> None:
    ran = cli("shards", "build", "--out", "./bucket", *words, "--work", "work")
    assert (ran.code, told in ran.err) == (code, True), ran.err


def test_a_name_that_is_taken_and_one_that_is_not_there(cli: Cli, files: Path) -> None:
    assert cli(*BUILD, *HERE).code == 0
    again = cli(*BUILD, *HERE)
    assert (again.code, "--replace" in again.err) == (2, True)
    assert cli(*BUILD, *HERE, "--replace").code == 0
    assert cli("shards", "info", "./bucket", "nix").code == 3
    assert cli("shards", "list", "./empty").out.endswith("holds no dataset yet\n")

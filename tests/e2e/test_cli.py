"""The installed command in processes of its own, over real files: what a new user does, what goes wrong."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from faissbase.cli.demo import next_commands, next_python
from faissbase.cli.main import build_parser
from faissbase.database.database import connect
from faissbase.demo.dataset import iter_batches
from faissbase.errors import FaissbaseError
from faissbase.storage.tables.open import open_writer
from faissbase.types import Batch

COMMAND = str(Path(sys.executable).with_name("faissbase"))
N = 600
FORMATS = ("jsonl", "npy", "parquet")
WHERE = {"installed_size": {"$lt": 300}}

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    outside = ("FAISSBASE_DATA", "FAISSBASE_DEBUG", "COLUMNS")
    return {name: value for name, value in os.environ.items() if name not in outside}


def run(*words: object, cwd: Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, input=given, env=environment(), capture_output=True, text=True, timeout=300
    )


def as_json(ran: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document of a run that went well."""
    assert ran.returncode == 0, ran.stderr
    return orjson.loads(ran.stdout)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return next(iter_batches(N))


@pytest.fixture(scope="module")
def files(batch: Batch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same records in each format."""
    folder = tmp_path_factory.mktemp("files")
    for suffix in FORMATS:
        with open_writer(folder / f"packages.{suffix}", dimension=batch.vectors.shape[1]) as writer:
            writer.write(batch)
    return folder


@pytest.fixture(scope="module")
def home(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``data`` holds the collection ``packages``; never changed."""
    folder = tmp_path_factory.mktemp("home")
    assert run("load", files / "packages.jsonl", "packages", cwd=folder).returncode == 0
    return folder


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    """A copy of `home` to damage."""
    shutil.copytree(home / "data", tmp_path / "data")
    return tmp_path


def nearest(batch: Batch, row: int, k: int, rows: list[int]) -> list[str]:
    assert batch.ids is not None
    scores = batch.vectors[rows].astype(np.float64) @ batch.vectors[row].astype(np.float64)
    return [batch.ids[rows[i]] for i in np.argsort(-scores, kind="stable")[:k]]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_any_format_is_loaded_and_searched(
    suffix: str, files: Path, batch: Batch, tmp_path: Path
) -> None:
    assert batch.ids is not None
    assert batch.metadatas is not None
    loaded = as_json(run("load", files / f"packages.{suffix}", "packages", "--json", cwd=tmp_path))
    assert (loaded["n_rows"], loaded["ntotal"], loaded["dimension"]) == (N, N, 384)
    ask = ("search", "packages", "--id", batch.ids[5], "-k", "6", "--json")
    hits = as_json(run(*ask, cwd=tmp_path))["hits"]
    assert [hit["id"] for hit in hits] == nearest(batch, 5, 6, list(range(N)))
    matching = [row for row, metadata in enumerate(batch.metadatas) if metadata["installed_size"] < 300]
    hits = as_json(run(*ask, "--where", orjson.dumps(WHERE).decode(), cwd=tmp_path))["hits"]
    assert [hit["id"] for hit in hits] == nearest(batch, 5, 6, matching)
    assert all(hit["metadata"]["installed_size"] < 300 for hit in hits)


def test_a_vector_may_come_through_a_pipe(home: Path, batch: Batch) -> None:
    assert batch.ids is not None
    vector = orjson.dumps(batch.vectors[9].tolist()).decode()
    ran = run("search", "packages", "--vector", "-", "-k", "1", "--json", cwd=home, given=vector)
    assert [hit["id"] for hit in as_json(ran)["hits"]] == [batch.ids[9]]


def test_progress_and_remarks_do_not_mix_with_results(home: Path, batch: Batch) -> None:
    assert batch.ids is not None
    ran = run("search", "packages", "--id", batch.ids[0], "--json", cwd=home)
    assert len(ran.stdout.splitlines()) == 1
    assert ran.stderr.count("\n") == 1
    assert "\r" not in ran.stderr


def test_what_is_exported_loads_to_the_same(home: Path, tmp_path: Path) -> None:
    data = home / "data"
    assert run("export", "packages", "0.jsonl", "--data", data, cwd=tmp_path).returncode == 0
    for suffix in FORMATS:
        assert run("export", "packages", f"1.{suffix}", "--data", data, cwd=tmp_path).returncode == 0
        assert run("load", f"1.{suffix}", suffix, cwd=tmp_path).returncode == 0
        assert run("export", suffix, "2.jsonl", "--overwrite", cwd=tmp_path).returncode == 0
        assert (tmp_path / "2.jsonl").read_bytes() == (tmp_path / "0.jsonl").read_bytes()


def test_a_backup_is_restored_whole_or_not_at_all(home: Path, tmp_path: Path) -> None:
    backup = tmp_path / "friday.tar"
    assert run("backup", backup, cwd=home).returncode == 0
    assert run("backup", backup, cwd=home).returncode == 2
    assert run("restore", backup, "--into", "again", cwd=tmp_path).returncode == 0
    assert as_json(run("verify", "--data", "again", "--json", cwd=tmp_path))["ok"]
    facts = ("name", "ntotal", "dimension", "metric")
    before = as_json(run("stats", "packages", "--json", cwd=home))
    after = as_json(run("stats", "packages", "--data", "again", "--json", cwd=tmp_path))
    assert [before[fact] for fact in facts] == [after[fact] for fact in facts]
    flip_byte(backup, backup.stat().st_size // 2)
    damaged = run("restore", backup, "--into", "damaged", cwd=tmp_path)
    assert (damaged.returncode, damaged.stderr.count("\n")) == (5, 1)
    assert not (tmp_path / "damaged").exists()


def flip_byte(path: Path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_verify_finds_a_flipped_bit_and_repair_puts_the_record_aside(own: Path, batch: Batch) -> None:
    assert batch.ids is not None
    [slots] = (own / "data").glob("*/*/vectors.*.f32")
    flip_byte(slots, 7 * 4 * 384 + 100)
    found = run("verify", cwd=own)
    assert found.returncode == 1
    assert f"id '{batch.ids[7]}', slot 7" in found.stdout
    assert "faissbase repair packages" in found.stdout
    assert run("search", "packages", "--text", "library", cwd=own).returncode == 5
    listed = run("stats", "--json", cwd=own)
    assert (listed.returncode, orjson.loads(listed.stdout)["collections"][0]["error"]["code"]) == (
        5,
        "corruption",
    )
    assert run("repair", "packages", cwd=own).returncode == 2
    repaired = as_json(run("repair", "packages", "--yes", "--json", cwd=own))
    assert (repaired["ok"], repaired["quarantined_ids"]) == (True, [batch.ids[7]])
    assert run("verify", cwd=own).returncode == 0
    assert as_json(run("stats", "packages", "--json", cwd=own))["ntotal"] == N - 1


WRONG = [
    (["search", "packages", "--vector", "[1, 2]"], 2),
    (["stats", "nosuch"], 3),
    (["load", "/dev/null", "x"], 2),
    (["verify", "--data", "/nosuch"], 3),
]


@pytest.mark.parametrize(("words", "code"), WRONG, ids=lambda value: str(value)[:40])
def test_an_error_is_one_line(words: list[str], code: int, home: Path) -> None:
    ran = run(*words, cwd=home)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (code, "", 1)
    assert ran.stderr.startswith("error: ")


def test_the_traceback_is_there_for_who_asks(home: Path) -> None:
    environment_with = {**environment(), "FAISSBASE_DEBUG": "1"}
    ran = subprocess.run(
        [COMMAND, "stats", "nosuch"],
        cwd=home,
        env=environment_with,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" in ran.stderr


def test_the_module_is_the_command(tmp_path: Path) -> None:
    module = subprocess.run(
        [sys.executable, "-m", "faissbase", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert module.stdout == run("--version", cwd=tmp_path).stdout
    assert module.stdout.startswith("faissbase ")


def test_whoever_stops_reading_is_not_complained_about(home: Path) -> None:
    process = subprocess.Popen(
        [COMMAND, "search", "packages", "--text", "the", "-k", "600", "--include-vectors", "--json"],
        cwd=home,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_an_interrupted_load_goes_on_where_it_stopped(files: Path, tmp_path: Path) -> None:
    words = ["load", str(files / "packages.jsonl"), "packages", "--batch-rows", "1"]
    process = subprocess.Popen(
        [COMMAND, *words],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    wait_for_records(tmp_path / "data", process)
    process.send_signal(signal.SIGINT)
    message = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130
    assert message.startswith("error: interrupted; 'packages' holds ")
    again = shlex.split(message.split("stopped: ")[1])
    assert again == ["faissbase", *words]
    report = as_json(run(*again[1:], "--json", cwd=tmp_path))
    assert report["n_resumed"] > 0
    assert (report["n_resumed"] + report["n_rows"], report["ntotal"]) == (N, N)
    assert run("verify", cwd=tmp_path).returncode == 0


def wait_for_records(data: Path, process: subprocess.Popen[str]) -> None:
    """Return once the first records are stored, while the load still runs."""
    stop = time.monotonic() + 60
    while time.monotonic() < stop:
        assert process.poll() is None, "the load ended before it could be interrupted"
        try:
            with connect(data, read_only=True) as db:
                if len(db.get_collection("packages")):
                    return
        except FaissbaseError:
            pass  # not made yet
        time.sleep(0.01)
    raise AssertionError("no record was stored within a minute")


@pytest.mark.slow
def test_the_demo_runs_and_what_it_proposes_works_and_again_on_what_is_there(tmp_path: Path) -> None:
    folder = Path("./demo-data")
    shown = run("demo", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines().count("  recall@10  filter") == 1
    recalls = [line.split()[0] for line in shown.stdout.splitlines() if line.startswith("     1.0000  ")]
    assert recalls == ["1.0000"] * 11
    for found in (
        "xmahjongg",
        "python3-configobj",
        "exact search, path: ",
        "durable upsert",
        "LOAD  42,000 records ",
    ):
        assert found in shown.stdout
    path = f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}"
    for command in next_commands(folder):
        assert f"  {command}\n" in shown.stdout
        if command.startswith("faissbase bench "):  # measures for 15 s; see tests/unit/cli/test_commands.py
            build_parser().parse_args(shlex.split(command)[1:])
            continue
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**environment(), "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    program = next_python(folder)
    assert f"\n{program}\n" in shown.stdout
    python = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert len(python.stdout.splitlines()) == 5, python.stderr
    again = as_json(run("demo", "--json", "--keep", cwd=tmp_path))
    assert again["load"]["n_new"] == 0
    hits = [hit for asked in again["questions"] for hit in asked["filtered_hits"] or asked["hits"]]
    assert hits
    assert all(f"  {hit['id']}  " in shown.stdout for hit in hits)
    assert set(again["recall_at_10"].values()) == {1.0}
    assert as_json(run("list", "--data", "demo-data", "--json", cwd=tmp_path)) == {"collections": ["debian"]}

"""Files are damaged at rest: what is asked then gives the right answer or an error, never another answer.

The write-ahead log is the exception that SQLite makes: damage there ends it, and the collection is found as
it was at an earlier commit. It holds nothing once a collection was closed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.crash.damage import COLLECTION, Damage, job_of
from tests.crash.model import Operation, perform, upsert_of
from tests.crash.nursery import REPOSITORY

import faissbase
from faissbase.storage.sqlite import PAGE_BYTES

SEED = 20_280
DAMAGE_D = 2048  # 8 KiB a vector, 128 slots a checksummed block
_ERRORS = {"CorruptionError", "NotFoundError"}


def _operations() -> list[Operation]:
    rng = np.random.default_rng(SEED)
    return [
        _with_long_documents(upsert_of("many", [f"a{i}" for i in range(90)], rng, "dfirst", DAMAGE_D)),
        upsert_of("few", [f"b{i}" for i in range(20)], rng, "dsecond", DAMAGE_D),
        Operation("delete", ["a0", "a7", "b3"]),
        upsert_of("many", [f"a{i}" for i in range(60, 100)], rng, "dthird", DAMAGE_D),
        Operation("update", ["a1", "b5"], metadatas=[{"updated": 1}, {"updated": 2}]),
        upsert_of("few", [f"c{i}" for i in range(5)], rng, "dlater", DAMAGE_D),
    ]


def _with_long_documents(op: Operation) -> Operation:
    """Every tenth document goes on over several pages."""
    long = [text and text + " and so on" * 600 for text in op.documents[::10]]
    return replace(
        op, documents=[long[i // 10] if i % 10 == 0 else op.documents[i] for i in range(len(op.ids))]
    )


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that was closed: everything is in the files themselves."""
    folder = tmp_path_factory.mktemp("closed") / "db"
    with faissbase.connect(folder) as db:
        collection = db.create_collection(COLLECTION, dimension=DAMAGE_D, metric="l2")
        for op in _operations():
            perform(collection, op)
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A database as a killed process left it, after each of its operations; the last is the newest."""
    base = tmp_path_factory.mktemp("killed")
    states: list[Path] = []
    with faissbase.connect(base / "live") as db:
        collection = db.create_collection(COLLECTION, dimension=DAMAGE_D, metric="l2")
        for op in [Operation("delete", ["none"]), *_operations()]:
            perform(collection, op)
            states.append(base / str(len(states)))
            shutil.copytree(base / "live", states[-1], ignore=shutil.ignore_patterns("*-shm"))
    return states


def _only(folder: Path, pattern: str) -> str:
    [path] = folder.glob(pattern)
    return str(path.relative_to(folder))


def _damages(path: Path, n_flips: int, n_cuts: int, used_bytes: int | None = None) -> list[Damage]:
    """Bits flipped all over, more of them in the first 100 bytes; pages zeroed; cut at many lengths; gone."""
    rng = np.random.default_rng(SEED)
    size = path.stat().st_size
    used = size if used_bytes is None else used_bytes
    places = [*rng.integers(used, size=n_flips), *rng.integers(min(100, size), size=n_flips // 3)]
    flips = [Damage("flip", int(place), int(rng.integers(8))) for place in places]
    cuts = [0, 1, 100, size // PAGE_BYTES // 2 * PAGE_BYTES, max(0, used - PAGE_BYTES), used - 1]
    cuts += rng.integers(used, size=n_cuts).tolist()
    pages = [
        Damage("zero", int(page) * PAGE_BYTES, PAGE_BYTES) for page in range(min(40, used // PAGE_BYTES))
    ]
    whole = [Damage("zero", 0, size), Damage("remove")]
    return [*flips, *(Damage("cut", int(cut)) for cut in cuts), *pages, *whole]


def _outcomes(
    tmp_path: Path,
    original: Path,
    file: str,
    damages: list[Damage],
    *,
    earlier: list[Path] | None = None,
    repair: bool = False,
) -> list[str]:
    """The outcome of each damage; a process that dies of one fails the test and names it."""
    copy = shutil.copytree(original, tmp_path / "db")
    job = job_of(copy, file, damages, earlier=earlier or [], repair=repair)
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "tests.crash.damage", str(tmp_path / "job.json")]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"status {done.returncode} at {damages[int(lines[-1][0])] if lines else ''}"
    found = [outcome for _, outcome in lines if outcome != "start"]
    assert len(found) == len(damages)
    return found


def _assert_no_wrong_answer(damages: list[Damage], outcomes: list[str], allowed: set[str]) -> Counter[str]:
    wrong = {
        str(damage): outcome
        for damage, outcome in zip(damages, outcomes, strict=True)
        if outcome not in allowed | _ERRORS
    }
    assert not wrong, "\n".join(f"{damage}: {outcome}" for damage, outcome in wrong.items())
    return Counter(outcomes)


@pytest.mark.parametrize(
    ("pattern", "n_flips", "n_cuts"),
    [("*/*/records.sqlite", 100, 15), ("catalog.sqlite", 50, 8), ("*/*/vectors.0.f32", 60, 15)],
)
def test_a_damaged_file_gives_the_right_answer_or_an_error(
    tmp_path: Path, closed: Path, pattern: str, n_flips: int, n_cuts: int
) -> None:
    file = _only(closed, pattern)
    used = 155 * 4 * DAMAGE_D if file.endswith(".f32") else None
    damages = _damages(closed / file, n_flips, n_cuts, used)
    if file.endswith("records.sqlite"):
        damages = [damage for damage in damages if damage.amount != PAGE_BYTES]
    outcomes = _outcomes(tmp_path, closed, file, damages)
    counts = _assert_no_wrong_answer(damages, outcomes, {"right"})
    assert counts["CorruptionError"] > 20, counts


@pytest.mark.parametrize(
    ("pattern", "n_flips", "n_cuts"),
    [("*/*/records.sqlite", 40, 5), ("*/*/vectors.0.f32", 40, 10), ("catalog.sqlite", 20, 3)],
)
def test_a_damaged_file_beside_a_log_gives_the_right_answer_or_an_error(
    tmp_path: Path, killed: list[Path], pattern: str, n_flips: int, n_cuts: int
) -> None:
    file = _only(killed[-1], pattern)
    used = 155 * 4 * DAMAGE_D if file.endswith(".f32") else None
    damages = _damages(killed[-1] / file, n_flips, n_cuts, used)
    outcomes = _outcomes(tmp_path, killed[-1], file, damages)
    _assert_no_wrong_answer(damages, outcomes, {"right"})


def test_a_zeroed_page_of_the_records_gives_the_right_answer_or_an_error(
    tmp_path: Path, closed: Path
) -> None:
    file = _only(closed, "*/*/records.sqlite")
    n_pages = (closed / file).stat().st_size // PAGE_BYTES
    damages = [Damage("zero", page * PAGE_BYTES, PAGE_BYTES) for page in range(n_pages)]
    outcomes = _outcomes(tmp_path, closed, file, damages)
    _assert_no_wrong_answer(damages, outcomes, {"right"})


def test_a_damaged_log_shows_a_whole_commit_or_an_error(tmp_path: Path, killed: list[Path]) -> None:
    file = _only(killed[-1], "*/*/records.sqlite-wal")
    damages = _damages(killed[-1] / file, 60, 20)
    outcomes = _outcomes(tmp_path, killed[-1], file, damages, earlier=killed[:-1])
    _assert_no_wrong_answer(damages, outcomes, {"right", "earlier"})


def test_the_log_of_the_catalog_holds_nothing_that_damage_could_undo(killed: list[Path]) -> None:
    assert not any(path.stat().st_size for folder in killed for path in folder.glob("catalog.sqlite-wal"))


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "n"), [("*/*/records.sqlite", 400), ("catalog.sqlite", 200)])
def test_any_flipped_bit_gives_the_right_answer_or_an_error(
    tmp_path: Path, closed: Path, pattern: str, n: int
) -> None:
    file = _only(closed, pattern)
    damages = [damage for damage in _damages(closed / file, n, n // 10) if damage.amount != PAGE_BYTES]
    _assert_no_wrong_answer(damages, _outcomes(tmp_path, closed, file, damages), {"right"})


@pytest.mark.parametrize("pattern", ["*/*/records.sqlite", "*/*/vectors.0.f32"])
def test_repair_keeps_what_is_sound_and_makes_nothing_up(tmp_path: Path, closed: Path, pattern: str) -> None:
    file = _only(closed, pattern)
    used = 155 * 4 * DAMAGE_D if file.endswith(".f32") else None
    damages = [damage for damage in _damages(closed / file, 12, 4, used) if damage.kind != "zero"]
    outcomes = _outcomes(tmp_path, closed, file, damages, repair=True)
    wrong = [
        f"{damage}: {outcome}"
        for damage, outcome in zip(damages, outcomes, strict=True)
        if outcome != "right" and not outcome.startswith("repaired")
    ]
    assert not wrong, "\n".join(wrong)
    flips = [outcome for damage, outcome in zip(damages, outcomes, strict=True) if damage.kind == "flip"]
    kept = [int(outcome.split()[1]) for outcome in flips if outcome != "right"]
    assert kept
    assert min(kept) > 50, kept

"""Damages files and asks what a collection then answers: ``python -m tests.crash.damage JOB``.

A process of its own, for damage may kill it. The job is a JSON file; for each damage a line ``NUMBER start``
and a line ``NUMBER OUTCOME`` are written: ``right``, ``earlier``, ``wrong WHAT`` or the name of an error.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tests.crash.model import Model, contents

import faissbase
from faissbase.collection.collection import LocalCollection
from faissbase.errors import FaissbaseError

COLLECTION = "docs"
WORDS = ("groupd0", "groupd1", "row3", "later")


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to a file: a bit flipped, a piece zeroed, the end cut off, the whole removed."""

    kind: Literal["flip", "zero", "cut", "remove"]
    offset: int = 0
    amount: int = 0

    def do(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        if self.kind == "remove":
            path.unlink()
            return
        if self.kind == "flip":
            data[self.offset] ^= 1 << self.amount
        elif self.kind == "zero":
            data[self.offset : self.offset + self.amount] = bytes(self.amount)
        else:
            del data[self.offset :]
        path.write_bytes(data)


def answers_of(folder: Path) -> dict[str, Any]:
    """What every way of asking gives, comparable."""
    with faissbase.connect(folder) as db:
        collection = db.get_collection(COLLECTION)
        model = contents(collection)
        return {"names": db.list_collections(), "contents": model, **_searched(collection, model)}


def _searched(collection: LocalCollection, model: Model) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    xq = rng.standard_normal((3, collection.dimension), dtype=np.float32)
    result = collection.search(xq, k=10)
    return {
        "length": len(collection),
        "searched": (result.ids, result.distances.tobytes(), result.metadatas, result.documents),
        "filtered": [[hit.id for hit in collection.search(xq[0], k=5, where={"group": "d1"})]],
        "counted": [collection.count(where={"group": f"d{group}"}) for group in range(5)],
        "found by id": collection.get(["a1", "b5", "missing"]),
        "texts": [sorted(hit.id for hit in collection.text_search(word, k=500)) for word in WORDS],
    }


def _repaired(folder: Path, wanted: Model) -> str:
    """How many records `repair` has brought back; it must make none up, and leave nothing to complain of."""
    with faissbase.connect(folder) as db:
        collection = db.get_collection(COLLECTION)
        if collection.verify().ok:
            return "wrong: verify() finds nothing"
        collection.repair()
        found = contents(collection)
        if not collection.verify().ok:
            return f"wrong: after repair() {collection.verify().problems}"
        if any(wanted.get(id) != kept for id, kept in found.items()):
            return "wrong: repair() has made something up"
        collection.upsert(["after"], np.ones((1, collection.dimension)))
        return f"repaired {100 * len(found) // len(wanted)}"


def _outcome(
    folder: Path, wanted: dict[str, Any], earlier: list[dict[str, Any]], *, is_repaired: bool
) -> str:
    try:
        found = answers_of(folder)
    except FaissbaseError as error:
        return _repaired(folder, wanted["contents"]) if is_repaired else type(error).__name__
    except Exception as error:  # noqa: BLE001  # every other error is what the test is about
        return f"wrong: {type(error).__name__}: {error}"
    if found == wanted:
        return "right"
    if found in earlier:
        return "earlier"
    return f"wrong: {[what for what in wanted if found[what] != wanted[what]]}"


def _copied_unless_slots(source: str, target: str) -> None:
    """A copy, but a link to the large slot file where nobody is going to change it."""
    if source.endswith(".f32"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def outcomes(job: dict[str, Any]) -> Iterator[tuple[int, str]]:
    original, scratch = Path(job["original"]), Path(job["scratch"])
    wanted = answers_of(shutil.copytree(original, scratch / "wanted"))
    earlier = [answers_of(Path(folder)) for folder in job["earlier"]]
    is_linked = not job["repair"] and not job["file"].endswith(".f32")
    copy = _copied_unless_slots if is_linked else shutil.copy2
    for number, damage in enumerate(job["damages"]):
        yield number, "start"
        folder = shutil.copytree(original, scratch / str(number), copy_function=copy)
        Damage(**damage).do(folder / job["file"])
        yield number, _outcome(folder, wanted, earlier, is_repaired=job["repair"])
        shutil.rmtree(folder)


def job_of(
    original: Path, file: str, damages: list[Damage], *, earlier: list[Path], repair: bool
) -> dict[str, Any]:
    """A job as JSON. ``earlier`` are folders whose answers count as ``earlier``; ``repair`` what fails."""
    return {
        "repair": repair,
        "original": str(original),
        "file": file,
        "damages": [asdict(damage) for damage in damages],
        "earlier": [str(folder) for folder in earlier],
        "scratch": str(original.parent / "scratch"),
    }


def main() -> None:
    for number, outcome in outcomes(json.loads(Path(sys.argv[1]).read_text())):
        print(number, outcome, flush=True)


if __name__ == "__main__":
    main()

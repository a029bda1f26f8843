"""Exchanges, copies, zeroes and flips pages of a database of demo records, and asks everything of it then.

A process of its own, for damage may kill it: ``python -m tests.crash.pages FOLDER SEED SECONDS FIRST TRIES``.
Page checksums do not say which page it is, so whole pages in a wrong place are sound ones to SQLite. For each
try there is a line ``NUMBER start DAMAGE``, then one line ``NUMBER WHAT OUTCOME`` for each thing asked:
``right``, ``earlier``, ``error``, ``lacking`` (nothing false, but not all of it) or ``wrong ...``.
"""

from __future__ import annotations

import faulthandler
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tests.crash.limits import quartered

import faissbase
from faissbase.collection.collection import LocalCollection
from faissbase.demo.dataset import DemoDataset, load_demo
from faissbase.errors import CorruptionError, FaissbaseError, NotFoundError, NotReadyError, UnavailableError
from faissbase.storage.sqlite import PAGE_BYTES

N_RECORDS = 350  # where limits are `quartered`, two blocks of vectors and a part of one
N_LATE = 60
LOG_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
HANG_S = 60
WORDS = ("python", "library", "tools", "data", "game")
FILTERS: tuple[dict[str, Any], ...] = (
    {"section": "python"},
    {"installed_kib": {"$lt": 200}},
    {"section": {"$in": ["games", "libs"]}},
)


@dataclass(frozen=True, slots=True)
class Damage:
    """What happens to a file; pages are those of SQLite, frames of its log, or 4 KiB of vectors."""

    kind: str
    first: int
    second: int
    bit: int

    def do(self, path: Path, older: Path | None) -> None:
        data = bytearray(path.read_bytes())
        at, to = self._place(path, self.first), self._place(path, self.second)
        size = PAGE_BYTES + (FRAME_HEADER_BYTES if path.name.endswith("-wal") else 0)
        one, other = data[at : at + size], data[to : to + size]
        if self.kind == "swap":
            data[at : at + size], data[to : to + size] = other, one
        elif self.kind == "copy":
            data[to : to + size] = one
        elif self.kind == "zero":
            data[at : at + size] = bytes(len(one))
        elif self.kind == "flip":
            data[(at + self.bit // 8) % len(data)] ^= 1 << self.bit % 8
        elif self.kind == "cut":
            del data[at + (self.bit // 8 if self.bit % 2 else 0) :]
        elif self.kind == "old" and older is not None:
            data[at : at + size] = older.read_bytes()[at : at + size]
        path.write_bytes(data)

    @staticmethod
    def _place(path: Path, number: int) -> int:
        if path.name.endswith("-wal"):
            return LOG_HEADER_BYTES + number * (PAGE_BYTES + FRAME_HEADER_BYTES)
        return number * PAGE_BYTES


class World:
    """A database in three conditions, and what it answers: closed, closed some time before, and killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        demo = load_demo()
        chosen = np.random.default_rng(7).permutation(len(demo.ids))[:N_RECORDS]
        early, late = chosen[:-N_LATE], chosen[-N_LATE:]
        with faissbase.connect(folder / "live") as db:
            db.create_collection("other", 8).add(["x"], [[1] * 8])
            docs = db.create_collection("docs", demo.vectors.shape[1])
            _put(docs, demo, early)
            docs.delete([demo.ids[i] for i in early[50:90]])
            self.older = shutil.copytree(folder / "live", folder / "older")
            with faissbase.connect(self.older):
                pass
            _put(docs, demo, early[:20])
            docs.optimize()
            docs.delete([demo.ids[i] for i in early[120:150]])
            for part in np.split(late, 4):
                _put(docs, demo, part)
        self.closed = shutil.copytree(folder / "live", folder / "closed")
        self.stages: list[Path] = []
        with faissbase.connect(folder / "live") as db:
            docs = db.get_collection("docs")
            for part in (late[:20], early[200:203], late[30:31]):
                _put(docs, demo, part)
                self._keep_stage()
                docs.delete([demo.ids[part[0]]])
                self._keep_stage()
        self.queries = demo.query_vectors[:3]
        self.ids = [demo.ids[i] for i in chosen[::29]] + ["missing"]
        self.stored = self._all_that_was_stored(demo, chosen)

    def _keep_stage(self) -> None:
        """Copy what a process would leave that was killed now."""
        stage = self.folder / f"killed{len(self.stages)}"
        shutil.copytree(self.folder / "live", stage, ignore=shutil.ignore_patterns("*-shm"))
        self.stages.append(stage)

    @staticmethod
    def _all_that_was_stored(demo: DemoDataset, chosen: Any) -> dict[str, Any]:
        return {demo.ids[i]: (demo.metadatas[i], demo.documents[i]) for i in chosen}


def _put(docs: LocalCollection, demo: DemoDataset, at: Any) -> None:
    docs.upsert(
        [demo.ids[i] for i in at],
        demo.vectors[at],
        [demo.metadatas[i] for i in at],
        [demo.documents[i] for i in at],
    )


def _record(record: faissbase.Record) -> tuple[Any, ...]:
    vector = None if record.vector is None else record.vector.tobytes()
    return record.id, record.metadata, record.document, vector


def _hit(hit: faissbase.Hit) -> tuple[Any, ...]:
    return hit.id, hit.score, hit.distance, hit.metadata, hit.document


def _scrolled(docs: LocalCollection) -> list[Any]:
    found, cursor = [], None
    while True:
        page = docs.scroll(limit=150, cursor=cursor, include_vectors=True)
        found += [_record(record) for record in page.records]
        cursor = page.cursor
        if cursor is None:
            return found


def questions(world: World) -> dict[str, Callable[[LocalCollection], Any]]:
    """Everything that is asked, by name; each answer is comparable."""
    asked: dict[str, Callable[[LocalCollection], Any]] = {
        "get": lambda docs: [_record(record) for record in docs.get(world.ids, include_vectors=True)],
        "search": lambda docs: [[_hit(hit) for hit in hits] for hits in docs.search(world.queries, 10)],
        "search one": lambda docs: [_hit(hit) for hit in docs.search(world.queries[0], 30)],
        "range": lambda docs: [_hit(hit) for hit in docs.range_search(world.queries[0], 0.3)],
        "hybrid": lambda docs: [_hit(hit) for hit in docs.hybrid_search(WORDS[0], world.queries[1], 10)],
        "count": lambda docs: (len(docs), docs.count(), docs.stats().ntotal),
        "scroll": _scrolled,
    }
    for word in WORDS:
        asked[f"text {word}"] = partial(_by_text, word)
    for number, where in enumerate(FILTERS):
        asked[f"filter {number}"] = partial(_filtered, world, where)
    return asked


def _by_text(word: str, docs: LocalCollection) -> list[Any]:
    return [_hit(hit) for hit in docs.text_search(word, 20)]


def _filtered(world: World, where: dict[str, Any], docs: LocalCollection) -> tuple[Any, ...]:
    hits = docs.search(world.queries[0], 10, where)
    records = docs.get(where=where)
    return docs.count(where), [_hit(hit) for hit in hits], [_record(record) for record in records]


class Answers:
    """What a folder answers when it is whole."""

    def __init__(self, world: World, folder: Path, scratch: Path) -> None:
        copy = shutil.copytree(folder, scratch)
        with faissbase.connect(copy) as db:
            self.names = db.list_collections()
            docs = db.get_collection("docs")
            self.of = {name: ask(docs) for name, ask in questions(world).items()}
        shutil.rmtree(copy)


def _asked(ask: Callable[..., Any], wanted: list[Any], is_false: Callable[[Any], bool], *given: Any) -> str:
    """The outcome of one question; the first of ``wanted`` is right, the others were at an earlier commit."""
    try:
        found = ask(*given)
    except (CorruptionError, NotFoundError, UnavailableError, NotReadyError) as error:
        return f"error {type(error).__name__}"
    except Exception as error:  # noqa: BLE001  # any other error is what the test is about
        return f"wrong {type(error).__name__}: {error}"
    if found == wanted[0]:
        return "right"
    if found in wanted:
        return "earlier"
    return f"wrong {str(found)[:150]}" if is_false(found) else "lacking"


def _is_false(world: World, name: str, found: Any) -> bool:
    """Whether an answer tells a record as it never was; else it only lacks some."""
    if name == "count":
        return True
    if name.startswith("filter"):
        found = found[1] + found[2]
    hits = [hit for hits in found for hit in hits] if name == "search" else found
    return any(_told(hit) != world.stored.get(hit[0]) for hit in hits)


def _told(told: tuple[Any, ...]) -> tuple[Any, ...]:
    return (told[1], told[2]) if len(told) == 4 else (told[3], told[4])


def _outcomes(world: World, folder: Path, answers: list[Answers]) -> Iterator[tuple[str, str]]:
    try:
        with faissbase.connect(folder) as db:
            yield "names", _asked(db.list_collections, [a.names for a in answers], lambda _: False)
            docs = db.get_collection("docs")
            for name, ask in questions(world).items():
                wanted = [answer.of[name] for answer in answers]
                yield name, _asked(ask, wanted, partial(_is_false, world, name), docs)
            yield "verify", _verified(docs)
            yield "write", _written(world, docs)
            yield "repair", _repaired(world, docs)
    except FaissbaseError as error:
        yield "open", f"error {type(error).__name__}"
    except Exception as error:  # noqa: BLE001
        yield "open", f"wrong {type(error).__name__}: {error}"


def _verified(docs: LocalCollection) -> str:
    try:
        return "right" if docs.verify().ok else "error"
    except FaissbaseError as error:
        return f"error {type(error).__name__}"
    except Exception as error:  # noqa: BLE001
        return f"wrong {type(error).__name__}: {error}"


def _written(world: World, docs: LocalCollection) -> str:
    vectors = np.eye(3, docs.dimension, dtype=np.float32)
    ids = ["new", world.ids[0], world.ids[3]]
    metadatas = [{"n": i} for i in range(3)]

    def write() -> list[Any]:
        docs.upsert(ids, vectors, metadatas, ["new words", "more words", "last words"])
        found = [(record.id, record.metadata) for record in docs.get(ids)]
        docs.delete(ids)
        return [*found, docs.get(ids)]

    wanted = [*((id, {"n": i}) for i, id in enumerate(ids)), []]
    return _asked(write, [wanted], lambda _: True)


def _repaired(world: World, docs: LocalCollection) -> str:
    try:
        docs.repair()
        report = docs.verify()
        if not report.ok:
            return f"wrong after repair: {report.problems[:3]}"
        found = _scrolled(docs)
        docs.search(world.queries, 5)
        if any(world.stored.get(id) != (metadata, document) for id, metadata, document, _ in found):
            return "wrong: made up"
        docs.upsert(["after"], np.ones((1, docs.dimension), np.float32))
    except Exception as error:  # noqa: BLE001  # repair has to come to an end with any damage
        return f"wrong {type(error).__name__}: {error}"
    return f"right {len(found)}"


KINDS = ("swap", "swap", "copy", "copy", "zero", "flip", "cut", "old")
FILES = (
    ("closed", "*/*/records.sqlite", 8),
    ("killed", "*/*/records.sqlite", 4),
    ("killed", "*/*/records.sqlite-wal", 3),
    ("closed", "catalog.sqlite", 2),
    ("closed", "*/*/vectors.*.f32", 2),
)


def damage_of(world: World, rng: np.random.Generator) -> tuple[Path, str, Damage]:
    """A condition, a file in it and what happens to it."""
    weights = np.array([weight for *_, weight in FILES], np.float64)
    condition, pattern, _ = FILES[rng.choice(len(FILES), p=weights / weights.sum())]
    original = world.closed if condition == "closed" else world.stages[-1]
    path = max(original.glob(pattern), key=lambda path: path.stat().st_size)
    n_pages = max(1, path.stat().st_size // PAGE_BYTES)
    first, second = rng.integers(n_pages, size=2).tolist()
    damage = Damage(str(rng.choice(KINDS)), first, second, int(rng.integers(8 * PAGE_BYTES)))
    return original, str(path.relative_to(original)), damage


def main(folder: Path, seed: int, seconds: float, first_try: int, n_tries: int) -> None:
    """Try one damage after the other until the time is up."""
    world = World(folder)
    closed = Answers(world, world.closed, folder / "scratch")
    stages = [Answers(world, stage, folder / "scratch") for stage in reversed(world.stages)]
    deadline = time.monotonic() + seconds
    for number in range(first_try, first_try + n_tries):
        if time.monotonic() > deadline:
            return
        original, file, damage = damage_of(world, np.random.default_rng((seed, number)))
        print(number, "start", original.name, Path(file).name, damage, flush=True)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        copy = shutil.copytree(original, folder / "try")
        older = world.older / file
        damage.do(copy / file, older if older.exists() else None)
        answers = [closed] if original == world.closed else [*stages, closed]
        for what, outcome in _outcomes(world, copy, answers):
            print(number, what, "=", outcome, flush=True)
        faulthandler.cancel_dump_traceback_later()
        shutil.rmtree(copy)


if __name__ == "__main__":
    with quartered():
        main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))

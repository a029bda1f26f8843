"""A collection from its folder to shards in object storage, and back, record by record.

One pass compares every record of where they come from, at one moment, with where they go to, and carries
over what differs. A pass that finds nothing is the proof that both hold the same. So a move that was
interrupted goes on by starting again, and what is written meanwhile is found by the next pass. Nobody sees
the copy before it was proven.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import orjson

from faissbase.collection import answers
from faissbase.collection.answers import Moment
from faissbase.collection.frozen import ArrivingCollection, FrozenCollection
from faissbase.collection.inputs import Rows
from faissbase.collection.store import Config
from faissbase.errors import ConflictError
from faissbase.filters.tree import Everything
from faissbase.sharded.bucket import Bucket
from faissbase.sharded.cache import Cache
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.draft import Draft
from faissbase.sharded.manifest import Manifest
from faissbase.storage.files import FolderLock, os_errors, write_whole
from faissbase.storage.records import State
from faissbase.types import Record

_PASSES = 20
_SHARD_BYTES = 256 << 20
_BATCH_BYTES = 16 << 20
_ROW_BYTES = 600  # about what id, metadata and document of a row take
_FINISHED = "finished.json"

Note: TypeAlias = Callable[[str, int, int], None]  # what is done, records so far, records of all


def _silent(what: str, n: int, of: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Move:
    """What a move has done.

    Attributes
    ----------
    n_records : int
        That are there now, each compared with where it came from.
    n_carried : int
        Of this call; fewer than ``n_records`` where an earlier one was interrupted.
    n_passes : int
        The last of which has found no difference.
    version : int
        Of the dataset.
    """

    n_records: int
    n_carried: int
    n_passes: int
    version: int


Publish: TypeAlias = Callable[[], None]
Switch: TypeAlias = Callable[[State, Publish], None]


def promote(
    folder: Path,
    config: Config,
    bucket: Bucket,
    work: Path,
    *,
    switch: Switch | None = None,
    note: Note = _silent,
) -> Move:
    """Make a dataset of the collection in ``folder``, under its name and id.

    Parameters
    ----------
    work : Path
        A folder of this move's own; what an interrupted one has left there is gone on with.
    switch : callable, optional
        Called with the state in which the collection was copied, and with what publishes the copy: has to
        see to it that nobody writes to the collection from that state on, publish, and have others use the
        dataset. It raises `ConflictError` where something was written since, and the next pass follows.

    Raises
    ------
    AlreadyExistsError
        There is another dataset of that name.
    ConflictError
        The collection was written to in every pass.
    """
    with _alone(work):
        draft = Draft(bucket, config, work / "draft.json")
        draft.check_free()
        with (
            closing(FrozenCollection(folder, config)) as source,
            closing(ShardedCollection(draft, Cache(work / "shards", bucket))) as target,
        ):
            return _carried_over(source, target, draft, switch, note)


def _carried_over(
    source: FrozenCollection, target: ShardedCollection, draft: Draft, switch: Switch | None, note: Note
) -> Move:
    n_carried = 0
    for n_passes in range(1, _PASSES + 1):
        state, n_records, n_changed = source.at_one_moment(lambda moment: _carry(moment, target, note))
        n_carried += n_changed
        if n_changed:
            continue
        try:
            if switch is None:
                draft.publish()
            else:
                switch(state, draft.publish)
        except ConflictError:
            if n_passes == _PASSES:
                raise
            continue
        return Move(n_records, n_carried, n_passes, draft.published_version)
    raise ConflictError(
        f"collection {source.name!r} was written to in each of {_PASSES} passes: stop who writes, and call "
        "this again; it goes on where it is"
    )


def _carry(moment: Moment, target: ShardedCollection, note: Note) -> tuple[State, int, int]:
    """Have ``target`` hold what there is at a moment: its state, its records, how many were changed."""
    slots = moment.select(Everything()).slots
    dimension, n_changed = moment.snapshot.view.d, 0
    waiting: list[Rows] = []
    for start, stop in _pieces(len(slots), _BATCH_BYTES, dimension):
        rows = answers.stored(moment, slots[start:stop])
        differing = _differing(rows, target.get(rows.ids, include_vectors=True))
        if len(differing):
            waiting.append(differing)
            n_changed += len(differing)
        if sum(map(len, waiting)) * (4 * dimension + _ROW_BYTES) >= _SHARD_BYTES or stop == len(slots):
            together = joined(waiting)
            if together is not None:
                target.put_stored(together)
            waiting = []
        note("records", stop, len(slots))
    if target.ntotal != len(slots):
        n_changed += _remove_others(target, lambda ids: answers.slots_of(moment, ids))
    return moment.snapshot.state, len(slots), n_changed


def _pieces(n: int, n_bytes: int, dimension: int) -> Iterator[tuple[int, int]]:
    """From and to of pieces of ``n`` rows that take about so many bytes each."""
    step = max(1, n_bytes // (4 * dimension + _ROW_BYTES))
    return ((start, min(start + step, n)) for start in range(0, n, step))


def _differing(rows: Rows, found: Sequence[Record]) -> Rows:
    """Those rows whose record is not there, or not the same to the bit."""
    there = {record.id: record for record in found}
    kept = [i for i in range(len(rows)) if not _is_same(rows, i, there.get(rows.ids[i]))]
    return rows if len(kept) == len(rows) else _taken(rows, kept)


def _is_same(rows: Rows, i: int, record: Record | None) -> bool:
    """Whether a record is what `get` would give of a row."""
    if record is None or record.vector is None or record.document != rows.documents[i]:
        return False
    metadata = orjson.dumps(orjson.loads(rows.metadata_json[i]))
    vector = answers.given_vector(rows.vectors[i], rows.norms[i])
    return orjson.dumps(record.metadata) == metadata and record.vector.tobytes() == vector.tobytes()


def joined(parts: Sequence[Rows]) -> Rows | None:
    """All of them as one; None of nothing."""
    if not parts:
        return None
    return Rows(
        [id for part in parts for id in part.ids],
        np.concatenate([part.vectors for part in parts]),
        [norm for part in parts for norm in part.norms],
        [text for part in parts for text in part.metadata_json],
        [document for part in parts for document in part.documents],
        [checksum for part in parts for checksum in part.checksums],
    )


def _taken(rows: Rows, kept: list[int]) -> Rows:
    return Rows(
        [rows.ids[i] for i in kept],
        np.ascontiguousarray(rows.vectors[kept]),
        [rows.norms[i] for i in kept],
        [rows.metadata_json[i] for i in kept],
        [rows.documents[i] for i in kept],
        [rows.checksums[i] for i in kept],
    )


_Target: TypeAlias = "ShardedCollection | ArrivingCollection"


def _remove_others(target: _Target, known: Callable[[list[str]], dict[str, int]]) -> int:
    """Remove the records whose ids are not ``known``; how many."""
    others: list[str] = []
    cursor: str | None = None
    while True:
        page = target.scroll(limit=1000, cursor=cursor)
        ids = [record.id for record in page.records]
        there = known(ids)
        others += [id for id in ids if id not in there]
        cursor = page.cursor
        if cursor is None:
            return target.delete(others) if others else 0


# ---- back ----------------------------------------------------------------------------------------


def demote(
    dataset: Dataset,
    config: Config,
    work: Path,
    *,
    bring: Callable[[Path], None],
    keep: bool = False,
    note: Note = _silent,
) -> Move:
    """Make a collection in a folder of a dataset, of its newest version.

    Parameters
    ----------
    config : Config
        What the collection is to be; of the dataset's dimension and metric.
    bring : callable
        Called with the finished folder: has others use it.
    keep : bool
        Leave the dataset as it is. Otherwise it ends with the version that was copied: what is written to it
        meanwhile is carried over first.

    Raises
    ------
    ConflictError
        The dataset was written to in every pass.
    """
    with _alone(work):
        finished = work / _FINISHED
        if not finished.exists():
            _fetch(dataset, config, work, note)
        move = Move(**orjson.loads(finished.read_bytes()))
        for _ in range(_PASSES):
            if keep or _ended(dataset, move.version):
                bring(work / "collection")
                return move
            finished.unlink()
            _fetch(dataset, config, work, note)
            again = Move(**orjson.loads(finished.read_bytes()))
            move = replace(again, n_carried=again.n_carried + move.n_carried)
    raise ConflictError(
        f"collection {config.name!r} was written to in each of {_PASSES} passes: stop who writes, and call "
        "this again; it goes on where it is"
    )


def _ended(dataset: Dataset, version: int) -> bool:
    """End the dataset with that version; False where there is a newer one."""
    newest = dataset.latest()
    if newest is not None and newest.is_deleted and newest.version == version + 1:
        return True  # by a call that was interrupted

    def change(base: Manifest) -> Manifest | None:
        return replace(base, shards=(), is_deleted=True) if base.version == version else None

    return dataset.commit(change).is_deleted


def _fetch(dataset: Dataset, config: Config, work: Path, note: Note) -> None:
    """Have the folder hold the newest version, and take note of that once it was proven."""
    version, n_carried = 0, 0
    for n_passes in range(1, _PASSES + 1):
        with (
            closing(ShardedCollection(dataset, Cache(work / "shards", dataset.bucket))) as source,
            closing(ArrivingCollection(work / "collection", config)) as target,
        ):
            n_changed = _carry_back(source, target, note)
            n_records = len(target)
            version = source.version
        n_carried += n_changed
        if not n_changed:
            move = {"n_records": n_records, "n_carried": n_carried, "n_passes": n_passes, "version": version}
            write_whole(work / _FINISHED, orjson.dumps(move))
            return
    raise ConflictError(f"collection {config.name!r} cannot be copied: its records change as they are read")


def _carry_back(source: ShardedCollection, target: ArrivingCollection, note: Note) -> int:
    n_changed, n_seen, of = 0, 0, len(source)
    for shard in source.frozen_shards():
        slots = shard.matching(None)
        for start, stop in _pieces(len(slots), _BATCH_BYTES, source.dimension):
            rows = shard.at_one_moment(partial(answers.stored, slots=slots[start:stop]))
            differing = _differing(rows, target.get(rows.ids, include_vectors=True))
            if len(differing):
                target.put(differing)
                n_changed += len(differing)
            n_seen += len(rows)
            note("records", n_seen, of)
    if len(target) != of:
        n_changed += _remove_others(target, lambda ids: {record.id: 0 for record in source.get(ids)})
    return n_changed


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Have ``work`` for oneself; it is removed once the move is done."""
    with os_errors(f"cannot write to {work}"):
        work.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(work)
    try:
        if not lock.take(shared=False):
            raise ConflictError(f"another process is moving the same collection: it works in {work}")
        yield
        shutil.rmtree(work, ignore_errors=True)
    finally:
        lock.release()

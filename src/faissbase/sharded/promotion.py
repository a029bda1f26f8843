"""A collection from its folder to shards in object storage, and back, record by record.

One pass compares every record of where they come from, at one moment, with where they go to, and carries
over what differs. A pass that finds nothing is the proof that both hold the same. So a move that was
interrupted goes on by starting again. What is written meanwhile is carried over by itself (`follower`), the
last of it while writers wait. Nobody sees the copy before it was proven.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import orjson

from faissbase.collection import answers
from faissbase.collection.frozen import ArrivingCollection, FrozenCollection
from faissbase.collection.store import Config
from faissbase.errors import ConflictError
from faissbase.sharded.bucket import Bucket, check_creates_once
from faissbase.sharded.cache import Cache
from faissbase.sharded.carrying import Note, differing, pieces, remove_others
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.draft import Draft
from faissbase.sharded.follower import Follower
from faissbase.sharded.manifest import Manifest
from faissbase.storage.files import FolderLock, os_errors, write_whole
from faissbase.storage.records import State

_PASSES = 20
_SHORT_PASSES = 200  # of what was written since the last one, until the dataset ends as it was copied
_LAST_CHANGES = 4000  # that writers wait for at the switch: about a second
_FINISHED = "finished.json"


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


Finish: TypeAlias = Callable[[State], None]
Switch: TypeAlias = Callable[[Finish], None]


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
        Called with what finishes the move: has to see to it that nobody writes to the collection any more,
        call that with the state the collection is in, and then have others use the dataset. What is called
        raises `ConflictError` where so much was written since that writers would wait too long; the next
        pass follows.

    Raises
    ------
    AlreadyExistsError
        There is another dataset of that name.
    ConflictError
        In every pass more was written than writers can be made to wait for.
    """
    with _alone(work):
        draft = Draft(bucket, config, work / "draft.json")
        draft.check_free()
        check_creates_once(bucket)  # before anything is copied
        with (
            closing(FrozenCollection(folder, config)) as source,
            closing(ShardedCollection(draft, Cache(work / "shards", bucket))) as target,
        ):
            return _carried_over(source, target, draft, switch, note)


def _carried_over(
    source: FrozenCollection, target: ShardedCollection, draft: Draft, switch: Switch | None, note: Note
) -> Move:
    with Follower(source, target, note) as follower:

        def finish(state: State) -> None:
            """Carry over the last piece, while nobody can write, and publish."""
            if not state.is_deleted:  # then an interrupted call has done that
                _check_short(follower.n_behind(state), source.name)
                follower.catch_up()
            draft.publish()

        for n_tries in range(1, _PASSES + 1):
            try:
                follower.catch_up()
                if switch is None:
                    draft.publish()
                else:
                    switch(finish)
            except ConflictError:
                if n_tries == _PASSES:
                    raise
                continue
            break
        return Move(follower.n_records, follower.n_carried, follower.n_passes, draft.published_version)


def _check_short(n_behind: int | None, name: str) -> None:
    """Refuse to keep writers waiting for more than a moment."""
    if n_behind is None or n_behind > _LAST_CHANGES:
        raise ConflictError(
            f"collection {name!r} is written to faster than it is copied, also after {_PASSES} passes: stop "
            "who writes, and call this again; it goes on where it is"
        )


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
        move = _noted(work)
        if move is None or not (keep or _ended(dataset, move.version)):
            move = _followed(dataset, config, work, keep, note)
        bring(work / "collection")
        return move


def _noted(work: Path) -> Move | None:
    """What an interrupted call has proven."""
    finished = work / _FINISHED
    return Move(**orjson.loads(finished.read_bytes())) if finished.exists() else None


def _followed(dataset: Dataset, config: Config, work: Path, keep: bool, note: Note) -> Move:
    """Have the folder hold the version that the dataset ends with, or with ``keep`` one that it had."""
    proven: set[str] = set()
    n_carried = n_passes = 0
    with closing(ShardedCollection(dataset, Cache(work / "shards", dataset.bucket))) as source:
        for _ in range(_SHORT_PASSES):
            (work / _FINISHED).unlink(missing_ok=True)
            move = _fetch(source, config, work, proven, note)
            n_carried, n_passes = n_carried + move.n_carried, n_passes + move.n_passes
            if keep or _ended(dataset, move.version):
                return replace(move, n_carried=n_carried, n_passes=n_passes)
            source.refresh()
    raise ConflictError(
        f"collection {config.name!r} was written to in each of {_SHORT_PASSES} passes: stop who writes, and "
        "call this again; it goes on where it is"
    )


def _ended(dataset: Dataset, version: int) -> bool:
    """End the dataset with that version; False where there is a newer one."""
    newest = dataset.latest()
    if newest is not None and newest.is_deleted and newest.version == version + 1:
        return True  # by a call that was interrupted

    def change(base: Manifest) -> Manifest | None:
        return replace(base, shards=(), is_deleted=True) if base.version == version else None

    return dataset.commit(change).is_deleted


def _fetch(source: ShardedCollection, config: Config, work: Path, proven: set[str], note: Note) -> Move:
    """Have the folder hold the version that is open, and take note of that once it was proven.

    Shards never change, but for records of them that are hidden: those that were ``proven`` for an earlier
    version are not looked at again, so that a version that follows soon costs what was written since.
    """
    n_carried = 0
    for n_passes in range(1, _PASSES + 1):
        with closing(ArrivingCollection(work / "collection", config)) as target:
            n_changed = _carry_back(source, target, proven, note)
            n_records = len(target)
        n_carried += n_changed
        if not n_changed:
            proven.update(source.frozen_shards())
            move = Move(n_records, n_carried, n_passes, source.version)
            write_whole(work / _FINISHED, orjson.dumps(asdict(move)))
            return move
    raise ConflictError(f"collection {config.name!r} cannot be copied: its records change as they are read")


def _carry_back(source: ShardedCollection, target: ArrivingCollection, proven: set[str], note: Note) -> int:
    """Carry over what differs in shards that are not proven, and remove what is in none; how many records."""
    shards = [shard for name, shard in source.frozen_shards().items() if name not in proven]
    alive = [shard.matching(None) for shard in shards]
    n_changed, n_seen, of = 0, 0, sum(map(len, alive))
    for shard, slots in zip(shards, alive, strict=True):
        for start, stop in pieces(len(slots), source.dimension):
            rows = shard.at_one_moment(partial(answers.stored, slots=slots[start:stop]))
            found = differing(rows, target.get(rows.ids, include_vectors=True))
            if len(found):
                target.put(found)
                n_changed += len(found)
            n_seen += len(rows)
            note("records", n_seen, of)
    if len(target) != len(source):  # every record of the source is there: others are too many
        n_changed += remove_others(target, lambda ids: {record.id: 0 for record in source.get(ids)})
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

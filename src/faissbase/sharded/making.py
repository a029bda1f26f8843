"""From checked records to the files of a shard, and from there into the bucket."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from faissbase.collection.frozen import FreshCollection
from faissbase.collection.inputs import Rows
from faissbase.collection.store import Config
from faissbase.sharded.bucket import Bucket, File
from faissbase.sharded.manifest import Manifest, Shard
from faissbase.storage.files import draft_folder, os_errors
from faissbase.types import Slots


def new_name() -> str:
    """A name that no shard and no object has."""
    return uuid.uuid4().hex


def shard_of(
    batches: Iterable[Rows],
    manifest: Manifest,
    bucket: Bucket,
    work: Path,
    memory_budget: int | None = None,
    *,
    adopt: Callable[[Shard, Path], None] | None = None,
) -> Shard:
    """A shard of these records, in the bucket; its index is built where it has enough of them.

    Parameters
    ----------
    work : Path
        A folder for what is not finished yet, on a disk with room for the shard.
    adopt : callable, optional
        Is given the shard and the folder of its files, which is removed afterwards.
    """
    name = new_name()
    config = Config(name, manifest.name, manifest.dimension, manifest.metric, manifest.index_type)
    with os_errors(f"cannot write to {work}"), draft_folder(work) as draft:
        folder = draft / name
        folder.mkdir()
        collection = FreshCollection(folder, config, memory_budget=memory_budget)
        try:
            for rows in batches:
                collection.put(rows)
            collection.optimize()
            stats, dead = collection.stats(), collection.dead_slots()
        finally:
            collection.close()
        files = uploaded(bucket, manifest.name, name, folder)
        index = "Flat" if stats.index == "exact" else stats.index
        shard = Shard(name, stats.slots, files, index=index, recall=stats.measured.get("recall_low"))
        if adopt is not None:
            adopt(shard, folder)
    return hiding(shard, dead, manifest, bucket, work) if len(dead) else shard


def uploaded(bucket: Bucket, dataset: str, name: str, folder: Path) -> tuple[File, ...]:
    """Store the files of a finished shard under keys that were never used."""
    attempt = new_name()
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kept = [path for path in paths if _is_kept(path)]
    return tuple(
        bucket.upload(folder / path, path, f"{dataset}/shards/{name}/{attempt}/{path}") for path in kept
    )


def _is_kept(path: str) -> bool:
    """Whether a file of a closed collection is more than a trace of its having been open."""
    return path == "records.sqlite" or path.startswith(("vectors.", "segments/"))


def with_hidden(
    manifest: Manifest,
    slots: dict[str, Slots],
    known: dict[str, Slots],
    bucket: Bucket,
    work: Path,
    note: Callable[[str, Slots], None] | None = None,
) -> tuple[Shard, ...]:
    """The shards of a version when more of their slots are hidden; those with nothing left are gone.

    Parameters
    ----------
    slots : dict
        By shard, what is to be hidden beside what is.
    known : dict
        By shard, what is hidden already.
    note : callable, optional
        See `hiding`.
    """
    shards: list[Shard] = []
    for shard in manifest.shards:
        if len(slots.get(shard.name, ())):
            hidden = np.union1d(known[shard.name], slots[shard.name])
            if len(hidden) == shard.rows:
                continue
            shard = hiding(shard, hidden, manifest, bucket, work, note)
        shards.append(shard)
    return tuple(shards)


def hiding(
    shard: Shard,
    hidden: Slots,
    manifest: Manifest,
    bucket: Bucket,
    work: Path,
    note: Callable[[str, Slots], None] | None = None,
) -> Shard:
    """The shard with exactly these slots hidden; ``note`` is told what the new object of them holds."""
    file = _stored(hidden, manifest, shard, bucket, work)
    if note is not None:
        note(file.key, hidden)
    return replace(shard, hidden=file, n_hidden=len(hidden))


def _stored(hidden: Slots, manifest: Manifest, shard: Shard, bucket: Bucket, work: Path) -> File:
    with os_errors(f"cannot write to {work}"), draft_folder(work) as draft:
        path = draft / "hidden"
        np.ascontiguousarray(hidden, np.int64).tofile(path)
        return bucket.upload(path, "hidden", f"{manifest.name}/hidden/{shard.name}.{new_name()}.i64")


def slots_by_shard(found: dict[str, dict[str, int]], names: Sequence[str]) -> dict[str, Slots]:
    """By shard, the slots in ``{shard: {id: slot}}``, ascending."""
    return {name: np.sort(np.fromiter(found[name].values(), np.int64)) for name in names if found.get(name)}

"""Objects that no version needs any more, removed after a grace. Knows keys, ages and manifests: no records.

The **grace** has to outlast every reader that opens a version, and every write from its first upload to its
commit: what is younger is left alone, for a version may be about to name it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from faissbase.collection.inputs import check_positive
from faissbase.errors import NotFoundError
from faissbase.sharded.bucket import PROBE_FOLDER, Bucket, Stored
from faissbase.sharded.dataset import Dataset, manifests_folder

# What means something by a manifest alone, or for a while; anything else stays while there is a dataset.
_KINDS = ("builds/", "hidden/", "loads/", "quantizers/", "shards/")


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What was removed, or would be.

    Attributes
    ----------
    manifests, objects : tuple of str
        Keys: of versions nobody reads any more, and of what no version names.
    size_bytes : int
        Of both.
    versions_kept : int
    """

    manifests: tuple[str, ...]
    objects: tuple[str, ...]
    size_bytes: int
    versions_kept: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def collect(dataset: Dataset, grace_s: float, now: datetime, *, dry_run: bool = False) -> CollectReport:
    """Remove versions that were followed by another for longer than the grace, and what they alone named.

    The newest version stays, so that version numbers never begin anew; of a deleted dataset it is all that
    stays. Interrupted, the next call removes the rest.

    Parameters
    ----------
    dataset : Dataset
    grace_s : float
        In seconds.
    now : datetime
        With its time zone.
    dry_run : bool
        Tell what would be removed, and remove nothing.

    Raises
    ------
    NotFoundError
        There is no such dataset, and there was none.
    """
    before = now - timedelta(seconds=check_positive(grace_s, "grace_s"))
    # Objects first: what is committed after this listing was not in it, or is named by what is listed next.
    objects = _objects(dataset)
    kept, old = _versions(dataset, before)
    manifests = [dataset.read(_version(stored)) for stored in kept]
    named = {key for manifest in manifests for shard in manifest.shards for key in shard.keys}
    unnamed = [stored for stored in objects if stored.key not in named]
    until = _spared_from(dataset.name, objects, before)
    kinds = ("",) if manifests[-1].is_deleted else _KINDS
    doomed = [
        stored
        for stored in sorted(unnamed, key=lambda stored: stored.key)  # what names others before what is named
        if stored.modified_at < until
        and stored.key.startswith(tuple(f"{dataset.name}/{kind}" for kind in kinds))
    ]
    doomed += [stored for stored in dataset.bucket.list(PROBE_FOLDER) if stored.modified_at < before]
    if not dry_run:  # the versions first, so that nobody begins to open one whose objects are going
        dataset.bucket.delete([stored.key for stored in old])
        dataset.bucket.delete([stored.key for stored in doomed])
    size_bytes = sum(stored.size_bytes for stored in (*old, *doomed))
    return CollectReport(_sorted_keys(old), _sorted_keys(doomed), size_bytes, len(kept))


def _objects(dataset: Dataset) -> list[Stored]:
    """Everything of a dataset but its versions."""
    versions = f"{manifests_folder(dataset.name)}/"
    return [stored for stored in dataset.bucket.list(dataset.name) if not stored.key.startswith(versions)]


def _versions(dataset: Dataset, before: datetime) -> tuple[list[Stored], list[Stored]]:
    """The versions to keep, and those that were followed by another before ``before``; ascending."""
    bucket: Bucket = dataset.bucket
    found = sorted(bucket.list(manifests_folder(dataset.name)), key=lambda stored: stored.key)
    if not found:
        raise NotFoundError(f"no collection {dataset.name!r} in {bucket.url}")
    followed = [following.modified_at for following in found[1:]]
    old = [stored for stored, at in zip(found, followed, strict=False) if at < before]
    return [stored for stored in found if stored not in old], old


def _version(stored: Stored) -> int:
    return int(stored.key.rpartition("/")[2].removesuffix(".json"))


def _spared_from(name: str, objects: Sequence[Stored], before: datetime) -> datetime:
    """What is younger than this is spared: a build that still records results needs all that it has made."""
    builds: dict[str, list[datetime]] = {}
    for stored in objects:
        kind, _, rest = stored.key.removeprefix(f"{name}/").partition("/")
        if kind == "builds":
            builds.setdefault(rest.partition("/")[0], []).append(stored.modified_at)
    running = [min(times) for times in builds.values() if max(times) >= before]
    return min([before, *running])


def _sorted_keys(found: Sequence[Stored]) -> tuple[str, ...]:
    return tuple(sorted(stored.key for stored in found))

"""Reading every byte of a shard, as the bucket has it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from faissbase.collection.frozen import FrozenCollection
from faissbase.collection.store import Config
from faissbase.errors import CorruptionError
from faissbase.sharded.bucket import Bucket
from faissbase.sharded.cache import Cache
from faissbase.sharded.manifest import Manifest, Shard
from faissbase.storage.files import draft_folder, os_errors
from faissbase.types import Problem, VerifyReport


def verified(shard: Shard, manifest: Manifest, bucket: Bucket, work: Path) -> VerifyReport:
    """Download a shard for the time that takes, and check all of it; what is damaged is in the report.

    Raises
    ------
    UnavailableError
        The store cannot be reached.
    """
    with os_errors(f"cannot create {work}"):
        work.mkdir(parents=True, exist_ok=True)
    with draft_folder(work) as draft:
        cache = Cache(draft, bucket)
        try:
            cache.hidden(shard)
            folder = cache.shard(shard)
        except CorruptionError as error:
            return VerifyReport(0, [Problem("object", shard.name, str(error))])
        config = Config(shard.name, manifest.name, manifest.dimension, manifest.metric, manifest.index_type)
        with closing(FrozenCollection(folder, config)) as collection:
            report = collection.verify()
    return VerifyReport(
        report.rows_checked,
        [Problem(each.kind, f"{shard.name}/{each.where}", each.message) for each in report.problems],
    )

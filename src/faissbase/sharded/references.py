"""Objects that a version of a dataset names: one that is gone is damage, and no name that was mistyped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faissbase.errors import CorruptionError, NotFoundError
from faissbase.sharded.bucket import Bucket, File


def download(bucket: Bucket, file: File, target: Path) -> None:
    """See `Bucket.download`; `CorruptionError` where the object is gone."""
    with _named(bucket, file.key):
        bucket.download(file, target)


def size(bucket: Bucket, file: File) -> int:
    """See `Bucket.size`; `CorruptionError` where the object is gone."""
    with _named(bucket, file.key):
        return bucket.size(file.key)


def read(bucket: Bucket, file: File, start: int, size_bytes: int) -> bytes:
    """See `Bucket.read`; `CorruptionError` where the object is gone."""
    with _named(bucket, file.key):
        return bucket.read(file.key, start, size_bytes)


@contextmanager
def _named(bucket: Bucket, key: str) -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        dataset = key.partition("/")[0]
        raise CorruptionError(
            f"{bucket.url}/{key} is gone, which dataset {dataset!r} needs: put it back from a copy of the "
            f"bucket, or build the dataset anew (--replace); faissbase shards verify {bucket.url} {dataset} "
            "tells what else is damaged"
        ) from error

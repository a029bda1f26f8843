"""The versions of one dataset in a bucket. A version is a manifest that was created, never changed.

Creating manifest v + 1 is the commit: of two writers one creates it, the other reads it and tries again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

from faissbase.errors import AlreadyExistsError, ConflictError, NotFoundError, UnavailableError
from faissbase.sharded.bucket import Bucket, check_creates_once
from faissbase.sharded.manifest import Manifest, from_json
from faissbase.types import Metric

_TRIES = 50
_PUT_TRIES = 4

Change = Callable[[Manifest], "Manifest | None"]


def manifests_folder(name: str) -> str:
    return f"{name}/manifests"


def manifest_key(name: str, version: int) -> str:
    return f"{manifests_folder(name)}/{version:020d}.json"


class Dataset:
    """One dataset. Stateless but for what it has seen; any number may be open, in any process."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self.bucket = bucket
        self.name = name
        self._seen: Manifest | None = None

    def latest(self, after: int = 0) -> Manifest | None:
        """The newest version, or None where there is none newer than ``after``.

        The store lists only what is newer than what was seen before: the last version of a dataset is never
        removed, so that the numbers never begin anew.
        """
        seen = self._seen
        version = max(self.versions(max(after, seen.version if seen else 0)), default=0)
        if version:
            seen = self._note(self.read(version))
        return seen if seen is not None and seen.version > after else None

    def _note(self, manifest: Manifest) -> Manifest:
        if self._seen is None or manifest.version > self._seen.version:
            self._seen = manifest
        return manifest

    def newest(self) -> Manifest:
        """The newest version, or `NotFoundError` where there is no such dataset."""
        manifest = self.latest()
        if manifest is None or manifest.is_deleted:
            raise NotFoundError(f"no collection {self.name!r} in {self.bucket.url}")
        return manifest

    def versions(self, after: int = 0) -> list[int]:
        """The versions newer than ``after``, ascending."""
        offset = manifest_key(self.name, after) if after else None
        found = self.bucket.list(manifests_folder(self.name), offset)
        numbers = [stored.key.rpartition("/")[2].removesuffix(".json") for stored in found]
        return sorted(int(number) for number in numbers if number.isdigit())

    def read(self, version: int) -> Manifest:
        key = manifest_key(self.name, version)
        return from_json(self.bucket.get(key), f"{self.bucket.url}/{key}")

    def create(self, dimension: int, metric: Metric, index_type: str = "auto") -> Manifest:
        """Make an empty dataset: its first version.

        Raises
        ------
        AlreadyExistsError
            The name is taken.
        NotReadyError
            The store does not refuse to create an object twice.
        """
        facts = (uuid.uuid4().hex, self.name, dimension, metric, index_type)
        return self.begin(Manifest(1, uuid.uuid4().hex, *facts))

    def begin(self, first: Manifest) -> Manifest:
        """Make the dataset, of what ``first`` says: nobody sees it without its shards.

        Raises
        ------
        AlreadyExistsError
            The name is taken.
        NotReadyError
            The store does not refuse to create an object twice.
        """
        last = self.latest()
        taken = f"collection {self.name!r} exists already in {self.bucket.url}"
        if last is not None and not last.is_deleted:
            raise AlreadyExistsError(taken)
        check_creates_once(self.bucket)
        version = 1 if last is None else last.version + 1
        following = replace(first, version=version)
        if not self._created(following):
            raise AlreadyExistsError(taken)
        return self._note(following)

    def delete(self) -> None:
        """End the dataset. Its objects are removed by `collecting.collect`, after a grace."""
        self.commit(lambda base: replace(base, shards=(), is_deleted=True))

    def commit(self, change: Change) -> Manifest:
        """Make a new version of the newest one; ``change`` is asked again where another writer was faster.

        Parameters
        ----------
        change : callable
            From the newest manifest to what should follow; None where nothing needs to, and the newest one
            is returned.

        Raises
        ------
        ConflictError
            Others were faster again and again, or ``change`` gives up.
        UnavailableError
            The store fails. Where it says that the outcome is unknown, the change may have been made.
        """
        for _ in range(_TRIES):
            base = self.newest()
            wanted = change(base)
            if wanted is None:
                return base
            following = replace(wanted, version=base.version + 1, token=uuid.uuid4().hex)
            if self._created(following):
                return self._note(following)
        raise ConflictError(f"{_TRIES} other changes of {self.name!r} came first: try again")

    def _created(self, manifest: Manifest) -> bool:
        """Create a manifest; False where the version is another's. An unclear outcome is looked at."""
        key, content = manifest_key(self.name, manifest.version), manifest.to_json()
        failure: UnavailableError | None = None
        for _ in range(_PUT_TRIES):
            try:
                if self.bucket.create(key, content):
                    return True
                return self.bucket.get(key) == content  # the answer to an earlier try may have been lost
            except UnavailableError as error:
                failure = error
        raise UnavailableError(
            f"{failure}; whether version {manifest.version} of {self.name!r} was made is unknown"
        ) from failure

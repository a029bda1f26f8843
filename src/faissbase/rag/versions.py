"""Which versions of an index there are, and which of them answers. Knows collections, no documents.

A version is a collection, ``<name>.version.<version>``. A small collection beside them, ``<name>.versions``,
says what each was made with, and which is the current one: one record, so that switching is one write.

Deleting is written down first, then done, then struck out: whoever opens the index next finishes it.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Protocol

from faissbase.errors import AccessError, AlreadyExistsError, ConflictError, CorruptionError, NotFoundError
from faissbase.rag import checking
from faissbase.types import METRICS, Collection, Metric, Record

FIRST = "1"
_CURRENT = "current"
_PREFIX = "version:"
_VECTOR = [0.0]  # a collection wants one
_MOST = 10_000


class Collections(Protocol):
    """What an index asks of a database, of a folder or of a server."""

    def get_collection(self, name: str) -> Collection: ...
    def get_or_create_collection(
        self, name: str, dimension: int, metric: Metric = ..., index_type: str = ...
    ) -> Collection: ...
    def delete_collection(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an index, and what it was made with.

    Attributes
    ----------
    version : str
    embedder : str
        The name of the embedder, whose vectors alone belong in it.
    dimension : int
    metric : Metric
    index_type : str
    key : str
        Another one for each that was ever made, whatever its name.
    """

    version: str
    embedder: str
    dimension: int
    metric: Metric
    index_type: str
    key: str

    @classmethod
    def new(cls, version: str, embedder: str, dimension: int, metric: str, index_type: str) -> Version:
        """One that is not there yet."""
        checking.text(version, "version")
        return cls(version, embedder, dimension, checking.metric(metric), index_type, secrets.token_hex(8))


class Versions:
    """The versions of the index ``name`` in a database. Holds nothing in memory: others may switch."""

    def __init__(self, db: Collections, name: str) -> None:
        self._db = db
        self.name = checking.text(name, "name")
        self._listed: Collection | None = None

    def _list(self) -> Collection:
        if self._listed is None:
            self._listed = self._db.get_collection(f"{self.name}.versions")
        return self._listed

    def _collection_name(self, version: Version) -> str:
        return f"{self.name}.version.{version.version}"

    # ---- reading ---------------------------------------------------------------------------------

    def is_there(self) -> bool:
        """Whether the index has a current version."""
        try:
            return bool(self._list().get([_CURRENT]))
        except NotFoundError:
            return False

    def current(self) -> Version:
        """The version that answers."""
        found = self._list().get([_CURRENT])
        if not found:
            raise NotFoundError(
                f"index {self.name!r} has no current version: switch to one of {self.names()}"
            )
        return self._version_of(found[0])

    def find(self, version: str) -> Version:
        """The version of that name, or `NotFoundError`, which names those there are."""
        found = self._list().get([_PREFIX + checking.text(version, "version")])
        if not found or found[0].metadata.get("is_going"):
            names = ", ".join(self.names())
            raise NotFoundError(f"index {self.name!r} has no version {version!r}; there are: {names}")
        return self._version_of(found[0])

    def all(self) -> list[Version]:
        """Every version, the oldest first."""
        return [self._version_of(record) for record in self._records() if not record.metadata.get("is_going")]

    def names(self) -> list[str]:
        """Their names, the oldest first."""
        return [version.version for version in self.all()]

    def _records(self) -> list[Record]:
        return self._list().get(where={"is_version": True}, limit=_MOST)

    def _version_of(self, record: Record) -> Version:
        try:
            facts = {name: record.metadata[name] for name in Version.__slots__}
            version = Version(**facts)
            if version.metric not in METRICS or not isinstance(version.dimension, int):
                raise ValueError(f"metric {version.metric!r}, dimension {version.dimension!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(
                f"{record.id!r} of index {self.name!r} is not a version: {error}"
            ) from error
        return version

    def collection(self, version: Version) -> Collection:
        """Where the chunks of a version are."""
        try:
            return self._db.get_collection(self._collection_name(version))
        except NotFoundError:
            # Written down, and killed before it was made. A version that is gone is not made again.
            self.find(version.version)
            return self._db.get_or_create_collection(
                self._collection_name(version), version.dimension, version.metric, version.index_type
            )

    # ---- writing ---------------------------------------------------------------------------------

    def begin(self, first: Version) -> None:
        """Make the index with its first version, unless somebody else does."""
        listed = self._db.get_or_create_collection(f"{self.name}.versions", 1, "l2", "Flat")
        self._listed = listed
        self.finish_deleting()
        with suppress(AlreadyExistsError):  # somebody else is faster
            if not self.all():
                self.create(first)
        with suppress(AlreadyExistsError):
            listed.add([_CURRENT], [_VECTOR], [asdict(self.all()[0])])

    def create(self, version: Version) -> Collection:
        """Make a version. It does not answer before `switch`.

        Raises
        ------
        AlreadyExistsError
            The name is taken.
        """
        name = self._collection_name(version)
        facts = asdict(version) | {"is_version": True}
        try:
            self._list().add([_PREFIX + version.version], [_VECTOR], [facts])
        except AlreadyExistsError as error:
            raise AlreadyExistsError(
                f"index {self.name!r} has a version {version.version!r} already"
            ) from error
        try:
            # Whoever has read the record meanwhile may have been faster.
            return self._db.get_or_create_collection(
                name, version.dimension, version.metric, version.index_type
            )
        except BaseException:
            self._list().delete([_PREFIX + version.version])
            raise

    def switch(self, version: str) -> Version:
        """Have a version answer from now on, in every process."""
        found = self.find(version)
        self._list().upsert([_CURRENT], [_VECTOR], [asdict(found)])
        return found

    def delete(self, version: str) -> None:
        """Delete a version and its chunks.

        Raises
        ------
        ConflictError
            It is the one that answers.
        """
        found = self.find(version)
        if found.key == self.current().key:
            raise ConflictError(
                f"version {version!r} of index {self.name!r} answers: switch to another first"
            )
        self._list().update([_PREFIX + version], metadatas=[{"is_going": True}])
        self._finish_deleting(found)

    def finish_deleting(self) -> None:
        """Finish deletions that were written down and not done; not where nothing may be written."""
        for record in self._records():
            if record.metadata.get("is_going"):
                with suppress(AccessError):
                    self._finish_deleting(self._version_of(record))

    def _finish_deleting(self, version: Version) -> None:
        with suppress(NotFoundError):  # done, and killed before it was struck out
            self._db.delete_collection(self._collection_name(version))
        self._list().delete([_PREFIX + version.version])

    # ---- folders ---------------------------------------------------------------------------------

    def claim_folder(self, label: str, path: str, *, is_said: bool) -> None:
        """Note that ``label`` stands for the folder ``path``.

        Raises
        ------
        ConflictError
            It stands for another folder, and the caller has not said that this one is meant.
        """
        known = self._list().get([f"folder:{label}"])
        before = known[0].metadata.get("path") if known else None
        if before == path:
            return
        if before is not None and not is_said:
            raise ConflictError(
                f"{label!r} stands for {before} in index {self.name!r}, not for {path}: say label={label!r} "
                "if the folder has moved, or another label"
            )
        self._list().upsert([f"folder:{label}"], [_VECTOR], [{"path": path}])

"""One file that holds every collection, and the way back.

A backup is a plain tar: per collection a copy of its SQLite file and exactly the slots that copy speaks of,
and last a manifest with the SHA-256 of each. Slots never change once committed, so they are copied after
the rows, while writers go on.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import orjson

from faissbase._version import __version__
from faissbase.collection.store import Config, vectors_path
from faissbase.database.catalog import FILE_NAME as CATALOG_NAME
from faissbase.database.catalog import Catalog
from faissbase.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptionError,
    FaissbaseError,
    InvalidInputError,
    NotFoundError,
)
from faissbase.storage.files import draft_folder, os_errors, publish, remove_drafts, sync_folder
from faissbase.storage.records import FILE_NAME as RECORDS_NAME
from faissbase.storage.records import Records, State
from faissbase.storage.vectors import VectorFile

_MANIFEST = "manifest.json"
_FORMAT = 1
_PIECE_BYTES = 4 << 20
_TRIES = 5
_UNFINISHED = "unfinished"  # one level deeper than a database, so that nobody takes the draft for one


class _Hashing(io.RawIOBase):
    """Hashes what is read through it."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.sha256.update(data)
        return data


Live = Sequence[tuple[str, Config]]


@contextmanager
def new_backup(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which is at ``path`` once the block ends well, whole and synced, and else nowhere.

    Raises
    ------
    AlreadyExistsError
        ``path`` exists.
    NotFoundError
        No such folder.
    """
    if path.exists():
        raise AlreadyExistsError(f"{path} exists already: a backup never overwrites")
    if not path.parent.is_dir():
        raise NotFoundError(f"cannot write backup {path}: make the folder {path.parent} first")
    with os_errors(f"cannot write backup {path}"), draft_folder(path.parent) as folder:
        draft = folder / path.name
        with open(draft, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        publish(draft, path)


def write_backup(catalog: Catalog, path: Path) -> None:
    """Write every collection of the catalog to ``path``, which must not exist."""
    with new_backup(path) as out:
        _write(out, catalog, catalog.all_live())


def open_backup(catalog: Catalog, tenant: str) -> IO[bytes]:
    """A backup of one tenant, as an open file without a name: it is gone when it is closed."""
    live = [(tenant, config) for config in catalog.configs(tenant)]
    with os_errors(f"cannot write a backup in {catalog.root}"), draft_folder(catalog.root) as folder:
        draft = folder / _UNFINISHED / "backup.tar"
        draft.parent.mkdir()
        out = open(draft, "w+b")  # noqa: SIM115  # whoever asked closes it
        try:
            _write(out, catalog, live)
            out.seek(0)
        except BaseException:
            out.close()
            raise
    return out


def _write(out: IO[bytes], catalog: Catalog, live: Live) -> None:
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        added = [_add_live(tar, catalog, *each) for each in live]
        _add_manifest(tar, [part for part in added if part is not None])


def _add_live(tar: tarfile.TarFile, catalog: Catalog, tenant: str, config: Config) -> dict[str, Any] | None:
    """Add a collection, or nothing where it has been deleted since the catalog was read."""
    try:
        return _add_collection(tar, catalog, tenant, config)
    except FaissbaseError:
        if catalog.find(tenant, config.name) != config:
            return None
        raise


def _add_collection(tar: tarfile.TarFile, catalog: Catalog, tenant: str, config: Config) -> dict[str, Any]:
    url = catalog.placement(config)
    if url is not None:
        raise InvalidInputError(
            f"collection {config.name!r} is at {url}, and a backup holds what is in the folder: "
            "faissbase demote brings it back"
        )
    folder = catalog.folder(tenant, config)
    base = f"{tenant}/{config.uuid}"
    with tempfile.TemporaryDirectory(dir=Path(str(tar.name)).parent if tar.name else None) as scratch:
        copy = Path(scratch) / RECORDS_NAME
        state, vectors = _copy_records(folder, config, copy)
        try:
            with open(copy, "rb") as rows, vectors.open_file() as slots:
                files = {
                    f"{base}/{RECORDS_NAME}": _add(tar, f"{base}/{RECORDS_NAME}", rows, copy.stat().st_size)
                }
                name = f"{base}/{vectors.path.name}"
                files[name] = _add(tar, name, slots, state.next_slot * vectors.row_bytes)
        finally:
            vectors.close()
    return {"tenant": tenant, "name": config.name, "files": files}


def _copy_records(folder: Path, config: Config, copy: Path) -> tuple[State, VectorFile]:
    """A copy of the rows, its state, and the open slot file that belongs to it."""
    for _ in range(_TRIES):
        original = Records(folder, synchronous="FULL")
        try:
            with original.read_transaction() as transaction:
                generation = transaction.state().generation
            vectors = VectorFile(vectors_path(folder, generation), config.dimension, writable=False)
            original.copy_to(copy)
        finally:
            original.close()
        state = _without_segments(copy)
        if state.generation == generation:
            return state, vectors
        vectors.close()
        copy.unlink()
    raise ConflictError(
        f"collection {config.name!r} is being rewritten again and again: try the backup later"
    )


def _without_segments(copy: Path) -> State:
    """The state of copied rows, which speak of no index files now: these are derived, and not in a backup."""
    copied = Records(copy.parent, synchronous="FULL")
    try:
        with copied.read_transaction() as transaction:
            state = transaction.state()
        if state.segments:
            with copied.write_transaction() as writing:
                writing.replace_segments([], state.generation)
    finally:
        copied.close()
    return state


def _add(tar: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> str:
    member = tarfile.TarInfo(name)
    member.size = size
    hashing = _Hashing(source)
    tar.addfile(member, hashing)
    return hashing.sha256.hexdigest()


def _add_manifest(tar: tarfile.TarFile, collections: list[dict[str, Any]]) -> None:
    manifest = {"format": _FORMAT, "faissbase": __version__, "collections": collections}
    data = orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
    _add(tar, _MANIFEST, io.BytesIO(data), len(data))


def restore(path: str | os.PathLike[str], into: str | os.PathLike[str], *, tenant: str | None = None) -> Path:
    """Make a new database folder from a backup; nothing appears at ``into`` unless all of it is right.

    The collections keep their tenant, unless ``tenant`` is another for all of them: ``"default"`` is that
    whose collections ``faissbase.connect`` and the command line find.

    Raises
    ------
    AlreadyExistsError
        ``into`` exists and is not an empty folder.
    CorruptionError
        The backup is damaged, cut short, or not a backup.
    InvalidInputError
        ``tenant`` is given, and the backup holds several.
    """
    source, target = Path(path), Path(into)
    if not source.is_file():
        raise NotFoundError(f"no backup at {source}")
    if target.is_symlink():
        target = target.resolve()
    stays = target.is_dir() and (target.is_mount() or target.samefile(Path.cwd()))
    if stays:
        remove_drafts(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AlreadyExistsError(f"{target} exists already and is not empty: restore into a new folder")
    with os_errors(f"cannot restore into {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(target if stays else target.parent) as folder:
            draft = folder / _UNFINISHED
            draft.mkdir()
            _extract(source, draft)
            if tenant is not None:
                _rename_tenant(draft, tenant)
            Catalog(draft, read_only=False).close()
            for level in (*draft.glob("*/"), draft):
                sync_folder(level)
            if stays:
                _move_in(draft, target)
            else:
                publish(draft, target)
    return target


def _move_in(draft: Path, target: Path) -> None:
    """Fill an empty folder that cannot be replaced: where a disk is mounted, or somebody stands in it.

    The catalog comes last. A crash before it leaves whole collections, of which the next `connect` makes one.
    """
    for entry in sorted(draft.iterdir(), key=lambda entry: entry.name == CATALOG_NAME):
        os.rename(entry, target / entry.name)
    sync_folder(target)


def _rename_tenant(draft: Path, tenant: str) -> None:
    folders = [folder for folder in draft.iterdir() if folder.is_dir()]
    if len(folders) > 1:
        names = ", ".join(sorted(folder.name for folder in folders))
        raise InvalidInputError(f"the backup holds several tenants, so they keep their names: {names}")
    for folder in folders:
        folder.rename(draft / tenant)


def _extract(source: Path, draft: Path) -> None:
    found: dict[str, str] = {}
    manifest: dict[str, Any] | None = None
    try:
        with tarfile.open(source, mode="r:") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is None:
                    raise CorruptionError(f"{source}: {member.name!r} is not a file")
                if member.name == _MANIFEST:
                    manifest = orjson.loads(stream.read())
                else:
                    found[member.name] = _extract_file(stream, draft / _safe(member.name, source))
        _check_manifest(source, manifest, found)
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise CorruptionError(f"{source} is not a whole backup: {error!r}") from error


def _extract_file(stream: IO[bytes], target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256()
    with open(target, "wb") as out:
        while data := stream.read(_PIECE_BYTES):
            sha256.update(data)
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
    sync_folder(target.parent)
    return sha256.hexdigest()


def _safe(name: str, source: Path) -> str:
    parts = name.split("/")
    if len(parts) != 3 or any(part in ("", ".", "..") for part in parts) or parts[0] == CATALOG_NAME:
        raise CorruptionError(f"{source} names a file {name!r} that no backup holds")
    return name


def _check_manifest(source: Path, manifest: dict[str, Any] | None, found: dict[str, str]) -> None:
    if manifest is None:
        raise CorruptionError(f"{source} has no manifest: it is cut short, or not a backup")
    if manifest.get("format") != _FORMAT:
        raise CorruptionError(
            f"{source} has backup format {manifest.get('format')}, this version reads {_FORMAT}"
        )
    wanted = {name: digest for part in manifest["collections"] for name, digest in part["files"].items()}
    for name in wanted.keys() | found.keys():
        if wanted.get(name) != found.get(name):
            raise CorruptionError(f"{source}: {name} does not match its SHA-256")

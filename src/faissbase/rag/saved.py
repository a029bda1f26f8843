"""A store in a folder: FAISS's binary, JSON, and one small file that says which of them count.

    store.json             what the store is, its files with their sizes and checksums; renamed into place
    vectors.<g>.faiss      all vectors as an ``IndexFlat``, which any FAISS reads; we read it without FAISS
    metadata.<g>.json      ids, metadata, both in the order of the vectors
    index.<g>.faiss        the index over them, where there is one; derived

Files of a generation are written and synced before ``store.json`` names them, and never changed after: killed
at any moment, the old store opens or the new one. Nothing is read that its checksum does not confirm.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import orjson
from xxhash import xxh3_64

from faissbase.errors import CorruptionError, InvalidInputError, NotFoundError
from faissbase.storage.files import alone_in, os_errors, publish, sync_folder
from faissbase.types import MAX_DIMENSION, METRICS, Float32, Metric, Slots

T = TypeVar("T")

MANIFEST = "store.json"
_FORMAT = "faissbase rag store 1"
_OURS = re.compile(r"(?:vectors|index)\.\d+\.faiss|metadata\.\d+\.json|store\.json\.draft")
# What FAISS writes before the numbers of an IndexFlat: mark, d, ntotal, two unused, trained, metric, numbers.
_HEADER = struct.Struct("<4siqqq?iQ")
_UNUSED = 1 << 20
_MARKS = {"l2": (b"IxF2", 1), "ip": (b"IxFI", 0), "cosine": (b"IxFI", 0)}
_PIECE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file as it was written."""

    name: str
    size_bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What ``store.json`` says.

    Attributes
    ----------
    dimension, metric, index_type
        What the store was made with.
    n, next_id : int
        How many vectors there are; the id that the next one gets.
    generation : int
        Rises with each save.
    files : dict
        By what they hold: ``vectors``, ``metadata``, and ``index`` where there is one.
    factory : str
        FAISS's factory string of what is in ``index``.
    index : dict or None
        What else is known of it.
    """

    dimension: int
    metric: Metric
    index_type: str
    n: int
    next_id: int
    generation: int
    files: dict[str, FileFacts]
    factory: str
    index: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What is saved: ``float32[n, d]``, ``int64[n]`` and the JSON text of n objects, in one order."""

    vectors: Float32
    ids: Slots
    metadata_json: list[bytes]
    write_index: Callable[[Path], None] | None


# ---- writing -----------------------------------------------------------------------------------------


def write(folder: Path, facts: Facts, contents: Contents) -> None:
    """Replace what is saved in ``folder``, made where there is none, as a whole; ``facts.files`` are ours.

    Raises
    ------
    InvalidInputError
        ``folder`` is a file, or its ``store.json`` is not one of ours.
    UnavailableError, AccessError
        The disk is full or failed, or may not be written; what was saved before still opens.
    """
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(f"{folder} is a file, a store is saved into a folder")
    with os_errors(f"cannot save into {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):
            generation = _last_generation(folder) + 1
            try:
                files = _written(folder, facts, contents, generation)
                _publish(folder, facts, files, generation)
            finally:
                _remove_others(folder)


def _last_generation(folder: Path) -> int:
    try:
        return read_facts(folder).generation
    except NotFoundError:
        return 0
    except CorruptionError as error:
        raise InvalidInputError(
            f"{error}: save into another folder, or remove {folder / MANIFEST} first"
        ) from error


def _written(folder: Path, facts: Facts, contents: Contents, generation: int) -> dict[str, FileFacts]:
    files = {
        "vectors": _write_pieces(folder / f"vectors.{generation}.faiss", _vector_pieces(facts, contents)),
        "metadata": _write_pieces(folder / f"metadata.{generation}.json", _metadata_pieces(contents)),
    }
    if contents.write_index is not None:
        path = folder / f"index.{generation}.faiss"
        contents.write_index(path)
        files["index"] = _settled(path)
    return files


def _vector_pieces(facts: Facts, contents: Contents) -> list[bytes | memoryview]:
    vectors = np.ascontiguousarray(contents.vectors, "<f4")
    return [_header(facts), _raw(vectors)]


def _raw(vectors: Float32) -> memoryview:
    return vectors.reshape(-1).view(np.uint8).data


def _header(facts: Facts) -> bytes:
    mark, metric = _MARKS[facts.metric]
    n_numbers = facts.n * facts.dimension
    return _HEADER.pack(mark, facts.dimension, facts.n, _UNUSED, _UNUSED, True, metric, n_numbers)


def _metadata_pieces(contents: Contents) -> list[bytes | memoryview]:
    ids = orjson.dumps(contents.ids.tolist())
    return [b'{"ids":', ids, b',"metadata":[', b",\n".join(contents.metadata_json), b"]}"]


def _write_pieces(path: Path, pieces: list[bytes | memoryview]) -> FileFacts:
    digest = xxh3_64()
    with open(path, "wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return FileFacts(path.name, sum(len(piece) for piece in pieces), digest.hexdigest())


def _settled(path: Path) -> FileFacts:
    """Sync a file that is there, and read how it has come out."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return FileFacts(path.name, os.fstat(file.fileno()).st_size, _checksum(file))


def _checksum(file: BinaryIO) -> str:
    digest = xxh3_64()
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def _publish(folder: Path, facts: Facts, files: dict[str, FileFacts], generation: int) -> None:
    said = asdict(facts) | {"generation": generation, "files": {k: asdict(v) for k, v in files.items()}}
    draft = folder / f"{MANIFEST}.draft"
    with open(draft, "wb") as file:
        file.write(_manifest(said))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    publish(draft, folder / MANIFEST)


def _manifest(said: dict[str, Any]) -> bytes:
    body = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    return orjson.dumps(
        {"format": _FORMAT, "checksum": xxh3_64(body).hexdigest(), "store": orjson.Fragment(body)}
    )


def _remove_others(folder: Path) -> None:
    """Remove files of ours that ``store.json`` does not name: of an earlier store, or a save that failed."""
    try:
        kept = {file.name for file in read_facts(folder).files.values()}
    except NotFoundError:
        kept = set()
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in kept:
            path.unlink(missing_ok=True)


# ---- reading -----------------------------------------------------------------------------------------


def read_facts(folder: Path) -> Facts:
    """What the store in ``folder`` is.

    Raises
    ------
    NotFoundError
        No store is saved there.
    CorruptionError
        ``store.json`` is damaged, or not ours.
    """
    path = folder / MANIFEST
    try:
        with os_errors(f"cannot read {path}"):
            text = path.read_bytes()
    except Exception as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise NotFoundError(f"no store is saved in {folder}: it has no {MANIFEST}") from error
        raise
    try:
        return _facts_of(text)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptionError(f"{path} is damaged, or not of a store: {error}") from error


def _facts_of(text: bytes) -> Facts:
    whole = orjson.loads(text)
    if whole["format"] != _FORMAT:
        raise ValueError(f"its format is {str(whole['format'])[:80]!r}, expected {_FORMAT!r}")
    said = whole["store"]
    if _manifest(said) != text:
        raise ValueError("its checksum does not agree")
    files = {what: FileFacts(**file) for what, file in said["files"].items()}
    facts = Facts(**{**said, "files": files})
    _check_facts(facts)
    return facts


def _check_facts(facts: Facts) -> None:
    is_whole = all(
        type(value) is int for value in (facts.dimension, facts.n, facts.next_id, facts.generation)
    )
    if not is_whole or not 1 <= facts.dimension <= MAX_DIMENSION or not 0 <= facts.n <= facts.next_id:
        raise ValueError(f"d={facts.dimension}, n={facts.n}, next_id={facts.next_id} cannot be")
    if facts.metric not in METRICS or not {"vectors", "metadata"} <= facts.files.keys():
        raise ValueError(f"metric {facts.metric!r} with files {sorted(facts.files)} cannot be")
    for file in facts.files.values():
        if not _OURS.fullmatch(file.name):
            raise ValueError(f"it names the file {file.name!r}")


def consistently(folder: Path, read: Callable[[Facts], T]) -> T:
    """Run ``read`` on what the store in ``folder`` is; again where somebody else has saved meanwhile.

    A save removes the files of the one before, which ``read`` may then not find.
    """
    facts = read_facts(folder)
    while True:
        try:
            return read(facts)
        except CorruptionError:
            newer = read_facts(folder)
            if newer.generation == facts.generation:
                raise
            facts = newer


def read(folder: Path, facts: Facts) -> Contents:
    """The vectors and metadata in ``folder``, confirmed; of the index `index_path` tells.

    Raises
    ------
    CorruptionError
        A file is missing or not what was written.
    """
    return Contents(_read_vectors(folder, facts), *_read_metadata(folder, facts), None)


def _open(folder: Path, file: FileFacts) -> BinaryIO:
    path = folder / file.name
    try:
        opened = open(path, "rb")  # noqa: SIM115  # the caller closes it
    except FileNotFoundError as error:
        raise CorruptionError(f"{path} is missing") from error
    size_bytes = os.fstat(opened.fileno()).st_size
    if size_bytes != file.size_bytes:
        opened.close()
        raise CorruptionError(f"{path} has {size_bytes:,} bytes, expected {file.size_bytes:,}")
    return opened


def _read_vectors(folder: Path, facts: Facts) -> Float32:
    file, wanted = facts.files["vectors"], _header(facts)
    if file.size_bytes != len(wanted) + 4 * facts.n * facts.dimension:
        raise CorruptionError(f"{file.name} has {file.size_bytes:,} bytes, which is not n={facts.n:,}")
    with os_errors(f"cannot read {folder / file.name}"), _open(folder, file) as opened:
        vectors = np.empty((facts.n, facts.dimension), "<f4")
        raw = _raw(vectors)
        header = opened.read(len(wanted))
        opened.readinto(raw)  # type: ignore[attr-defined]  # a buffered file has it
    digest = xxh3_64(header)
    digest.update(raw)
    _check(folder, file, digest.hexdigest())
    if header != wanted or not np.isfinite(vectors).all():
        raise CorruptionError(
            f"{folder / file.name} is not {facts.n:,} finite vectors of d={facts.dimension}"
        )
    return vectors.astype(np.float32, copy=False)


def _read_metadata(folder: Path, facts: Facts) -> tuple[Slots, list[bytes]]:
    file = facts.files["metadata"]
    with os_errors(f"cannot read {folder / file.name}"), _open(folder, file) as opened:
        text = opened.read()
    _check(folder, file, xxh3_64(text).hexdigest())
    try:
        said = orjson.loads(text)
        ids = np.array(said["ids"], np.int64)
        metadata = said["metadata"]
        is_right = len(ids) == len(metadata) == facts.n and all(type(each) is dict for each in metadata)
        if (
            not is_right
            or (np.diff(ids) <= 0).any()
            or (facts.n and not 0 <= ids[0] <= ids[-1] < facts.next_id)
        ):
            raise ValueError("ids and metadata do not fit together")
        return ids.reshape(facts.n), [orjson.dumps(each) for each in metadata]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise CorruptionError(f"{folder / file.name} is not the metadata of {facts.n:,}: {error}") from error


def index_path(folder: Path, facts: Facts) -> Path | None:
    """The file of the index, confirmed; None where there is none."""
    file = facts.files.get("index")
    if file is None:
        return None
    with os_errors(f"cannot read {folder / file.name}"), _open(folder, file) as opened:
        _check(folder, file, _checksum(opened))
    return folder / file.name


def _check(folder: Path, file: FileFacts, checksum: str) -> None:
    if checksum != file.checksum:
        raise CorruptionError(f"{folder / file.name} is damaged: its checksum does not agree")

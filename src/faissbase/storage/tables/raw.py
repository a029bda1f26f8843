"""Vectors alone: NumPy's npy and npz, and TEXMEX's fvecs and bvecs.

Knows arrays in files; which ids and metadata belong to them is `joined`'s to say.

Source of the vecs formats: http://corpus-texmex.irisa.fr (each row is int32 d, then d float32 or uint8,
little-endian).
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from faissbase.errors import InvalidInputError
from faissbase.storage.tables.contract import Request, check_skip, wrong_dimension
from faissbase.storage.tables.files import reading, size_of
from faissbase.types import MAX_DIMENSION, Batch, Float32

# Rows [start, stop) as float32[stop - start, d].
ReadRows: TypeAlias = Callable[[int, int], Float32]

INT32_BYTES = 4


class _RawReader(ABC):
    n_rows: int
    dimension: int | None
    size_bytes: int

    def __init__(self, request: Request) -> None:
        self._request = request
        self.size_bytes = size_of(request.path)

    @abstractmethod
    def _opened(self) -> AbstractContextManager[ReadRows]: ...

    def batches(self, skip_rows: int = 0) -> Iterator[Batch]:
        check_skip(self._request.path, skip_rows, self.n_rows)
        step = self._request.batch_rows
        with reading(self._request.path), self._opened() as read_rows:
            for start in range(skip_rows, self.n_rows, step):
                yield Batch(read_rows(start, min(start + step, self.n_rows)))


class NpyReader(_RawReader):
    """A 2-D ``.npy`` of floats or integers, in C or Fortran order, memory-mapped one batch at a time."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._header = _read_npy_header(request.path)
        self.n_rows, self.dimension = self._header.shape

    @contextmanager
    def _opened(self) -> Iterator[ReadRows]:
        header = self._header
        with self._request.path.open("rb") as file:

            def read_rows(start: int, stop: int) -> Float32:
                # A fresh map for each batch, so that pages already read can leave memory.
                mapped = np.memmap(file, header.dtype, "r", header.offset, header.shape, header.order)
                return _to_float32(mapped[start:stop])

            yield read_rows


class NpzReader(_RawReader):
    """One key of an ``.npz``, loaded whole. The path is written ``file.npz:key``."""

    def __init__(self, request: Request) -> None:
        path, key = split_npz_path(request.path)
        if key is None:
            raise InvalidInputError(
                f'{path} is an archive of arrays: read one as "{path}:key", or extract it with '
                f'np.save("vectors.npy", np.load("{path}")["key"])'
            )
        self._request = request
        self.size_bytes = size_of(path)
        self._array = _load_npz(path, key)
        _check_matrix(request.path, self._array.shape, self._array.dtype)
        self.n_rows, self.dimension = self._array.shape

    @contextmanager
    def _opened(self) -> Iterator[ReadRows]:
        yield lambda start, stop: _to_float32(self._array[start:stop])


class VecsReader(_RawReader):
    """A ``.fvecs`` (``value_type`` ``<f4``) or ``.bvecs`` (``u1``) file."""

    def __init__(self, request: Request, value_type: str) -> None:
        super().__init__(request)
        self._value_type = np.dtype(value_type)
        self.dimension = _first_vecs_dimension(request.path, self.size_bytes)
        self._row_bytes = INT32_BYTES + (self.dimension or 0) * self._value_type.itemsize
        # A file of another d is reported as such, not as cut short.
        if request.dimension in (None, self.dimension) and self.size_bytes % self._row_bytes:
            raise InvalidInputError(
                f"{request.path} is cut short or not {request.path.suffix}: {self.size_bytes} bytes are not "
                f"a whole number of rows of {self._row_bytes} bytes (d={self.dimension})"
            )
        self.n_rows = self.size_bytes // self._row_bytes

    @contextmanager
    def _opened(self) -> Iterator[ReadRows]:
        with self._request.path.open("rb") as file:
            yield lambda start, stop: self._read_rows(file, start, stop)

    def _read_rows(self, file: BinaryIO, start: int, stop: int) -> Float32:
        n, row_bytes = stop - start, self._row_bytes
        file.seek(start * row_bytes)
        block = np.fromfile(file, np.uint8, n * row_bytes)
        if block.size != n * row_bytes:
            raise EOFError(f"expected {n} rows after row {start}")
        rows = block.reshape(n, row_bytes)
        self._check_dimensions(rows, start)
        values = np.ascontiguousarray(rows[:, INT32_BYTES:])
        return values.view(self._value_type).astype(np.float32, copy=False)

    def _check_dimensions(self, rows: npt.NDArray[np.uint8], start: int) -> None:
        found = np.ascontiguousarray(rows[:, :INT32_BYTES]).view("<i4").ravel()
        wrong = np.flatnonzero(found != self.dimension)
        if wrong.size:
            row = int(wrong[0])
            expected = self.dimension or 0
            raise wrong_dimension(self._request.path, start + row, expected=expected, got=int(found[row]))


def split_npz_path(path: Path) -> tuple[Path, str | None]:
    """The archive and the key of ``file.npz:key``; the key is None where it is not given.

    >>> split_npz_path(Path("a/file.npz:xb"))
    (PosixPath('a/file.npz'), 'xb')
    """
    stem, found, key = str(path).rpartition(".npz:")
    return (Path(f"{stem}.npz"), key) if found else (path, None)


@dataclass(frozen=True, slots=True)
class _NpyHeader:
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    offset: int
    order: Literal["C", "F"]


def _read_npy_header(path: Path) -> _NpyHeader:
    try:
        with reading(path):
            mapped = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise InvalidInputError(f"{path} is not a .npy array that can be memory-mapped: {error}") from error
    shape = _check_matrix(path, mapped.shape, mapped.dtype)
    n_extra = path.stat().st_size - mapped.offset - mapped.nbytes
    if n_extra:
        raise InvalidInputError(f"{path} goes on for {n_extra} bytes after its array of shape {shape}")
    return _NpyHeader(shape, mapped.dtype, mapped.offset, "C" if mapped.flags.c_contiguous else "F")


def _load_npz(path: Path, key: str) -> npt.NDArray[Any]:
    try:
        with reading(path), path.open("rb") as file, np.lib.npyio.NpzFile(file) as archive:
            keys = sorted(archive.files)
            if key in keys:
                array: npt.NDArray[Any] = archive[key]
                return array
    except (ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"cannot read {path}: {error}") from error
    raise InvalidInputError(f"{path} has no key {key!r}; it has {keys}")


def _check_matrix(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int]:
    if dtype.kind not in "fiu":
        raise InvalidInputError(f"expected floats or integers, got {dtype} (file {path})")
    if len(shape) != 2:
        raise InvalidInputError(f"expected a 2-D array of vectors, got shape {shape} (file {path})")
    return shape[0], shape[1]


def _to_float32(rows: npt.NDArray[Any]) -> Float32:
    # Too large for float32 becomes inf, which the collection refuses by name.
    with np.errstate(over="ignore"):
        return np.array(rows, dtype=np.float32, order="C")


def _first_vecs_dimension(path: Path, size_bytes: int) -> int | None:
    if size_bytes == 0:
        return None
    with reading(path), path.open("rb") as file:
        d = int.from_bytes(file.read(INT32_BYTES), "little", signed=True)
    if not 1 <= d <= MAX_DIMENSION:
        raise InvalidInputError(f"{path} is not {path.suffix}: its first row says d={d}")
    return d

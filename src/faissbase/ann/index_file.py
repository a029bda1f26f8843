"""Vectors of an index file that FAISS has written, row by row, to be loaded into a collection.

Knows what FAISS gives back of its indexes. Such a file has no order in which its rows could be read from the
disk, so it is read whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from faissbase.errors import InvalidInputError
from faissbase.storage.foreign import has_lists_on_disk
from faissbase.storage.tables.contract import Request, check_skip
from faissbase.storage.tables.files import reading, size_of
from faissbase.types import Batch, Float32

Numbers: TypeAlias = npt.NDArray[np.int64]
# Rows [start, stop) as float32[stop - start, d].
Read: TypeAlias = Callable[[int, int], Float32]


class IndexReader:
    """What an index holds, as it gives it back: exactly, or as near as its codes are.

    The ids are those that the index answers with; an index that numbers its vectors leaves that to whoever
    loads them. Inverted lists have no order: there it is that of the ids.

    Raises
    ------
    InvalidInputError
        Not an index of float vectors, damaged, one that cannot give vectors back, or one with an id twice.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self.size_bytes = size_of(request.path)
        with reading(request.path):
            if has_lists_on_disk(request.path):
                raise InvalidInputError(f"{request.path} names another file to read vectors from")
        self._index = self._asked(faiss.read_index, str(request.path))
        self.dimension: int | None = int(self._index.d)
        self.n_rows = int(self._index.ntotal)
        try:
            self._ids, self._read = _rows_of(self._index)
        except InvalidInputError as error:
            raise InvalidInputError(f"cannot read vectors from {request.path}: {error}") from error
        if self._ids is not None and len(np.unique(self._ids)) != self.n_rows:
            raise InvalidInputError(f"{request.path} holds {self.n_rows} vectors, not all of different ids")

    def batches(self, skip_rows: int = 0) -> Iterator[Batch]:
        check_skip(self._request.path, skip_rows, self.n_rows)
        step = self._request.batch_rows
        for start in range(skip_rows, self.n_rows, step):
            stop = min(start + step, self.n_rows)
            ids = None if self._ids is None else list(map(str, self._ids[start:stop].tolist()))
            yield Batch(self._asked(self._read, start, stop), ids)

    def _asked(self, call: Any, *words: Any) -> Any:
        try:
            return call(*words)
        except (RuntimeError, MemoryError) as error:
            reason = str(error).rpartition(": ")[2] or type(error).__name__
            raise InvalidInputError(
                f"cannot read vectors from {self._request.path}, as FAISS says: {reason}"
            ) from error


def _rows_of(index: Any) -> tuple[Numbers | None, Read]:
    """The ids, None where FAISS has numbered the vectors, and how to read vectors in their order."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexIDMap):
        return faiss.vector_to_array(index.id_map), _rows_of(index.index)[1]
    if isinstance(index, faiss.IndexPreTransform):
        ids, read = _rows_of(index.index)
        return ids, lambda start, stop: _transformed_back(index, read(start, stop))
    if isinstance(index, faiss.IndexRefine):
        return None, _rows_of(index.refine_index)[1]
    if isinstance(index, faiss.IndexIVFFastScan):
        # FAISS 1.15 gives other vectors, or ends the process: the codes lie in blocks.
        raise InvalidInputError(f"{type(index).__name__} does not give its vectors back")
    if isinstance(index, faiss.IndexIVF):
        return _rows_of_lists(index)
    return None, lambda start, stop: index.reconstruct_n(start, stop - start)


def _transformed_back(index: Any, transformed: Float32) -> Float32:
    given = np.empty((len(transformed), index.d), np.float32)
    index.reverse_chain(len(given), faiss.swig_ptr(transformed), faiss.swig_ptr(given))
    return given


def _rows_of_lists(index: Any) -> tuple[Numbers | None, Read]:
    """By place in the lists, in the order of the ids; a map of ids is not needed for that."""
    lists = index.invlists
    sizes = [lists.list_size(number) for number in range(lists.nlist)]
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(number), size).copy() for number, size in enumerate(sizes) if size
    ]
    ids = np.concatenate([np.zeros(0, np.int64), *parts])
    if len(ids) != index.ntotal:
        raise InvalidInputError(f"its lists hold {len(ids)} vectors, expected {index.ntotal}")
    order = np.argsort(ids, kind="stable")
    list_of = np.repeat(np.arange(len(sizes)), sizes)[order]
    place = np.concatenate([np.arange(0), *map(np.arange, sizes)])[order]

    def read(start: int, stop: int) -> Float32:
        vectors = np.empty((stop - start, index.d), np.float32)
        places = zip(list_of[start:stop].tolist(), place[start:stop].tolist(), vectors, strict=True)
        for number, offset, row in places:
            index.reconstruct_from_offset(number, offset, faiss.swig_ptr(row))
        return vectors

    ids = ids[order]
    return (None if np.array_equal(ids, np.arange(len(ids))) else ids), read

"""Whether an index that came out of a file may be searched, as far as FAISS does not look itself.

A checksum says that a file is what was written, not that whoever wrote it meant well. FAISS (1.15) sees to
it that the links of a graph stay within it. Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss

from faissbase.errors import CorruptionError
from faissbase.storage.foreign import has_lists_on_disk


def refuse_lists_on_disk(path: Path) -> None:
    """Refuse a file with inverted lists that lie in another file: it may name any file of this machine.

    Raises
    ------
    CorruptionError
        No index that is built here has any.
    """
    if has_lists_on_disk(path):
        raise CorruptionError(f"{path} names another file to read vectors from: it is not ours")


def check_like(index: Any, template: Any, n: int) -> None:
    """See that ``index``, over ``n`` vectors, is built as the empty ``template`` and leads nowhere else.

    Raises
    ------
    CorruptionError
        It is of other classes or sizes, or a list or code of it lies outside.
    """
    for (mine, held), (wanted, _) in zip(_parts(index, n), _parts(template, n), strict=False):
        found, expected = (_shape(each) for each in (mine, wanted))
        if found != expected:
            raise CorruptionError(f"the index is {found}, expected {expected}")
        if isinstance(mine, faiss.IndexIVF):
            _check_lists(mine, held)
        if isinstance(mine, faiss.IndexFlatCodes):
            _check_size("codes", mine.codes.size(), int(mine.ntotal) * int(mine.code_size))


def _parts(index: Any, n: int) -> Iterator[tuple[Any, int]]:
    """An index over ``n`` vectors and what it leads to, from the outside in, each with how many it holds."""
    index = faiss.downcast_index(index)
    yield index, n
    if isinstance(index, faiss.IndexPreTransform):
        for i in range(index.chain.size()):
            yield faiss.downcast_VectorTransform(index.chain.at(i)), n
        yield from _parts(index.index, n)
    elif isinstance(index, faiss.IndexIVF):
        yield from _parts(index.quantizer, int(index.nlist))
    elif isinstance(index, faiss.IndexHNSW) and index.storage is not None:
        yield from _parts(index.storage, n)


def _shape(part: Any) -> tuple[Any, ...]:
    if isinstance(part, faiss.VectorTransform):
        return type(part).__name__, part.d_in, part.d_out
    # FAISS makes an IndexFlatL2 and reads it as an IndexFlat, which is the same.
    name = "IndexFlat" if isinstance(part, faiss.IndexFlat) else type(part).__name__
    shape = (name, part.d, part.metric_type)
    if isinstance(part, faiss.IndexIVF):
        return (*shape, part.nlist, part.code_size)
    return shape


def _check_size(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise CorruptionError(f"the index has {found:,} {what}, expected {wanted:,}")


def _check_lists(index: Any, n: int) -> None:
    lists = faiss.downcast_InvertedLists(index.invlists)
    _check_size("lists", int(lists.nlist), int(index.nlist))
    _check_size("centroids", int(index.quantizer.ntotal), int(index.nlist))
    total = 0
    for number in range(lists.nlist):
        size = lists.list_size(number)
        total += size
        if not size:
            continue
        ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
        if ids.min() < 0 or ids.max() >= n:
            raise CorruptionError(f"list {number} of the index holds {ids.max()}, expected below {n}")
    _check_size("vectors in lists", total, n)

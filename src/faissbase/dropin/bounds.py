"""Numbers that would lead FAISS outside of its arrays, or into more memory than there is: refused before.

FAISS checks most of what it is given. Here is what it does not check, or checks in a thread of its own, where
its exception ends the process.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np

from faissbase.dropin import crashes, frames, gpus
from faissbase.dropin.filling import check_straight
from faissbase.dropin.parts import parts
from faissbase.dropin.refusals import Refused as Refused

MOST_EFFORT = 1 << 20
MOST_K = 1 << 20
_LONGEST_FACTORY = 1000
_LEAST_M = 2
_MOST_QUERY_BITS = 8
_EFFORTS = ("efSearch", "efConstruction", "search_L")
# Sizes of a factory string at which FAISS divides by zero, writes nowhere, or never ends.
_BAD_FACTORY = re.compile(r"(HNSW|NSG)0*[01](?!\d)|(RQ|LSQ)(\d+x)*0+(?!\d)|PQ\d+x0+(?!\d)")
_CHECKED = (faiss.IndexIVF, faiss.IndexIDMap, faiss.IndexBinaryIDMap, faiss.IndexBinaryIVF)
_CHECKED_RANGES = (faiss.IndexIVF, faiss.IndexBinaryIVF, faiss.IndexFlatCodes, faiss.IndexBinaryIDMap)
# FAISS ends the process where a thread of its own throws.
_WITHOUT_RANGES = (
    faiss.IndexRowwiseMinMaxBase,
    faiss.IndexShards,
    faiss.IndexSplitVectors,
    faiss.IndexIVFIndependentQuantizer,
)
# From which argument on there may be none.
_OPTIONAL = {
    "IndexIVFIndependentQuantizer": 2,
    "index_cpu_to_gpu": 3,
    "index_binary_cpu_to_gpu": 3,
    "index_cpu_to_gpu_multiple_py": 2,
    "index_cpu_to_all_gpus": 1,
    "index_cpu_to_gpus_list": 1,
    "knn_gpu": 4,
    "pairwise_distance_gpu": 3,
}
# They reconstruct nothing, and say so themselves.
_WITHOUT_POSITIONS = (
    faiss.IndexRowwiseMinMaxBase,
    faiss.IndexShards,
    faiss.IndexSplitVectors,
    faiss.IndexIVFIndependentQuantizer,
    faiss.IndexBinaryFromFloat,
    faiss.IndexBinaryHash,
    faiss.IndexBinaryMultiHash,
    faiss.IndexBinaryShards,
)
_WITH_PARAMETERS = "_with_parameters"
_WHOLE = frozenset(("train", "add", "add_with_ids", "reset"))
_LISTS = (faiss.IndexIVF, faiss.IndexBinaryIVF, faiss.InvertedLists)


# ---- what is made --------------------------------------------------------------------------------


def check_made(name: str, args: Sequence[Any]) -> None:
    """Refuse what would end the process, or hang it, instead of making it."""
    numbers = [each for each in args if type(each) is int]
    if name in ("index_factory", "index_binary_factory"):
        _check_factory(next((each for each in args if isinstance(each, str)), ""))
    elif name == "SliceInvertedLists":
        _check_slice(args)
    elif name.startswith("Index") and ("HNSW" in name or "NSG" in name):
        _check_m(name, args)
    elif "Quantizer" in name:
        sizes = numbers[:1] if "ScalarQuantizer" in name else numbers  # a kind of codes may be 0
        if sizes and min(sizes) <= 0:
            raise Refused(f"{name} wants sizes of 1 or more, got {min(sizes)}")
    size = args[1:2] if name.startswith("GpuIndex") else args[:1]
    if size and type(size[0]) is int and size[0] < 0:
        raise Refused(f"{name} of dimension {size[0]}")


def without_none(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of which none is None: FAISS takes it for an index, and reads what is not there.

    What stands for it is of no class that FAISS knows, so that FAISS says what it wants.
    """
    optional = _OPTIONAL.get(name, len(args))
    return tuple(
        frames.opaque("NoneType") if each is None and at < optional else each for at, each in enumerate(args)
    )


def _check_factory(text: str) -> None:
    if len(text) > _LONGEST_FACTORY:
        raise Refused(f"a factory string of {len(text):,} letters, at most {_LONGEST_FACTORY:,} are taken")
    found = _BAD_FACTORY.search(text)
    if found:
        raise Refused(f"{text!r}: {found[0]} has a size that is too small")


def _check_m(name: str, args: Sequence[Any]) -> None:
    at = 3 if name.endswith("2Level") else 2 if name.endswith(("SQ", "PQ")) else 1
    if len(args) > at and type(args[at]) is int and args[at] < _LEAST_M:
        raise Refused(f"{name} wants M of {_LEAST_M} or more, got {args[at]}")


def _check_slice(args: Sequence[Any]) -> None:
    try:
        lists, start, stop = args
        is_inside = 0 <= start <= stop <= lists.nlist
    except (TypeError, ValueError, AttributeError):
        return  # FAISS says what is wrong with it
    if not is_inside:
        raise Refused(f"SliceInvertedLists: {start} to {stop} is no part of {lists.nlist} lists")


def check_effort(name: str, value: Any) -> None:
    """Refuse an effort for which each thread would take gigabytes."""
    if name in _EFFORTS and type(value) is int and value > MOST_EFFORT:
        raise Refused(f"{name} of {value:,}: at most {MOST_EFFORT:,} is taken on a server")
    if name == "qb" and type(value) is int and not 0 <= value <= _MOST_QUERY_BITS:
        raise Refused(f"qb is a number of bits from 0 to {_MOST_QUERY_BITS}, got {value}")


def check_parameters(args: Sequence[Any]) -> None:
    """`check_effort` for what a ParameterSpace sets: ``"efSearch=9,nprobe=3"``, or a name and a value."""
    texts = [each for each in args if isinstance(each, str)]
    values = [each for each in args if isinstance(each, int | float)]
    for text in texts:
        for pair in text.split(","):
            name, _, value = pair.partition("=")
            try:
                number = float(value) if value else max(values, default=0.0)
            except ValueError:
                continue
            if number > MOST_EFFORT:
                check_effort(name.removeprefix("quantizer_"), int(min(number, 2.0**62)))


# ---- what is called ------------------------------------------------------------------------------


def check_call(
    thing: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], version: int | None = None
) -> None:
    """Refuse positions and sizes that are none in ``thing``.

    ``version`` changes with whatever ``thing`` leads to, so that what was found of it once holds for as long.
    """
    if name in _WHOLE:
        crashes.check_whole(thing)
    check = _CHECKS.get(name)
    if check is not None:
        try:
            check(thing, *args, **kwargs)
        except (TypeError, ValueError, OverflowError, AttributeError, LookupError):
            return  # FAISS says what is wrong with it
        if check in (_most, _preassigned, _assigned, _position, _reconstructing):
            crashes.check_refining(thing, version)


def check_function(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """`check_call` for the functions that search an index with parameters."""
    if not name.endswith(_WITH_PARAMETERS):
        return
    try:
        index, x, limit, *params = inspect.signature(getattr(faiss, name)).bind(*args, **kwargs).args
    except TypeError:
        return  # FAISS says what is wrong with it
    method = name.removesuffix(_WITH_PARAMETERS)
    check_call(index, method, (x, limit), {"params": params[0] if params else None})


def _innermost(index: Any) -> Any:
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index


def _position(thing: Any, key: Any, *_: Any, **__: Any) -> None:
    if isinstance(_innermost(thing), _CHECKED + _WITHOUT_POSITIONS) or not hasattr(thing, "ntotal"):
        return
    keys = np.atleast_1d(np.asarray(key)).astype(np.int64)
    is_inside = not keys.size or (keys.min() >= 0 and (keys.max() < thing.ntotal or _says_its_end(thing)))
    if not is_inside:
        raise Refused(f"{_kind(thing)}: {key!r:.80} is no position from 0 to {thing.ntotal - 1}")


def _says_its_end(thing: Any) -> bool:
    """Whether FAISS itself refuses a position that is too large."""
    thing = _innermost(thing)
    if isinstance(thing, faiss.IndexHNSW | faiss.IndexNSG | faiss.IndexNNDescent):
        return thing.storage is not None and _says_its_end(faiss.downcast_index(thing.storage))
    if isinstance(thing, faiss.IndexRefine):
        return _says_its_end(faiss.downcast_index(thing.refine_index))
    if isinstance(thing, faiss.IndexReplicas):
        return thing.count() == 0 or _says_its_end(faiss.downcast_index(thing.at(0)))
    return isinstance(thing, faiss.IndexFlatCodes | faiss.IndexFastScan | faiss.IndexRandom)


def _range(thing: Any, n0: Any = 0, ni: Any = -1, x: Any = None) -> None:
    inner = _innermost(thing)
    if isinstance(inner, _WITHOUT_RANGES):
        raise Refused(f"{_kind(inner)}.reconstruct_n ends FAISS's process: call reconstruct")
    if isinstance(inner, _CHECKED_RANGES) or not hasattr(thing, "ntotal"):
        return
    n = thing.ntotal - n0 if ni == -1 else ni
    if n > 0:
        if isinstance(inner, faiss.IndexIDMap):
            _check_ids(inner, n0, n)
        elif not 0 <= n0 <= n0 + n <= thing.ntotal:
            raise Refused(f"{_kind(thing)}: {n} from {n0} on are no positions from 0 to {thing.ntotal - 1}")
        thing.reconstruct(n0)  # where it cannot, FAISS says so here, and not in a thread of its own


def _check_ids(inner: Any, n0: int, n: int) -> None:
    ids = faiss.vector_to_array(inner.id_map)
    n_there = np.unique(ids[(ids >= n0) & (ids < n0 + n)]).size
    if n_there != n:
        raise Refused(f"{_kind(inner)}: of the ids {n0} to {n0 + n - 1} there are {n_there}")


def check_list(thing: Any, list_no: Any) -> None:
    """Refuse the number of a list that there is not."""
    if isinstance(thing, _LISTS) and not 0 <= list_no < thing.nlist:
        raise Refused(f"{_kind(thing)}: there are lists 0 to {thing.nlist - 1}, and no {list_no}")


def _level(thing: Any, level: Any) -> None:
    if level < 0:
        raise Refused(f"{_kind(thing)}: there is no level {level}")


def _part_number(thing: Any, i: Any) -> None:
    if hasattr(thing, "count") and not 0 <= i < thing.count():
        raise Refused(f"{_kind(thing)}: there are parts 0 to {thing.count() - 1}, and no {i}")


def _codes(thing: Any, codes: Any, *_: Any, **__: Any) -> None:
    """Codes of inverted lists begin with the list's number."""
    for inner in parts(thing):
        if isinstance(inner, faiss.IndexIVF):
            width, n_lists = inner.coarse_code_size(), inner.nlist
        elif isinstance(inner, faiss.Index2Layer):
            width, n_lists = inner.code_size_1, inner.q1.nlist
        else:
            continue
        numbers = np.zeros((len(codes), 8), np.uint8)
        numbers[:, :width] = np.asarray(codes)[:, :width]
        if len(codes) and numbers.view("<u8").max() >= n_lists:
            raise Refused(f"{_kind(inner)}: codes of lists that are not there: there are {n_lists}")
        return


def _most(thing: Any, x: Any, k: Any, *_: Any, params: Any = None, **given: Any) -> None:
    kind = np.int32 if isinstance(thing, faiss.IndexBinary) else np.float32
    _check_most(thing, x, k, None if "D" in given else kind)
    if k > 0:  # FAISS says that it must be
        crashes.check_search(thing, k, params)


def _preassigned(thing: Any, x: Any, k: Any, Iq: Any, *_: Any, params: Any = None, **__: Any) -> None:
    """The names are FAISS's."""
    _most(thing, x, k, params=params)
    gpus.check_lists(thing, Iq)


def _assigned(thing: Any, x: Any, k: Any = 1, *_: Any, **__: Any) -> None:
    _check_most(thing, x, k, np.int64)
    crashes.check_search(thing, k, None)


def _check_most(thing: Any, x: Any, k: Any, kind: type[np.generic] | None) -> None:
    """Refuse to find more than memory is made for; ``kind``: of the numbers that FAISS makes room for."""
    if isinstance(k, int | np.integer) and k > max(MOST_K, getattr(thing, "ntotal", 0)):
        if kind is not None:
            np.empty((len(x), k), kind)  # raises what FAISS's Python raises where there is no room
        raise Refused(f"k of {k:,}: at most {MOST_K:,}, or as many as there are vectors, on a server")


def _reconstructing(thing: Any, x: Any, k: Any, *_: Any, params: Any = None, **__: Any) -> None:
    _most(thing, x, k, params=params)
    crashes.check_reconstructing(thing)


def _within(thing: Any, x: Any, thresh: Any, *_: Any, params: Any = None, **__: Any) -> None:
    crashes.check_range_search(thing, params)


def _encoded(thing: Any, *_: Any, **__: Any) -> None:
    crashes.check_codes(thing)


def _decoded(thing: Any, codes: Any, *_: Any, **__: Any) -> None:
    crashes.check_codes(thing)
    _codes(thing, codes)


def _rows(thing: Any, x: Any, *_: Any, **__: Any) -> None:
    if np.ndim(x) == 2 and np.shape(x)[1] == thing.d:
        crashes.check_added(thing, len(x))


def _order(thing: Any, order: Any) -> None:
    order = np.ascontiguousarray(order, np.int64)
    if order.shape == (thing.ntotal,) and not np.array_equal(np.sort(order), np.arange(thing.ntotal)):
        raise Refused(f"permute_entries wants each of 0 to {thing.ntotal - 1} once")


def _kind(thing: Any) -> str:
    return type(thing).__name__


_CHECKS: dict[str, Callable[..., None]] = {
    "reconstruct": _position,
    "reconstruct_batch": _position,
    "reconstruct_n": _range,
    "get_list_size": check_list,
    "list_size": check_list,
    "nb_neighbors": _level,
    "cum_nb_neighbors": _level,
    "at": _part_number,
    "sa_encode": _encoded,
    "sa_decode": _decoded,
    "add_sa_codes": _decoded,
    **dict.fromkeys(("search", "search_and_return_codes"), _most),
    "search_preassigned": _preassigned,
    "assign": _assigned,
    "search_and_reconstruct": _reconstructing,
    "range_search": _within,
    **dict.fromkeys(("add", "add_with_ids"), _rows),
    "set_is_orthonormal": check_straight,
    "permute_entries": _order,
}

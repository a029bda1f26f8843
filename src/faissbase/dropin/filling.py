"""Arrays of a caller's that become the memory of an object, where they fit and nowhere else, or are filled.

A linear transform takes a matrix and an offset that were made elsewhere, an `IndexRefineFlat` the vectors to
refine by. FAISS reads as many numbers as there ought to be, so that many there have to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from faissbase.dropin import frames
from faissbase.dropin.graphs import Held
from faissbase.dropin.refusals import Refused

# Whose codes are all that they have of a vector.
_FLAT = (
    faiss.IndexFlat,
    faiss.IndexFlatL2,
    faiss.IndexFlatIP,
    faiss.IndexPQ,
    faiss.IndexScalarQuantizer,
    faiss.IndexLSH,
)
_UNFILLED = (
    "faiss.copy_array_to_vector fills vectors of floats with as many as they have, A and b of a linear "
    "transform, and codes of a flat index that has no name; anything else may change how memory is laid out: "
    "fetch it with .to_local(), change it and send it back"
)


@dataclass(frozen=True, slots=True)
class Place:
    """An array for which the caller has given a pointer."""

    array: frames.Array


def placed(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a class, with the pointer that it is known to want; FAISS refuses any other."""
    if name != "IndexRefineFlat" or len(args) != 2 or not isinstance(args[1], Place | frames.Opaque):
        return args
    if isinstance(args[1], frames.Opaque):
        if type(args[1]).__name__ != "SwigPyObject":
            return args
        raise Refused(
            "IndexRefineFlat: the array of this pointer is not there any more: have a variable for it, and "
            "give faiss.swig_ptr(it)"
        )
    base, array = args[0], args[1].array
    if not isinstance(base, faiss.Index) or array.dtype != np.float32:
        return args
    if array.size < base.ntotal * base.d:
        raise Refused(
            f"IndexRefineFlat wants the {base.ntotal:,} vectors of d={base.d} that are in the index, got "
            f"{array.size // base.d:,}"
        )
    return base, faiss.swig_ptr(array)


def has_all(thing: Any, name: str, value: Any) -> bool:
    """Whether a thing has all that it reads when ``is_trained``, or its ``ntotal``, is ``value``."""
    if name == "ntotal" and isinstance(thing, faiss.IndexIVF):
        is_mapped = thing.direct_map.type != faiss.DirectMap.NoMap
        return not is_mapped and bool(value == thing.invlists.compute_ntotal())
    if name == "ntotal":
        is_cached = isinstance(thing, faiss.IndexFlatL2) and thing.cached_l2norms.size()
        is_flat = type(thing) in _FLAT and not is_cached
        return is_flat and 0 <= value <= thing.codes.size() // max(1, thing.code_size)
    if isinstance(thing, faiss.LinearTransform):
        return has_matrix(thing)
    if type(thing) is faiss.IndexPQ:
        return bool(thing.pq.centroids.size() == thing.pq.d * thing.pq.ksub)
    if type(thing) is faiss.IndexScalarQuantizer:
        return bool(thing.sq.trained.size() == _n_trained(thing.sq))
    if isinstance(thing, faiss.IndexPreTransform):
        chain = [thing.chain.at(at) for at in range(thing.chain.size())]
        return all(each.is_trained for each in (*chain, thing.index))
    return False


def has_matrix(transform: Any) -> bool:
    """Whether a linear transform has all the numbers that it would read."""
    is_whole: bool = transform.A.size() == transform.d_in * transform.d_out
    return is_whole and (not transform.have_bias or transform.b.size() == transform.d_out)


def check_straight(transform: Any) -> None:
    """Refuse to look for an orthonormal matrix where there is none."""
    if not has_matrix(transform):
        raise Refused(f"{type(transform).__name__} has no matrix yet")


def _n_trained(quantizer: Any) -> int:
    """How many numbers a scalar quantizer reads that it has learnt."""
    kind = quantizer.qtype
    if kind in (faiss.ScalarQuantizer.QT_8bit, faiss.ScalarQuantizer.QT_4bit, faiss.ScalarQuantizer.QT_6bit):
        return 2 * int(quantizer.d)
    uniform = (faiss.ScalarQuantizer.QT_8bit_uniform, faiss.ScalarQuantizer.QT_4bit_uniform)
    plain = (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16)
    return 2 if kind in uniform else 0 if kind in plain else -1


def check_filled(vector: Held | None, array: Any) -> None:
    """Refuse to copy an array into what would then lead FAISS outside of its arrays.

    A and b of a linear transform are filled with as many numbers as it has; other vectors of floats, and the
    ids of an `IndexIDMap`, with as many as they have; codes of a flat index with what it then holds.
    """
    owner = vector.parent if vector is not None else None
    step = vector.step if vector is not None else None
    if vector is None or owner is None or step is None or step[0] != "get":
        raise Refused(_UNFILLED)
    thing, name = owner.thing, step[1]
    if isinstance(thing, faiss.LinearTransform) and name in ("A", "b"):
        wanted = thing.d_out * (thing.d_in if name == "A" else 1)
    elif type(vector.thing).__name__ == "Float32Vector" or (
        name == "id_map" and isinstance(thing, faiss.IndexIDMap | faiss.IndexBinaryIDMap)
    ):
        wanted = vector.thing.size()
    elif name == "codes" and type(thing) in _FLAT:
        _check_codes(owner, np.size(array))
        return
    else:
        raise Refused(_UNFILLED)
    if np.size(array) != wanted:
        raise Refused(f"{type(thing).__name__}.{name} has {wanted} numbers, got {np.size(array):,}")


def _check_codes(owner: Held, n_bytes: int) -> None:
    """Codes are whole, and of an index that nobody else relies on; it holds no more than there are."""
    index = owner.thing
    if not owner.is_alone or owner.graph.named:
        raise Refused(_UNFILLED)
    is_cached = isinstance(index, faiss.IndexFlatL2) and index.cached_l2norms.size()
    if n_bytes % index.code_size or is_cached:
        raise Refused(f"{n_bytes:,} bytes are no codes of {index.code_size} for this {type(index).__name__}")
    index.ntotal = min(index.ntotal, n_bytes // index.code_size)


def output(dtype: Any, shape: Any, is_contiguous: Any, is_writeable: Any) -> frames.Array:
    """An array as the caller has given one to be filled."""
    kind = np.dtype(str(dtype))
    if kind.kind not in "biufc":
        raise frames.FrameError(f"no numbers: {kind}")
    found = np.zeros(shape, kind) if is_contiguous else np.zeros((*shape[:-1], 2 * shape[-1]), kind)[..., ::2]
    found.flags.writeable = bool(is_writeable)
    return found

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


def has_matrix(transform: Any) -> bool:
    """Whether a linear transform has all the numbers that it would read."""
    is_whole: bool = transform.A.size() == transform.d_in * transform.d_out
    return is_whole and (not transform.have_bias or transform.b.size() == transform.d_out)


def check_straight(transform: Any) -> None:
    """Refuse to look for an orthonormal matrix where there is none."""
    if not has_matrix(transform):
        raise Refused(f"{type(transform).__name__} has no matrix yet")


def check_filled(vector: Held | None, array: Any) -> None:
    """Refuse to copy an array into anything but the matrix or offset of a linear transform that it fits."""
    owner = vector.parent.thing if vector is not None and vector.parent is not None else None
    step = vector.step if vector is not None else None
    if not isinstance(owner, faiss.LinearTransform) or step not in (("get", "A"), ("get", "b")):
        raise Refused(
            "faiss.copy_array_to_vector fills A and b of a linear transform on a server, and nothing else, "
            "for it may change how memory is laid out: fetch it with .to_local(), change it and send it back"
        )
    wanted = owner.d_out * (owner.d_in if step == ("get", "A") else 1)
    if np.size(array) != wanted:
        raise Refused(f"{type(owner).__name__}.{step[1]} has {wanted} numbers, got {np.size(array):,}")


def output(dtype: Any, shape: Any, is_contiguous: Any, is_writeable: Any) -> frames.Array:
    """An array as the caller has given one to be filled."""
    kind = np.dtype(str(dtype))
    if kind.kind not in "biufc":
        raise frames.FrameError(f"no numbers: {kind}")
    found = np.zeros(shape, kind) if is_contiguous else np.zeros((*shape[:-1], 2 * shape[-1]), kind)[..., ::2]
    found.flags.writeable = bool(is_writeable)
    return found

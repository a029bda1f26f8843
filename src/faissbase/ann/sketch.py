"""Vectors as one bit a number, to tell roughly which are near before the true vectors are read.

Knows arrays only. A vector less the middle of all is turned by a fixed random rotation, and the sign of every
number is kept: the share of signs in which two differ tells the angle between them.

**Source**: M. Charikar, *Similarity Estimation Techniques from Rounding Algorithms*, STOC 2002; the rotation
of random signs and a Fourier transform is that of N. Ailon and B. Chazelle, STOC 2006.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from faissbase.ann.flat import threads_for
from faissbase.types import Float32, Slots

_SEED = 20_021
_ROUNDS = 2
_BITS_MIN = 1024  # fewer say too little: the error of an angle falls with the root of their number
_WORD_BITS = 64
_BLOCK_ROWS = 4096

Codes = npt.NDArray[np.uint8]


def inner_products(query: Float32, rows: Float32) -> Float32:
    """``query``, ``float32[d]``, times each of ``rows``, ``float32[n, d]``, contiguous: ``float32[n]``."""
    n, d = rows.shape
    found = np.empty(n, np.float32)
    if n:
        pointers = (faiss.swig_ptr(found), faiss.swig_ptr(query), faiss.swig_ptr(rows))
        with threads_for(1):
            faiss.fvec_inner_products_ny(*pointers, d, n)
    return found


def inner_products_of(query: Float32, rows: Float32, slots: Slots) -> Float32:
    """The same for the rows ``slots``, ``int64[m]``, alone, without copying them together."""
    found = np.empty(len(slots), np.float32)
    if len(slots):
        pointers = (faiss.swig_ptr(found), faiss.swig_ptr(query), faiss.swig_ptr(rows))
        with threads_for(1):
            faiss.fvec_inner_products_by_idx(*pointers, faiss.swig_ptr(slots), rows.shape[1], 1, len(slots))
    return found


@dataclass(frozen=True, slots=True)
class Sketched:
    """The sketches of some vectors.

    Attributes
    ----------
    codes : uint8[n, bytes]
    radius : float32[n]
        How far each vector is from the middle.
    along : float32[n]
        Its inner product with the middle.
    """

    codes: Codes
    radius: Float32
    along: Float32


class Sketcher:
    """Makes sketches around one middle, and estimates inner products by them.

    Parameters
    ----------
    middle : float32[d]
        The mean of the vectors to come, or near it. Vectors that share a direction differ little from each
        other until it is taken away.
    """

    def __init__(self, middle: Float32) -> None:
        self.middle = np.ascontiguousarray(middle, np.float32)
        self._d = d = len(middle)
        self._n_rotations = max(1, math.ceil(_BITS_MIN / d))
        self._n_bits = self._n_rotations * d
        self.code_bytes = math.ceil(self._n_bits / _WORD_BITS) * _WORD_BITS // 8
        signs = np.random.default_rng(_SEED).integers(0, 2, (self._n_rotations, _ROUNDS, d))
        self._signs = np.where(signs == 1, np.float32(1), np.float32(-1))
        self._cosines = np.cos(np.arange(self._n_bits + 1) * (np.pi / self._n_bits)).astype(np.float32)
        self._middle_square = float(self.middle @ self.middle)

    def sketched(self, x: Float32) -> Sketched:
        """The sketches of ``x``, ``float32[n, d]``."""
        pieces = [self._codes(x[start : start + _BLOCK_ROWS]) for start in range(0, len(x), _BLOCK_ROWS)]
        codes = np.concatenate(pieces) if pieces else np.empty((0, self.code_bytes), np.uint8)
        along = inner_products(self.middle, np.ascontiguousarray(x))
        squares = np.einsum("ij,ij->i", x, x) - 2 * along + np.float32(self._middle_square)
        return Sketched(codes, np.sqrt(np.maximum(squares, 0)), along)

    def estimates(self, query: Float32, sketched: Sketched) -> Float32:
        """About ``query`` times each sketched vector, ``float32[n]``; see `deviations`."""
        code = self._codes(query[None])
        n = len(sketched.codes)
        differing = np.empty(n, np.int32)
        pointers = (faiss.swig_ptr(code), faiss.swig_ptr(sketched.codes))
        if n:
            with threads_for(1):
                faiss.hammings(*pointers, 1, n, self.code_bytes, faiss.swig_ptr(differing))
        along = float(query @ self.middle)
        radius = float(np.linalg.norm(query - self.middle))
        found: Float32 = self._cosines.take(differing)
        found *= sketched.radius
        found *= np.float32(radius)
        found += sketched.along
        found += np.float32(along - self._middle_square)
        return found

    def deviations(self, query: Float32, sketched: Sketched) -> Float32:
        """The standard deviation of each estimate, at most: ``float32[n]``."""
        radius = float(np.linalg.norm(query - self.middle))
        found: Float32 = sketched.radius * np.float32(radius * math.pi / 2 / math.sqrt(self._n_bits))
        return found

    def _codes(self, x: Float32) -> Codes:
        centred = x - self.middle
        bits = np.concatenate([_rotated(centred, signs) > 0 for signs in self._signs], axis=1)
        codes = np.zeros((len(x), self.code_bytes), np.uint8)
        packed = np.packbits(bits, axis=1)
        codes[:, : packed.shape[1]] = packed
        return codes


def _rotated(x: Float32, signs: Float32) -> Float32:
    """Each row turned; the lengths of rows and the angles between them stay."""
    for sign in signs:
        x = _spread(x * sign)
    return x


def _spread(x: Float32) -> Float32:
    """The Fourier transform of each row as d real numbers: every one has a part of all."""
    d = x.shape[1]
    waves = np.fft.rfft(x, axis=1, norm="ortho")
    n_sines = (d - 1) // 2
    spread = np.empty(x.shape, np.float32)
    spread[:, : d - n_sines] = waves.real
    spread[:, d - n_sines :] = waves.imag[:, 1 : 1 + n_sines]
    # All but the constant (and, for an even d, the fastest) stand for two waves each.
    spread[:, 1 : d - n_sines] *= np.float32(math.sqrt(2))
    spread[:, d - n_sines :] *= np.float32(math.sqrt(2))
    if d % 2 == 0:
        spread[:, d // 2] /= np.float32(math.sqrt(2))
    return spread

"""FAISS factory strings, read and checked before FAISS sees them. Knows text and numbers, builds nothing.

FAISS itself accepts strings that crash it, never end or take all memory (``HNSW0``, ``IVF100000000``,
``PQ4x24``), and finds out only while training that m does not divide d. Hence a parser that knows each part
and its limits, and refuses everything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from faissbase.errors import InvalidInputError
from faissbase.types import MAX_DIMENSION

Family = Literal["flat", "hnsw", "ivf", "codes"]

MAX_LENGTH = 100
MAX_LISTS = 1 << 20
MIN_LINKS, MAX_LINKS = 4, 128
MAX_BITS = 12
MAX_ADDITIVE_BITS = 64
POINTS_PER_CENTROID = 39  # below, FAISS warns that its clusters are poor

ACCEPTED = (
    "factory strings of [OPQm_d | PCAd | PCARd | RRd | ITQd | L2norm | Padd],… and one of Flat, "
    "HNSWm[,code], IVFn[_HNSWm | (IVFm,SQfp16)],code, IMI2xb,code or a code alone; code: Flat, SQ4, SQ6, "
    "SQ8, SQfp16, SQbf16, PQm[xbits], PQmx4fs[r], RaBitQ[bits], RaBitQfs[bits], RQmxbits, LSQmxbits, LSH"
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a factory string says.

    Attributes
    ----------
    factory : str
        The string in one spelling: ``HNSW32_SQ8`` is ``HNSW32,SQ8``.
    transforms : tuple of str
        ``OPQ16_64``, ``PCA64``, …, in order.
    family : {'flat', 'hnsw', 'ivf', 'codes'}
    code : str
        How a vector is kept: ``Flat``, ``SQ8``, ``PQ32x4fs``, …
    n_links, nlist : int
        M of HNSW, lists of IVF; 0 where there are none.
    min_points : int
        FAISS refuses to train on fewer.
    good_points : int
        Fewer make poor clusters.
    """

    factory: str
    transforms: tuple[str, ...]
    family: Family
    code: str
    n_links: int
    nlist: int
    min_points: int
    good_points: int

    @property
    def is_lossy(self) -> bool:
        """Whether what is kept of a vector is not the vector itself."""
        return bool(self.transforms) or self.code != "Flat"

    @property
    def is_l2_only(self) -> bool:
        """Whether FAISS compares these by l2 alone; for unit vectors, that is the order of cosine."""
        is_hashed_graph = self.family == "hnsw" and self.code.startswith("RaBitQ")
        return self.code.startswith("LSH") or "IMI" in self.factory or is_hashed_graph

    @property
    def needs_training(self) -> bool:
        return self.min_points > 0


@dataclass(slots=True)
class _Need:
    """Training points, gathered while parsing."""

    least: int = 0
    good: int = 0

    def more(self, least: int, good: int | None = None) -> None:
        self.least = max(self.least, least)
        self.good = max(self.good, least if good is None else good)


def parse(text: str, d: int | None = None) -> Parsed:
    """What factory string ``text`` says for vectors of ``d`` numbers, where d is known.

    Raises
    ------
    InvalidInputError
        Not understood, outside what is safe, or impossible with this d.

    Examples
    --------
    >>> parse("OPQ16_64,IVF256,PQ16x4fs", 384).family
    'ivf'
    >>> parse("IVF0,Flat")
    Traceback (most recent call last):
        ...
    faissbase.errors.InvalidInputError: index_type 'IVF0,Flat': IVF0: expected 1 to 1048576 lists, got 0
    """
    if len(text) > MAX_LENGTH:
        raise InvalidInputError(f"index_type of {len(text)} characters, expected at most {MAX_LENGTH}")
    if not text.isascii():
        raise InvalidInputError(f"index_type {text!r}: expected ASCII")
    try:
        return _parsed(text, d)
    except _Refusal as refusal:
        raise InvalidInputError(f"index_type {text!r}: {refusal}") from None


class _Refusal(Exception):
    """Why a part is not accepted; `parse` adds the whole string."""


def _parsed(text: str, d: int | None) -> Parsed:
    parts = re.split(r",(?![^(]*\))", text)
    need = _Need()
    transforms: list[str] = []
    while parts and (change := _transform(parts[0], d, need)) is not None:
        d = change
        transforms.append(parts.pop(0))
        d = None if d == 0 else d
    if len(transforms) > 3:
        raise _Refusal(f"{len(transforms)} transforms, expected at most 3")
    _refuse_ours(parts)
    family, body, code, n_links, nlist = _body(parts, d, need)
    factory = ",".join([*transforms, body])
    if transforms and family == "flat":
        family = "codes"
    return Parsed(factory, tuple(transforms), family, code, n_links, nlist, need.least, need.good)


def _refuse_ours(parts: list[str]) -> None:
    for part in parts:
        if re.match(r"IDMap|Refine|RFlat", part):
            raise _Refusal(
                f"{part}: faissbase keeps ids and re-ranks by the true vectors itself, leave it out"
            )
        if re.match(r"NSG|NNDescent|HNSW\d*_\d+\+", part):
            raise _Refusal(f"{part}: a graph that vectors cannot be added to later is not served; use HNSW32")
        if re.match(r"PQ\d+\+\d+", part):
            raise _Refusal(f"{part}: FAISS cannot leave deleted vectors out of it; use IVFn,PQm")


def _number(text: str | None, low: int, high: int, what: str, part: str) -> int:
    value = int(text) if text else -1
    if not low <= value <= high:
        raise _Refusal(f"{part}: expected {low} to {high} {what}, got {text or 'none'}")
    return value


# --- transforms: each returns the dimension after it, 0 for unknown ---


def _transform(part: str, d: int | None, need: _Need) -> int | None:
    for pattern, change in _TRANSFORMS:
        match = re.fullmatch(pattern, part)
        if match:
            return change(match, d, need)
    return None


def _shrunk(match: re.Match[str], d: int | None, need: _Need) -> int:
    part = match.group(0)
    kept = _number(match.group("d"), 1, d or MAX_DIMENSION, "dimensions", part)
    need.more(kept, 10 * kept)
    return kept


def _opq(match: re.Match[str], d: int | None, need: _Need) -> int:
    part = match.group(0)
    m = _number(match.group("m"), 1, d or MAX_DIMENSION, "parts", part)
    kept = d or 0
    if match.group("d"):
        kept = _number(match.group("d"), 1, d or MAX_DIMENSION, "dimensions", part)
    if kept % m:
        raise _Refusal(f"{part}: m={m} does not divide d={kept}")
    need.more(max(256, kept), 256 * POINTS_PER_CENTROID)
    return kept


def _rotated(match: re.Match[str], d: int | None, need: _Need) -> int:
    if not match.group("d"):
        return d or 0
    return _number(match.group("d"), 1, 2 * (d or MAX_DIMENSION), "dimensions", match.group(0))


def _itq(match: re.Match[str], d: int | None, need: _Need) -> int:
    need.more(d or 256, 10 * (d or 256))
    return _shrunk(match, d, need) if match.group("d") else d or 0


def _same(match: re.Match[str], d: int | None, need: _Need) -> int:
    return d or 0


def _padded(match: re.Match[str], d: int | None, need: _Need) -> int:
    return _number(match.group("d"), d or 1, 2 * (d or MAX_DIMENSION), "dimensions", match.group(0))


_Change = Callable[[re.Match[str], "int | None", _Need], int]
_TRANSFORMS: tuple[tuple[str, _Change], ...] = (
    (r"OPQ(?P<m>\d+)(?:_(?P<d>\d+))?", _opq),
    (r"PCAW?R?(?P<d>\d+)", _shrunk),
    (r"RR(?P<d>\d+)?", _rotated),
    (r"ITQ(?P<d>\d+)?", _itq),
    (r"L2norm", _same),
    (r"Pad(?P<d>\d+)", _padded),
)


# --- the index itself ---

_Body = tuple[Family, str, str, int, int]


def _body(parts: list[str], d: int | None, need: _Need) -> _Body:
    if not parts or not parts[0]:
        raise _Refusal(f"no index named; accepted are {ACCEPTED}")
    head, rest = parts[0], parts[1:]
    if re.match(r"HNSW", head):
        return _hnsw(head, rest, d, need)
    if re.match(r"IVF|IMI", head):
        return _ivf(head, rest, d, need)
    if rest:
        raise _Refusal(f"{','.join(rest)} after {head} is not understood; accepted are {ACCEPTED}")
    code = _code(head, d, need)
    if code.endswith("fsr"):
        raise _Refusal(f"{code}: residuals are those of inverted lists; use {code[:-1]} or IVFn,{code}")
    return ("flat" if code == "Flat" else "codes"), code, code, 0, 0


def _hnsw(head: str, rest: list[str], d: int | None, need: _Need) -> _Body:
    match = re.fullmatch(r"HNSW(\d*)(?:_(.+))?", head)
    if not match or len(rest) > 1 or (rest and match.group(2)):
        raise _Refusal(f"{head} is not understood; accepted are {ACCEPTED}")
    n_links = _number(match.group(1), MIN_LINKS, MAX_LINKS, "links", head)
    code = _code((rest[0] if rest else match.group(2)) or "Flat", d, need)
    if not re.match(r"Flat|SQ|PQ\d+(x\d+)?$|RaBitQ\d?$", code):
        raise _Refusal(f"{head},{code}: HNSW goes with Flat, SQ, PQ or RaBitQ")
    joined = f"HNSW{n_links}_{code}" if code.startswith("PQ") else f"HNSW{n_links},{code}"
    return "hnsw", joined, code, n_links, 0


def _ivf(head: str, rest: list[str], d: int | None, need: _Need) -> _Body:
    if len(rest) != 1:
        raise _Refusal(f"{head} wants one code after it, {head},Flat for instance")
    nlist = _nlist(head, d)
    need.more(nlist, POINTS_PER_CENTROID * nlist)
    code = _code(rest[0], d, need)
    if code.startswith("LSH"):
        raise _Refusal(f"{head},{code}: LSH stands alone")
    return "ivf", f"{head},{code}", code, 0, nlist


def _nlist(head: str, d: int | None) -> int:
    if match := re.fullmatch(r"IMI2x(\d+)", head):
        if d is not None and d % 2:
            raise _Refusal(f"{head}: 2 does not divide d={d}")
        return int(1 << 2 * _number(match.group(1), 1, 8, "bits", head))
    match = re.fullmatch(r"IVF(?P<n>\d*)(?:_HNSW(?P<links>\d*)|\(IVF(?P<groups>\d+),SQfp16\))?", head)
    if not match:
        raise _Refusal(f"{head} is not understood; accepted are {ACCEPTED}")
    if match.group("links"):
        _number(match.group("links"), MIN_LINKS, MAX_LINKS, "links", head)
    nlist = _number(match.group("n"), 1, MAX_LISTS, "lists", head)
    if match.group("groups"):
        _number(match.group("groups"), 1, nlist, "groups of lists", head)
    return nlist


# --- codes ---


def _code(part: str, d: int | None, need: _Need) -> str:
    for pattern, check in _CODES:
        match = re.fullmatch(pattern, part)
        if match:
            check(match, d, need)
            return part
    raise _Refusal(f"{part} is not understood; accepted are {ACCEPTED}")


def _no_training(match: re.Match[str], d: int | None, need: _Need) -> None:
    return


def _ranges(match: re.Match[str], d: int | None, need: _Need) -> None:
    need.more(1, 1000)


def _product(match: re.Match[str], d: int | None, need: _Need) -> None:
    part = match.group(0)
    m = _number(match.group("m"), 1, d or MAX_DIMENSION, "parts", part)
    bits = int(match.group("bits") or 8)
    if d is not None and d % m:
        raise _Refusal(f"{part}: m={m} does not divide d={d}")
    if match.group("fast") and bits != 4:
        raise _Refusal(f"{part}: FastScan reads 4 bits, expected PQ{m}x4fs")
    _number(str(bits), 1, MAX_BITS, "bits", part)
    need.more(1 << bits, POINTS_PER_CENTROID << bits)


def _rabitq(match: re.Match[str], d: int | None, need: _Need) -> None:
    if match.group("bits"):
        _number(match.group("bits"), 1, 9, "bits", match.group(0))
    need.more(1, 1000)


def _additive(match: re.Match[str], d: int | None, need: _Need) -> None:
    part = match.group(0)
    m, bits = int(match.group("m")), int(match.group("bits"))
    _number(str(bits), 1, 8, "bits", part)
    _number(str(m * bits), 1, MAX_ADDITIVE_BITS, "bits in all", part)
    need.more(1 << bits, POINTS_PER_CENTROID << bits)


def _hashed(match: re.Match[str], d: int | None, need: _Need) -> None:
    if match.group("t"):
        need.more(1, 1000)


_Check = Callable[[re.Match[str], "int | None", _Need], None]
_CODES: tuple[tuple[str, _Check], ...] = (
    (r"Flat", _no_training),
    (r"SQ(?:fp16|bf16)", _no_training),
    (r"SQ[468]", _ranges),
    (r"PQ(?P<m>\d+)(?:x(?P<bits>\d+))?(?:(?P<fast>fsr?)|np)?", _product),
    (r"RaBitQ(?:fs)?(?P<bits>\d)?", _rabitq),
    (r"(?:RQ|LSQ)(?P<m>\d+)x(?P<bits>\d+)", _additive),
    (r"LSHr?(?P<t>t)?", _hashed),
)

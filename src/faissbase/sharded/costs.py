"""What work on vectors costs on one machine, measured: nanoseconds a number, a code, a list. Pure numbers.

`faissbase.sharded.calibration` measures a `Costs`; `faissbase.sharded.forecast` multiplies with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

import orjson

from faissbase.errors import InvalidInputError

Codec = Literal["Flat", "SQ8", "PQfs", "RaBitQfs", "PQ8"]
CODECS: Final[tuple[Codec, ...]] = get_args(Codec)

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Line:
    """``base + slope * x`` nanoseconds."""

    base: float
    slope: float

    def at(self, x: float) -> float:
        """Nanoseconds for ``x``."""
        return self.base + self.slope * x


@dataclass(frozen=True, slots=True)
class CodecCosts:
    """One kind of code.

    Attributes
    ----------
    encode : Line
        A vector, of d.
    scan : Line
        A code that is compared, of the bytes of its vector's part (norms and factors are in the base).
    probe : Line
        A list that is entered, of d: tables for its residuals, and a place that is in no cache.
    start : Line
        A search before its first list, of d.
    """

    encode: Line
    scan: Line
    probe: Line
    start: Line


@dataclass(frozen=True)
class Costs:
    """CPU time of one thread, nothing in the caches, and what is assumed of disk and network.

    Attributes
    ----------
    machine, measured_on : str
        The processor's name; the day, as ISO date.
    assign : Line
        One vector compared with one centroid while many are assigned (a matrix product), of d.
    train_ratio : float
        A round of k-means over assigning the same vectors to the same centroids.
    coarse : Line
        One query compared with one centroid, of d.
    grouped_assign : Line
        One vector compared with one centroid of the groups that it looks through for its list, while many
        are assigned, of d.
    grouped : Line
        The same for one query.
    rerank : Line
        A true vector read at random from a mapped file that is in memory, and compared, of d.
    record_us, record_bytes : float
        One record with a short id and two fields of metadata: storing it; its part of ``records.sqlite``.
    search_us : float
        What a search of a collection adds around the index: checks, ids and metadata of ten hits.
    codecs : mapping of str to CodecCosts
    read_us, network_ms : float
        Assumed, not measured: a read from a local SSD; a round trip to all shards.
    """

    machine: str
    measured_on: str
    assign: Line
    train_ratio: float
    coarse: Line
    grouped_assign: Line
    grouped: Line
    rerank: Line
    record_us: float
    record_bytes: float
    search_us: float
    codecs: Mapping[str, CodecCosts]
    read_us: float = 100.0
    network_ms: float = 3.3

    def to_json(self) -> bytes:
        """The costs as a JSON document, which `from_json` reads."""
        document = {"format": _FORMAT, **asdict(self)}
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, content: bytes) -> Costs:
        """The costs in a document of `to_json`.

        Raises
        ------
        InvalidInputError
            No such document; says what of it is wrong.
        """
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise InvalidInputError(f"costs must be JSON: {error}") from error
        if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
            wanted = f'costs must be a JSON object with "format": {_FORMAT}'
            raise InvalidInputError(f"{wanted}: measure them again with `faissbase bench calibrate`")
        names = {field.name for field in fields(cls)}
        if document.keys() != names:
            odd = ", ".join(sorted(document.keys() ^ names))
            raise InvalidInputError(f"costs have missing or unknown fields: {odd}")
        return cls(**{name: _read(name, value) for name, value in document.items()})


def _read(name: str, value: Any) -> Any:
    if name in ("machine", "measured_on"):
        if not isinstance(value, str):
            raise InvalidInputError(f"costs: {name} must be text, got {value!r}")
        return value
    if name == "codecs":
        if not isinstance(value, dict) or value.keys() != set(CODECS):
            raise InvalidInputError(f"costs: codecs must be {', '.join(CODECS)}")
        return {codec: CodecCosts(**_lines(codec, value[codec], CodecCosts)) for codec in CODECS}
    if name in _LINES:
        return Line(**_numbers(name, value))
    return _number(name, value)


def _lines(codec: str, value: Any, kind: type[CodecCosts]) -> dict[str, Line]:
    names = [field.name for field in fields(kind)]
    if not isinstance(value, dict) or value.keys() != set(names):
        raise InvalidInputError(f"costs: {codec} must have {', '.join(names)}")
    return {name: Line(**_numbers(f"{codec}.{name}", value[name])) for name in names}


def _numbers(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or value.keys() != {"base", "slope"}:
        raise InvalidInputError(f"costs: {name} must have base and slope")
    return {part: _number(f"{name}.{part}", number) for part, number in value.items()}


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InvalidInputError(f"costs: {name} must be a number of 0 or more, got {value!r}")
    return float(value)


_LINES = {field.name for field in fields(Costs) if field.type == "Line"}

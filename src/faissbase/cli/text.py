"""Values as people read them: counts, sizes, tables, lines that fit. Knows only values and strings."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

_ELLIPSIS = "…"
_SIZE_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def count(n: int, noun: str) -> str:
    """A number and what it counts.

    >>> count(1, "row"), count(42000, "row")
    ('1 row', '42,000 rows')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def size(size_bytes: float) -> str:
    """Bytes in decimal units.

    >>> size(512), size(64_512_000)
    ('512 bytes', '64.5 MB')
    """
    power = 0
    while size_bytes >= 1000 and power < len(_SIZE_UNITS) - 1:
        size_bytes, power = size_bytes / 1000, power + 1
    return f"{size_bytes:.3g} {_SIZE_UNITS[power]}"


def duration(seconds: float) -> str:
    """Seconds, or milliseconds below one of them.

    >>> duration(0.0049), duration(3.14159), duration(125)
    ('4.9 ms', '3.14 s', '125 s')
    """
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"


def rate(per_second: float) -> str:
    """Events a second, in three digits or whole.

    >>> rate(13500.2), rate(0.25)
    ('13,500/s', '0.25/s')
    """
    return f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"


def real(value: float | None) -> str:
    """A score or distance: four decimals where that says something, else four digits.

    >>> real(0.75447), real(1234567.0), real(0.00001), real(None)
    ('0.7545', '1.235e+06', '1e-05', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 10_000 else f"{value:.4g}"


def printable(text: str) -> str:
    """``text`` on one line, without characters that steer a terminal.

    >>> printable("a\\tb" + chr(27) + "[31m")
    'a b�[31m'
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else " " if character.isspace() else "�" for character in text
    )


def width_of(text: str) -> int:
    """Columns that ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip(text: str, width: int | None) -> str:
    """``text`` cut to ``width`` columns, the last of which then says so.

    >>> clip("abcdef", 4), clip("abcd", 4), clip("abcdef", None)
    ('abc…', 'abcd', 'abcdef')
    """
    if width is None or width_of(text) <= width:
        return text
    kept, room = [], max(width, 1) - 1
    for character in text:
        room -= _width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + _ELLIPSIS


def table(rows: Sequence[Sequence[str]], sides: str, gap: str = "  ") -> list[str]:
    """Lines with the columns one under the other; ``sides`` has ``<`` or ``>`` for each column.

    >>> table([["id", "n"], ["a", "10"]], "<>")
    ['id   n', 'a   10']
    """
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    return [gap.join(map(_padded, row, widths, sides)).rstrip() for row in rows]


def _padded(cell: str, width: int, side: str) -> str:
    room = " " * (width - width_of(cell))
    return room + cell if side == ">" else cell + room


def facts(pairs: Mapping[str, str], indent: str = "  ") -> list[str]:
    """One line for each name and value.

    >>> facts({"records": "3", "d": "384"})
    ['  records  3', '  d        384']
    """
    return [indent + line for line in table(list(pairs.items()), "<<")] if pairs else []


def compact(metadata: Mapping[str, Any], fields: Sequence[str] | None = None) -> str:
    """Metadata in one line, all of it or some fields in the order asked for.

    >>> compact({"section": "games", "tags": ["a", "b"], "n": None})
    'section=games  tags=["a","b"]  n=null'
    """
    names = metadata if fields is None else [name for name in fields if name in metadata]
    return "  ".join(f"{printable(name)}={_value(metadata[name])}" for name in names)


def _value(value: Any) -> str:
    return printable(value) if isinstance(value, str) else orjson.dumps(value).decode()


def first_line(document: str) -> str:
    """The first line of a document that has anything on it."""
    return next((printable(line.strip()) for line in document.splitlines() if line.strip()), "")

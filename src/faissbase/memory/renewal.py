"""Which later turn replaces what an earlier one says: "I moved to Porto" after "I live in Lyon".

Knows words of change and how near two turns are to the question; it does not understand either of them, so
it only brings later turns to the front and drops none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

DEPTH = 50
"""How many of the best turns are looked at."""

_AS_NEAR = 0.8
_NEAR_ENOUGH = 0.4

_CHANGE = re.compile(
    r"""\b(?:now|nowadays|these\ days|lately|currently|at\ the\ moment|no\ longer|any\ ?more|instead|actually|
    from\ (?:now|here)\ on|new|just|used\ to|moved?|moving|switch(?:ed|ing)?|chang(?:ed|ing)|replac(?:ed|ing)|
    renam(?:ed|ing)|(?:re)?schedul(?:ed|ing)|postpon(?:ed|ing)|push(?:ed)?\ (?:back|to)|relocat(?:ed|ing)|
    transferr(?:ed|ing)|start(?:ed|ing)|began|join(?:ed|ing)|quit(?:ting)?|left|leaving|became|becoming|
    dropp(?:ed|ing)|g(?:ave|iving)\ (?:\w+\ )?up|t(?:ook|aking)\ (?:over|up)|sold|bought|got|went|turned|
    broke\ up|split\ up|divorced|married|engaged|hired|fired|retired|promoted|extended|shortened|
    rais(?:ed|ing)|lower(?:ed|ing)|cancell?(?:ed|ing)|clos(?:ed|ing)|expir(?:ed|es)|updat(?:ed|e|ing)|
    correct(?:ed|ion)|stopp(?:ed|ing)|swapp(?:ed|ing)|trad(?:ed|ing)|upgrad(?:ed|ing))\b""",
    re.I | re.X,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A turn beside a question: its words and vector by the index's measure, and the bare cosine."""

    text: str
    speaker: str
    at_s: float
    own: float
    cosine: float


def successors(statements: Sequence[Statement], n: int) -> list[int]:
    """Places of up to ``n`` statements that may replace the first one, the latest first.

    They are later, by the same speaker, and about as near to the question as the first; or not quite half
    as near, where they speak of a change.
    """
    if not statements:
        return []
    first = statements[0]
    found = [
        (nearness, place)
        for place, later in enumerate(statements[:DEPTH])
        if later.speaker == first.speaker
        and later.at_s > first.at_s
        and (nearness := _nearness(later, first)) >= _NEAR_ENOUGH
        and (nearness >= _AS_NEAR or speaks_of_change(later.text))
    ]
    best = sorted(found, key=lambda one: (-one[0], one[1]))[:n]
    return sorted((place for _, place in best), key=lambda place: (-statements[place].at_s, place))


def speaks_of_change(text: str) -> bool:
    """Whether something in ``text`` is no longer what it was.

    >>> speaks_of_change("We switched to tea."), speaks_of_change("I drink tea.")
    (True, False)
    """
    return bool(_CHANGE.search(text))


def _nearness(later: Statement, first: Statement) -> float:
    """The nearness to the question of ``later`` over that of ``first``, by cosine or by words and vector."""
    by_cosine = later.cosine / first.cosine if first.cosine > 0 else 0.0
    return max(by_cosine, later.own / first.own if first.own > 0 else 0.0)

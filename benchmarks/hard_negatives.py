"""Questions changed by rule so that they ask something else: what a cache must not take for the same.

Knows nothing of the guards that are measured with them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

_NUMBER = re.compile(r"(?<![\w.,])\d{1,4}(?![\w.,%])")
_NAME = re.compile(r"(?<=[a-z] )[A-Z][a-z]{2,}(?: [A-Z][a-z]+)*(?![\w'])")
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_NO_NAMES = re.compile(rf"\b(?:Best|Why|And|Today|What|Is|The|{_MONTHS})\b")
_AUXILIARY = re.compile(
    r"\b(?:should|can|could|will|would|does|did|is|are|was|were) (?:I|we|you|he|she|it|they|the \w+|\w+s)\b"
)
_UNITS = (
    ("km", "miles"), ("kg", "pounds"), ("days", "weeks"), ("months", "years"), ("hours", "minutes"),
    ("dollars", "euros"), ("rupees", "dollars"), ("cm", "inches"),
    ("GB", "MB"), ("inch", "cm"), ("lakhs", "crores"),
)  # fmt: skip
_UNIT = re.compile(rf"(?<=\d )(?:{'|'.join(unit for pair in _UNITS for unit in pair)})\b")
_OTHER_UNIT = {one: other for pair in _UNITS for one, other in (pair, pair[::-1])}
_ROUTE = re.compile(r"\bfrom ((?:an? |the )?\w+) to ((?:an? |the )?\w+)\b")
_LIST = re.compile(r"\b(and|or|vs|versus|between|&)\b|,")


def made(questions: Sequence[str], per_kind: int, seed: int) -> dict[str, list[tuple[str, str]]]:
    """Pairs of a question and its change, by kind of change; no more than ``per_kind`` of each."""
    chosen = random.Random(seed)
    shuffled = sorted(set(questions))
    chosen.shuffle(shuffled)
    names = sorted({name for question in shuffled for name in _NAME.findall(question)})
    rules: dict[str, Callable[[str], str | None]] = {
        "number changed": lambda question: renumbered(question, chosen),
        "unit changed": remeasured,
        "negated": negated,
        "name exchanged": lambda question: renamed(question, names, chosen),
        "names swapped": swapped,
        "direction reversed": reversed_route,
    }
    return {kind: list(_changed(shuffled, rule, per_kind)) for kind, rule in rules.items()}


def _changed(
    questions: Sequence[str], rule: Callable[[str], str | None], most: int
) -> Iterator[tuple[str, str]]:
    n = 0
    for question in questions:
        changed = rule(question)
        if changed is not None and changed != question and n < most:
            n += 1
            yield question, changed


def renumbered(question: str, chosen: random.Random) -> str | None:
    """One number raised by one to nine."""
    found = _NUMBER.search(question)
    if found is None:
        return None
    return f"{question[: found.start()]}{int(found[0]) + chosen.randint(1, 9)}{question[found.end() :]}"


def remeasured(question: str) -> str | None:
    """Another unit behind a number."""
    found = _UNIT.search(question)
    return None if found is None else question.replace(found[0], _OTHER_UNIT[found[0]])


def negated(question: str) -> str | None:
    """ "not" behind the subject of the question, "without" for "with"."""
    if " with " in question:
        return question.replace(" with ", " without ", 1)
    found = _AUXILIARY.search(question)
    if found is None or re.search(r"\bnot\b|n't", question):
        return None
    return f"{question[: found.end()]} not{question[found.end() :]}"


def renamed(question: str, names: Sequence[str], chosen: random.Random) -> str | None:
    """One name exchanged for a name of another question."""
    found = _NAME.search(question)
    other = chosen.choice(names) if names else ""
    if found is None or other in question or found[0] in other:
        return None
    return f"{question[: found.start()]}{other}{question[found.end() :]}"


def swapped(question: str) -> str | None:
    """Two names in each other's place, where they are no members of one list."""
    found = list(_NAME.finditer(question))
    if (
        len(found) != 2
        or found[0][0] == found[1][0]
        or _LIST.search(question)
        or _NO_NAMES.search(found[0][0] + " " + found[1][0])
    ):
        return None
    one, other = found
    middle = question[one.end() : other.start()]
    return f"{question[: one.start()]}{other[0]}{middle}{one[0]}{question[other.end() :]}"


def reversed_route(question: str) -> str | None:
    """ "from A to B" becomes "from B to A"."""
    return _ROUTE.sub(r"from \2 to \1", question, count=1) if _ROUTE.search(question) else None

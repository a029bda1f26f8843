"""Where a Markdown text has its headings. Knows text only.

**Source**: CommonMark 0.31.2, sections 4.2 (ATX headings), 4.3 (setext headings) and 4.5 (fenced code).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NOT_A_PARAGRAPH = re.compile(r"\s*$| {4}|\t| {0,3}(?:[-*+>#|]|\d+[.)])")
_LINK = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_MARKS = re.compile(r"[*`]+|(?<!\w)_+|_+(?!\w)")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: where its line begins, 1 to 6, its plain text."""

    start: int
    level: int
    title: str


class Outline:
    """The headings of a Markdown text, and which are above a place in it."""

    def __init__(self, text: str) -> None:
        self.headings = list(_headings(text))
        self._starts = [heading.start for heading in self.headings]
        self._paths: list[tuple[Heading, ...]] = [()]
        for heading in self.headings:
            above = (each for each in self._paths[-1] if each.level < heading.level)
            self._paths.append((*above, heading))

    def at(self, place: int) -> tuple[str, ...]:
        """The titles that a place stands under, the outermost first; a heading stands under itself."""
        return tuple(heading.title for heading in self._paths[bisect_right(self._starts, place)])


def _headings(text: str) -> Iterator[Heading]:
    start, fence, paragraph = _after_front_matter(text), "", None
    for line in text[start:].splitlines(keepends=True):
        bare = line.rstrip("\r\n")
        mark = _FENCE.match(bare)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
        elif mark and not (mark[1][0] == "`" and "`" in mark[2]):
            fence, paragraph = mark[1], None
        elif atx := _ATX.match(bare):
            yield Heading(start, len(atx[1]), _plain(atx[2] or ""))
            paragraph = None
        elif paragraph is not None and (underline := _UNDERLINE.match(bare)):
            yield Heading(paragraph[0], 1 if underline[1][0] == "=" else 2, _plain(paragraph[1]))
            paragraph = None
        else:
            paragraph = None if _NOT_A_PARAGRAPH.match(bare) else paragraph or (start, bare)
        start += len(line)


def _after_front_matter(text: str) -> int:
    """Where the text begins after a block of YAML between two lines of ``---``, if it begins with one."""
    found = re.match(r"---[ \t]*\r?\n.*?^---[ \t]*(?:\r?\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return found.end() if found else 0


def _plain(title: str) -> str:
    return _MARKS.sub("", _LINK.sub(r"\1", title)).strip()

"""Records of several shards page by page, the oldest shard first. A cursor is a shard and a place in it."""

from __future__ import annotations

from collections.abc import Iterator

from faissbase.errors import ConflictError, InvalidInputError
from faissbase.sharded.group import Group
from faissbase.types import Page, Record, Where


def page_of(group: Group, where: Where | None, limit: int, cursor: str | None, vectors: bool) -> Page:
    """The next ``limit`` matching records behind ``cursor``.

    Raises
    ------
    ConflictError
        The shard of the cursor is not part of this version.
    """
    names = list(group.names)
    shard, inner = _parsed(cursor)
    if shard is not None and shard not in names:
        raise ConflictError(f"shard {shard} is not part of version {group.version}: start again")
    records: list[Record] = []
    for place in range(0 if shard is None else names.index(shard), len(names)):
        page = group.page(names[place], where, limit - len(records), inner, vectors)
        records += page.records
        inner = page.cursor
        if inner is not None:
            return Page(records, f"{names[place]}:{inner}")
        if len(records) == limit and place + 1 < len(names):
            return Page(records, f"{names[place + 1]}:")
    return Page(records, None)


def pages_of(group: Group, where: Where | None, limit: int, vectors: bool) -> Iterator[Page]:
    """All matching records, ``limit`` a page."""
    cursor: str | None = None
    while True:
        page = page_of(group, where, limit, cursor, vectors)
        yield page
        cursor = page.cursor
        if cursor is None:
            return


def _parsed(cursor: str | None) -> tuple[str | None, str | None]:
    """Shard and the cursor within it."""
    if cursor is None:
        return None, None
    shard, found, inner = cursor.partition(":") if isinstance(cursor, str) else ("", "", "")
    if not found or not shard:
        raise InvalidInputError(f"cursor {cursor!r} was not made by scroll()")
    return shard, inner or None

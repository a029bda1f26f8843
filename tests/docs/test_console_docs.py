"""docs/console.md says what is so, and its picture is there."""

from __future__ import annotations

import re
from pathlib import Path

from faissbase.server.pages import ROUTE, pages
from faissbase.server.settings import DEFAULTS, load

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "console.md").read_text()
MOST_BYTES = 150_000


def test_the_policy_is_the_one_that_is_served() -> None:
    headers = dict(pages()[f"{ROUTE}/"].headers)
    [told] = re.findall(r"^default-src .*$", PAGE, re.MULTILINE)
    assert headers[b"content-security-policy"].decode() == told


def test_the_ways_to_turn_it_off_do() -> None:
    for text in ("--no-console", "FAISSBASE_CONSOLE=false", "console = false"):
        assert f"`{text}`" in PAGE
    assert DEFAULTS["console"] is True
    assert load({}, {"FAISSBASE_CONSOLE": "false"})[0].console is False


def test_the_picture_is_there_and_small() -> None:
    [picture] = re.findall(r"!\[.+\]\((.+)\)", PAGE)
    content = (DOCS / picture).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < MOST_BYTES


def test_the_console_is_found_from_the_readme_and_the_page_of_the_server() -> None:
    assert "(docs/console.md)" in (DOCS.parent / "README.md").read_text()
    assert "(console.md)" in (DOCS / "server.md").read_text()


def test_what_is_named_in_the_page_is_in_the_console() -> None:
    texts = "\n".join(each.content.decode() for each in pages().values())
    named = re.findall(r"(?<!\*)\*([A-Z][a-z ]+)\*(?!\*)", PAGE) + re.findall(
        r"^\* \*\*([A-Z]\w+)\*\*", PAGE, re.MULTILINE
    )
    assert len(named) >= 8
    for name in named:
        assert f'"{name}"' in texts, name

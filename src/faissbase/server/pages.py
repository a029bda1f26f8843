"""The files of the console: read once, then answered from memory, by their exact paths and no others.

Knows no keys and no data: the files are the same for everybody, and hold nothing of anybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath

ROUTE = "/console"
METHODS = ("GET",)
_FIRST = "index.html"
_MEDIA = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
# Scripts and styles of these files alone, requests to this server alone, and no text that becomes markup.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)
_SECURITY = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),  # asked for again each time, and then answered by 304
)
Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One answer; ``tag`` is its ETag, empty for those that lead elsewhere."""

    status: int
    content: bytes
    headers: Headers
    tag: bytes = b""

    def is_known(self, if_none_match: bytes) -> bool:
        """Whether the caller has it already, by what ``If-None-Match`` says."""
        tags = {each.strip().removeprefix(b"W/") for each in if_none_match.split(b",")}
        return bool(self.tag) and not tags.isdisjoint((self.tag, b"*"))


def pages() -> Mapping[str, Page]:
    """Every path of the console, and what it is answered with."""
    folder = files(__package__) / "console"
    found = {
        f"{ROUTE}/{file.name}": _page(file.name, file.read_bytes())
        for file in folder.iterdir()
        if PurePosixPath(file.name).suffix in _MEDIA
    }
    found[f"{ROUTE}/"] = found[f"{ROUTE}/{_FIRST}"]
    # Relative, so that they lead there below the prefix of a proxy, too.
    found["/"] = found[ROUTE] = _leading_to(b"console/")
    return found


def _page(name: str, content: bytes) -> Page:
    tag = b'"%s"' % hashlib.sha256(content).hexdigest()[:32].encode()
    media = _MEDIA[PurePosixPath(name).suffix]
    return Page(200, content, ((b"content-type", media), (b"etag", tag), *_SECURITY), tag)


def _leading_to(place: bytes) -> Page:
    return Page(307, b"", ((b"location", place), *_SECURITY))

"""What pages of other origins may ask by a browser, and read of the answers. Knows no cookies."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_METHODS = ("GET", "POST", "DELETE")
_SENT = ("X-API-Key", "Authorization", "Content-Type", "Content-Encoding", "Idempotency-Key", "X-Request-Id")
_SHOWN = ("X-Request-Id", "Retry-After")


def with_cors(app: ASGIApp, origins: list[str]) -> ASGIApp:
    """``app``, which browsers let pages of these origins use; preflights are answered without a key."""
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=_METHODS, allow_headers=_SENT, expose_headers=_SHOWN
    )

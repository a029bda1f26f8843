"""Imports what a server needs, before it is forked: see `forked`."""

from __future__ import annotations

import uvicorn.lifespan.off

import faissbase.server.run
from faissbase.cli.main import build_parser

build_parser()

__all__ = ["faissbase", "uvicorn"]

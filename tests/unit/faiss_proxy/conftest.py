"""FAISS beside the proxy, whose server is in this process: no socket, no other process."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import pytest

import faiss_proxy
from faiss_proxy import settings
from faiss_proxy.connection import Connection, Transfer
from faissbase.dropin import frames
from faissbase.dropin.calls import Calls, Rights
from faissbase.dropin.reading import Reader


class _InProcess(Connection):
    """A connection whose frames are answered here, by what a server's process answers them with."""

    def __init__(self, calls: Calls) -> None:
        super().__init__("http://in.process", None, None, ca_file=None, timeout_s=60.0)
        self._calls = calls

    def _tried(
        self, pieces: list[memoryview], transfer: Transfer
    ) -> tuple[dict[str, Any], list[frames.Array]]:
        body, arrays = frames.unpack(b"".join(pieces))
        saved = body["name"] if body["op"] == "save" else None
        answer, found = self._calls.answer(body, arrays, Rights("acme", "key", may_write=True, saved=saved))
        sent = io.BytesIO(b"".join(frames.pack(answer, found)))

        def fill(target: memoryview) -> None:
            sent.readinto(target)

        return frames.read(fill, sent.getbuffer().nbytes, transfer.allocate)


@pytest.fixture
def modules(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """`faiss`, and `faiss_proxy` for which a server is chosen."""
    connection = _InProcess(Calls(tmp_path, 600.0, Reader()))
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    with settings._chosen(connection):
        yield faiss, faiss_proxy
    faiss.omp_set_num_threads(before)

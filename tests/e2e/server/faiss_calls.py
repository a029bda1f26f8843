"""Calls of FAISS as a client of any kind sends them: frames made by hand, over plain HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tests.e2e.server.running import PATIENCE_S, Running

from faissbase.dropin import frames

PATH, MEDIA = frames.PATH, frames.MEDIA
_MOST = 1 << 40


def worker_of(running: Running, tenant: str = "default") -> int:
    """The process with the FAISS objects of a tenant: the server's child, not the one that reads files."""
    [found] = [
        int(each.name)
        for each in Path("/proc").iterdir()
        if each.name.isdigit()
        and f"{running.folder}/{tenant}/.faiss" in _text(each / "cmdline")
        and f"PPid:\t{running.process.pid}\n" in _text(each / "status")
    ]
    return found


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def framed(body: Any, arrays: Sequence[frames.Array] = ()) -> bytes:
    return b"".join(frames.pack(body, arrays))


def unframed(content: bytes) -> tuple[Any, list[frames.Array]]:
    at, view = 0, memoryview(content)

    def fill(target: memoryview) -> None:
        nonlocal at
        target[:] = view[at : at + target.nbytes]
        at += target.nbytes

    return frames.read(fill, _MOST)


class Failed(Exception):
    """What the server's FAISS, or who guards it, has answered with."""

    def __init__(self, fault: dict[str, Any]) -> None:
        super().__init__(fault)
        self.kind = str(fault.get("ours") or fault.get("refused") or fault.get("type"))
        self.text = " ".join(map(str, fault["args"]))


class Caller:
    """A session of a client. Objects are their numbers, wrapped by `thing`."""

    def __init__(self, running: Running, key: str | None = None, session: str | None = None) -> None:
        headers = {"content-type": MEDIA} | ({"X-API-Key": key} if key else {})
        self.http = httpx.Client(base_url=running.url, headers=headers, trust_env=False, timeout=PATIENCE_S)
        self.session = session or uuid.uuid4().hex

    def post(self, content: bytes, **headers: str) -> httpx.Response:
        return self.http.post(PATH, content=content, headers=headers)

    def ask(self, op: str, arrays: Sequence[frames.Array] = (), **body: Any) -> Any:
        """What an op brings; `Failed` with its error."""
        response = self.post(framed({"op": op, "session": self.session, **body}, arrays))
        assert response.status_code == 200, response.text
        answer, found = unframed(response.content)
        if "error" in answer:
            raise Failed(answer["error"])
        return frames.decode(answer["result"], found, lambda _, content: content[0])

    def factory(self, text: str, d: int = 8) -> int:
        return int(self.ask("function", name="index_factory", args=[d, text]))

    def call(self, target: int, name: str, *args: Any) -> Any:
        arrays: list[frames.Array] = []
        tree = [frames.encode(each, arrays, special) for each in args]
        return self.ask("call", arrays, name=name, target=target, args=tree)

    def get(self, target: int, name: str) -> Any:
        return self.ask("get", name=name, target=target)

    def set(self, target: int, name: str, value: Any) -> None:
        self.ask("set", name=name, target=target, value=value)

    def open(self, name: str) -> int:
        return int(self.ask("open", name=name))


class Thing(int):
    """The number of an object, given as an argument."""


def special(value: Any) -> Any:
    return {"object": int(value)} if type(value) is Thing else None


def rows(n: int, d: int = 8, seed: int = 1) -> frames.Array:
    return np.random.default_rng(seed).random((n, d), np.float32)

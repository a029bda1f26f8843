"""Answers that are files: sent as fast as they are taken, closed at the end."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import IO

from starlette.types import Message, Receive, Send

from faissbase.errors import UnavailableError

CONTENT_TYPE = "application/x-tar"
_PIECE_BYTES = 1 << 20


class Download:
    """A file that is open, closed once it was sent or whoever asked has gone."""

    def __init__(self, name: str, timeout_s: float) -> None:
        self.headers = [(b"content-disposition", f'attachment; filename="{name}"'.encode())]
        self.n_bytes = 0
        self.file: IO[bytes] | None = None
        self._timeout_s = timeout_s

    def fill(self, file: IO[bytes]) -> None:
        self.file = file
        self.n_bytes = os.fstat(file.fileno()).st_size

    async def send(self, receive: Receive, send: Send) -> None:
        """Send the file; the head of the answer has gone before.

        Raises
        ------
        UnavailableError
            Nothing of it was taken for too long.
        """
        gone = asyncio.ensure_future(receive())  # the body was read: what comes next is the end
        try:
            await self._send(gone, send)
        finally:
            gone.cancel()
            self.close()

    async def _send(self, gone: asyncio.Future[Message], send: Send) -> None:
        assert self.file is not None
        loop = asyncio.get_running_loop()
        piece = b" "
        while piece and not gone.done():
            piece = await loop.run_in_executor(None, partial(self.file.read, _PIECE_BYTES))
            message: Message = {"type": "http.response.body", "body": piece, "more_body": bool(piece)}
            try:
                await asyncio.wait_for(send(message), self._timeout_s)
            except (TimeoutError, asyncio.TimeoutError):
                raise UnavailableError(f"nothing of the file was taken for {self._timeout_s:g} s") from None

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

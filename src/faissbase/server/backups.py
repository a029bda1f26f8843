"""The route of backups: a tenant's collections as one file, sent as fast as it is taken."""

from __future__ import annotations

import asyncio
import os
import threading
from functools import partial
from typing import IO
from weakref import WeakValueDictionary

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from faissbase.errors import AccessError, ConflictError, UnavailableError
from faissbase.server.operations import Call, Operation
from faissbase.wire import Empty

CONTENT_TYPE = "application/x-tar"
_PIECE_BYTES = 1 << 20
_lock = threading.Lock()


class Download(Response):
    """A file that is open, closed once it was sent or whoever asked has gone."""

    media_type = CONTENT_TYPE

    def __init__(self, name: str, timeout_s: float) -> None:
        super().__init__(headers={"content-disposition": f'attachment; filename="{name}"'})
        self._timeout_s = timeout_s
        self.file: IO[bytes] | None = None

    def fill(self, file: IO[bytes]) -> None:
        self.file = file
        self.headers["content-length"] = str(os.fstat(file.fileno()).st_size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(receive())  # the body was read: what comes next is the end
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
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


# Those that are being made or sent: one for each tenant, for each takes room on the disk.
_running: WeakValueDictionary[tuple[int, str], Download] = WeakValueDictionary()


def backup(call: Call) -> Download:
    if call.key.indexes is not None:
        raise AccessError("a key that is limited to some indexes may not make backups")
    tenant = call.key.tenant
    download = Download(f"{tenant}.faissbase", call.settings.body_timeout_s)
    with _lock:
        other = _running.get((id(call.tenants), tenant))
        if other is not None and (other.file is None or not other.file.closed):
            raise ConflictError("a backup of this tenant is being made or sent: wait for its end")
        _running[id(call.tenants), tenant] = download
    download.fill(call.tenants.database(tenant).open_backup())
    return download


OPERATIONS = (
    Operation(
        ("POST",),
        "/backup",
        "admin",
        "All of this tenant's indexes as one file",
        backup,
        Download,
        Empty,
        is_long=True,
    ),
)

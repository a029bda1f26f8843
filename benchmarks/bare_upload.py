"""What an upload to the server's stack costs at best: raw ASGI that copies each body into memory.

Run by `benchmarks.dropin` as ``python -m benchmarks.bare_upload PORT``.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import uvicorn


async def _app(scope: Any, receive: Any, send: Any) -> None:
    headers = dict(scope["headers"])
    kept = memoryview(np.empty(int(headers[b"content-length"]), np.uint8).data)
    done, is_more = 0, True
    while is_more:
        message = await receive()
        piece, is_more = message.get("body", b""), message.get("more_body", False)
        kept[done : done + len(piece)] = piece
        done += len(piece)
    content = str(done).encode()
    sent = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": sent})
    await send({"type": "http.response.body", "body": content})


def main() -> None:
    config = uvicorn.Config(_app, port=int(sys.argv[1]), lifespan="off", log_config=None, access_log=False)
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()

"""What the server's stack can do at best: raw ASGI, msgspec, one raw FAISS search, one answer. No database.

Run by `benchmarks.server` as ``python -m benchmarks.bare_server VECTORS PORT EF``.
"""

from __future__ import annotations

import sys
from typing import Any

import faiss
import msgspec
import numpy as np
import uvicorn

_M = 32
_EF_CONSTRUCTION = 100


class _Search(msgspec.Struct):
    vector: list[float]
    k: int


class _Bare:
    def __init__(self, vectors: Any, ef: int) -> None:
        self._index = faiss.IndexHNSWSQ(
            vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, _M, faiss.METRIC_INNER_PRODUCT
        )
        self._index.hnsw.efConstruction = _EF_CONSTRUCTION
        self._index.train(vectors)
        self._index.add(vectors)
        faiss.omp_set_num_threads(1)
        self._parameters = faiss.SearchParametersHNSW(efSearch=ef)
        self._decoder = msgspec.json.Decoder(_Search)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, is_more = b"", True
        while is_more:
            message = await receive()
            body += message.get("body", b"")
            is_more = message.get("more_body", False)
        asked = self._decoder.decode(body)
        query = np.array([asked.vector], np.float32)
        scores, labels = self._index.search(query, asked.k, params=self._parameters)
        hits = [
            {"id": str(label), "score": score, "distance": score, "metadata": {"rank": label}}
            for label, score in zip(labels[0].tolist(), scores[0].tolist(), strict=True)
        ]
        content = msgspec.json.encode({"results": hits})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def main() -> None:
    vectors = np.load(sys.argv[1])
    config = uvicorn.Config(
        _Bare(vectors, int(sys.argv[3])),
        port=int(sys.argv[2]),
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()

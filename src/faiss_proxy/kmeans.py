"""FAISS's ``Kmeans``, trained here or, where asked for, on the server."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from faiss_proxy import classes
from faiss_proxy.connection import RemoteError
from faiss_proxy.settings import active


class Kmeans(faiss.Kmeans):  # type: ignore[misc]  # faiss has no types for it
    """``faiss.Kmeans``; with ``remote=True`` it is trained on the configured server.

    That pays where the server has more cores, or GPUs (``gpu=True`` means the server's then). The vectors
    travel once; centroids, ``obj`` and ``iteration_stats`` come back, and `assign` runs here.

    Raises
    ------
    RemoteError
        ``remote=True``, and no server is configured.
    """

    def __init__(self, d: int, k: int, *, remote: bool = False, **kwargs: Any) -> None:
        if remote and active() is None:
            raise RemoteError("remote=True, and no server is configured: call configure(api_url=...) first")
        self._connection = active() if remote else None
        self._options = kwargs
        here = {name: value for name, value in kwargs.items() if not (remote and name == "gpu")}
        super().__init__(d, k, **here)

    def train(self, x: Any, weights: Any = None, init_centroids: Any = None) -> Any:
        """Find the centroids; the final objective."""
        if isinstance(getattr(self, "index", None), classes.Remote):
            raise RemoteError(
                "this Kmeans trains in this process, and its index is on a server: fetch it with "
                ".to_local(), or train there with Kmeans(..., remote=True)"
            )
        if self._connection is None:
            return super().train(x, weights, init_centroids)
        x = np.ascontiguousarray(x, dtype="float32")
        _, d = x.shape
        assert d == self.d
        asked = (self.d, self.k, self._options, x, weights, init_centroids)
        found = classes._function(self._connection, "Kmeans", asked, {})
        self.centroids, self.obj, self.iteration_stats = found
        self.index.reset()
        self.index.add(self.centroids)
        return self.obj[-1] if self.obj.size > 0 else 0.0

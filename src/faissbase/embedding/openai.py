"""Embeddings from an OpenAI-compatible server. Knows the form of its requests; `endpoint` sends them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from faissbase.embedding.embedder import Checked, check_texts, check_vectors
from faissbase.embedding.endpoint import Endpoint
from faissbase.errors import InvalidInputError, UnavailableError
from faissbase.types import Float32

_BATCH_CHARACTERS = 200_000


class OpenAIEmbedder(Checked):
    """Embeds by ``POST {base_url}/embeddings``: OpenAI, Ollama, vLLM, TEI and what speaks like them.

    Parameters
    ----------
    model : str
        What the server calls its model; also the embedder's name.
    base_url, api_key, timeout_s, retries
        See `Endpoint`.
    dimension : int, optional
        What the vectors must have. Where none is given, the first text embedded tells.
    batch_size : int
        Texts a request; long texts travel in smaller batches.
    parameters : mapping, optional
        More fields of each request, ``{"dimensions": 256}`` for instance, where the model takes them.

    **Source**: the OpenAI API reference, "Create embeddings".
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimension: int | None = None,
        batch_size: int = 256,
        timeout_s: float = 60.0,
        retries: int = 3,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        if not model or batch_size < 1:
            raise InvalidInputError(f"a model's name and batch_size ≥ 1 wanted, got {model!r}, {batch_size}")
        self._endpoint = Endpoint(base_url, api_key, timeout_s=timeout_s, retries=retries)
        self._dimension = dimension
        self._batch_size = batch_size
        self._fields = {**(parameters or {}), "model": model}
        self.name = model

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            self._dimension = self.embed(["dimension"]).shape[1]
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Float32:
        """One vector a text, ``float32[n, dimension]``.

        Raises
        ------
        InvalidInputError, AccessError, UnavailableError
            See `Endpoint.post`; or the vectors are not of the dimension, or not finite.
        """
        asked = check_texts(texts)
        if not asked:
            return np.empty((0, self.dimension), np.float32)
        return np.concatenate([self._batch(batch) for batch in self._batches(asked)])

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _batches(self, texts: list[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        size = 0
        for text in texts:
            if batch and (len(batch) == self._batch_size or size + len(text) > _BATCH_CHARACTERS):
                yield batch
                batch, size = [], 0
            batch.append(text)
            size += len(text)
        yield batch

    def _batch(self, texts: list[str]) -> Float32:
        answer = self._endpoint.post("embeddings", {**self._fields, "input": texts})
        vectors = check_vectors(
            _vectors_of(answer, len(texts), self.name), len(texts), self._dimension, self.name
        )
        self._dimension = vectors.shape[1]
        return vectors


def _vectors_of(answer: Any, n: int, name: str) -> list[Any]:
    """The vectors in the order of the texts: servers may answer in another."""
    try:
        items = sorted(answer["data"], key=lambda item: item["index"])
        indices = [item["index"] for item in items]
        vectors = [item["embedding"] for item in items]
    except (KeyError, TypeError) as error:
        raise UnavailableError(
            f"the server of {name!r} answered no embeddings: {str(answer)[:200]}"
        ) from error
    if indices != list(range(n)):
        raise UnavailableError(f"the server of {name!r} answered {len(indices)} vectors for {n} texts")
    return vectors

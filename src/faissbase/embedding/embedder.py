"""What an embedder is, and how anything that embeds becomes one. Knows no model and no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from faissbase.embedding.awaiting import settled
from faissbase.errors import ConflictError, FaissbaseError, InvalidInputError, UnavailableError
from faissbase.types import MAX_DIMENSION, Float32

_PROBE = "dimension"


@runtime_checkable
class Embedder(Protocol):
    """What every layer asks of an embedder."""

    @property
    def name(self) -> str:
        """Which model this is: stored beside what it embedded, and compared on reopening."""

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""

    def embed(self, texts: Sequence[str]) -> Float32:
        """One vector a text, ``float32[n, dimension]``, in order."""


class Checked:
    """What the embedders of this package are: their vectors have been checked, those of others have not."""


EmbedderSource: TypeAlias = "Embedder | Callable[[list[str]], Any] | Any"


def as_embedder(source: EmbedderSource, *, name: str | None = None, dimension: int | None = None) -> Embedder:
    """Anything that embeds, as an `Embedder`.

    Parameters
    ----------
    source : Embedder, callable or model
        An `Embedder`; a callable that takes a list of n texts and returns or yields n vectors; a model of
        sentence-transformers (``encode``); or LangChain's ``Embeddings`` (``embed_documents``). For a
        function of one text: ``lambda texts: [f(text) for text in texts]``. Callables, and ``embed`` of an
        `Embedder`, may be asynchronous.
    name : str, optional
        What is stored beside the vectors. Where none is given, the model's own name, or the callable's
        ``module.name``. An `Embedder` keeps its own.
    dimension : int, optional
        What the vectors must have. Where none is given, the first text embedded tells.

    Raises
    ------
    InvalidInputError
        Not something that embeds, or ``dimension`` is not the embedder's.
    """
    if isinstance(source, Embedder):
        if dimension is not None and source.dimension != dimension:
            raise InvalidInputError(
                f"expected an embedder of dimension {dimension}, {source.name!r} has {source.dimension}"
            )
        return source if isinstance(source, Checked) else _Foreign(source)
    call = _call_of(source)
    if dimension is not None and not 1 <= dimension <= MAX_DIMENSION:
        raise InvalidInputError(f"dimension must be 1 to {MAX_DIMENSION}, got {dimension}")
    return _Called(call, name or _name_of(source), dimension)


def _call_of(source: Any) -> Callable[[list[str]], Any]:
    for method in ("embed_documents", "encode"):
        if callable(found := getattr(source, method, None)) and not isinstance(source, (str, bytes)):
            return found  # type: ignore[no-any-return]
    if not callable(source):
        raise InvalidInputError(
            f"an embedder is a callable from a list of texts to vectors, or has name, dimension and embed: "
            f"got {type(source).__name__}"
        )
    return source  # type: ignore[no-any-return]


def _name_of(source: Any) -> str:
    told = (getattr(source, "model", None), getattr(source, "model_name", None), *_sentence_names(source))
    for text in told:
        if isinstance(text, str) and text:
            return text
    kind = source if hasattr(source, "__qualname__") else type(source)
    return f"{kind.__module__}.{kind.__qualname__}"


def _sentence_names(source: Any) -> Iterator[Any]:
    """What a model of sentence-transformers was loaded by; its card tells only where the Hub was asked."""
    card = getattr(source, "model_card_data", None)
    if card is None:
        return
    with suppress(AttributeError, LookupError, TypeError):
        yield source[0].auto_model.config._name_or_path
    yield getattr(card, "base_model", None)


class _Foreign(Checked):
    """Somebody else's embedder, whose vectors are checked."""

    def __init__(self, source: Embedder) -> None:
        self._source = source

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def dimension(self) -> int:
        return self._source.dimension

    def embed(self, texts: Sequence[str]) -> Float32:
        asked = check_texts(texts)
        if not asked:
            return np.empty((0, self.dimension), np.float32)
        return check_vectors(settled(self._source.embed(asked)), len(asked), self.dimension, self.name)


class _Called(Checked):
    """A callable as an embedder."""

    def __init__(self, call: Callable[[list[str]], Any], name: str, dimension: int | None) -> None:
        self._call = call
        self._dimension = dimension
        self.name = name

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            self._dimension = self.embed([_PROBE]).shape[1]
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Float32:
        asked = check_texts(texts)
        if not asked:
            return np.empty((0, self.dimension), np.float32)
        return check_vectors(settled(self._call(asked)), len(asked), self._dimension, self.name)


def embedded(embedder: Embedder, texts: Sequence[str]) -> Float32:
    """What ``embedder`` gives for ``texts``, or `UnavailableError` where it fails in a way of its own."""
    try:
        return embedder.embed(texts)
    except FaissbaseError:
        raise
    except Exception as error:  # other people's code, often a model far away
        raise UnavailableError(f"the embedder {embedder.name!r} failed: {error!r}") from error


def check_texts(texts: Sequence[str]) -> list[str]:
    """``texts`` as a list.

    Raises
    ------
    InvalidInputError
        One string instead of a list of them, or something that is no string.
    """
    if isinstance(texts, (str, bytes)):
        raise InvalidInputError(f"embed takes a list of texts, got one {type(texts).__name__}: embed([text])")
    found = list(texts)
    for row, text in enumerate(found):
        if not isinstance(text, str):
            raise InvalidInputError(f"text {row} is {type(text).__name__}, expected str")
    return found


def check_vectors(vectors: Any, n: int, dimension: int | None, name: str) -> Float32:
    """What a model has returned for n texts, as ``float32[n, dimension]``.

    Raises
    ------
    InvalidInputError
        Another shape, or a number that is not finite: it says which row.
    """
    if isinstance(vectors, Iterator):
        vectors = list(islice(vectors, n + 1))
    try:
        found = np.ascontiguousarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"embedder {name!r} returned no array of numbers: {error}") from error
    if found.ndim != 2 or len(found) != n or not found.shape[1]:
        raise InvalidInputError(
            f"embedder {name!r} returned shape {found.shape} for {n} texts, expected ({n}, d): "
            "a function of one text is given as lambda texts: [f(text) for text in texts]"
        )
    if dimension is not None and found.shape[1] != dimension:
        raise InvalidInputError(f"embedder {name!r} returned d={found.shape[1]}, expected d={dimension}")
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        raise InvalidInputError(
            f"embedder {name!r} returned a vector that is not finite (row {finite.argmin()})"
        )
    return found


def check_same_embedder(stored: tuple[str, int], embedder: Embedder, what: str) -> None:
    """An error unless ``embedder`` is the one, by name and dimension, that has embedded ``what``.

    Raises
    ------
    ConflictError
        Another one: similarities between vectors of two models mean nothing.
    """
    name, dimension = stored
    if (embedder.name, embedder.dimension) != stored:
        raise ConflictError(
            f"{what} was embedded by {name!r} (d={dimension}), not by {embedder.name!r} "
            f"(d={embedder.dimension}): open it with the first, or embed everything again in a new one"
        )

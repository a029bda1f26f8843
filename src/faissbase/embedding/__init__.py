"""From texts to vectors: what the application layers are given, in one form, checked and named.

>>> from faissbase.embedding import as_embedder
>>> lengths = as_embedder(lambda texts: [[len(text), 1.0] for text in texts], name="lengths")
>>> lengths.dimension, lengths.embed(["four", "sixsix"]).tolist()
(2, [[4.0, 1.0], [6.0, 1.0]])
"""

from faissbase.embedding.cached import CachedEmbedder
from faissbase.embedding.embedder import Embedder, EmbedderSource, as_embedder, check_same_embedder
from faissbase.embedding.endpoint import Endpoint
from faissbase.embedding.hashed import HashedEmbedder
from faissbase.embedding.openai import OpenAIEmbedder

__all__ = [
    "CachedEmbedder",
    "Embedder",
    "EmbedderSource",
    "Endpoint",
    "HashedEmbedder",
    "OpenAIEmbedder",
    "as_embedder",
    "check_same_embedder",
]

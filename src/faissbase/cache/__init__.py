"""The semantic cache: answers served again to prompts that mean the same.

Imports without faiss; `FAISSBackend` and `SemanticCache` need it once they are made.
"""

from faissbase.cache.backend import FAISSBackend

__all__ = ["FAISSBackend"]

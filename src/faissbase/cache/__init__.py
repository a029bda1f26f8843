"""The semantic cache: answers served again to prompts that mean the same.

Imports without faiss; `FAISSBackend` and `SemanticCache` need it once they are made.
"""

from faissbase.cache.backend import FAISSBackend
from faissbase.cache.calibration import Calibration
from faissbase.cache.counters import Counters
from faissbase.cache.guards import disagreement
from faissbase.cache.matching import CacheHit, Candidate, Explanation
from faissbase.cache.openai_client import CachedOpenAI
from faissbase.cache.scope import Scope
from faissbase.cache.semantic import SemanticCache

__all__ = [
    "CacheHit",
    "CachedOpenAI",
    "Calibration",
    "Candidate",
    "Counters",
    "Explanation",
    "FAISSBackend",
    "Scope",
    "SemanticCache",
    "disagreement",
]

"""What ``--codec`` may say, and the index that it means for a shard's own rows. Pure numbers: no faiss."""

from __future__ import annotations

from faissbase.ann import advisor
from faissbase.ann.spec import EXACT_TYPES, FLAT, OPEN_TYPES, Spec, check_index_type, resolve
from faissbase.errors import InvalidInputError, NotReadyError
from faissbase.sharded.shards import choose, shard_specs
from faissbase.types import Metric

CODECS = {
    "flat": "Flat",
    "sq8": "IVF_SQ8",
    "pq": "IVF_PQ",
    "pqfs": "IVF_PQ_FASTSCAN",
    "opq": "IVF_PQ_FASTSCAN",
    "rabitq": "IVF_RABITQ_FASTSCAN",
    "hnsw": "HNSW_SQ8",
}
"""By name, the index type of a dataset whose shards have this codec."""

FINER = {
    "RaBitQ": ("sq8", "flat"),
    "PQ": ("rabitq", "sq8", "flat"),
    "SQ8": ("flat",),
}
"""By the code that an index keeps, codecs that find more."""


def check_codec(codec: str, metric: Metric, d: int | None) -> str:
    """The index type of the dataset that a codec makes.

    Raises
    ------
    InvalidInputError
        No codec, and no index type that this metric and dimension allow.
    """
    if codec in ("auto", *CODECS):
        return CODECS.get(codec, "auto")
    try:
        return check_index_type(codec, metric, d)
    except InvalidInputError as error:
        names = ", ".join(("auto", *CODECS))
        raise InvalidInputError(f"codec {codec!r} is none of {names}, and {error}") from error


def index_of(
    codec: str, n: int, d: int, metric: Metric, *, ram_bytes: int | None = None, recall: float = 0.95
) -> Spec:
    """The index of a shard with ``n`` rows: what can be trained on them, else `FLAT`.

    Parameters
    ----------
    codec : str
        As `check_codec` accepts it. ``"auto"`` is RaBitQ for FastScan, a bit a number; with ``ram_bytes`` the
        codes of most bytes that fit; where there are so few rows that an index does not pay, none.
    ram_bytes : int, optional
        What this shard's index may keep in memory.
    recall : float
        1 asks for exact search.

    >>> index_of("auto", 1_000_000, 128, "l2").factory, index_of("auto", 1_000, 128, "l2").factory
    ('RR128,IVF8192(IVF128,SQfp16),RaBitQfs', 'Flat')
    """
    if recall == 1.0 or codec == "flat" or codec in EXACT_TYPES:
        return FLAT
    factory = _factory(codec, n, d, metric, ram_bytes, recall)
    if factory is None:
        return FLAT
    try:
        return resolve(factory, n, d, metric)
    except NotReadyError:
        return FLAT


def _factory(codec: str, n: int, d: int, metric: Metric, ram_bytes: int | None, recall: float) -> str | None:
    """FAISS's factory string; None where exact search is meant, or too few rows train it."""
    if codec == "auto":
        return _automatic(n, d, metric, ram_bytes, recall)
    template = OPEN_TYPES.get(CODECS.get(codec, codec))
    if template is None:
        return codec
    factory = advisor.sized(template, n, d)
    if factory is None:
        return None
    if codec != "opq":
        return factory
    m = factory.rpartition(",PQ")[2].partition("x")[0]
    return f"OPQ{m},{factory}"


def _automatic(n: int, d: int, metric: Metric, ram_bytes: int | None, recall: float) -> str:
    specs = shard_specs(n, d, metric, recall=recall)
    if ram_bytes is None:
        return next((spec.factory for spec in specs if spec.codec == "RaBitQfs"), specs[0].factory)
    found, rejected = choose(specs, ram_bytes)
    if found is None:
        raise InvalidInputError(f"nothing fits a shard of {n:,} vectors of d={d}: {rejected[-1].reason}")
    return found.factory


def finer_codecs(factory: str) -> tuple[str, ...]:
    """Codecs that find more than an index does."""
    code = factory.rpartition(",")[2]
    return next((names for start, names in FINER.items() if code.startswith(start)), ("flat",))

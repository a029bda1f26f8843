"""What ``index_type`` may say, checked against metric and dimension, and what it means for real data.

Knows names, builds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from faissbase.ann import advisor
from faissbase.ann.grammar import ACCEPTED, Family, Parsed, parse
from faissbase.errors import InvalidInputError, NotReadyError
from faissbase.types import Metric

EXACT_TYPES: dict[str, tuple[Metric, ...] | None] = {
    "Flat": None,
    "IndexFlat": None,
    "IndexFlatL2": ("l2",),
    "IndexFlatIP": ("ip", "cosine"),
}

# Names that leave sizes open: M, nlist and m come from the advisor when the index is built.
OPEN_TYPES = {
    "IndexHNSWFlat": "HNSW,Flat",
    "IndexHNSWSQ": "HNSW,SQ8",
    "IndexIVFFlat": "IVF,Flat",
    "IndexIVFScalarQuantizer": "IVF,SQ8",
    "IndexIVFPQ": "IVF,PQ",
    "IndexIVFPQFastScan": "IVF,PQfs",
    "IndexIVFRaBitQ": "IVF,RaBitQ",
    "IndexIVFRaBitQFastScan": "IVF,RaBitQfs",
    "IndexPQ": "PQ",
    "IndexPQFastScan": "PQfs",
    "IndexRaBitQ": "RaBitQ",
    "IndexRaBitQFastScan": "RaBitQfs",
    "IndexScalarQuantizer": "SQ8",
    "HNSW": "HNSW,Flat",
    "HNSW_SQ8": "HNSW,SQ8",
    "HNSW_FP16": "HNSW,SQfp16",
    "IVF_FLAT": "IVF,Flat",
    "IVF_SQ8": "IVF,SQ8",
    "IVF_FP16": "IVF,SQfp16",
    "IVF_PQ": "IVF,PQ",
    "IVF_PQ_FASTSCAN": "IVF,PQfs",
    "IVF_RABITQ": "IVF,RaBitQ",
    "IVF_RABITQ_FASTSCAN": "IVF,RaBitQfs",
    "PQ": "PQ",
    "PQ_FASTSCAN": "PQfs",
    "RABITQ": "RaBitQ",
    "RABITQ_FASTSCAN": "RaBitQfs",
}


@dataclass(frozen=True, slots=True)
class Spec:
    """One index, fully decided.

    Attributes
    ----------
    factory : str
        FAISS's factory string, in one spelling; ``"Flat"`` means: no index, search exactly.
    family : {'flat', 'hnsw', 'ivf', 'codes'}
        What it is searched by: nothing, ``ef_search``, ``nprobe``, nothing.
    is_lossy : bool
        Whether distances have to be computed again by the true vectors.
    needs_training : bool
    ef_construction : int
        Of HNSW; 0 otherwise.
    """

    factory: str
    family: Family
    is_lossy: bool
    needs_training: bool
    ef_construction: int = 0


FLAT = Spec("Flat", "flat", is_lossy=False, needs_training=False)


def check_index_type(index_type: str, metric: Metric, dimension: int | None = None) -> str:
    """``index_type`` itself, where it can be served with that metric and dimension.

    Raises
    ------
    InvalidInputError
        Unknown, unsafe, meant for another metric, or impossible with this dimension.
    """
    if not isinstance(index_type, str):
        raise InvalidInputError(f"index_type must be text, 'auto' for instance, got {index_type!r}")
    if index_type in EXACT_TYPES:
        metrics = EXACT_TYPES[index_type]
        if metrics is not None and metric not in metrics:
            raise InvalidInputError(f"index_type {index_type!r} searches by {metrics[0]}, not by {metric!r}")
    elif index_type != "auto" and index_type not in OPEN_TYPES:
        _check_factory(index_type, metric, dimension)
    return index_type


def _check_factory(index_type: str, metric: Metric, dimension: int | None) -> None:
    try:
        parsed = parse(index_type, dimension)
    except InvalidInputError as error:
        if not index_type.replace("_", "").isalpha():
            raise
        names = ", ".join(["auto", *EXACT_TYPES, *OPEN_TYPES])
        raise InvalidInputError(
            f"index_type {index_type!r} is not known, use one of: {names}; or {ACCEPTED}"
        ) from error
    if metric == "ip" and parsed.is_l2_only:
        raise InvalidInputError(
            f"index_type {index_type!r} does not search by 'ip', only by 'l2' and 'cosine'"
        )


def resolve(
    index_type: str,
    n: int,
    d: int,
    metric: Metric,
    memory_budget: int | None = None,
    recall: float = 0.95,
) -> Spec:
    """The index to build for ``n`` vectors of ``d`` numbers.

    Parameters
    ----------
    index_type : str
        As `check_index_type` accepts it.
    memory_budget : int, optional
        Bytes that ``"auto"`` may keep in memory.
    recall : float
        Recall@10 that ``"auto"`` is to reach.

    Raises
    ------
    InvalidInputError
        `check_index_type`'s reasons, or no index fits ``memory_budget``.
    NotReadyError
        The index named cannot be trained on so few vectors: search exactly until there are more.
    """
    check_index_type(index_type, metric, d)
    if index_type in EXACT_TYPES:
        return FLAT
    if index_type == "auto":
        proposal = advisor.propose(n, d, metric, memory_bytes=memory_budget, recall=recall)
        return _spec(parse(proposal.factory, d), proposal.ef_construction)
    if index_type in OPEN_TYPES:
        factory = advisor.sized(OPEN_TYPES[index_type], n, d)
        if factory is None:
            raise NotReadyError(f"{index_type} needs more vectors to train, has {n:,}")
    else:
        factory = index_type
    parsed = parse(factory, d)
    if n < parsed.min_points:
        raise NotReadyError(f"{factory} needs {parsed.min_points:,} vectors to train, has {n:,}")
    return _spec(parsed, advisor.EF_CONSTRUCTION)


def _spec(parsed: Parsed, ef_construction: int) -> Spec:
    ef = ef_construction if parsed.family == "hnsw" else 0
    return Spec(parsed.factory, parsed.family, parsed.is_lossy, parsed.needs_training, ef)

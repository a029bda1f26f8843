"""The index of one shard, from its rows, its memory and the recall asked. Pure numbers: no faiss.

What is proposed can be trained on the shard's own rows. The rules come from measurements (decisions 007, 016
and 017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from faissbase.ann import advisor
from faissbase.ann.advisor import Rejected
from faissbase.ann.coarse import Lists, lists_of, sample_rows
from faissbase.ann.grammar import POINTS_PER_CENTROID
from faissbase.collection import inputs
from faissbase.errors import InvalidInputError
from faissbase.sharded.costs import Codec
from faissbase.sharded.parameters import (
    calculate_optimal_nlist,
    calculate_optimal_nprobe,
    calculate_optimal_pq_params,
)
from faissbase.types import MAX_DIMENSION, METRICS, Metric

MAX_ROWS = 10**10
"""A shard of more is refused."""

_LEAST_LISTS = 4
_ID_BYTES = 8
_FACTOR_BYTES = 8  # of RaBitQ, beside its bits
_GROWTH = 1.05  # of the lists' memory over what is in them

# Candidates over k that re-ranking wants, up to recall .95, .99 and beyond.
_RERANKS: dict[Codec, tuple[int, int, int]] = {
    "SQ8": (1, 2, 4),
    "PQfs": (4, 8, 16),
    "RaBitQfs": (16, 32, 64),
}
_COARSE_RERANK = (16, 32, 64)  # of PQ with larger parts


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """The index of one shard of ``n`` vectors of ``d`` numbers.

    Attributes
    ----------
    factory : str
        FAISS's factory string; ``"Flat"`` means: no codes, the true vectors are scanned.
    codec : Codec
    lists : Lists
    m, nbits : int
        Parts of a product quantizer, bits of a part; 0 where there are none.
    nprobe : int
        Lists to start from, until the built shard is measured.
    rerank : int
        Candidates over k that are ranked by the true vectors; 1 only gives the k their true distances, and
        0 is for ``"Flat"``.
    train_rows : int
        Rows to train on; 0 where nothing is trained.
    code_bytes : int
        A code, with its factors and without its id.
    bytes_per_vector : float
        Memory for a vector: the code, its id, and what lists grow beyond.
    centroid_bytes : int
        Memory for the coarse quantizer.
    """

    n: int
    d: int
    metric: Metric
    factory: str
    codec: Codec
    lists: Lists
    m: int
    nbits: int
    nprobe: int
    rerank: int
    train_rows: int
    code_bytes: int
    bytes_per_vector: float
    centroid_bytes: int

    @property
    def nlist(self) -> int:
        """Lists; 0 where there are none."""
        return self.lists.nlist

    @property
    def compared_bytes(self) -> int:
        """The bytes of a code that stand for its vector."""
        return self.code_bytes - (_FACTOR_BYTES if self.codec == "RaBitQfs" else 0)

    @property
    def ram_bytes(self) -> int:
        """Memory that the shard's index keeps."""
        return ceil(self.n * self.bytes_per_vector) + self.centroid_bytes

    @property
    def file_bytes(self) -> int:
        """The index file; a ``"Flat"`` shard has none beside its vectors."""
        return self.n * (self.code_bytes + _ID_BYTES) + self.centroid_bytes if self.nlist else 0


def shard_spec(
    n: int, d: int, metric: str = "cosine", *, ram_bytes: int | None = None, recall: float = 0.95
) -> ShardSpec:
    """The index for a shard of ``n`` vectors of ``d`` numbers: the first that fits its memory.

    Parameters
    ----------
    n, d : int
    metric : {"l2", "ip", "cosine"}
    ram_bytes : int, optional
        What this shard's index may keep in memory; None for as much as it likes.
    recall : float
        Recall@10 to reach; 1 asks for exact search.

    Raises
    ------
    InvalidInputError
        Numbers that are none, or nothing fits ``ram_bytes``; says what the smallest needs.

    >>> shard_spec(1_000_000, 128).factory, shard_spec(1_000_000, 128, ram_bytes=50_000_000).factory
    ('IVF4096,SQ8', 'IVF4096,PQ64x4fs')
    >>> shard_spec(100, 128).factory
    'Flat'
    """
    found, rejected = choose(shard_specs(n, d, metric, recall=recall), ram_bytes)
    if found is None:
        raise InvalidInputError(f"nothing fits a shard of {n:,} vectors of d={d}: {rejected[-1].reason}")
    return found


def choose(specs: list[ShardSpec], ram_bytes: int | None) -> tuple[ShardSpec | None, list[Rejected]]:
    """The first of ``specs`` that fits, and why those before it do not."""
    rejected: list[Rejected] = []
    for spec in specs:
        if ram_bytes is None or spec.ram_bytes <= ram_bytes:
            return spec, rejected
        reason = f"needs {spec.ram_bytes:,} bytes of memory a shard, {ram_bytes:,} are allowed"
        rejected.append(Rejected(spec.factory, reason))
    return None, rejected


def shard_specs(n: int, d: int, metric: str = "cosine", *, recall: float = 0.95) -> list[ShardSpec]:
    """All that can be trained for such a shard, from the most bytes a vector to the least.

    Raises
    ------
    InvalidInputError
        ``n`` beyond 1 to `MAX_ROWS`, no such dimension, metric or recall.
    """
    rows, wanted = _checked(n, d, metric), inputs.check_fraction(recall, "recall")
    sized: Metric = metric  # type: ignore[assignment]  # checked
    if rows * d < advisor.EXACT_NUMBERS or wanted == 1 or calculate_optimal_nlist(rows) < _LEAST_LISTS:
        return [_flat(rows, d, sized)]
    found: list[ShardSpec] = []
    for codec, m, nbits, code_bytes in _codes(rows, d):
        spec = _listed(rows, d, sized, wanted, codec, m, nbits, code_bytes)
        if not found or spec.bytes_per_vector < found[-1].bytes_per_vector:
            found.append(spec)
    return found


def _checked(n: int, d: int, metric: str) -> int:
    rows = inputs.check_count(n, "n")
    if rows > MAX_ROWS:
        raise InvalidInputError(f"a shard may have {MAX_ROWS:,} rows, got {rows:,}: use more shards")
    if inputs.check_count(d, "d") > MAX_DIMENSION:
        raise InvalidInputError(f"d must be 1 to {MAX_DIMENSION}, got {d}")
    if metric not in METRICS:
        raise InvalidInputError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return rows


def _codes(n: int, d: int) -> Iterator[tuple[Codec, int, int, int]]:
    """Codec, m, nbits and bytes of a code, for as many rows as it takes to train them."""
    yield "SQ8", 0, 8, d
    fine, coarse = advisor.n_parts(d, d // 2), advisor.n_parts(d, d // 4)
    trains_four, trains_eight = (n >= POINTS_PER_CENTROID << nbits for nbits in (4, 8))
    if fine and trains_four:
        yield "PQfs", fine, 4, ceil(fine / 2)
    yield "RaBitQfs", 0, 1, ceil(d / 8) + _FACTOR_BYTES
    if coarse and trains_four:
        yield "PQfs", coarse, 4, ceil(coarse / 2)
    if trains_eight:
        m, nbits = calculate_optimal_pq_params(d, 0.5)
        yield "PQ8", m, nbits, m


def _flat(n: int, d: int, metric: Metric) -> ShardSpec:
    return ShardSpec(n, d, metric, "Flat", "Flat", Lists(0), 0, 0, 0, 0, 0, 4 * d, 4.0 * d, 0)


def _listed(
    n: int, d: int, metric: Metric, recall: float, codec: Codec, m: int, nbits: int, code_bytes: int
) -> ShardSpec:
    lists = lists_of(n, d)
    nlist = lists.nlist
    code = {"PQfs": f"PQ{m}x4fs", "PQ8": f"PQ{m}x{nbits}"}.get(codec, codec)
    reranks = _COARSE_RERANK if m and 2 * m < d - 1 else _RERANKS.get(codec, _COARSE_RERANK)
    return ShardSpec(
        n,
        d,
        metric,
        advisor.rotated(f"{lists.head},{code}", d),
        codec,
        lists,
        m,
        nbits,
        calculate_optimal_nprobe(nlist, recall),
        reranks[(recall > 0.95) + (recall > 0.99)],
        min(n, sample_rows(POINTS_PER_CENTROID * max(nlist, 1 << nbits), nlist, d)),
        code_bytes,
        _GROWTH * (code_bytes + _ID_BYTES),
        lists.centroid_bytes(d),
    )

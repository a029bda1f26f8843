"""Codecs mean an index that the rows of a shard can train."""

from __future__ import annotations

import pytest

from faissbase.errors import InvalidInputError
from faissbase.sharded.codecs import check_codec, finer_codecs, index_of


@pytest.mark.parametrize(
    ("codec", "n", "factory"),
    [
        ("auto", 1_000_000, "RR128,IVF8192(IVF128,SQfp16),RaBitQfs"),
        ("auto", 50_000_000, "RR128,IVF262144(IVF1024,SQfp16),RaBitQfs"),
        ("auto", 10_000, "Flat"),
        ("flat", 1_000_000, "Flat"),
        ("sq8", 1_000_000, "IVF8192(IVF128,SQfp16),SQ8"),
        ("sq8", 10_000, "IVF128,SQ8"),
        ("sq8", 100, "Flat"),
        ("pq", 1_000_000, "IVF8192(IVF128,SQfp16),PQ32"),
        ("pqfs", 1_000_000, "IVF8192(IVF128,SQfp16),PQ64x4fs"),
        ("opq", 1_000_000, "OPQ64,IVF8192(IVF128,SQfp16),PQ64x4fs"),
        ("rabitq", 50_000_000, "RR128,IVF262144(IVF1024,SQfp16),RaBitQfs"),
        ("hnsw", 1_000_000, "HNSW16,SQ8"),
        ("IVF64,Flat", 10_000, "IVF64,Flat"),
        ("IVF64,Flat", 10, "Flat"),
        ("IndexFlat", 1_000_000, "Flat"),
    ],
)
def test_a_codec_is_an_index_for_the_rows_there_are(codec: str, n: int, factory: str) -> None:
    assert index_of(codec, n, 128, "l2").factory == factory


def test_memory_takes_the_finest_codes_that_fit() -> None:
    n, d = 1_000_000, 128
    sizes = {
        ram: index_of("auto", n, d, "l2", ram_bytes=ram).factory for ram in (200 << 20, 60 << 20, 40 << 20)
    }
    lists = "IVF8192(IVF128,SQfp16)"
    assert list(sizes.values()) == [f"{lists},SQ8", f"{lists},PQ64x4fs", f"RR128,{lists},RaBitQfs"]
    with pytest.raises(InvalidInputError, match="nothing fits a shard"):
        index_of("auto", n, d, "l2", ram_bytes=1000)


def test_recall_one_is_exact() -> None:
    assert index_of("sq8", 1_000_000, 128, "l2", recall=1.0).factory == "Flat"


def test_a_codec_that_is_none_is_refused() -> None:
    assert check_codec("rabitq", "l2", 128) == "IVF_RABITQ_FASTSCAN"
    assert check_codec("auto", "l2", None) == "auto"
    with pytest.raises(InvalidInputError, match="codec 'brotli' is none of auto, flat, sq8"):
        check_codec("brotli", "l2", 128)


def test_finer_codecs_are_named() -> None:
    assert finer_codecs("RR128,IVF8192(IVF128,SQfp16),RaBitQfs") == ("sq8", "flat")
    assert finer_codecs("IVF4096,PQ64x4fs") == ("rabitq", "sq8", "flat")
    assert finer_codecs("HNSW32,SQ8") == finer_codecs("IVF64,RQ8x8") == finer_codecs("LSH") == ("flat",)

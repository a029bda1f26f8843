"""Factory strings: what is accepted is what FAISS can build; what would hurt never reaches it."""

from __future__ import annotations

from typing import Any

import faiss
import pytest

from faissbase.ann.grammar import parse
from faissbase.ann.spec import OPEN_TYPES, Spec, check_index_type, resolve
from faissbase.errors import InvalidInputError, NotReadyError

D = 96


@pytest.mark.parametrize(
    ("factory", "family", "is_lossy", "name"),
    [
        ("Flat", "flat", False, "IndexFlat"),
        ("HNSW32", "hnsw", False, "IndexHNSWFlat"),
        ("HNSW16_SQ8", "hnsw", True, "IndexHNSWSQ"),
        ("HNSW16,SQfp16", "hnsw", True, "IndexHNSWSQ"),
        ("HNSW32,PQ12x4", "hnsw", True, "IndexHNSWPQ"),
        ("IVF64,Flat", "ivf", False, "IndexIVFFlat"),
        ("IVF64_HNSW32,PQ16", "ivf", True, "IndexIVFPQ"),
        ("IVF64(IVF8,SQfp16),SQ8", "ivf", True, "IndexIVFScalarQuantizer"),
        ("RR96,IVF64(IVF64,SQfp16),RaBitQfs", "ivf", True, "IndexPreTransform"),
        ("IVF64,PQ16x4fsr", "ivf", True, "IndexIVFPQFastScan"),
        ("IVF64,RaBitQfs", "ivf", True, "IndexIVFRaBitQFastScan"),
        ("IMI2x4,SQ8", "ivf", True, "IndexIVFScalarQuantizer"),
        ("RaBitQ4", "codes", True, "IndexRaBitQ"),
        ("PQ16x4fs", "codes", True, "IndexPQFastScan"),
        ("RQ4x6", "codes", True, "IndexResidualQuantizer"),
        ("LSHrt", "codes", True, "IndexLSH"),
        ("OPQ16_64,IVF64,PQ16x4fs", "ivf", True, "IndexPreTransform"),
        ("PCA64,HNSW32,SQ8", "hnsw", True, "IndexPreTransform"),
        ("RR64,Flat", "codes", True, "IndexPreTransform"),
        ("L2norm,Pad128,PQ16", "codes", True, "IndexPreTransform"),
    ],
)
def test_what_is_accepted_can_be_made(factory: str, family: str, is_lossy: bool, name: str) -> None:
    parsed = parse(factory, D)
    assert (parsed.family, parsed.is_lossy) == (family, is_lossy)
    assert type(faiss.index_factory(D, parsed.factory)).__name__ == name


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("HNSW0", "expected 4 to 128 links, got 0"),
        ("HNSW3,SQ8", "expected 4 to 128 links, got 3"),
        ("HNSW-4", "not understood"),
        ("IVF0,Flat", "expected 1 to 1048576 lists, got 0"),
        ("IVF100000000,Flat", "lists, got 100000000"),
        ("IVF64(IVF65,SQfp16),Flat", "expected 1 to 64 groups of lists, got 65"),
        ("IVF64(IVF0,SQfp16),Flat", "expected 1 to 64 groups of lists, got 0"),
        ("IVF64(IVF8,Flat),Flat", "not understood"),
        ("IVF64(IVF8(IVF2,SQfp16),SQfp16),Flat", "not understood"),
        ("IVF64(IVF8,SQfp16", "not understood"),
        ("IMI2x16,PQ16", "expected 1 to 8 bits, got 16"),
        ("PQ4x24", "expected 1 to 12 bits, got 24"),
        ("PQ16x8fs", "FastScan reads 4 bits"),
        ("PQ7", "m=7 does not divide d=96"),
        ("LSQ1000x16", "bits, got 16"),
        ("RQ4x24", "bits, got 24"),
        ("OPQ16_2000000,PQ16", "dimensions, got 2000000"),
        ("OPQ7,PQ16", "m=7 does not divide d=96"),
        ("PCA100,Flat", "expected 1 to 96 dimensions, got 100"),
        ("IDMap,Flat", "keeps ids"),
        ("PQ16,RFlat", "re-ranks by the true vectors itself"),
        ("IVF64,PQ16,Refine(Flat)", "re-ranks"),
        ("NSG32", "cannot be added to later"),
        ("IVF64,PQ16+8", "cannot leave deleted vectors out"),
        ("PQ16x4fsr", "use PQ16x4fs or IVFn,PQ16x4fsr"),
        ("IVF64,LSHr", "LSH stands alone"),
        ("IVF64", "wants one code after it"),
        ("PCA64", "no index named"),
        ("", "no index named"),
        ("IVF٣,Flat", "expected ASCII"),
        ("HNSW32," * 3000, "characters, expected at most 100"),
    ],
)
def test_what_would_hurt_is_refused_by_name(factory: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message.replace("(", r"\(")):
        check_index_type(factory, "l2", D)


def test_codes_that_faiss_compares_by_l2_alone_are_refused_for_ip() -> None:
    assert check_index_type("LSH", "cosine", D) == "LSH"
    with pytest.raises(InvalidInputError, match="'HNSW16,RaBitQ' does not search by 'ip'"):
        check_index_type("HNSW16,RaBitQ", "ip", D)
    assert parse("IMI2x4,Flat", D).is_l2_only
    with pytest.raises(InvalidInputError, match="'IMI2x4,Flat' does not search by 'ip'"):
        check_index_type("IMI2x4,Flat", "ip", D)


@pytest.mark.parametrize("index_type", [None, 5, ["HNSW"]])
def test_an_index_type_is_text(index_type: Any) -> None:
    with pytest.raises(InvalidInputError, match="index_type must be text, 'auto' for instance, got"):
        check_index_type(index_type, "l2")


def test_a_name_that_is_not_known_is_told_what_is() -> None:
    with pytest.raises(InvalidInputError, match=r"'hnsw_magic' is not known, use one of: auto, .*IndexIVFPQ"):
        check_index_type("hnsw_magic", "l2")


@pytest.mark.parametrize("index_type", OPEN_TYPES)
def test_names_that_leave_sizes_open_become_something_that_trains(index_type: str) -> None:
    assert check_index_type(index_type, "l2", D) == index_type
    spec = resolve(index_type, 20_000, D, "l2")
    assert parse(spec.factory, D).good_points <= 20_000


def test_an_index_that_cannot_be_trained_yet_is_not_ready() -> None:
    with pytest.raises(NotReadyError, match="IVF1024,Flat needs 1,024 vectors to train, has 500"):
        resolve("IVF1024,Flat", 500, D, "l2")
    with pytest.raises(NotReadyError, match="IVF_PQ needs more vectors to train, has 100"):
        resolve("IVF_PQ", 100, D, "l2")


def test_auto_is_exact_while_small_and_a_graph_later() -> None:
    assert resolve("auto", 1000, 384, "cosine") == Spec("Flat", "flat", False, False)
    assert resolve("auto", 42_000, 384, "cosine") == Spec("HNSW32,SQ8", "hnsw", True, True, 100)

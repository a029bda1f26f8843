"""How to make an object of every class of FAISS's that can be made from Python.

Each recipe is given the module, ``faiss`` or ``faiss_proxy``, and makes a small object of dimension ``D``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import faiss
import numpy as np

Recipe: TypeAlias = Callable[[Any], Any]
D, D_BITS, NLIST, M, NBITS, HNSW_M = 16, 64, 4, 4, 4, 8
FAMILIES = (faiss.Index, faiss.IndexBinary, faiss.VectorTransform, faiss.Quantizer)

_FLAT = "Flat FlatL2 FlatIP RaBitQ EDEN RaBitQFastScan"
_ADDITIVE = "ResidualQuantizer LocalSearchQuantizer"


def _quantizer(f: Any) -> Any:
    return f.IndexFlatL2(D)


def _plain(name: str, *args: Any) -> Recipe:
    return lambda f: getattr(f, name)(*args)


def _kept(name: str, inner: Recipe, *args: Any) -> Recipe:
    """An object that only borrows what it is made of, which FAISS's wrapper does not keep for it."""

    def make(f: Any) -> Any:
        kept = inner(f)
        made = getattr(f, name)(kept, *args)
        made.referenced_objects = [kept]
        return made

    return make


def _ivf(name: str, *args: Any) -> Recipe:
    return _kept(name, _quantizer, D, NLIST, *args)


def _over(name: str, *args: Any) -> Recipe:
    return lambda f: getattr(f, name)(f.IndexFlatL2(D), *args)


def _shards(name: str, add: str, inner: str, size: int) -> Recipe:
    def make(f: Any) -> Any:
        made = getattr(f, name)(size)
        for _ in range(2):
            getattr(made, add)(getattr(f, inner)(size))
        return made

    return make


def _shards_ivf(f: Any) -> Any:
    made = f.IndexShardsIVF(f.IndexFlatL2(D), NLIST)
    for _ in range(2):
        made.add_shard(f.IndexIVFFlat(f.IndexFlatL2(D), D, NLIST))
    return made


def _split(f: Any) -> Any:
    made = f.IndexSplitVectors(D)
    parts = [f.IndexFlatL2(D // 2) for _ in range(2)]
    for each in parts:
        made.add_sub_index(each)
    made.referenced_objects = parts
    return made


def _independent(f: Any) -> Any:
    ivf = f.IndexIVFFlat(f.IndexFlatL2(D), D, NLIST)
    return f.IndexIVFIndependentQuantizer(f.IndexFlatL2(D), ivf, f.PCAMatrix(D, D))


def _pretransformed(f: Any) -> Any:
    return f.IndexPreTransform(f.PCAMatrix(D, D // 2), f.IndexFlatL2(D // 2))


def _refined(name: str) -> Recipe:
    return lambda f: getattr(f, name)(f.IndexPQ(D, M, NBITS), f.IndexFlatL2(D))


def _refined_panorama(f: Any) -> Any:
    return f.IndexRefinePanorama(f.IndexPQ(D, M, NBITS), f.IndexFlatL2Panorama(D, 2))


def _coarse_pair(f: Any) -> Any:
    halves = [f.IndexFlatL2(D // 2) for _ in range(2)]
    made = f.MultiIndexQuantizer2(D, 2, *halves)
    made.referenced_objects = halves
    return made


INDEXES: dict[str, Recipe] = {
    **{f"Index{name}": _plain(f"Index{name}", D) for name in _FLAT.split()},
    "IndexFlat1D": _plain("IndexFlat1D"),
    "IndexFlatCodes": _plain("IndexFlatCodes", 4 * D, D),
    "IndexFlatPanorama": _plain("IndexFlatPanorama", D, faiss.METRIC_L2, 2, 64),
    "IndexFlatL2Panorama": _plain("IndexFlatL2Panorama", D, 2),
    "IndexFlatIPPanorama": _plain("IndexFlatIPPanorama", D, 2),
    "IndexScalarQuantizer": _plain("IndexScalarQuantizer", D, faiss.ScalarQuantizer.QT_8bit),
    "IndexPQ": _plain("IndexPQ", D, M, NBITS),
    "IndexPQFastScan": _plain("IndexPQFastScan", D, M, NBITS),
    "IndexLSH": _plain("IndexLSH", D, 2 * D),
    "IndexLattice": _plain("IndexLattice", D, 2, 4, 4),
    "IndexRandom": _plain("IndexRandom", D, 100),
    **{f"Index{name}": _plain(f"Index{name}", D, 2, NBITS) for name in _ADDITIVE.split()},
    **{f"Index{name}FastScan": _plain(f"Index{name}FastScan", D, 2, NBITS) for name in _ADDITIVE.split()},
    **{f"IndexProduct{name}": _plain(f"IndexProduct{name}", D, 2, 2, NBITS) for name in _ADDITIVE.split()},
    **{
        f"IndexProduct{name}FastScan": _plain(f"IndexProduct{name}FastScan", D, 2, 2, NBITS)
        for name in _ADDITIVE.split()
    },
    "ResidualCoarseQuantizer": _plain("ResidualCoarseQuantizer", D, 2, 3),
    "LocalSearchCoarseQuantizer": _plain("LocalSearchCoarseQuantizer", D, 2, 3),
    "MultiIndexQuantizer": _plain("MultiIndexQuantizer", D, 2, 3),
    "MultiIndexQuantizer2": _coarse_pair,
    "Index2Layer": _kept("Index2Layer", _quantizer, NLIST, M),
    "IndexHNSW": _kept("IndexHNSW", _quantizer, HNSW_M),
    "IndexHNSWFlat": _plain("IndexHNSWFlat", D, HNSW_M),
    "IndexHNSWFlatPanorama": _plain("IndexHNSWFlatPanorama", D, HNSW_M, 2),
    "IndexHNSWPQ": _plain("IndexHNSWPQ", D, M, HNSW_M, NBITS),
    "IndexHNSWSQ": _plain("IndexHNSWSQ", D, faiss.ScalarQuantizer.QT_8bit, HNSW_M),
    "IndexHNSWRaBitQ": _plain("IndexHNSWRaBitQ", D, HNSW_M),
    "IndexHNSWCagra": _plain("IndexHNSWCagra", D, HNSW_M),
    "IndexHNSW2Level": _kept("IndexHNSW2Level", _quantizer, NLIST, M, HNSW_M),
    "IndexNSG": _kept("IndexNSG", _quantizer, HNSW_M),
    "IndexNSGFlat": _plain("IndexNSGFlat", D, HNSW_M),
    "IndexNSGPQ": _plain("IndexNSGPQ", D, M, HNSW_M, NBITS),
    "IndexNSGSQ": _plain("IndexNSGSQ", D, faiss.ScalarQuantizer.QT_8bit, HNSW_M),
    "IndexNNDescent": _kept("IndexNNDescent", _quantizer, HNSW_M),
    "IndexNNDescentFlat": _plain("IndexNNDescentFlat", D, HNSW_M),
    **{
        f"IndexIVF{name}": _ivf(f"IndexIVF{name}")
        for name in ["Flat", "FlatDedup", "RaBitQ", "RaBitQFastScan", "EDEN"]
    },
    "IndexIVFFlatPanorama": _ivf("IndexIVFFlatPanorama", 2),
    "IndexIVFPQ": _ivf("IndexIVFPQ", M, NBITS),
    "IndexIVFPQR": _ivf("IndexIVFPQR", M, 8, M, 8),
    "IndexIVFPQFastScan": _ivf("IndexIVFPQFastScan", M, NBITS),
    "IndexIVFScalarQuantizer": _ivf("IndexIVFScalarQuantizer", faiss.ScalarQuantizer.QT_8bit),
    "IndexIVFSpectralHash": _ivf("IndexIVFSpectralHash", D, 1.0),
    **{f"IndexIVF{name}": _ivf(f"IndexIVF{name}", 2, NBITS) for name in _ADDITIVE.split()},
    **{f"IndexIVF{name}FastScan": _ivf(f"IndexIVF{name}FastScan", 2, NBITS) for name in _ADDITIVE.split()},
    **{f"IndexIVFProduct{name}": _ivf(f"IndexIVFProduct{name}", 2, 2, NBITS) for name in _ADDITIVE.split()},
    **{
        f"IndexIVFProduct{name}FastScan": _ivf(f"IndexIVFProduct{name}FastScan", 2, 2, NBITS)
        for name in _ADDITIVE.split()
    },
    "IndexIVFIndependentQuantizer": _independent,
    "IndexIDMap": _over("IndexIDMap"),
    "IndexIDMap2": _over("IndexIDMap2"),
    "IndexPreTransform": _pretransformed,
    "IndexRefine": _refined("IndexRefine"),
    "IndexRefineFlat": lambda f: f.IndexRefineFlat(f.IndexPQ(D, M, NBITS)),
    "IndexRefinePanorama": _refined_panorama,
    "IndexRowwiseMinMax": lambda f: f.IndexRowwiseMinMax(
        f.IndexScalarQuantizer(D, faiss.ScalarQuantizer.QT_8bit)
    ),
    "IndexRowwiseMinMaxFP16": lambda f: f.IndexRowwiseMinMaxFP16(
        f.IndexScalarQuantizer(D, faiss.ScalarQuantizer.QT_8bit)
    ),
    "IndexShards": _shards("IndexShards", "add_shard", "IndexFlatL2", D),
    "IndexShardsIVF": _shards_ivf,
    "IndexReplicas": _shards("IndexReplicas", "addIndex", "IndexFlatL2", D),
    "IndexSplitVectors": _split,
}
BINARIES: dict[str, Recipe] = {
    "IndexBinaryFlat": _plain("IndexBinaryFlat", D_BITS),
    "IndexBinaryFromFloat": lambda f: f.IndexBinaryFromFloat(f.IndexFlatL2(D_BITS)),
    "IndexBinaryHNSW": _plain("IndexBinaryHNSW", D_BITS, HNSW_M),
    "IndexBinaryHNSWCagra": _plain("IndexBinaryHNSWCagra", D_BITS, HNSW_M),
    "IndexBinaryHash": _plain("IndexBinaryHash", D_BITS, 8),
    "IndexBinaryMultiHash": _plain("IndexBinaryMultiHash", D_BITS, 4, 8),
    "IndexBinaryIDMap": lambda f: f.IndexBinaryIDMap(f.IndexBinaryFlat(D_BITS)),
    "IndexBinaryIDMap2": lambda f: f.IndexBinaryIDMap2(f.IndexBinaryFlat(D_BITS)),
    "IndexBinaryIVF": lambda f: f.IndexBinaryIVF(f.IndexBinaryFlat(D_BITS), D_BITS, NLIST),
    "IndexBinaryReplicas": _shards("IndexBinaryReplicas", "addIndex", "IndexBinaryFlat", D_BITS),
    "IndexBinaryShards": _shards("IndexBinaryShards", "add_shard", "IndexBinaryFlat", D_BITS),
}
TRANSFORMS: dict[str, Recipe] = {
    "CenteringTransform": _plain("CenteringTransform", D),
    "HadamardRotation": _plain("HadamardRotation", D),
    "ITQMatrix": _plain("ITQMatrix", D),
    "ITQTransform": _plain("ITQTransform", D, D // 2, True),
    "LinearTransform": _plain("LinearTransform", D, D // 2, True),
    "NormalizationTransform": _plain("NormalizationTransform", D),
    "OPQMatrix": _plain("OPQMatrix", D, M, D),
    "PCAMatrix": _plain("PCAMatrix", D, D // 2),
    "RandomRotationMatrix": _plain("RandomRotationMatrix", D, D),
    "RemapDimensionsTransform": _plain("RemapDimensionsTransform", D, D + 4, True),
}
QUANTIZERS: dict[str, Recipe] = {
    "ProductQuantizer": _plain("ProductQuantizer", D, M, NBITS),
    "ScalarQuantizer": _plain("ScalarQuantizer", D, faiss.ScalarQuantizer.QT_8bit),
    "RaBitQuantizer": _plain("RaBitQuantizer", D, faiss.METRIC_L2),
    "ResidualQuantizer": _plain("ResidualQuantizer", D, 2, NBITS),
    "LocalSearchQuantizer": _plain("LocalSearchQuantizer", D, 2, NBITS),
    "ProductResidualQuantizer": _plain("ProductResidualQuantizer", D, 2, 2, NBITS),
    "ProductLocalSearchQuantizer": _plain("ProductLocalSearchQuantizer", D, 2, 2, NBITS),
    "ProductAdditiveQuantizer": _plain("ProductAdditiveQuantizer"),
}
# Each is an index on the way to one of the classes above, and a name of theirs in a factory's language.
# Polysemous training takes longer than all else that is done with one: some have it, the others end in "np".
FACTORY = [
    "Flat",
    "IDMap,Flat",
    "IDMap2,Flat",
    "IVF4,Flat",
    "IVF4_HNSW8,Flat",
    "IVF4,PQ4x4",
    "IVF4,PQ4x4fs",
    "IVF4,PQ4x4fsr",
    "IVF4,SQ8",
    "IVF4,SQfp16",
    "IVF4,RaBitQ",
    "IVF4,RaBitQfs",
    "IVF4,RQ2x4",
    "IVF4,LSQ2x4",
    "IVF4,PRQ2x2x4",
    "IVF4_Flat,PQ4x4",
    "IMI2x3,Flat",
    "Residual4x2,Flat",
    "RCQ2x3,PQ4x4",
    "HNSW8",
    "HNSW8,Flat",
    "HNSW8,SQ8",
    "HNSW8,PQ4x4np",
    "HNSW8_PQ4x4",
    "NSG8",
    "NSG8,Flat",
    "LSH",
    "LSHrt",
    "PQ4x4",
    "PQ4x4fs",
    "SQ4",
    "SQ6",
    "SQ8",
    "SQfp16",
    "SQbf16",
    "RQ2x4",
    "RQ2x4fs_Nrq2x4",
    "LSQ2x4",
    "LSQ2x4fs",
    "PRQ2x2x4",
    "PLSQ2x2x4",
    "ZnLattice2x4_4",
    "RaBitQ",
    "RaBitQfs",
    "Pad24,Flat",
    "PCA8,Flat",
    "PCAR8,Flat",
    "PCAW8,Flat",
    "PCAWR8,IVF4,PQ4x4np",
    "OPQ4,PQ4x4np",
    "OPQ4_8,IVF4,PQ4x4np",
    "ITQ8,LSH",
    "RR8,Flat",
    "L2norm,Flat",
    "PQ4x4np,RFlat",
    "IVF4,PQ4x4np,RFlat",
    "PQ4x4np,Refine(SQ8)",
    "IVF4,PQ4+4",
    "MinMax,SQ8",
    "MinMaxFP16,SQ8",
    "PreTransform,Flat",
    "IDMap,HNSW8",
    "IVF4,Flat,RFlat",
    "IVF100,nonsense",
]
FACTORY_BINARY = ["BFlat", "BIVF4", "BHNSW8", "BIVF4_HNSW8", "BHash8", "BHash4x8", "IDMap2,BFlat", "Flat"]
RECIPES: dict[str, Recipe] = INDEXES | BINARIES | TRANSFORMS | QUANTIZERS
NO_RECIPE = {
    **dict.fromkeys(
        [
            "Index",
            "IndexFastScan",
            "IndexIVF",
            "IndexIVFFastScan",
            "IndexRowwiseMinMaxBase",
            "ThreadedIndexBase",
            "IndexBinary",
            "ThreadedIndexBaseBinary",
            "VectorTransform",
            "AdditiveQuantizer",
            "Quantizer",
        ],
        "abstract: FAISS makes none",
    ),
    **dict.fromkeys(
        [
            "AdditiveCoarseQuantizer",
            "IndexAdditiveQuantizer",
            "IndexAdditiveQuantizerFastScan",
            "IndexIVFAdditiveQuantizer",
            "IndexIVFAdditiveQuantizerFastScan",
        ],
        "a base of the classes for one kind of additive quantizer",
    ),
    **dict.fromkeys(
        ["IndexNeuralNetCodec", "IndexQINCo"],
        "wants a network that is made with torch; made here, it is of no use",
    ),
}


def all_classes(families: tuple[type, ...] = FAMILIES) -> list[str]:
    """The names of the classes of the installed FAISS that are of these families."""
    found = (getattr(faiss, name) for name in dir(faiss))
    return sorted({each.__name__ for each in found if isinstance(each, type) and issubclass(each, families)})


class Data:
    """The arrays that programs use, of one seed."""

    def __init__(self, dtype: str, d: int, n: int = 640) -> None:
        rows: Any
        random = np.random.default_rng(5)
        if dtype == "uint8":
            rows = random.integers(0, 256, (n, d), dtype=np.uint8)
        else:
            rows = random.random((n, d), dtype=np.float32)
        self.xt, self.xb, self.xq = rows, rows[:200].copy(), rows[50:57].copy()
        self.ids = np.arange(1000, 1200)
        self.d = d

"""Raw libraries: vectors and row numbers only. FAISS by hand, hnswlib, USearch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np

from benchmarks.machine import cores
from benchmarks.systems.interface import EFS, Effort, Key, Kind, Metadata, Place, Rows, Where, ef_efforts
from faissbase.types import Float32, Metric

_EF_CONSTRUCTION = 100
_RERANKS = (1, 2, 4)


class NotOfferedError(Exception):
    """The system has no such operation."""


def unit(x: Float32) -> Float32:
    """Rows of unit length."""
    scaled: Float32 = (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


class _Library:
    """What libraries share: they take no filter and, here, no upsert."""

    kind: ClassVar[Kind] = "library"
    has_filters: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        self._place = place
        self._n_threads = cores()

    @property
    def _file(self) -> Path:
        return self._place.folder / "index"

    def _form(self, x: Float32) -> Float32:
        return unit(x) if self._place.metric == "cosine" else x

    def prepare(self, effort: Effort) -> None:
        """The effort goes with every call."""

    def use_threads(self, n: int) -> None:
        self._n_threads = n

    def upsert(self, id: str, vector: Float32, metadata: Metadata) -> None:
        raise NotOfferedError("upsert")

    def close(self) -> None:
        """Everything was written by `load`."""


class _FaissHnsw(_Library):
    """HNSW over codes, re-ranked by the float32 rows."""

    m: ClassVar[int]
    codes: ClassVar[str] = "QT_8bit"
    efforts: ClassVar[Sequence[Effort]] = [
        Effort(f"ef {ef}, k_factor {factor}", {"ef": ef, "factor": factor})
        for ef in EFS
        for factor in _RERANKS
        if factor * 10 <= max(ef, 20)
    ]

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._refined: Any = None if place.is_new else faiss.read_index(str(self._file))

    def load(self, rows: Rows) -> None:
        kind = _faiss_metric(self._place.metric)
        codes = faiss.IndexHNSWSQ(self._place.d, getattr(faiss.ScalarQuantizer, self.codes), self.m, kind)
        codes.hnsw.efConstruction = _EF_CONSTRUCTION
        self._refined = faiss.IndexRefineFlat(codes)
        xb = self._form(rows.xb)
        self._refined.train(xb)
        self._refined.add(xb)
        faiss.write_index(self._refined, str(self._file))
        self._codes = codes  # the refined index borrows it

    def use_threads(self, n: int) -> None:
        faiss.omp_set_num_threads(n)

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        return self.search_batch(q[None], k, effort)[0]

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        inner = faiss.SearchParametersHNSW(efSearch=effort.values["ef"])
        params = faiss.IndexRefineSearchParameters(k_factor=effort.values["factor"], base_index_params=inner)
        found: list[list[Key]] = self._refined.search(self._form(xq), k, params=params)[1].tolist()
        return found


class FaissHnsw32(_FaissHnsw):
    name: ClassVar[str] = "FAISS HNSW32 SQ8 + float32"
    m: ClassVar[int] = 32


class FaissHnsw16(_FaissHnsw):
    name: ClassVar[str] = "FAISS HNSW16 SQ8 + float32"
    m: ClassVar[int] = 16


class FaissHnsw32Fp16(_FaissHnsw):
    name: ClassVar[str] = "FAISS HNSW32 fp16 + float32"
    m: ClassVar[int] = 32
    codes: ClassVar[str] = "QT_fp16"


class FaissFlat(_Library):
    """Exact."""

    name: ClassVar[str] = "FAISS Flat"
    efforts: ClassVar[Sequence[Effort]] = [Effort("exact")]

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._index: Any = (
            faiss.IndexFlat(place.d, _faiss_metric(place.metric))
            if place.is_new
            else faiss.read_index(str(self._file))
        )

    def load(self, rows: Rows) -> None:
        self._index.add(self._form(rows.xb))
        faiss.write_index(self._index, str(self._file))

    def use_threads(self, n: int) -> None:
        faiss.omp_set_num_threads(n)

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        return self.search_batch(q[None], k, effort)[0]

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        found: list[list[Key]] = self._index.search(self._form(xq), k)[1].tolist()
        return found


def _faiss_metric(metric: Metric) -> int:
    return int(faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)


class Hnswlib(_Library):
    """hnswlib, float32."""

    name: ClassVar[str] = "hnswlib"
    efforts: ClassVar[Sequence[Effort]] = ef_efforts(EFS)

    def __init__(self, place: Place) -> None:
        import hnswlib

        super().__init__(place)
        self._index: Any = hnswlib.Index(space=place.metric, dim=place.d)
        if not place.is_new:
            self._index.load_index(str(self._file))

    def prepare(self, effort: Effort) -> None:
        self._index.set_ef(effort.values["ef"])

    def load(self, rows: Rows) -> None:
        self._index.init_index(max_elements=len(rows.xb), M=16, ef_construction=200)
        self._index.add_items(rows.xb)
        self._index.save_index(str(self._file))

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        return self.search_batch(q[None], k, effort)[0]

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        found: list[list[Key]] = self._index.knn_query(xq, k, num_threads=self._n_threads)[0].tolist()
        return found


class USearch(_Library):
    """USearch over bfloat16: its 8-bit codes end near .94 on text embeddings, and it cannot re-rank."""

    name: ClassVar[str] = "USearch"
    efforts: ClassVar[Sequence[Effort]] = ef_efforts(EFS, "expansion")

    def __init__(self, place: Place) -> None:
        from usearch.index import Index

        super().__init__(place)
        metric = {"cosine": "cos", "l2": "l2sq", "ip": "ip"}[place.metric]
        self._index: Any = Index(
            ndim=place.d,
            metric=metric,
            dtype="bf16",
            connectivity=16,
            expansion_add=_EF_CONSTRUCTION,
        )
        if not place.is_new:
            self._index.load(str(self._file))

    def prepare(self, effort: Effort) -> None:
        self._index.expansion_search = effort.values["ef"]

    def load(self, rows: Rows) -> None:
        self._index.add(np.arange(len(rows.xb)), rows.xb)
        self._index.save(str(self._file))

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        found: list[Key] = self._index.search(q, k, threads=1).keys.tolist()
        return found

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        found: list[list[Key]] = self._index.search(xq, k, threads=self._n_threads).keys.tolist()
        return found

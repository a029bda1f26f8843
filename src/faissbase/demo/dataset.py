"""The demo data that travels inside the package: records, held-out queries and their exact answers.

Knows only the files of ``data/`` and arrays: no faiss, no storage, no network. ``data/README.md`` documents
every file and formula.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from faissbase.errors import CorruptionError, InvalidInputError
from faissbase.types import Batch, Float32

FORMAT = 1
QUERY_SECTION = "$query.section"
"""Stands in a filter template for the section of the query's own package."""

INFO_FILE = "dataset.json"
VECTORS_FILE = "vectors.i8.zz"
RECORDS_FILE = "records.jsonl.xz"
QUERY_VECTORS_FILE = "queries.f16.npy"
QUERIES_FILE = "queries.jsonl.xz"
TRUTH_FILE = "truth.npz"


@dataclass(frozen=True, slots=True)
class Question:
    """One query chosen for showing.

    Attributes
    ----------
    query : int
        Row in ``query_texts`` and ``query_vectors``.
    where : dict or None
        The filter to ask it with.
    comment : str
        One line for the reader: what to look for in the hits.
    """

    query: int
    where: dict[str, Any] | None
    comment: str


@dataclass(frozen=True, eq=False)
class DemoQueries:
    """Held-out queries and their exact answers among the demo records.

    Attributes
    ----------
    query_texts, query_sections : list of str
        First sentence and section of 500 packages that are not among the records.
    query_vectors : float32[500, 384]
        Their embeddings, unit length up to float16 rounding.
    truth_ids : int32[500, 20]
        Row numbers of the nearest records by cosine, nearest first; ties to the smaller row.
    truth_scores : float32[500, 20]
        Their cosines.
    filters : dict of str to where
        Filters by name. `QUERY_SECTION` marks a template: see `where_for`.
    filter_truth : dict of str to int32[500, 10]
        As ``truth_ids`` among the records that pass, padded with -1 where fewer pass.
    questions : list of Question
    """

    query_texts: list[str]
    query_vectors: Float32
    query_sections: list[str]
    truth_ids: npt.NDArray[np.int32]
    truth_scores: Float32
    filters: dict[str, dict[str, Any]]
    filter_truth: dict[str, npt.NDArray[np.int32]]
    questions: list[Question]

    def where_for(self, name: str, query: int) -> dict[str, Any]:
        """The filter ``name`` as query ``query`` asks it, a template filled in."""
        where = self.filters[name]
        if where == {"section": QUERY_SECTION}:
            return {"section": self.query_sections[query]}
        return where


@dataclass(frozen=True, eq=False)
class DemoDataset(DemoQueries):
    """The records beside the queries.

    Attributes
    ----------
    ids : list of str
        Package names, unique.
    vectors : float32[n, 384]
        Unit length.
    metadatas : list of dict
    documents : list of str
    """

    ids: list[str]
    vectors: Float32
    metadatas: list[dict[str, Any]]
    documents: list[str]


def demo_shape() -> tuple[int, int]:
    """Number of records and dimension, without loading them."""
    info = _info()
    return info["n"], info["d"]


def load_queries() -> DemoQueries:
    """The queries and their answers alone: what is still needed after `iter_batches`.

    Raises
    ------
    CorruptionError
        A file of the data set is damaged or of another format.
    """
    info = _info()
    queries = [
        orjson.loads(line) for line in lzma.decompress(_checked_bytes(QUERIES_FILE, info)).splitlines()
    ]
    query_vectors = np.load(io.BytesIO(_checked_bytes(QUERY_VECTORS_FILE, info)), allow_pickle=False)
    with np.load(io.BytesIO(_checked_bytes(TRUTH_FILE, info)), allow_pickle=False) as truth:
        return DemoQueries(
            query_texts=[query["text"] for query in queries],
            query_vectors=query_vectors.astype(np.float32),
            query_sections=[query["section"] for query in queries],
            truth_ids=truth["ids"],
            truth_scores=truth["scores"],
            filters=info["filters"],
            filter_truth={name: truth[f"filter_{name}"] for name in info["filters"]},
            questions=[Question(**question) for question in info["questions"]],
        )


def load_demo() -> DemoDataset:
    """Everything at once: 145 MB when loaded, 200 MB on the way.

    Raises
    ------
    CorruptionError
        A file of the data set is damaged or of another format.
    """
    codes, lines = _codes_and_lines()
    rows = [orjson.loads(line) for line in lines]
    return DemoDataset(
        **vars(load_queries()),
        ids=[row["id"] for row in rows],
        vectors=vectors_from_codes(codes),
        metadatas=[row["metadata"] for row in rows],
        documents=[row["document"] for row in rows],
    )


def iter_batches(batch_rows: int = 2048) -> Iterator[Batch]:
    """The records in row order, ``batch_rows`` at a time; the last batch may be smaller.

    Raises
    ------
    InvalidInputError
        ``batch_rows`` is smaller than 1.
    CorruptionError
        A file of the data set is damaged or of another format.
    """
    if batch_rows < 1:
        raise InvalidInputError(f"expected batch_rows of 1 or more, got {batch_rows}")
    codes, lines = _codes_and_lines()
    return (
        _batch(codes[:, start : start + batch_rows], lines[start : start + batch_rows])
        for start in range(0, len(lines), batch_rows)
    )


def vectors_from_codes(codes: npt.NDArray[np.int8]) -> Float32:
    """``float32[n, d]`` of unit length from ``int8[d, n]``: each row of codes divided by its length.

    The same bits on every machine: a sum of squared codes stays below 2**24 and is exact in float32 in any
    order; the square root and the division are correctly rounded.
    """
    vectors: Float32 = codes.T.astype(np.float32, order="C")
    lengths: Float32 = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    vectors /= lengths[:, np.newaxis]
    return vectors


def _batch(codes: npt.NDArray[np.int8], lines: list[bytes]) -> Batch:
    rows = [orjson.loads(line) for line in lines]
    return Batch(
        vectors=vectors_from_codes(codes),
        ids=[row["id"] for row in rows],
        metadatas=[row["metadata"] for row in rows],
        documents=[row["document"] for row in rows],
    )


def _codes_and_lines() -> tuple[npt.NDArray[np.int8], list[bytes]]:
    info = _info()
    codes = np.frombuffer(zlib.decompress(_checked_bytes(VECTORS_FILE, info)), dtype=np.int8)
    lines = lzma.decompress(_checked_bytes(RECORDS_FILE, info)).splitlines()
    return codes.reshape(info["d"], info["n"]), lines


def _info() -> dict[str, Any]:
    info: dict[str, Any] = orjson.loads(_file_bytes(INFO_FILE))
    if info["format"] != FORMAT:
        raise CorruptionError(f"{INFO_FILE}: expected format {FORMAT}, got {info['format']}")
    return info


def _checked_bytes(name: str, info: dict[str, Any]) -> bytes:
    content = _file_bytes(name)
    digest = hashlib.sha256(content).hexdigest()
    if digest != info["sha256"][name]:
        raise CorruptionError(f"{name}: expected sha256 {info['sha256'][name]}, got {digest}")
    return content


def _file_bytes(name: str) -> bytes:
    return (files("faissbase.demo") / "data" / name).read_bytes()

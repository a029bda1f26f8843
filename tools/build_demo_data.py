"""Make the files of ``src/faissbase/demo/data`` from the full data set.

    python tools/build_demo_data.py SOURCE_FOLDER OUT_FOLDER

SOURCE_FOLDER holds ``metadata.parquet``, ``vectors.f16.npy``, ``queries.parquet`` and ``queries.f16.npy``.
Needs pyarrow. The same source gives the same bytes with the same versions of zlib, liblzma and NumPy.
``README.md`` of the data folder is written by hand and documents the formats.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow.parquet as pq

from faissbase.demo.dataset import (
    FORMAT,
    INFO_FILE,
    QUERIES_FILE,
    QUERY_SECTION,
    QUERY_VECTORS_FILE,
    RECORDS_FILE,
    TRUTH_FILE,
    VECTORS_FILE,
    vectors_from_codes,
)

DATA_FILES = (VECTORS_FILE, RECORDS_FILE, QUERY_VECTORS_FILE, QUERIES_FILE, TRUTH_FILE)

STEP = 0.007  # the largest round step whose worst row keeps a cosine of 0.999 to the original
DOCUMENT_LIMIT = 600  # characters; the embeddings saw the first 400
TRUTH_K = 20
FILTER_K = 10
MARGIN = 1e-9  # far above what the order of a float64 sum can change in a cosine

METADATA_FIELDS = (
    "source",
    "version",
    "section",
    "priority",
    "architecture",
    "maintainer",
    "installed_size",
    "deb_size",
    "essential",
    "tags",
    "homepage",
    "summary",
)

LIBRARIES = ["libs", "libdevel"]
FILTERS: dict[str, dict[str, Any]] = {
    "section_python": {"section": "python"},
    "small": {"installed_size": {"$lt": 100}},
    "big_libs": {"$and": [{"section": {"$in": LIBRARIES}}, {"installed_size": {"$gte": 1000}}]},
    "selective": {"$and": [{"section": "database"}, {"installed_size": {"$gte": 1000}}]},
    "weak": {"section": {"$nin": LIBRARIES}},
    "tag_program": {"tags": {"$contains": "role::program"}},
    "tag_or": {
        "$or": [
            {"$and": [{"tags": {"$contains": "interface::commandline"}}, {"$not": {"section": "games"}}]},
            {"essential": True},
        ]
    },
    "essential": {"essential": True},
    "none": {"installed_size": {"$lt": 0}},
    "own_section": {"section": QUERY_SECTION},
}

QUESTIONS: list[dict[str, Any]] = [
    {"query": 291, "where": None, "comment": "three Mahjongg games"},
    {"query": 484, "where": None, "comment": "other programs that draw the moon"},
    {
        "query": 301,
        "where": {"section": "python"},
        "comment": "asked about Go, answered with what reads INI files in Python",
    },
    {
        "query": 302,
        "where": {"tags": {"$contains": "interface::commandline"}},
        "comment": "command-line programs that read a photo's EXIF data",
    },
    {
        "query": 359,
        "where": {"installed_size": {"$gte": 1000, "$lt": 10000}},
        "comment": "fractal programs of 1 to 10 MB installed",
    },
    {
        "query": 203,
        "where": {
            "$and": [
                {"$or": [{"section": "perl"}, {"section": "python"}]},
                {"$not": {"tags": {"$contains": "role::program"}}},
            ]
        },
        "comment": "asked about JavaScript, answered with Perl and Python libraries for IP addresses",
    },
]

Rows = list[dict[str, Any]]
Codes = npt.NDArray[np.int8]
Float64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int32]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the demo data set.")
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    build(arguments.source, arguments.out)
    for path in sorted(arguments.out.iterdir()):
        print(f"{path.stat().st_size:>12,}  {path.name}")


def build(source: Path, out: Path) -> None:
    """Write every file but the README."""
    rows = pq.read_table(source / "metadata.parquet").to_pylist()
    queries = pq.read_table(source / "queries.parquet").to_pylist()
    original = unit_rows(np.load(source / "vectors.f16.npy"))
    stored_queries = np.load(source / "queries.f16.npy")
    codes = quantised(original)
    shipped = unit_rows(vectors_from_codes(codes))
    xq = unit_rows(stored_queries.astype(np.float32))

    write_vectors(codes, out / VECTORS_FILE)
    write_jsonl([record(row) for row in rows], out / RECORDS_FILE)
    write_jsonl([{"text": q["text"], "section": q["section"]} for q in queries], out / QUERIES_FILE)
    np.save(out / QUERY_VECTORS_FILE, stored_queries)
    np.savez_compressed(out / TRUTH_FILE, **truth(rows, queries, shipped, xq))
    info = {
        "format": FORMAT,
        "n": len(rows),
        "d": original.shape[1],
        "step": STEP,
        "measured": measured(original, shipped, xq),
        "sha256": {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in DATA_FILES},
        "filters": FILTERS,
        "questions": QUESTIONS,
    }
    (out / INFO_FILE).write_bytes(orjson.dumps(info, option=orjson.OPT_INDENT_2) + b"\n")


def unit_rows(vectors: npt.NDArray[Any]) -> Float64:
    """The rows in float64, divided by their lengths."""
    rows = vectors.astype(np.float64)
    lengths: Float64 = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return rows / lengths


def quantised(vectors: Float64) -> Codes:
    """``int8[d, n]``: one step for all dimensions, so that frequent codes cost few bits."""
    codes = np.rint(vectors / STEP)
    if np.abs(codes).max() > 127:
        raise ValueError(f"a component does not fit int8 with step {STEP}")
    return np.ascontiguousarray(codes.T.astype(np.int8))


def write_vectors(codes: Codes, path: Path) -> None:
    """One zlib stream, flushed after each dimension so that each gets Huffman tables of its own."""
    stream = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    parts = [stream.compress(dimension.tobytes()) + stream.flush(zlib.Z_SYNC_FLUSH) for dimension in codes]
    path.write_bytes(b"".join(parts) + stream.flush())


def write_jsonl(objects: Rows, path: Path) -> None:
    lines = b"".join(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in objects)
    path.write_bytes(lzma.compress(lines, preset=9 | lzma.PRESET_EXTREME))


def record(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["name"],
        "metadata": {field: row[field] for field in METADATA_FIELDS},
        "document": shortened(row["description"]) or row["summary"],
    }


def shortened(text: str) -> str:
    """At most `DOCUMENT_LIMIT` characters, cut after a sentence where one ends in the second half."""
    if len(text) <= DOCUMENT_LIMIT:
        return text
    head = text[:DOCUMENT_LIMIT]
    sentence = max(head.rfind(". "), head.rfind(".\n")) + 1
    end = sentence if sentence > DOCUMENT_LIMIT // 2 else max(head.rfind(" "), head.rfind("\n"))
    return head[:end].rstrip()


def truth(rows: Rows, queries: Rows, xb: Float64, xq: Float64) -> dict[str, Any]:
    """The exact answers, named as in the file."""
    cosines = xq @ xb.T
    everything = np.ones(len(rows), dtype=bool)
    answers = [nearest(cosines[i], everything, TRUTH_K, xb, xq[i]) for i in range(len(xq))]
    arrays: dict[str, Any] = {
        "ids": np.stack([ids for ids, _ in answers]),
        "scores": np.stack([scores for _, scores in answers]),
    }
    for name, where in FILTERS.items():
        masks = query_masks(where, rows, queries)
        found = [nearest(cosines[i], masks[i], FILTER_K, xb, xq[i])[0] for i in range(len(xq))]
        arrays[f"filter_{name}"] = np.stack(found)
    return arrays


def query_masks(where: dict[str, Any], rows: Rows, queries: Rows) -> list[npt.NDArray[np.bool_]]:
    """For each query the rows that pass; equal masks are one object."""
    if where != {"section": QUERY_SECTION}:
        return [np.array([passes(where, row) for row in rows])] * len(queries)
    sections = np.array([row["section"] for row in rows])
    return [sections == query["section"] for query in queries]


def passes(where: dict[str, Any], row: dict[str, Any]) -> bool:
    """The filter's plain meaning, for the operators used here."""
    return all(_condition_holds(key, value, row) for key, value in where.items())


def _condition_holds(key: str, value: Any, row: dict[str, Any]) -> bool:
    if key == "$and":
        return all(passes(part, row) for part in value)
    if key == "$or":
        return any(passes(part, row) for part in value)
    if key == "$not":
        return not passes(value, row)
    operators = value if isinstance(value, dict) else {"$eq": value}
    return all(_OPERATORS[name](row[key], operand) for name, operand in operators.items())


_OPERATORS: dict[str, Any] = {
    "$eq": lambda field, operand: field == operand,
    "$lt": lambda field, operand: field < operand,
    "$gte": lambda field, operand: field >= operand,
    "$in": lambda field, operand: field in operand,
    "$nin": lambda field, operand: field not in operand,
    "$contains": lambda field, operand: operand in field,
}


def nearest(
    cosines: Float64, mask: npt.NDArray[np.bool_], k: int, xb: Float64, query: Float64
) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Row numbers and cosines of the k nearest rows that pass, padded with -1 and NaN.

    Ties go to the smaller row. A matrix product may give equal rows different last bits, so the candidates
    it proposes are summed again one row at a time.
    """
    ids = np.full(k, -1, dtype=np.int32)
    scores = np.full(k, np.nan, dtype=np.float32)
    passing = np.flatnonzero(mask)
    count = min(k, len(passing))
    if count:
        floor = np.partition(cosines[passing], len(passing) - count)[len(passing) - count]
        candidates = passing[cosines[passing] >= floor - MARGIN]
        exact = (xb[candidates] * query).sum(axis=1)
        order = np.lexsort((candidates, -exact))[:count]
        ids[:count], scores[:count] = candidates[order], exact[order]
    return ids, scores


def measured(original: Float64, shipped: Float64, xq: Float64) -> dict[str, float]:
    """What quantising cost: cosine to the original rows, and recall@10 against exact search in them."""
    cosines = (original * shipped).sum(axis=1)
    before = np.argsort(-(xq @ original.T), axis=1, kind="stable")[:, :10]
    after = np.argsort(-(xq @ shipped.T), axis=1, kind="stable")[:, :10]
    shared = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(before, after, strict=True)]
    return {
        "cosine_min": round(float(cosines.min()), 6),
        "cosine_mean": round(float(cosines.mean()), 6),
        "recall_at_10": round(sum(shared) / (10 * len(xq)), 4),
    }


if __name__ == "__main__":
    main()

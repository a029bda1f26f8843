"""What is not compared, because FAISS itself does not survive it, and what differs on purpose.

An entry is a pattern of class names (or factory strings), one of ``group: step``, and the reason.
"""

from __future__ import annotations

import re

_NO_POSITIONS = (
    "IndexIDMap2?|IDMap2?,.*|IndexRowwiseMinMax(FP16)?|MinMax.*|IndexShards(IVF)?|IndexSplitVectors|"
    "IndexIVFIndependentQuantizer"
)
_HNSW = ".*HNSW.*|NSG8.*|IndexNSG.*|IndexNNDescent.*"
NOT_TRIED = [
    (
        ".*",
        "reconstruct: reconstruct_n (too many|before)",
        "FAISS reads past its arrays, or ends the process",
    ),
    (
        _NO_POSITIONS,
        "reconstruct: reconstruct_n.*|direct map: reconstruct_n",
        "FAISS ends the process: its threads throw, for the class has no reconstruct",
    ),
    (
        "IndexIVF.*|IndexBinaryIVF|BIVF.*|IVF.*|IMI.*|.*,IVF.*",
        "reconstruct: reconstruct_n of all",
        "FAISS leaves rows as they lay in memory where no vector has the id",
    ),
    (
        "IndexIVF.*FastScan|IVF.*fsr?",
        "codes: .*",
        "FAISS leaves codes as they lay in memory, which later steps would show",
    ),
    ("ResidualCoarseQuantizer|LocalSearchCoarseQuantizer", "search: more than there are", "as above"),
    ("IndexRaBitQFastScan|RaBitQfs", "add: add none", "FAISS divides by the number of rows"),
    ("NSG8.*|IndexNSG.*", "search: more than there are", "FAISS does not come back"),
    ("MultiIndexQuantizer2?", "search: more than there are", "FAISS ends the process"),
    (
        "IndexIVFSpectralHash",
        "search: search_and_reconstruct|(files|copies|functions|remove_ids|merge_from): .*",
        "FAISS ends the process: its threads throw, and what is written cannot be",
    ),
    (
        ".*FastScan|.*fs(_.*)?",
        "reset: search when empty",
        "FAISS ends the process: it scans blocks that it has freed",
    ),
    (
        "IndexIVFProductResidualQuantizerFastScan",
        "functions: clone_index",
        "FAISS searches a clone of it in memory that is not its own, and ends the process at times",
    ),
    (
        "IndexIVFPQR|IVF4,PQ4.4",
        "(?!make|types|train|add).*",
        "FAISS ends the process at a search",
    ),
]
DIFFERS = [
    ("IndexFlat1D", "copies: .*", "a copy that FAISS makes is of no use: its methods refuse it"),
    (
        ".*",
        "(reconstruct|direct map): .*",
        "a position outside of the index is refused by the server where FAISS would give foreign memory",
    ),
    (
        ".*",
        "types: (methods|hasattr)",
        "a field that is a raw pointer cannot be read: it is a place in the server's memory",
    ),
    (
        "IndexBinary.*|B.*",
        "search: search_and_reconstruct",
        "it takes pointers: the server says so, where FAISS says that arguments are missing",
    ),
]


def reason_of(table: list[tuple[str, str, str]], name: str, group: str, what: str) -> str | None:
    """The reason that a table gives for a step of a class; None where it has none."""
    for names, steps, reason in table:
        if re.fullmatch(names, name) and re.fullmatch(steps, f"{group}: {what}"):
            return reason
    return None

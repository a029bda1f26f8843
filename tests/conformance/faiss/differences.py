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
        "search: search_and_reconstruct",
        "FAISS ends the process: a thread of its own throws, for the class reconstructs nothing",
    ),
    (
        "IndexIVFSpectralHash",
        "(functions|copies): clone_index|merge_from: merge_from",
        "FAISS's clone and its model free the same memory",
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
        "add: (add_with_ids|ids of int32)|codes: add_sa_codes|merge_from: merge_from",
        "FAISS searches outside of its arrays afterwards: the codes that refine lie at the place of an id",
    ),
]
DIFFERS = [
    (
        "IndexFlat1D|MultiIndexQuantizer2",
        "copies: .*",
        "a copy that FAISS makes is of no use: its methods refuse it",
    ),
    (
        "(Residual|LocalSearch)CoarseQuantizer|MultiIndexQuantizer2?|IndexBinary(Flat|HNSW|HNSWCagra|Replicas)|"
        "BHNSW.*|BFlat",
        "reconstruct: an id",
        "a position outside of the index is refused by the server where FAISS would give foreign memory",
    ),
]
# What a server refuses, with an error that says so, where FAISS ends the process or never comes back.
REFUSED = [
    (
        "`search` of an `IndexIVFPQR` that holds ids which are not from 0 to `ntotal - 1`",
        "FAISS looks for its refining codes at the place that an id says",
    ),
    (
        "`search_and_reconstruct` of an `IndexIVFSpectralHash`",
        "a thread of FAISS's throws, for the class reconstructs nothing",
    ),
    (
        "`add` or `train` of an `IndexNSG*` or `IndexNNDescent*` with few rows, or many equal ones, on which "
        "FAISS fails (tried first in a process of its own), and sizes such as `nsg.L` beyond the rows",
        "it ends the process or never comes back",
    ),
    (
        "a search of an `IndexNSG*` for more than its vectors, in whatever it is nested",
        "it never comes back",
    ),
    (
        "`search` of an `IndexFlat*` with an `IDSelectorRange` that ends before it begins, or begins behind "
        "the end",
        "FAISS reads outside of the vectors",
    ),
    (
        "`search`, `sa_encode`, `sa_decode` of an additive `*FastScan`, an additive coarse quantizer or an "
        "`IndexLattice` that is not trained",
        "FAISS reads tables that are not there",
    ),
    (
        "writing (`add`, `remove_ids`, `merge_from`) into inverted lists that are made of others "
        "(`HStackInvertedLists`, `SliceInvertedLists` and their like)",
        "threads of FAISS's throw",
    ),
    ("`range_search` of an `IndexHNSW*` without vectors", "FAISS starts at a vector that is not there"),
    ("`add` of no rows to an empty `*FastScan`", "FAISS divides by the number of rows"),
    (
        "codes with the number of a list that there is not, for `sa_decode` and `add_sa_codes`",
        "FAISS reads it",
    ),
]
# What a server does in another way, to the same end, because FAISS's own way is not sound.
MENDED = [
    (
        "`clone_index` of an `IndexIVFSpectralHash` or `IndexIVFProduct*FastScan`",
        "the clone is read from what the index is written as, for FAISS's own shares memory with its model",
    ),
]


def reason_of(table: list[tuple[str, str, str]], name: str, group: str, what: str) -> str | None:
    """The reason that a table gives for a step of a class; None where it has none."""
    for names, steps, reason in table:
        if re.fullmatch(names, name) and re.fullmatch(steps, f"{group}: {what}"):
            return reason
    return None


_LEFT = [  # by names and steps: FAISS gives what lies in memory, so that two runs differ, or a useless copy
    ("IndexFlat1D|MultiIndexQuantizer2", "copy|pickle|clone"),
    ("IndexIVF.*FastScan|IVF.*fsr?", "codes|search_and_return_codes"),
    ("IndexIVF.*|IndexBinaryIVF|BIVF.*|IVF.*|IMI.*|.*,IVF.*|.*IVF.*|Residual.*|RCQ.*", "reconstruct_n"),
]


def not_drawn(name: str, step: tuple[str, tuple[object, ...]], it: object) -> bool:
    """Whether a random program leaves a step out for this class, for FAISS itself does not repeat it."""
    return any(re.fullmatch(names, name) and re.fullmatch(steps, step[0]) for names, steps in _LEFT)

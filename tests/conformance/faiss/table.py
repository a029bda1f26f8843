"""Writes docs/faiss-compatibility.md: class by class, what ``faiss_proxy`` gives as ``faiss`` does.

Run as ``python -m tests.conformance.faiss.table``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import faiss
from tests.conformance.faiss.comparing import Compared, compared
from tests.conformance.faiss.differences import DIFFERS, MENDED, NOT_TRIED, REFUSED
from tests.conformance.faiss.recipes import NO_RECIPE, RECIPES
from tests.e2e.server.running import Running

import faiss_proxy

COMMAND = "python -m tests.conformance.faiss.table"
PATH = Path(__file__).parents[3] / "docs" / "faiss-compatibility.md"
_GROUPS = [
    "make",
    "types",
    "train",
    "add",
    "search",
    "params",
    "range_search",
    "reconstruct",
    "codes",
    "apply",
    "functions",
    "remove_ids",
    "merge_from",
    "reset",
    "errors",
    "files",
    "copies",
]
_HEAD = f"""\
# What `faiss_proxy` does as `faiss` does

Written by `{COMMAND}` with FAISS {faiss.__version__}; do not edit. For each class the same steps were
run with `faiss` in this process and with `faiss_proxy` against a server, and all they gave compared: arrays
byte by byte, values, files, and exceptions with their messages.

A cell counts the steps: `12` means that 12 steps gave the same, `11 ≠1` that one more differs on purpose (the
reasons are below), `-` that there is nothing to do. Steps that FAISS itself refuses for a class count as the
same when the same exception with the same message came back.
"""
_ELSEWHERE = """\
## Runs in your process, as ever

`normalize_L2`, `knn`, `pairwise_distances`, `kmin`, `Kmeans`, `Clustering`, `rand`, `vector_to_array` of
local vectors, and all other functions that are given arrays: they are FAISS's own. `SearchParameters*`,
`IDSelector*` and `ParameterSpace` are FAISS's own, too, and travel with a call by value.

## Not on a server

* Places in the server's memory: use `.to_local()`. `get_xb`, `get_ids`, `get_codes` and `data` of a vector
  are read by `rev_swig_ptr` and `memcpy`, as copies. Methods of C++ that are given arrays by pointers take
  those of your own process: those that FAISS's Python calls itself (`train_c`, `add_c`, `search_c` and more),
  `add_core`, `compute_distance_subset`, `compute_residual`, `add_entries`, `update_entries`,
  `permute_invlists`, `apply_noalloc` and `search_and_reconstruct` of bits.
* Sizes (`d`, `ntotal`, `nlist`, `code_size`): they say how memory is laid out and can be read, not set; but
  for the `ntotal` of a flat index whose `codes` were filled.
* A part that does not fit (a quantizer with another number of lists, inverted lists of other codes).
* `OnDiskInvertedLists`, `PyCallbackIDSelector`: they open files or call back into Python.
* `repr` of an object says at which server it is, and not where in memory.
"""


def row(name: str, found: list[Compared]) -> str:
    """The line of a class."""
    cells = [_cell([each for each in found if each.group == group]) for group in _GROUPS]
    return f"| `{name}` | " + " | ".join(cells) + " |"


def _cell(steps: list[Compared]) -> str:
    if not steps:
        return "-"
    n_same = sum(each.is_same for each in steps)
    n_other = len(steps) - n_same
    return f"{n_same} ≠{n_other}" if n_other else str(n_same)


def text(rows: dict[str, str]) -> str:
    """The whole page."""
    every = [f"| class | {' | '.join(_GROUPS)} |", f"|---|{'--:|' * len(_GROUPS)}"]
    every += [rows.get(name, f"| `{name}` |") for name in RECIPES]
    every += ["", "| class | why it is not in the table |", "|---|---|"]
    every += [f"| `{name}` | {reason} |" for name, reason in NO_RECIPE.items()]
    differs = [f"* {steps} of {names}: {reason}." for names, steps, reason in map(_plain, DIFFERS)]
    untried = [f"* {steps} of {names}: {reason}." for names, steps, reason in map(_plain, NOT_TRIED)]
    parts = [
        _HEAD,
        "\n".join(every) + "\n",
        "## What differs on purpose\n\n" + "\n".join(differs or ["* None of the steps."]) + "\n",
        "## What FAISS itself does not survive\n\n"
        "Not compared; the server refuses most of it with an error, where FAISS ends the process.\n\n"
        + "\n".join(untried)
        + "\n",
        "## What the server does not let FAISS do\n\n"
        "All objects of the tenant would be lost, so these end in a `RemoteError` that says why:\n\n"
        + "\n".join(f"* {what}: {why}." for what, why in REFUSED)
        + "\n\nAnd this is done in another way, with the same outcome:\n\n"
        + "\n".join(f"* {what}: {why}." for what, why in MENDED)
        + "\n",
        _ELSEWHERE,
    ]
    return "\n".join(parts)


def _plain(entry: tuple[str, str, str]) -> tuple[str, str, str]:
    names, steps, reason = entry
    where = "all classes" if names == ".*" else f"`{names}`"
    return where, f"`{steps}`", reason


def main() -> None:
    rows = {}
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, Running(Path(folder)) as running:
        with faiss_proxy.remote(running.url):
            faiss_proxy.omp_set_num_threads(1)
            for name in RECIPES:
                rows[name] = row(name, compared(faiss_proxy, name))
        running.stop()
    PATH.write_text(text(rows))


if __name__ == "__main__":
    main()

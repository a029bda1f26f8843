"""What takes the place of FAISS's own parts leaves FAISS whole."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc
import faiss
from faissbase.dropin import attaching

for _ in range(3):
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(4), 4, 2)
    kept = attaching.released(index, "invlists")
    lists = faiss.ArrayInvertedLists(2, 16)
    index.replace_invlists(lists, False)
    del kept, index, lists
    gc.collect()
print(type(faiss.downcast_index(faiss.IndexFlatL2(4))).__name__)
"""


def test_what_was_taken_from_an_index_is_freed_and_faiss_has_its_classes_still() -> None:
    """In a process that holds nothing else: SWIG counts what is owned, and ends its module at nought."""
    found = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False, timeout=60
    )
    assert (found.stdout, found.returncode) == ("IndexFlatL2\n", 0), found.stderr

"""Whether a file of FAISS leads to another file. Knows bytes only: no faiss.

What FAISS calls `OnDiskInvertedLists` is a name, and reading it maps whatever file of this machine that is.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_ON_DISK = b"ilod"
_N_LISTS_AT, _LIST_BYTES = 20, 24


def has_lists_on_disk(path: Path) -> bool:
    """Whether there are inverted lists on disk somewhere in the file, whatever they are nested in.

    Behind their mark are two numbers, how many lists there are, and 24 bytes for each: what has no room for
    those has the letters by chance, and FAISS could not read it as lists.
    """
    if not path.stat().st_size:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_ON_DISK)
        while at >= 0:
            start = at + _N_LISTS_AT
            n_lists = int.from_bytes(data[start : start + 8], "little")
            if start + 8 <= len(data) and n_lists <= (len(data) - start) // _LIST_BYTES:
                return True
            at = data.find(_ON_DISK, at + 1)
    return False

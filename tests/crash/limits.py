"""The product's limits at a quarter of their size, so that a quarter of the records meets each of them.

Every trial of these tests reads all records several times: what a trial costs is what it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from faissbase.collection import writer
from faissbase.storage import checksums

LARGE_BYTES = 64 << 10
BLOCK_BYTES = 256 << 10


@contextmanager
def quartered() -> Iterator[None]:
    """Commits above 64 KiB are large, and 256 KiB of slots are a checksummed block.

    Whoever opens a folder that was written under these limits needs them too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_REDO_BYTES_A_COMMIT", LARGE_BYTES)
        patch.setattr(checksums, "BLOCK_BYTES", BLOCK_BYTES)
        yield

"""Checksums of rows and of blocks of the slot file. Knows bytes only.

**Source**: XXH3, 64 bits (xxhash.com), stored as SQLite's signed integer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from xxhash import xxh3_64_intdigest

from faissbase.storage.vectors import VectorFile
from faissbase.types import Float32

BLOCK_BYTES = 1 << 20
_SIGN, _WRAP = 1 << 63, 1 << 64
_DOUBLE = struct.Struct("<d")


def row_checksum(
    id: str, metadata_json: bytes, document: str | None, norm: float, vector: bytes | memoryview
) -> int:
    """One number for all that a row holds: id, metadata, document, norm and the vector's bytes."""
    text = b"" if document is None else b"\x01" + document.encode()
    facts = b"\x00".join((id.encode(), metadata_json, _DOUBLE.pack(norm), text))
    digest = xxh3_64_intdigest(facts, xxh3_64_intdigest(vector))
    return digest - _WRAP if digest >= _SIGN else digest


def row_checksums(
    ids: Sequence[str],
    metadata_json: Sequence[bytes],
    documents: Sequence[str | None],
    norms: Sequence[float],
    vectors: Float32,
) -> list[int]:
    """`row_checksum` of each row of a batch; ``vectors`` is C-contiguous ``float32[n, d]``."""
    if not ids:
        return []
    raw, size = memoryview(vectors.data).cast("B"), vectors.shape[1] * 4
    if len(ids) == 1:
        return [row_checksum(ids[0], metadata_json[0], documents[0], norms[0], raw)]
    pieces = (raw[start : start + size] for start in range(0, len(raw), size))
    texts = (b"" if document is None else b"\x01" + document.encode() for document in documents)
    facts = zip(map(str.encode, ids), metadata_json, map(_DOUBLE.pack, norms), texts, strict=True)
    # The same as `row_checksum`, but no function of ours is called for each row.
    seeds = map(xxh3_64_intdigest, pieces)
    digests = list(map(xxh3_64_intdigest, map(b"\x00".join, facts), seeds))
    return [digest - _WRAP if digest >= _SIGN else digest for digest in digests]


def block_slots(row_bytes: int) -> int:
    """How many slots one checksummed block spans."""
    return max(1, BLOCK_BYTES // row_bytes)


def block_checksums(vectors: VectorFile, first_block: int, stop_block: int) -> Iterator[tuple[int, int]]:
    """(block, checksum) of whole blocks of the slot file, read without mapping them."""
    span = block_slots(vectors.row_bytes)
    for block in range(first_block, stop_block):
        digest = xxh3_64_intdigest(vectors.read(block * span, span).data)
        yield block, digest - _WRAP if digest >= _SIGN else digest

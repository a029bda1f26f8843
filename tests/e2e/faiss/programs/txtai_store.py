"""txtai's store of vectors on FAISS: floats and bits, made, grown, cut down, saved and loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from tests.e2e.faiss.programs.shown import digest, show
from txtai.ann import ANNFactory

_random = np.random.default_rng(3)
ROWS = _random.standard_normal((900, 24)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
BITS = _random.integers(0, 256, (900, 8), np.uint8)


def _searched(name: str, ann: Any, queries: Any) -> None:
    show(**{name: [ann.count(), [[list(hit) for hit in hits] for hits in ann.search(queries, 4)]]})


def _life(name: str, config: dict[str, Any], rows: Any, folder: Path) -> None:
    ann = ANNFactory.create({"backend": "faiss", "dimensions": rows.shape[1], **config})
    ann.index(rows[:800])
    _searched(f"{name} made", ann, rows[:3])
    ann.append(rows[800:])
    try:
        ann.delete([0, 5, 801])
    except RuntimeError as error:
        show(refused=str(error).partition(" at ")[0])
    _searched(f"{name} changed", ann, rows[:3])
    path = str(folder / name)
    ann.save(path)
    show(saved=digest(np.fromfile(path, np.uint8)))
    again = ANNFactory.create(ann.config)
    again.load(path)
    _searched(f"{name} loaded", again, rows[100:103])
    ann.close()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    configs: dict[str, dict[str, Any]] = {
        "plain": {},
        "small": {"quantize": True},
        "lists": {"faiss": {"components": "IVF,Flat", "nprobe": 3}},
        "sampled": {"faiss": {"components": "IVF8,SQ8", "sample": 0.5, "mmap": True}},
        "graph": {"faiss": {"components": "IDMap,HNSW16"}},
    }
    for name, config in configs.items():
        _life(name, config, ROWS, folder)
    _life("bits", {"quantize": 1}, BITS, folder)
    _life("hashed", {"quantize": 1, "faiss": {"components": "BIVF8", "nprobe": 2}}, BITS, folder)

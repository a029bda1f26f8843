"""autofaiss: indexes that it chooses, builds and tunes, of arrays and of files."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from autofaiss import build_index
from tests.e2e.faiss.programs.shown import digest, show

faiss.omp_set_num_threads(1)
_random = np.random.default_rng(3)
ROWS = _random.standard_normal((3000, 32)).astype(np.float32)


def _built(name: str, folder: Path, **how: Any) -> None:
    index, _ = build_index(
        ROWS, save_on_disk=False, max_index_query_time_ms=50, verbose=logging.ERROR, nb_cores=1, **how
    )
    show(**{name: [index.ntotal, index.d, index.is_trained]})
    faiss.ParameterSpace().set_index_parameters(index, how.get("index_param") or "")
    distances, labels = index.search(ROWS[:5], 4)
    show(**{f"{name} found": [distances, labels, digest(faiss.serialize_index(index))]})


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for key, param in {
        "Flat": None,
        "HNSW15": "efSearch=32",
        "IVF16,SQ8": "nprobe=4",
        "OPQ8_16,IVF16,PQ8x4fsr": "nprobe=4",
    }.items():
        _built(key, folder, index_key=key, index_param=param, metric_type="l2")
    _built("chosen", folder, max_index_memory_usage="10MB", current_memory_available="1GB", index_param="")

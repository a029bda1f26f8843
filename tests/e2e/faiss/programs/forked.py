"""A child by fork searches and adds to its parent's index, ends, and leaves it there."""

from __future__ import annotations

import os
import sys

import numpy as np

import faiss_proxy as faiss

xb = np.random.default_rng(0).random((100, 8), np.float32)
index = faiss.IndexFlatL2(8)
index.add(xb)
child = os.fork()
if child == 0:
    index.add(xb)
    assert index.search(xb[:5], 1)[0].max() == 0
    own = faiss.IndexFlatL2(4)
    del own
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print(index.ntotal, index.search(xb[:2], 1)[1].tolist())

"""faiss-imputer: missing numbers from the nearest rows that have them."""

from __future__ import annotations

import numpy as np
from faiss_imputer import FaissImputer
from tests.e2e.faiss.programs.shown import show


def main() -> None:
    random = np.random.default_rng(5)
    rows = random.standard_normal((300, 6))
    rows[random.random(rows.shape) < 0.1] = np.nan
    for factory in ("Flat", "HNSW16,Flat"):
        for metric in ("l2", "ip"):
            imputer = FaissImputer(n_neighbors=4, metric=metric, index_factory=factory)
            show(factory=factory, metric=metric, filled=imputer.fit_transform(rows))


if __name__ == "__main__":
    main()

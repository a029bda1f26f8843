"""Shards of many vectors: inverted lists of codes, with parameters from their real size, planned together.

>>> import numpy as np
>>> from faissbase.sharded import build_ivfpq_index, calculate_optimal_nlist, calculate_optimal_pq_params
>>> xb = np.random.default_rng(0).standard_normal((5_000, 32), np.float32)
>>> m, nbits = calculate_optimal_pq_params(32, 0.8)
>>> index = build_ivfpq_index(32, calculate_optimal_nlist(len(xb)), m, nbits, "cosine", xb)
>>> distances, ids = index.search(xb[7], k=3)
>>> int(ids[0])
7
"""

from faissbase.sharded.costs import Costs
from faissbase.sharded.default_costs import DEFAULT_COSTS
from faissbase.sharded.index import FaissIndex, build_ivfpq_index
from faissbase.sharded.parameters import (
    calculate_optimal_nlist,
    calculate_optimal_nprobe,
    calculate_optimal_pq_params,
)
from faissbase.sharded.planning import DatasetPlan, least_machines, plan_dataset
from faissbase.sharded.shards import ShardSpec, shard_spec

__all__ = [
    "DEFAULT_COSTS",
    "Costs",
    "DatasetPlan",
    "FaissIndex",
    "ShardSpec",
    "build_ivfpq_index",
    "calculate_optimal_nlist",
    "calculate_optimal_nprobe",
    "calculate_optimal_pq_params",
    "least_machines",
    "plan_dataset",
    "shard_spec",
]

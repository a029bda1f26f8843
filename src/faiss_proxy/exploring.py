"""``ParameterSpace`` with an index on a server: its ranges are here, and the index there.

What FAISS's ``AutoTune.cpp`` does, step by step, because criteria and operating points are of this process.
"""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np

from faissbase.dropin.frames import Array

_SEED = 1234  # FAISS's own, so that the same combinations are tried


def set_combination(space: Any, index: Any, number: int) -> None:
    """Set the parameters of an index to a combination of the space's ranges, by its number."""
    for at in range(space.parameter_ranges.size()):
        found = space.parameter_ranges.at(at)
        values = faiss.vector_to_array(found.values)
        number, choice = divmod(number, len(values))
        space.set_index_parameter(index, found.name, float(values[choice]))


def add_ranges(space: Any, ranges: list[tuple[str, Array]]) -> None:
    """Add to the ranges of a space what an index has them initialised with."""
    for name, choices in ranges:
        values = space.add_range(name).values
        faiss.copy_array_to_vector(np.concatenate([faiss.vector_to_array(values), choices]), values)


def explore(space: Any, index: Any, xq: Any, crit: Any) -> Any:
    """The operating points of an index on a server. Times are those of this process: with the way there."""
    assert xq.shape == (crit.nq, index.d)
    xq = np.ascontiguousarray(xq, dtype="float32")
    points = faiss.OperatingPoints()
    if space.n_experiments == 0:
        for number in range(space.n_combinations()):
            _try(space, index, xq, crit, points, number, 0.0)
        return points
    for number in _numbers(space):
        if not _is_hopeless(space, points, number):
            _try(space, index, xq, crit, points, number, space.min_test_duration)
    return points


def _numbers(space: Any) -> list[int]:
    """The combinations to try: the fastest, the slowest, and others at random."""
    n = space.n_combinations()
    n_tried = min(space.n_experiments, n)
    if n == 1:
        return [0]
    if n_tried <= 2:
        raise RuntimeError("Error in ParameterSpace::explore: Error: 'n_comb == 1 || n_exp > 2' failed")
    others = np.zeros(n - 2, np.int32)
    faiss.rand_perm(faiss.swig_ptr(others), n - 2, _SEED)
    return [0, n - 1, *(others + 1).tolist()][:n_tried]


def _is_hopeless(space: Any, points: Any, number: int) -> bool:
    """Whether what was tried says that a combination is no better at any time."""
    most, least_s = np.array([1.0]), np.array([0.0])
    for at in range(points.all_pts.size()):
        space.update_bounds(number, points.all_pts.at(at), faiss.swig_ptr(most), faiss.swig_ptr(least_s))
    hopeless: bool = points.t_for_perf(float(most[0])) <= least_s[0]
    return hopeless


def _try(space: Any, index: Any, xq: Array, criterion: Any, points: Any, number: int, least_s: float) -> None:
    """Measure one combination, and add what it gives to the points."""
    set_combination(space, index, number)
    size = max(1, min(space.batchsize, len(xq)))
    n_runs, spent_s, began_s = 0, -1.0, time.perf_counter()
    while spent_s < least_s:
        found = [index.search(xq[at : at + size], criterion.nnn) for at in range(0, len(xq), size)]
        n_runs += 1
        spent_s = time.perf_counter() - began_s
    distances, ids = (np.concatenate(each) for each in zip(*found, strict=True))
    quality, time_s = faiss.AutoTuneCriterion.evaluate(criterion, distances, ids), spent_s / n_runs
    name = space.combination_name(number)
    is_kept = points.add(quality, time_s, name, number)
    if space.verbose:
        told = f"{number}/{space.n_combinations()}: {name} nrun={n_runs} perf={quality:.3f} t={time_s:.3f} s"
        print(f"  {told} {'*' if is_kept else ''}")

"""``ParameterSpace`` with an index on a server sets, and finds, what it does with one of this process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome

_D = 16
_RANDOM = np.random.default_rng(5)
_XB, _XQ = (_RANDOM.random((n, _D), dtype=np.float32) for n in (600, 20))


def _space_of(f: Any) -> tuple[Any, Any]:
    index = f.index_factory(_D, "IVF16,PQ4x4")
    index.train(_XB)
    index.add(_XB)
    space = f.ParameterSpace()
    space.initialize(index)
    return index, space


def _combination(f: Any) -> Any:
    index, space = _space_of(f)
    set_to = []
    for number in range(space.n_combinations()):
        space.set_index_parameters(index, number)
        set_to.append((index.nprobe, index.polysemous_ht))
    return set_to


def _again(f: Any) -> Any:
    index, space = _space_of(f)
    space.initialize(index)
    space.set_index_parameters(index, 2)
    return space.n_combinations(), index.nprobe


def _explored(f: Any, n_experiments: int) -> Any:
    index, space = _space_of(f)
    truth = f.IndexFlatL2(_D)
    truth.add(_XB)
    criterion = f.IntersectionCriterion(len(_XQ), 5)
    criterion.set_groundtruth(*truth.search(_XQ, 5))
    space.n_experiments, space.min_test_duration, space.batchsize = n_experiments, 0.0, 7
    points = space.explore(index, xq=_XQ, crit=criterion)
    each = [points.all_pts.at(at) for at in range(points.all_pts.size())]
    tried = [(it.cno, it.key, it.perf) for it in each]
    # which of the rest are tried depends on how long the first take
    return type(points).__name__, tried if not n_experiments else tried[:2]


def _too_few(f: Any) -> Any:
    return _explored(f, 2)


@pytest.mark.parametrize(
    "program", [_combination, _again, lambda f: _explored(f, 0), lambda f: _explored(f, 4)]
)
def test_a_space_of_parameters_works_as_with_an_index_here(modules: tuple[Any, Any], program: Any) -> None:
    here, there = (outcome(lambda f=f: program(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there


def test_too_few_experiments_are_refused_as_by_faiss(modules: tuple[Any, Any]) -> None:
    for f in modules:
        with pytest.raises(RuntimeError, match=r"n_comb == 1 \|\| n_exp > 2"):
            _too_few(f)

"""Classes that a program derives from FAISS's, whose objects travel by value."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.conformance.faiss.outcomes import outcome

_XB = np.random.default_rng(0).random((200, 8), dtype=np.float32)


def _searched(f: Any) -> Any:
    class Steps(f.SearchParametersIVF):  # type: ignore[misc]
        def __init__(self, nprobe: int) -> None:
            super().__init__(nprobe=nprobe)

    class First(f.IDSelectorRange):  # type: ignore[misc]
        def __init__(self, n: int) -> None:
            super().__init__(0, n)

    index = f.index_factory(8, "IVF4,Flat")
    index.train(_XB)
    index.add(_XB)
    steered = index.search(_XB[:3], 4, params=Steps(3))
    return steered, f.search_with_parameters(index, _XB[:3], 4, f.SearchParametersIVF(sel=First(20)))


def test_parameters_of_a_derived_class_travel_as_what_they_are(modules: tuple[Any, Any]) -> None:
    here, there = (outcome(lambda f=f: _searched(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there

"""Classes that a program derives from FAISS's, whose objects travel by value."""

from __future__ import annotations

import types
from typing import Any

import faiss
import numpy as np
from tests.conformance.faiss.outcomes import outcome

from faiss_proxy import classes

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


def test_a_pickled_index_has_its_class_again_where_no_server_is_chosen(modules: tuple[Any, Any]) -> None:
    """As in a process that was spawned, and in which nothing is configured."""
    made = types.new_class("Mine", (modules[1].IndexFlatL2,))(8)
    made.add(_XB)
    data = made.fetch().tobytes()
    with modules[1].local():
        here = types.new_class("Mine", (modules[1].IndexFlatL2,))
        again = classes.restored(data, here)
        plain = classes.restored(data)
    assert (type(again), again.ntotal, type(plain), plain.ntotal) == (here, 200, faiss.IndexFlatL2, 200)

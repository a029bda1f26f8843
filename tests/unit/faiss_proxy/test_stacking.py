"""Inverted lists made of others', on a server: searched where they are, and written nowhere."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome

_D, _NLIST = 16, 6
_RANDOM = np.random.default_rng(2)
_XB, _XQ = (_RANDOM.random((n, _D), dtype=np.float32) for n in (400, 9))


def _ivf(f: Any, first: int = 0, last: int = 400, *, spec: str = "Flat") -> Any:
    index = f.index_factory(_D, f"IVF{_NLIST},{spec}")
    index.train(_XB)
    index.add_with_ids(_XB[first:last], np.arange(first, last))
    index.nprobe = 3
    return index


def _pointers(f: Any, lists: list[Any]) -> Any:
    vector = f.InvertedListsPtrVector()
    for each in lists:
        vector.push_back(each)
    return vector


def _stack(f: Any, kind: str, lists: list[Any]) -> Any:
    vector = _pointers(f, lists)
    return getattr(f, kind)(vector.size(), vector.data())


def _given(f: Any, index: Any, lists: Any) -> Any:
    """An index with these lists in the place of its own."""
    index.own_invlists = False
    kept = index.invlists if f is faiss else None
    index.replace_invlists(lists, False)
    index.ntotal = lists.compute_ntotal()
    return index, kept


# ---- programs ------------------------------------------------------------------------------------


def _side_by_side(f: Any, spec: str) -> Any:
    """As shards of one index are searched together."""
    parts = [_ivf(f, first, first + 100, spec=spec) for first in (0, 100, 200, 300)]
    stack = _stack(f, "HStackInvertedLists", [each.invlists for each in parts])
    index, _kept = _given(f, f.clone_index(parts[0]), stack)
    index.parallel_mode = 1
    found = [index.ntotal, index.search(_XQ, 5), index.search_and_reconstruct(_XQ, 5)[2]]
    found += [index.range_search(_XQ, 1.0), [stack.list_size(n) for n in range(_NLIST)]]
    found += [stack.nlist, stack.code_size, stack.get_single_id(1, 2), stack.imbalance_factor()]
    parts[1].add_with_ids(_XQ, np.arange(9) + 1000)  # seen at once
    return [*found, index.search(_XQ, 5)]


def _in_a_row(f: Any) -> Any:
    model = _ivf(f)
    halves = [f.SliceInvertedLists(model.invlists, *bounds) for bounds in ((3, 6), (0, 3))]
    row = _stack(f, "VStackInvertedLists", halves)
    inspect = __import__(f"{f.__name__}.contrib.inspect_tools", fromlist=["x"])
    found = [inspect.get_invlist(row, n) for n in range(_NLIST)]
    index, _kept = _given(f, f.clone_index(model), row)
    return found, index.search(_XQ, 5), row.nlist


def _masked(f: Any) -> Any:
    some, all_ = _ivf(f, 0, 8), _ivf(f)
    masked = f.MaskedInvertedLists(some.invlists, all_.invlists)
    index, _kept = _given(f, f.clone_index(all_), masked)
    found = [index.search(_XQ, 5)]
    few = f.StopWordsInvertedLists(all_.invlists, 60)
    other, _kept = _given(f, f.clone_index(all_), few)
    return [*found, other.search(_XQ, 5), [few.list_size(n) for n in range(_NLIST)]]


def _own_lists(f: Any) -> Any:
    """An index that is given what is made of its own lists, and then lists of its own again."""
    index, other = _ivf(f, 0, 200), _ivf(f, 200, 400)
    own = index.invlists
    stack = _stack(f, "HStackInvertedLists", [own, other.invlists])
    index, _kept = _given(f, index, stack)
    found = [index.search(_XQ, 5)]
    index.make_direct_map()
    found.append(index.reconstruct_batch(np.array([3, 250])))
    index.set_direct_map_type(f.DirectMap.NoMap)
    index.replace_invlists(f.downcast_InvertedLists(own), False)
    return [*found, index.search(_XQ, 5)]


def _copied(f: Any) -> Any:
    parts = [_ivf(f, 0, 200), _ivf(f, 200, 400)]
    stack = _stack(f, "HStackInvertedLists", [each.invlists for each in parts])
    index, _kept = _given(f, f.clone_index(parts[0]), stack)
    plain = f.clone_index(parts[0])
    plain.reset()
    index.copy_subset_to(plain, f.InvertedLists.SUBSET_TYPE_ID_RANGE, 0, 400)
    return plain.ntotal, plain.search(_XQ, 5)


@pytest.mark.parametrize(
    "program",
    [
        *(lambda f, spec=spec: _side_by_side(f, spec) for spec in ("Flat", "SQ8", "PQ4x4np")),
        _in_a_row,
        _masked,
        _own_lists,
        _copied,
    ],
)
def test_lists_made_of_others_are_searched_as_with_faiss(modules: tuple[Any, Any], program: Any) -> None:
    here, there = (outcome(lambda f=f: program(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there


def test_a_vector_of_pointers_is_that_of_faiss(modules: tuple[Any, Any]) -> None:
    def program(f: Any) -> Any:
        lists = [f.ArrayInvertedLists(4, size) for size in (8, 9)]
        vector = _pointers(f, lists)
        found = [vector.size(), vector.at(1).code_size, outcome(lambda: vector.at(2))]
        vector.clear()
        return [*found, vector.size(), outcome(lambda: vector.push_back("lists"))]

    here, there = (outcome(lambda f=f: program(f)) for f in modules)  # type: ignore[misc]
    assert here == there


def test_what_lists_are_made_of_outlives_them(modules: tuple[Any, Any]) -> None:
    f = modules[1]
    parts = [_ivf(f, 0, 200), _ivf(f, 200, 400)]
    index, _ = _given(
        f, f.clone_index(parts[0]), _stack(f, "HStackInvertedLists", [each.invlists for each in parts])
    )
    wanted = index.search(_XQ, 5)
    del parts
    gc.collect()
    f.IndexFlatL2(2).ntotal  # noqa: B018  # tells the server what was let go of
    assert all(map(np.array_equal, wanted, index.search(_XQ, 5)))


# ---- what does not fit ---------------------------------------------------------------------------


def _wrong_sizes(f: Any, kind: str, *sizes: int) -> Any:
    return _stack(f, kind, [f.ArrayInvertedLists(4, 8), f.ArrayInvertedLists(*sizes)])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda f: _wrong_sizes(f, "HStackInvertedLists", 3, 8),
        lambda f: _wrong_sizes(f, "HStackInvertedLists", 4, 9),
        lambda f: _wrong_sizes(f, "VStackInvertedLists", 4, 9),
        lambda f: f.HStackInvertedLists(0, _pointers(f, [f.ArrayInvertedLists(4, 8)]).data()),
        lambda f: f.MaskedInvertedLists(f.ArrayInvertedLists(4, 8), f.ArrayInvertedLists(3, 8)),
        lambda f: f.HStackInvertedLists(),
        lambda f: f.HStackInvertedLists(1, "lists"),
        lambda f: f.serialize_index(_stacked_index(f)),
        lambda f: f.clone_index(_stacked_index(f)),
        lambda f: _stacked_index(f).reset(),
    ],
)
def test_what_faiss_refuses_is_refused_in_its_words(modules: tuple[Any, Any], wrong: Any) -> None:
    here, there = (outcome(lambda f=f: wrong(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "raised"
    assert here == there


def _stacked_index(f: Any) -> Any:
    parts = [_ivf(f, 0, 200), _ivf(f, 200, 400)]
    stack = _stack(f, "HStackInvertedLists", [each.invlists for each in parts])
    index, kept = _given(f, f.clone_index(parts[0]), stack)
    index.referenced_objects = [*parts, stack, kept]
    return index


def _within(f: Any, n: int) -> Any:
    lists = f.ArrayInvertedLists(4, 8)
    for _ in range(n):
        lists = f.MaskedInvertedLists(lists, lists)
    return lists


def _ends(method: str, *args: Callable[[Any], Any]) -> Any:
    return lambda f: getattr(_stacked_index(f), method)(*(each(f) for each in args))


@pytest.mark.parametrize(
    "wrong",
    [
        _ends("add", lambda _: _XB),
        _ends("add_with_ids", lambda _: _XB, lambda _: np.arange(400)),
        _ends("remove_ids", lambda _: np.arange(5)),
        _ends("merge_from", _ivf),
        lambda f: _ivf(f).merge_from(_stacked_index(f)),
        lambda f: f.merge_into(_ivf(f), _stacked_index(f), True),
        lambda f: f.IndexIDMap(_stacked_index(f)).add_with_ids(_XB, np.arange(400)),
        lambda f: f.SliceInvertedLists(f.ArrayInvertedLists(4, 8), 0, 4).merge_from(
            f.ArrayInvertedLists(4, 8), 0
        ),
        lambda f: f.HStackInvertedLists(3, _pointers(f, [f.ArrayInvertedLists(4, 8)] * 2).data()),
        lambda f: _stack(f, "HStackInvertedLists", [_ivf(f, spec="PQ4x4fs").invlists] * 2),
        lambda f: _ivf(f).replace_invlists(_within(f, 2)),
        lambda f: _within(f, 9),
        lambda f: _stacked_index(f).save_as("stacked"),
    ],
)
def test_what_ends_faiss_or_cannot_be_kept_is_refused(modules: tuple[Any, Any], wrong: Any) -> None:
    f = modules[1]
    with pytest.raises((f.RemoteError, RuntimeError)):
        wrong(f)
    assert not f.list_indexes()
    assert f.IndexFlatL2(2).ntotal == 0


def test_an_index_with_a_name_is_given_no_lists_that_are_in_no_file(modules: tuple[Any, Any]) -> None:
    f = modules[1]
    index = _ivf(f, 0, 200)
    index.save_as("kept")
    before = index.search(_XQ, 5)
    stack = _stack(f, "HStackInvertedLists", [index.invlists, _ivf(f, 200, 400).invlists])
    with pytest.raises(f.RemoteError, match="has a name"):
        index.replace_invlists(stack)
    assert all(map(np.array_equal, before, index.search(_XQ, 5)))
    other, _ = _given(f, _ivf(f), stack)  # reads what has the name, and writes nothing
    assert other.ntotal == 400


def test_lists_of_two_places_are_not_stacked(modules: tuple[Any, Any]) -> None:
    f = modules[1]
    vector = _pointers(f, [f.ArrayInvertedLists(4, 8)])
    with pytest.raises(f.RemoteError, match="not stacked"):
        vector.push_back(faiss.ArrayInvertedLists(4, 8))
    with pytest.raises(f.RemoteError, match="make a new vector"):
        vector.resize(0)

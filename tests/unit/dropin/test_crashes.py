"""What would end FAISS's process, or never come back, is refused before it is called; the rest is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest

from faissbase.dropin import allowed, bounds, trials
from faissbase.dropin.calls import _applied
from faissbase.dropin.parts import parts, searched
from faissbase.dropin.refusals import Refused

_D = 16


def _rows(n: int) -> Any:
    return np.random.default_rng(3).random((n, _D), dtype=np.float32)


def _call(thing: Any, name: str, *args: Any, version: int | None = None, **kwargs: Any) -> Any:
    """As the server calls a method."""
    bounds.check_call(thing, name, args, kwargs, version)
    return trials.done(thing, name, allowed.method_of(thing, name), args, kwargs)


def _params(sel: Any) -> Any:
    params = faiss.SearchParameters(sel=sel)
    params.__dict__["_given"] = {"sel": sel}
    return params


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    faiss.omp_set_num_threads(1)


# ---- parts ---------------------------------------------------------------------------------------


def _nested() -> Any:
    inner = faiss.IndexIVFFlat(faiss.IndexFlatL2(_D), _D, 2)
    outer = faiss.IndexShards(_D)
    outer.add_shard(faiss.IndexIDMap(faiss.IndexPreTransform(faiss.RandomRotationMatrix(_D, _D), inner)))
    outer.add_shard(faiss.IndexRefineFlat(faiss.IndexPQ(_D, 4, 4)))
    return outer


def test_every_index_within_an_index_is_found() -> None:
    found = [type(each).__name__ for each in parts(_nested())]
    assert found == [
        "IndexShards",
        "IndexIDMap",
        "IndexPreTransform",
        "IndexIVFFlat",
        "IndexFlatL2",
        "IndexRefineFlat",
        "IndexPQ",
        "IndexFlat",
    ]


def test_a_search_is_followed_to_what_it_asks_for_how_many() -> None:
    outer = _nested()
    faiss.downcast_index(faiss.downcast_index(outer.at(1))).k_factor = 4.0
    found = {type(index).__name__: k for index, k, _ in searched(outer, 5, None)}
    assert (found["IndexShards"], found["IndexPreTransform"], found["IndexPQ"]) == (5, 5, 20)


# ---- IndexIVFPQR ---------------------------------------------------------------------------------


def _refining(n: int = 100) -> Any:
    index = faiss.IndexIVFPQR(faiss.IndexFlatL2(_D), _D, 4, 4, 4, 4, 4)
    index.train(_rows(300))
    index.add(_rows(n))
    return index


def test_an_ivfpqr_whose_ids_are_places_is_searched() -> None:
    index = _refining()
    assert _call(index, "search", _rows(3), 5, version=1)[1].shape == (3, 5)
    index.add(_rows(10))
    assert _call(index, "search", _rows(3), 200, version=2)[1].max() < 110


@pytest.mark.parametrize("nest", [lambda it: it, faiss.IndexPreTransform], ids=["plain", "nested"])
@pytest.mark.parametrize("wrong", [-1, 1000])
def test_an_ivfpqr_with_ids_beyond_its_codes_is_not_searched(wrong: int, nest: Callable[[Any], Any]) -> None:
    inner = _refining()
    inner.add_with_ids(_rows(1), np.array([wrong]))
    index = nest(inner)
    for name in ("search", "assign", "search_and_return_codes"):
        with pytest.raises(Refused, match=f"such as {wrong}"):
            _call(index, name, _rows(3), 5)


def test_what_was_found_of_ids_holds_for_the_version_alone() -> None:
    index = _refining()
    _call(index, "search", _rows(3), 5, version=7)
    index.add_with_ids(_rows(1), np.array([5000]))
    with pytest.raises(Refused):
        _call(index, "search", _rows(3), 5, version=8)


# ---- graphs --------------------------------------------------------------------------------------


def test_a_graph_of_few_rows_is_built_where_faiss_can() -> None:
    index = faiss.IndexNSGFlat(_D, 8)
    _call(index, "add", _rows(200))
    assert _call(index, "search", _rows(3), 5)[1][:, 0].tolist() == [0, 1, 2]
    with pytest.raises(RuntimeError, match="smaller than 100"):
        _call(faiss.IndexNSGFlat(_D, 8), "add", _rows(50))


@pytest.mark.parametrize(
    ("settings", "n"),
    [
        ({"nsg.L": 500}, 200),
        ({"nsg.search_L": 500}, 200),
        ({"nsg.R": 0}, 200),
        ({"GK": 500}, 200),
        ({"nndescent_R": 0}, 200),
        ({"nndescent_iter": 0}, 200),
    ],
    ids=str,
)
def test_sizes_with_which_a_graph_is_never_built_are_refused(settings: dict[str, int], n: int) -> None:
    index = faiss.IndexNSGFlat(_D, 8)
    for name, value in settings.items():
        owner = index.nsg if name.startswith("nsg.") else index
        setattr(owner, name.removeprefix("nsg."), value)
    with pytest.raises(Refused, match=r"rows or more|1 or more"):
        _call(index, "add", _rows(n))
    assert index.ntotal == 0


def test_a_graph_that_ends_the_process_ends_that_of_its_trial() -> None:
    index = faiss.IndexNNDescentFlat(_D, 100)  # the pools of some have fewer than that
    with pytest.raises(Refused, match="wants more rows"):
        _call(index, "add", _rows(120))
    assert index.ntotal == 0


def test_a_graph_that_is_never_done_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_LEAST_CPU_S", 1)
    index = faiss.IndexIDMap(faiss.IndexNSGFlat(_D, 8))
    with pytest.raises(Refused, match="not so many equal ones"):
        _call(index, "add_with_ids", np.ones((200, _D), "float32"), np.arange(200))
    assert index.ntotal == 0


def test_a_nested_graph_is_not_searched_for_more_than_it_has() -> None:
    index = faiss.IndexIDMap(faiss.IndexNSGFlat(_D, 8))
    _call(index, "add_with_ids", _rows(200), np.arange(200))
    assert _call(index, "search", _rows(3), 200)[1].shape == (3, 200)
    with pytest.raises(Refused, match="does not end"):
        _call(index, "search", _rows(3), 201)


# ---- the rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "first", "last"),
    [(1, 2, 60), (10, 60, 2), (10, 9, 3), (0, 1, 5), (1, -9, -5), (10, 11, 12)],
)
@pytest.mark.parametrize("kind", [faiss.IndexFlatL2, faiss.IndexFlatIP])
def test_a_range_without_vectors_is_refused(kind: Any, n: int, first: int, last: int) -> None:
    index = kind(_D)
    index.add(_rows(n))
    with pytest.raises(Refused, match="is in IDSelectorRange"):
        _call(index, "search", _rows(2), 3, params=_params(faiss.IDSelectorRange(first, last)))


@pytest.mark.parametrize(("first", "last"), [(1, 1), (10, 12), (-5, 3), (3, 100)])
def test_other_ranges_are_searched(first: int, last: int) -> None:
    index = faiss.IndexFlatL2(_D)
    index.add(_rows(10))
    found = _call(index, "search", _rows(2), 3, params=_params(faiss.IDSelectorRange(first, last)))[1]
    assert set(found.ravel().tolist()) <= {-1, *range(first, min(last, 10))}


@pytest.mark.parametrize("name", ["IndexResidualQuantizerFastScan", "IndexLocalSearchQuantizerFastScan"])
def test_what_is_not_trained_is_not_searched(name: str) -> None:
    ivf = getattr(faiss, name.replace("Index", "IndexIVF"))(faiss.IndexFlatL2(_D), _D, 4, 2, 4)
    for index in (getattr(faiss, name)(_D, 2, 4), ivf):
        for method, last in (("search", 3), ("range_search", 3.0)):
            with pytest.raises(Refused, match="is not trained"):
                _call(index, method, _rows(2), last)


def test_a_coarse_quantizer_is_not_asked_for_nothing() -> None:
    index = faiss.ResidualCoarseQuantizer(_D, 2, 3)
    index.train(_rows(640))
    with pytest.raises(Refused, match="for 0 vectors"):
        _call(index, "assign", _rows(2), 0)
    assert _call(index, "assign", _rows(2), 1).size == 2


def test_codes_of_a_lattice_want_training() -> None:
    index = faiss.IndexLattice(_D, 2, 4, 4)
    with pytest.raises(Refused, match="is not trained"):
        _call(index, "sa_encode", _rows(2))
    index.train(_rows(50))
    assert len(_call(index, "sa_encode", _rows(2))) == 2


def test_an_empty_graph_is_not_searched_by_distance() -> None:
    index = faiss.IndexIDMap(faiss.IndexHNSWFlat(_D, 8))
    with pytest.raises(Refused, match="without vectors"):
        _call(index, "range_search", _rows(2), 1.0)
    index.add_with_ids(_rows(5), np.arange(5))
    assert _call(index, "range_search", _rows(2), 0.001)[2].tolist() == [0, 1]


@pytest.mark.parametrize("text", ["PQ4x4fs", "RaBitQfs", "IDMap,PQ4x4fs"])
def test_nothing_is_not_added_to_an_empty_fast_scan(text: str) -> None:
    index = faiss.index_factory(_D, text)
    index.train(_rows(300))
    with pytest.raises(Refused, match="adding nothing"):
        _call(index, "add", _rows(0))


def test_codes_of_lists_that_are_not_there_are_refused() -> None:
    quantizer = faiss.IndexFlatL2(_D)
    index = faiss.Index2Layer(quantizer, 4, 4)
    index.train(_rows(640))
    codes = _call(index, "sa_encode", _rows(2))
    assert _call(index, "sa_decode", codes).shape == (2, _D)
    codes[1, 0] = 255
    with pytest.raises(Refused, match="lists that are not there"):
        _call(index, "sa_decode", codes)


def test_hits_of_a_spectral_hash_are_not_reconstructed() -> None:
    quantizer = faiss.IndexFlatL2(_D)
    index = faiss.IndexIVFSpectralHash(quantizer, _D, 4, _D, 1.0)
    index.train(_rows(300))
    index.add(_rows(100))
    with pytest.raises(Refused, match="reconstructs no vectors"):
        _call(index, "search_and_reconstruct", _rows(2), 3)


@pytest.mark.parametrize("name", ["IndexIVFSpectralHash", "IndexIVFProductResidualQuantizerFastScan"])
def test_a_clone_outlives_its_model(name: str) -> None:
    quantizer = faiss.IndexFlatL2(_D)
    sizes = (_D, 1.0) if name.endswith("Hash") else (2, 2, 4)
    index = getattr(faiss, name)(quantizer, _D, 4, *sizes)
    index.train(_rows(300))
    index.add(_rows(100))
    wanted = index.search(_rows(3), 5)
    clone = _applied("clone_index", (index,), {})
    assert type(clone) is type(index)
    del index
    found = clone.search(_rows(3), 5)
    assert [each.tobytes() for each in found] == [each.tobytes() for each in wanted]

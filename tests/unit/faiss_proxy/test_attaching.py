"""Parts of an index on a server that are given another, and vectors that are filled by hand."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome

_D, _NLIST = 16, 6
_RANDOM = np.random.default_rng(2)
_XB, _XQ = (_RANDOM.random((n, _D), dtype=np.float32) for n in (400, 9))


def _ivf(f: Any, spec: str = "Flat") -> Any:
    index = f.index_factory(_D, f"IVF{_NLIST},{spec}")
    index.train(_XB)
    index.add(_XB)
    return index


def _flat(f: Any, n: int = 400) -> Any:
    index = f.IndexFlatL2(_D)
    index.add(_XB[:n])
    return index


# ---- programs ------------------------------------------------------------------------------------


def _new_lists(f: Any) -> Any:
    index = _ivf(f)
    old = index.invlists
    lists = f.ArrayInvertedLists(_NLIST, index.code_size)
    index.replace_invlists(lists, True)
    lists.this.disown()
    del lists
    gc.collect()
    found = [index.own_invlists, index.search(_XQ, 3), old.compute_ntotal() if f is not faiss else 400]
    index.add(_XB[:50])
    return [*found, index.search(_XQ, 3), index.invlists.compute_ntotal()]


def _shared_lists(f: Any) -> Any:
    """The lists of another index, which is let go of."""
    model, index = _ivf(f), f.IndexIVFFlat(f.IndexFlatL2(_D), _D, _NLIST)
    index.train(_XB)
    index.replace_invlists(model.invlists)
    index.ntotal = model.ntotal
    found = index.ntotal, index.search(_XQ, 3)
    index.referenced_objects.append(model)
    del model
    gc.collect()
    return *found, index.search(_XQ, 3)


def _cluster_index(f: Any) -> Any:
    index = f.IndexIVFFlat(f.IndexFlatL2(_D), _D, _NLIST)
    helping = f.IndexFlatL2(_D)
    index.clustering_index = helping
    index.cp.niter = 3
    index.train(_XB)
    found = [index.clustering_index is None, helping.ntotal, index.quantizer.reconstruct_n(0, _NLIST)]
    index.clustering_index = None
    return [*found, index.clustering_index]


def _settings(f: Any) -> Any:
    index, settings = f.IndexIVFFlat(f.IndexFlatL2(_D), _D, _NLIST), f.ClusteringParameters()
    settings.niter, settings.seed, settings.max_points_per_centroid = 2, 7, 20
    index.cp = settings
    index.train(_XB)
    return index.cp.niter, index.cp.seed, index.quantizer.reconstruct_n(0, _NLIST)


def _steered(f: Any) -> Any:
    """Trainings by settings of their parts."""
    lists = f.index_factory(_D, f"IVF{_NLIST},Flat")
    lists.cp.init_method, lists.cp.early_stop_threshold = 1, 0.01
    lists.train(_XB)
    quantized = f.IndexPQ(_D, 4, 4)
    quantized.do_polysemous_training = True
    quantized.polysemous_training.n_iter, quantized.polysemous_training.n_redo = 50, 1
    quantized.train(_XB)
    turned = f.ITQTransform(_D, 8, True)
    turned.itq.max_iter, turned.max_train_per_dim = 3, 5
    turned.train(_XB)
    searched = f.LocalSearchQuantizer(_D, 2, 4)
    searched.train_iters, searched.icm_iters, searched.nperts = 2, 2, 1
    searched.train(_XB)
    line, bits = f.IndexFlat1D(), f.IndexBinaryFlat(32)
    line.continuous_update = False
    line.add(_XB[:, :1].copy())
    found = [outcome(lambda: line.search(_XQ[:, :1].copy(), 2))]
    line.update_permutation()
    bits.add(_XB[:, :1].copy().view(np.uint8))
    bits.use_heap = False
    return [
        *found,
        line.search(_XQ[:, :1].copy(), 2),
        bits.search(_XQ[:, :1].copy().view(np.uint8), 3),
        lists.quantizer.reconstruct_n(0, _NLIST),
        f.vector_to_array(quantized.pq.centroids),
        turned.apply(_XQ),
        f.vector_to_array(searched.codebooks),
    ]


def _other_inner(f: Any) -> Any:
    """Whatever an index is wrapped around is taken from another that holds as many."""
    mapped = f.IndexIDMap(f.IndexFlatL2(_D))
    mapped.add_with_ids(_XB, np.arange(400) * 2)
    inner = f.IndexScalarQuantizer(_D, f.ScalarQuantizer.QT_fp16)
    inner.add(_XB)
    mapped.index = inner
    flat, second = _flat(f), _flat(f)
    refined = f.IndexRefine(flat, second)
    refined.own_refine_index, refined.refine_index = False, inner
    turned = f.index_factory(_D, "PCA8,Flat")
    turned.train(_XB)
    other = f.IndexFlatL2(8)
    turned.own_fields, turned.index = False, other
    turned.add(_XB)
    return mapped.search(_XQ, 3), refined.search(_XQ, 3), turned.search(_XQ, 3), other.ntotal


def _same_quantizers(f: Any) -> Any:
    found = []
    for spec, name in (("PQ4x4", "pq"), ("SQ8", "sq"), ("SQfp16", "sq")):
        model = f.index_factory(_D, spec)
        model.train(_XB)
        made = f.IndexPQ(_D, 4, 4) if name == "pq" else f.IndexScalarQuantizer(_D, model.sq.qtype)
        setattr(made, name, getattr(model, name))
        made.is_trained = True
        made.add(_XB)
        found.append(made.search(_XQ, 3))
    return found


def _filled(f: Any) -> Any:
    flat = f.IndexFlatL2(_D)
    f.copy_array_to_vector(_XB.view(np.uint8).ravel(), flat.codes)
    flat.ntotal = 400
    found = [flat.search(_XQ, 3)]
    f.copy_array_to_vector(_XB[:9].view(np.uint8).ravel(), flat.codes)
    flat.ntotal = 9
    model = f.index_factory(_D, "PQ4x4")
    model.train(_XB)
    quantized = f.IndexPQ(_D, 4, 4)
    f.copy_array_to_vector(f.vector_to_array(model.pq.centroids), quantized.pq.centroids)
    quantized.is_trained = True
    quantized.add(_XB)
    mapped = f.IndexIDMap(f.IndexFlatL2(_D))
    mapped.add_with_ids(_XB, np.arange(400))
    f.copy_array_to_vector(np.arange(400)[::-1].copy(), mapped.id_map)
    return [*found, flat.search(_XQ, 3), quantized.search(_XQ, 3), mapped.search(_XQ, 3)]


@pytest.mark.parametrize(
    "program",
    [_new_lists, _shared_lists, _cluster_index, _settings, _steered, _other_inner, _same_quantizers, _filled],
)
def test_a_part_takes_the_place_of_another_as_with_faiss(modules: tuple[Any, Any], program: Any) -> None:
    here, there = (outcome(lambda f=f: program(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there


def test_what_an_index_was_made_of_is_kept_by_it_as_by_faiss(modules: tuple[Any, Any]) -> None:
    found = []
    for f in modules:
        flat, transform = f.IndexFlatL2(_D), f.PCAMatrix(_D, _D)
        made = [
            f.IndexIDMap(flat),
            f.IndexPreTransform(transform, flat),
            flat,
            f.index_factory(_D, "IDMap,Flat"),
        ]
        kept = [getattr(each, "referenced_objects", None) for each in made]
        assert kept[:2] == [[flat], [transform, flat]]
        found.append([each is None for each in kept])
    assert found[0] == found[1] == [False, False, True, True]


# ---- what does not fit ---------------------------------------------------------------------------


def _put(name: str, value: Any) -> Any:
    return lambda f, index: setattr(index, name, value(f, index))


_UNFIT = {
    "of too few lists": _put("quantizer", lambda f, _: _flat(f, 5)),
    "of too many lists": _put("quantizer", lambda f, _: _flat(f, 7)),
    "of another d": _put("quantizer", lambda f, _: f.IndexFlatL2(4)),
    "not trained": _put("quantizer", lambda f, _: f.index_factory(_D, "PQ4x4")),
    "itself": _put("quantizer", lambda f, index: index),
    "around itself": _put("quantizer", lambda f, index: f.IndexRefine(index, _flat(f))),
    "clustering of another d": _put("clustering_index", lambda f, _: f.IndexFlatL2(4)),
    "lists of another number": lambda f, index: index.replace_invlists(f.ArrayInvertedLists(9, _D * 4)),
    "lists of other codes": lambda f, index: index.replace_invlists(f.ArrayInvertedLists(_NLIST, 4)),
    "lists that cannot be added to": lambda f, index: index.replace_invlists(
        f.SliceInvertedLists(index.invlists, 0, 2)
    ),
    "no lists": lambda f, index: index.replace_invlists(None),
    "more than the lists hold": _put("ntotal", lambda f, _: 401),
}


@pytest.mark.parametrize("wrong", _UNFIT.values(), ids=_UNFIT)
def test_a_part_that_does_not_fit_is_refused_and_the_index_stays(
    modules: tuple[Any, Any], wrong: Any
) -> None:
    f = modules[1]
    index = _ivf(f)
    before = index.search(_XQ, 3)
    with pytest.raises(f.RemoteError):
        wrong(f, index)
    assert all(map(np.array_equal, before, index.search(_XQ, 3)))


def _mapped_later(f: Any) -> None:
    """More vectors than the map around them has ids for."""
    flat = f.IndexFlatL2(_D)
    f.copy_array_to_vector(_XB.view(np.uint8).ravel(), flat.codes)
    mapped = f.IndexIDMap(flat)
    flat.ntotal = 400
    mapped.search(_XQ, 3)


def _cached(f: Any) -> None:
    flat = f.IndexFlatL2(_D)
    f.copy_array_to_vector(_XB.view(np.uint8).ravel(), flat.codes)
    flat.ntotal = 9
    flat.sync_l2norms()
    flat.ntotal = 400


def _clustered(f: Any) -> None:
    clustering = f.Kmeans(_D, 4, niter=2)
    clustering.index = f.IndexFlatL2(_D)
    clustering.train(_XB)


def _graph(f: Any) -> Any:
    index = f.IndexHNSWFlat(_D, 8)
    index.add(_XB)
    return index


@pytest.mark.parametrize(
    "wrong",
    [
        lambda f: setattr(_flat(f), "ntotal", 401),
        lambda f: setattr(_flat(f), "ntotal", -1),
        _mapped_later,
        _cached,
        _clustered,
        lambda f: f.copy_array_to_vector(np.zeros(7, np.uint8), _flat(f).codes),
        lambda f: f.copy_array_to_vector(np.zeros(64, np.uint8), f.downcast_index(_graph(f).storage).codes),
        lambda f: f.copy_array_to_vector(np.zeros(8, np.int32), _graph(f).hnsw.levels),
        lambda f: f.copy_array_to_vector(np.zeros(5, np.float32), f.IndexPQ(_D, 4, 4).pq.centroids),
        lambda f: setattr(f.IndexPQ(_D, 4, 4), "pq", f.ProductQuantizer(_D, 2, 4)),
        lambda f: setattr(f.IndexScalarQuantizer(_D, 0), "is_trained", True),
        lambda f: setattr(f.index_factory(_D, "PCA4,Flat"), "is_trained", True),
    ],
)
def test_what_would_lead_outside_of_arrays_is_refused(modules: tuple[Any, Any], wrong: Any) -> None:
    with pytest.raises(modules[1].RemoteError):
        wrong(modules[1])


@pytest.mark.parametrize(
    "wrong",
    [
        *(_put(name, lambda f, _: 3) for name in ("quantizer", "clustering_index", "cp", "invlists")),
        _put("quantizer", lambda f, _: "flat"),
        lambda f, index: index.replace_invlists("lists"),
        lambda f, index: index.replace_invlists(),
    ],
)
def test_what_is_no_part_at_all_is_an_error_of_faiss(modules: tuple[Any, Any], wrong: Any) -> None:
    here, there = (outcome(lambda f=f: wrong(f, _ivf(f))) for f in modules)  # type: ignore[misc]
    assert here[:2] == ("raised", "TypeError")
    assert here == there


# ---- names ---------------------------------------------------------------------------------------


def test_a_named_index_has_its_new_parts_again_and_never_what_was_done_to_the_old(
    modules: tuple[Any, Any], tmp_path: Path
) -> None:
    f = modules[1]
    index = _ivf(f)
    index.save_as("kept")
    old, lists = index.invlists, f.ArrayInvertedLists(_NLIST, index.code_size)
    index.replace_invlists(lists)
    quantizer = _flat(f, _NLIST)
    index.quantizer = quantizer
    old.reset()  # it is no part of the index any more
    index.add(_XB[:30])
    wanted = index.search(_XQ, 3)
    again = _reopened(f, index, "kept")
    assert again.invlists.compute_ntotal() == 30
    assert all(map(np.array_equal, wanted, again.search(_XQ, 3)))


def _reopened(f: Any, index: Any, name: str) -> Any:
    """The index of that name as it is read from its files."""
    calls = index._handle.connection._calls
    calls.names.give_up(calls.names.open(name).graph.root().named[name])
    return f.open_index(name)


def test_a_named_index_keeps_what_tools_have_written_into_it(modules: tuple[Any, Any]) -> None:
    f = modules[1]
    tools = importlib.import_module("faiss_proxy.contrib.ivf_tools")
    index = f.index_factory(_D, f"IVF{_NLIST},Flat")
    index.train(_XB)
    index.save_as("tools")
    lists = index.quantizer.assign(_XB, 1).ravel()
    tools.add_preassigned(index, _XB, lists)
    tools.sort_invlists_by_size(index)
    index.cp.niter = 3
    wanted = index.search(_XQ, 3), f.serialize_index(index)
    again = _reopened(f, index, "tools")
    assert all(map(np.array_equal, wanted[0], again.search(_XQ, 3)))
    assert np.array_equal(wanted[1], f.serialize_index(again))


def test_vectors_that_were_filled_are_those_of_a_named_index_again(modules: tuple[Any, Any]) -> None:
    f = modules[1]
    mapped = f.IndexIDMap(f.IndexFlatL2(_D))
    mapped.add_with_ids(_XB, np.arange(400))
    mapped.save_as("filled")
    f.copy_array_to_vector(np.arange(400)[::-1].copy(), mapped.id_map)
    mapped.add_with_ids(_XQ, np.arange(9) + 1000)
    wanted = mapped.search(_XQ, 3)
    assert all(map(np.array_equal, wanted, _reopened(f, mapped, "filled").search(_XQ, 3)))

"""What is done to an object of each class: steps with names, in groups, the same with either module.

A step is given the module, the object and the arrays, and gives what is compared.
"""

from __future__ import annotations

import copy
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import faiss
import numpy as np
from tests.conformance.faiss.outcomes import Outcome, class_names, outcome
from tests.conformance.faiss.recipes import BINARIES, D_BITS, INDEXES, RECIPES, TRANSFORMS, D, Data, Recipe

Step: TypeAlias = Callable[[Any, Any, Data], Any]
Program: TypeAlias = list[tuple[str, str, Step]]
_K = 5
# A server reads a file in a process of its own, which takes a second: for some classes that is enough.
_READ = ("IndexIVFPQ", "IndexPreTransform", "IndexBinaryIVF")


def _call(name: str, *picks: Any, **more: Any) -> Step:
    """Call the method ``name`` with what the picks choose of the arrays, or as they are."""

    def step(f: Any, it: Any, data: Data) -> Any:
        args = [pick(data) if callable(pick) else pick for pick in picks]
        return getattr(it, name)(*args, **{key: v(data) if callable(v) else v for key, v in more.items()})

    return step


def _xq(data: Data) -> Any:
    return data.xq


def _filled(f: Any, it: Any, data: Data) -> Any:
    """The arrays that are given to be filled are what comes back, filled."""
    out_d, out_i = np.zeros((len(data.xq), _K), _distances(it)), np.zeros((len(data.xq), _K), np.int64)
    found = it.search(data.xq, _K, D=out_d, I=out_i)
    return found, found[0] is out_d, found[1] is out_i, out_d, out_i


def _distances(it: Any) -> str:
    return "float32" if isinstance(it, faiss.Index) or "Binary" not in type(it).__name__ else "int32"


def _odd_layouts(data: Data) -> Any:
    return np.asfortranarray(data.xq)


SEARCH: Program = [
    ("search", "search", _call("search", _xq, _K)),
    ("search", "by keyword", _call("search", x=_xq, k=_K)),
    ("search", "more than there are", _call("search", _xq, 250)),
    ("search", "no query", _call("search", lambda data: data.xq[:0], _K)),
    ("search", "one query", _call("search", lambda data: data.xq[3:4], _K)),
    ("search", "float64", _call("search", lambda data: data.xq.astype("float64"), _K)),
    ("search", "float16", _call("search", lambda data: data.xq.astype("float16"), _K)),
    ("search", "Fortran order", _call("search", _odd_layouts, _K)),
    ("search", "every second", _call("search", lambda data: data.xq[::2], _K)),
    ("search", "reversed", _call("search", lambda data: data.xq[::-1], _K)),
    ("search", "arrays to fill", _filled),
    ("search", "D of another shape", _call("search", _xq, _K, D=lambda data: np.zeros((1, _K), "float32"))),
    ("search", "D of another type", _call("search", _xq, _K, D=lambda data: np.zeros((7, _K), "float64"))),
    ("search", "I of another type", _call("search", _xq, _K, I=lambda data: np.zeros((7, _K), "int32"))),
    ("search", "params None", _call("search", _xq, _K, params=None)),
    (
        "search",
        "numeric type",
        _call("search", lambda d: d.xq.astype("float16"), _K, numeric_type=faiss.Float16),
    ),
    ("range_search", "range_search", lambda f, it, data: it.range_search(data.xq, _radius(it))),
    ("range_search", "nothing inside", lambda f, it, data: it.range_search(data.xq, -1)),
    ("range_search", "by keyword", lambda f, it, data: it.range_search(x=data.xq, thresh=_radius(it))),
    ("search", "search_and_reconstruct", _call("search_and_reconstruct", _xq, _K)),
    ("search", "search_and_return_codes", _call("search_and_return_codes", _xq, _K)),
    (
        "search",
        "search_and_return_codes with lists",
        _call("search_and_return_codes", _xq, _K, include_listnos=True),
    ),
    ("search", "assign", _call("assign", _xq, 3)),
    ("search", "assign into", _call("assign", _xq, 3, labels=lambda data: np.zeros((7, 3), np.int64))),
]


def _radius(it: Any) -> Any:
    return 20 if "Binary" in type(it).__name__ else 2.0


def _preassigned(name: str, last: Any) -> Step:
    def step(f: Any, it: Any, data: Data) -> Any:
        quantizer = it.quantizer
        found_d, found_i = f.downcast_index(quantizer).search(data.xq, 2)
        return getattr(it, name)(data.xq, last, found_i, found_d)

    return step


def _binary_preassigned(name: str, last: Any) -> Step:
    def step(f: Any, it: Any, data: Data) -> Any:
        found_d, found_i = f.downcast_IndexBinary(it.quantizer).search(data.xq, 2)
        return getattr(it, name)(data.xq, last, found_i, found_d)

    return step


def _batch(*keys: int) -> Step:
    return lambda f, it, data: it.reconstruct_batch(np.array(keys, np.int64))


RECONSTRUCT: Program = [
    ("reconstruct", "reconstruct", _call("reconstruct", 3)),
    ("reconstruct", "by keyword", _call("reconstruct", key=3)),
    ("reconstruct", "into", _call("reconstruct", 3, lambda data: np.zeros(D, "float32"))),
    ("reconstruct", "numpy int", _call("reconstruct", np.int64(3))),
    ("reconstruct", "an id", _call("reconstruct", 1003)),
    ("reconstruct", "reconstruct_n", _call("reconstruct_n", 2, 5)),
    ("reconstruct", "reconstruct_n of all", _call("reconstruct_n")),
    ("reconstruct", "reconstruct_n too many", _call("reconstruct_n", 190, 50)),
    ("reconstruct", "reconstruct_n before", _call("reconstruct_n", -3, 2)),
    ("reconstruct", "reconstruct_batch", _batch(3, 7, 1)),
    ("reconstruct", "reconstruct_batch of list", _call("reconstruct_batch", [3, 1])),
    ("reconstruct", "reconstruct_batch of none", _batch()),
]
TRAIN: Program = [
    ("train", "is_trained before", lambda f, it, data: it.is_trained),
    ("train", "train", lambda f, it, data: it.train(data.xt)),
    ("train", "is_trained", lambda f, it, data: it.is_trained),
]
ADD: Program = [
    ("add", "add", lambda f, it, data: it.add(data.xb[:150])),
    ("add", "add float64", lambda f, it, data: it.add(data.xb[150:160].astype("float64"))),
    ("add", "add none", lambda f, it, data: it.add(data.xb[:0])),
    ("add", "add by keyword", lambda f, it, data: it.add(x=data.xb[150:])),
    ("add", "ntotal", lambda f, it, data: it.ntotal),
    ("add", "add_with_ids", lambda f, it, data: it.add_with_ids(data.xb[:50], data.ids[:50])),
    (
        "add",
        "ids of int32",
        lambda f, it, data: it.add_with_ids(data.xb[50:60], data.ids[50:60].astype("int32")),
    ),
    ("add", "too few ids", lambda f, it, data: it.add_with_ids(data.xb[:50], data.ids[:4])),
    ("add", "ntotal with ids", lambda f, it, data: it.ntotal),
]
BAD: Program = [
    ("errors", "a list", _call("search", [[0.0] * D], _K)),
    ("errors", "one row", _call("search", lambda data: data.xq[0], _K)),
    ("errors", "wrong d", _call("search", lambda data: data.xq[:, :-1], _K)),
    ("errors", "k 0", _call("search", _xq, 0)),
    ("errors", "k None", _call("search", _xq, None)),
    ("errors", "k float", _call("search", _xq, 2.0)),
    ("errors", "k numpy", _call("search", _xq, np.int64(2))),
    ("errors", "unknown keyword", _call("search", _xq, _K, top=3)),
    ("errors", "no argument", _call("search")),
    ("errors", "text", _call("search", "x", _K)),
    ("errors", "None", _call("search", None, _K)),
    ("errors", "add of a list", _call("add", [1.0])),
    ("errors", "add of wrong d", _call("add", lambda data: data.xb[:, :-1])),
    ("errors", "add of texts", _call("add", lambda data: data.xb.astype(str))),
    ("errors", "add with more", _call("add", lambda data: data.xb, 1, 2, 3)),
    ("errors", "train of wrong d", _call("train", lambda data: data.xb[:, :-1])),
    ("errors", "params of text", _call("search", _xq, _K, params="x")),
    ("errors", "unknown method", _call("serach", _xq, _K)),
    ("errors", "unknown field", lambda f, it, data: it.nprobes),
    ("errors", "set unknown field", lambda f, it, data: setattr(it, "nprobes", 3)),
    ("errors", "set nprobe to numpy", lambda f, it, data: setattr(it, "nprobe", np.int64(2))),
    ("errors", "set verbose to text", lambda f, it, data: setattr(it, "verbose", "yes")),
]


def _selectors(f: Any, data: Data) -> Iterator[tuple[str, Any]]:
    ids = np.array([1, 3, 5, 8, 60, 61, 1002, 1003, 1010])
    bits = np.packbits(np.arange(1024) % 3 == 0, bitorder="little")
    yield "Range", f.IDSelectorRange(2, 40)
    yield "Array", f.IDSelectorArray(ids)
    yield "Array of int32", f.IDSelectorArray(ids.astype("int32"))
    yield "Array of list", f.IDSelectorArray([1, 2, 1003])
    yield "Batch", f.IDSelectorBatch(ids)
    yield "Batch by pointer", f.IDSelectorBatch(len(ids), f.swig_ptr(ids))
    yield "Bitmap", f.IDSelectorBitmap(bits)
    yield "All", f.IDSelectorAll()
    yield "Not", f.IDSelectorNot(f.IDSelectorRange(0, 100))
    yield "And", f.IDSelectorAnd(f.IDSelectorRange(0, 70), f.IDSelectorBatch(ids))
    yield "Or", f.IDSelectorOr(f.IDSelectorRange(0, 4), f.IDSelectorArray(ids))
    yield "XOr", f.IDSelectorXOr(f.IDSelectorRange(0, 60), f.IDSelectorNot(f.IDSelectorBitmap(bits)))


def _params_classes(f: Any, it: Any) -> list[Any]:
    """The classes of parameters that may fit an index, the plain one first, by FAISS's naming."""
    name = type(it).__name__
    found = ["SearchParameters"]
    if "IVF" in name and "Independent" not in name:
        found.append("SearchParametersIVF")
    if "IVFPQ" in name and "FastScan" not in name:
        found.append("IVFPQSearchParameters")
    if "IVFRaBitQ" in name:
        found.append("IVFRaBitQSearchParameters")
    if name.startswith("IndexRaBitQ"):
        found.append("RaBitQSearchParameters")
    if "HNSW" in name:
        found.append("SearchParametersHNSW")
    if name == "IndexPQ":
        found.append("SearchParametersPQ")
    if name == "ResidualCoarseQuantizer":
        found.append("SearchParametersResidualCoarseQuantizer")
    return [getattr(f, each) for each in found]


def _every_selector(f: Any, it: Any, data: Data) -> Any:
    def found(kind: Any, selector: Any) -> Outcome:
        return outcome(lambda: it.search(data.xq, _K, params=kind(sel=selector)))

    kind = _params_classes(f, it)[-1]
    return [(name, found(kind, selector)) for name, selector in _selectors(f, data)]


def _every_params(f: Any, it: Any, data: Data) -> Any:
    return [
        outcome(lambda kind=kind: it.search(data.xq, _K, params=kind()))  # type: ignore[misc]
        for kind in _params_classes(f, it)
    ]


def _range_params(f: Any, it: Any, data: Data) -> Any:
    params = f.SearchParameters()
    params.sel = f.IDSelectorRange(2, 60)
    return it.range_search(data.xq, _radius(it), params=params)


def _ivf_params(f: Any, it: Any, data: Data) -> Any:
    params = f.SearchParametersIVF(nprobe=3, sel=f.IDSelectorNot(f.IDSelectorArray([1, 2])))
    first = it.search(data.xq, _K, params=params)
    params.nprobe, params.max_codes = 1, 20
    return first, it.search(data.xq, _K, params=params), params.nprobe


def _nested_params(f: Any, it: Any, data: Data) -> Any:
    inner = f.SearchParametersIVF(nprobe=2)
    if hasattr(it, "refine_index"):
        params = f.IndexRefineSearchParameters(k_factor=3.0, base_index_params=inner)
    elif hasattr(it, "chain"):
        params = f.SearchParametersPreTransform(index_params=inner)
    else:
        params = f.SearchParametersIVF(nprobe=2, quantizer_params=f.SearchParametersHNSW(efSearch=7))
    return it.search(data.xq, _K, params=params)


PARAMS: Program = [
    ("params", "every selector", _every_selector),
    ("params", "every class of parameters", _every_params),
    ("params", "of a range search", _range_params),
    ("params", "nprobe and a selector", _ivf_params),
    ("params", "nested", _nested_params),
    ("params", "an unknown one", lambda f, it, data: f.SearchParametersIVF(nprobes=3)),
    ("params", "by position", lambda f, it, data: f.SearchParametersIVF(3)),
    (
        "params",
        "efSearch",
        lambda f, it, data: it.search(data.xq, _K, params=f.SearchParametersHNSW(efSearch=2)),
    ),
]
MORE: Program = [
    ("search", "search_preassigned", _preassigned("search_preassigned", _K)),
    ("range_search", "range_search_preassigned", _preassigned("range_search_preassigned", 2.0)),
    ("codes", "sa_code_size", _call("sa_code_size")),
    ("codes", "sa_encode", _call("sa_encode", _xq)),
    ("codes", "sa_decode", lambda f, it, data: it.sa_decode(it.sa_encode(data.xq))),
    ("codes", "sa_decode of the wrong size", _call("sa_decode", lambda data: np.zeros((2, 3), np.uint8))),
    ("codes", "add_sa_codes", lambda f, it, data: it.add_sa_codes(it.sa_encode(data.xb[:4]))),
    ("codes", "ntotal after", lambda f, it, data: it.ntotal),
]


def _tune(f: Any, it: Any, data: Data) -> Any:
    space = f.ParameterSpace()
    space.set_index_parameters(it, "nprobe=2,efSearch=9")
    return it.search(data.xq, _K)


def _tune_one(f: Any, it: Any, data: Data) -> Any:
    f.ParameterSpace().set_index_parameter(it, "k_factor_rf", 3)


FUNCTIONS: Program = [
    ("functions", "downcast_index", lambda f, it, data: f.downcast_index(it)),
    ("functions", "extract_index_ivf", lambda f, it, data: f.extract_index_ivf(it)),
    ("functions", "try_extract_index_ivf", lambda f, it, data: f.try_extract_index_ivf(it)),
    ("functions", "clone_index", lambda f, it, data: _both_search(f.clone_index(it), data)),
    ("functions", "reverse_index_factory", lambda f, it, data: f.reverse_index_factory(it)),
    ("functions", "ParameterSpace", _tune),
    ("functions", "set_index_parameter", _tune_one),
    ("direct map", "make_direct_map", lambda f, it, data: it.make_direct_map()),
    ("direct map", "reconstruct", _call("reconstruct", 3)),
    ("direct map", "reconstruct_n", _call("reconstruct_n", 0, 4)),
    ("direct map", "set_direct_map_type", lambda f, it, data: it.set_direct_map_type(f.DirectMap.Hashtable)),
    ("direct map", "reconstruct again", _call("reconstruct", 5)),
    ("direct map", "back", lambda f, it, data: it.set_direct_map_type(f.DirectMap.NoMap)),
]


def _both_search(it: Any, data: Data) -> Any:
    return class_names(type(it)), it.ntotal, outcome(lambda: it.search(data.xq, _K))


def _file(f: Any, it: Any, data: Data) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.faiss")
        f.write_index(it, path)
        with open(path, "rb") as file:
            written = file.read()
        return written, _both_search(f.read_index(path), data) if _is_read(it) else None


def _binary_file(f: Any, it: Any, data: Data) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.faiss")
        f.write_index_binary(it, path)
        with open(path, "rb") as file:
            written = file.read()
        return written, _both_search(f.read_index_binary(path), data) if _is_read(it) else None


def _serialized(f: Any, it: Any, data: Data) -> Any:
    found = f.serialize_index(it)
    return found, _both_search(f.deserialize_index(found), data) if _is_read(it) else None


def _is_read(it: Any) -> bool:
    return type(it).__name__ in _READ


def _pickled(f: Any, it: Any, data: Data) -> Any:
    if isinstance(it, f.Index) and not _is_read(it):
        return it.__reduce_ex__(4)[0] is not None
    return _both_search(pickle.loads(pickle.dumps(it)), data)


def _copied(copied: Callable[[Any], Any]) -> Step:
    def step(f: Any, it: Any, data: Data) -> Any:
        other = copied(it)
        other.reset()
        return class_names(type(other)), other.ntotal, it.ntotal

    return step


FILES: Program = [
    ("files", "write_index and read_index", _file),
    ("files", "serialize_index", _serialized),
    ("files", "no such folder", lambda f, it, data: f.write_index(it, "/no/such/folder/x")),
    ("copies", "pickle", _pickled),
    ("copies", "copy", _copied(copy.copy)),
    ("copies", "deepcopy", _copied(copy.deepcopy)),
    ("copies", "clone_index", _copied(lambda it: _module_of(it).clone_index(it))),
]
BINARY_FILES: Program = [
    ("files", "write_index_binary", _binary_file),
    ("files", "serialize_index_binary", lambda f, it, data: f.serialize_index_binary(it)),
    ("copies", "pickle", _pickled),
    ("copies", "clone_binary_index", lambda f, it, data: _both_search(f.clone_binary_index(it), data)),
]


def _module_of(it: Any) -> Any:
    import faiss_proxy

    return faiss if type(it).__module__.startswith("faiss.") else faiss_proxy


def _removed_by_selector(f: Any, it: Any, data: Data) -> Any:
    return it.remove_ids(f.IDSelectorRange(5, 20)), it.ntotal


def _merged(f: Any, it: Any, data: Data) -> Any:
    other = f.clone_index(it) if "Binary" not in type(it).__name__ else f.clone_binary_index(it)
    it.merge_from(other, 500)
    return it.ntotal, other.ntotal, outcome(lambda: it.search(data.xq, _K))


CHANGE: Program = [
    (
        "remove_ids",
        "of an array",
        lambda f, it, data: (it.remove_ids(np.array([2, 4, 1004, 9999])), it.ntotal),
    ),
    ("remove_ids", "by a selector", _removed_by_selector),
    ("remove_ids", "of a list", _call("remove_ids", [1])),
    ("remove_ids", "search after", _call("search", _xq, _K)),
    ("merge_from", "check_compatible_for_merge", lambda f, it, data: it.check_compatible_for_merge(it)),
    ("merge_from", "merge_from", _merged),
    ("reset", "reset", lambda f, it, data: (it.reset(), it.ntotal)),
    ("reset", "search when empty", _call("search", _xq, _K)),
    ("reset", "add again", lambda f, it, data: (it.add(data.xb[:40]), it.ntotal)),
]
TYPES: Program = [
    ("types", "classes", lambda f, it, data: class_names(type(it))),
    ("types", "isinstance", lambda f, it, data: [isinstance(it, getattr(f, name)) for name in RECIPES]),
    ("types", "issubclass", lambda f, it, data: [issubclass(type(it), getattr(f, name)) for name in RECIPES]),
    (
        "types",
        "isinstance Index",
        lambda f, it, data: (isinstance(it, f.Index), isinstance(it, f.IndexBinary)),
    ),
    ("types", "hasattr", lambda f, it, data: [hasattr(it, name) for name in _public(faiss.IndexIVFPQ)]),
    (
        "types",
        "methods",
        lambda f, it, data: [name for name in _public(faiss_class(it)) if not hasattr(it, name)],
    ),
    ("types", "equal", lambda f, it, data: (it == it, it == 3, hash(it) == hash(it))),
    ("types", "len", lambda f, it, data: len(it)),
]
TRANSFORM: Program = [
    *TRAIN,
    ("apply", "apply", lambda f, it, data: it.apply(data.xq)),
    ("apply", "apply_py", lambda f, it, data: it.apply_py(data.xq)),
    ("apply", "of a list", _call("apply", [1])),
    ("apply", "of wrong d", _call("apply", lambda data: data.xq[:, 1:])),
    ("apply", "reverse_transform", lambda f, it, data: it.reverse_transform(it.apply(data.xq))),
    ("apply", "check_identical", lambda f, it, data: it.check_identical(it)),
    ("functions", "downcast_VectorTransform", lambda f, it, data: f.downcast_VectorTransform(it)),
    ("files", "write_VectorTransform", lambda f, it, data: _object_file(f, it, "VectorTransform", data)),
    ("copies", "copy", lambda f, it, data: copy.copy(it)),
    ("copies", "pickle", lambda f, it, data: pickle.dumps(it)),
]
QUANTIZER: Program = [
    *TRAIN[1:2],
    ("codes", "compute_codes", lambda f, it, data: it.compute_codes(data.xq)),
    ("codes", "decode", lambda f, it, data: it.decode(it.compute_codes(data.xq))),
    ("codes", "of a list", lambda f, it, data: it.compute_codes([1])),
    ("codes", "of wrong d", lambda f, it, data: it.compute_codes(data.xq[:, 1:])),
    ("functions", "downcast_Quantizer", lambda f, it, data: f.downcast_Quantizer(it)),
    ("files", "write_ProductQuantizer", lambda f, it, data: _object_file(f, it, "ProductQuantizer", data)),
    ("copies", "copy", lambda f, it, data: copy.copy(it)),
    ("copies", "pickle", lambda f, it, data: pickle.dumps(it)),
]


def _object_file(f: Any, it: Any, kind: str, data: Data) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x")
        getattr(f, f"write_{kind}")(it, path)
        with open(path, "rb") as file:
            return file.read(), class_names(type(getattr(f, f"read_{kind}")(path)))


def faiss_class(it: Any) -> Any:
    return getattr(faiss, type(it).__name__)


def _public(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


def program(name: str) -> Program:
    """The steps for an object of the class of that name, or made by that factory's string."""
    if name in TRANSFORMS:
        return [*TYPES, *TRANSFORM]
    if name in RECIPES and name not in INDEXES and name not in BINARIES:
        return [*TYPES, *QUANTIZER]
    filled = [*TYPES, *TRAIN, *ADD, *SEARCH, *PARAMS, *RECONSTRUCT, *MORE]
    if name in BINARIES or name.startswith("B"):
        return [*filled, *BAD, *BINARY_FILES, *CHANGE]
    return [*filled, *FUNCTIONS, *BAD, *FILES, *CHANGE]


def data_for(name: str) -> Data:
    if name in BINARIES or name.startswith("B"):
        return Data("uint8", D_BITS // 8)
    return Data("float32", 1 if name == "IndexFlat1D" else D)


def recipe(name: str) -> Recipe:
    if name in RECIPES:
        return RECIPES[name]
    if name.startswith("B"):
        return lambda f: f.index_binary_factory(D_BITS, name)
    return lambda f: f.index_factory(D, name)


def run(f: Any, name: str, skipped: Callable[[str, str, str], bool]) -> dict[tuple[str, str], Outcome]:
    """What each step has given, with the module ``f``, but for those that must not be tried."""
    data, found = data_for(name), {}
    it: list[Any] = []
    found["make", "make"] = outcome(lambda: it.append(recipe(name)(f)))
    for group, what, step in program(name) if it else []:
        if not skipped(name, group, what):
            found[group, what] = outcome(lambda step=step: step(f, it[0], data))  # type: ignore[misc]
    return found

"""Steps of programs that are drawn at random, as plain values, and how one is done with either module.

A step is a name and its choices, so that the same can be done with both modules and shown when it differs.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, TypeAlias

import faiss
import numpy as np
from hypothesis import strategies as st
from tests.conformance.faiss.outcomes import class_names
from tests.conformance.faiss.recipes import Data

Step: TypeAlias = tuple[str, tuple[Any, ...]]
_MOST_DEPTH = 3
_SMALL = st.integers(0, 9)
_KEYS = st.sampled_from([0, 1, 3, 60, 149, 199, 210, 1003, 5000, -1, 2**40])
_VALUES: list[Any] = [0, 1, 2, 3, 7, -1, True, False, 0.5, 2.0, "x", None, np.int64(2), np.float32(3), [1]]
_SELECTORS = ["range", "array", "batch", "bitmap", "all", "not", "and", "or", "xor", "nested"]
_PARAMS = ["none", "plain", "IVF", "HNSW", "PQ", "PreTransform", "Refine", "quantizer"]
_LAYOUTS = ["plain", "float64", "float16", "fortran", "second", "list", "row", "narrow", "texts", "none"]
_GOOD = ["plain"] * 6 + _LAYOUTS
_IDS = ["next", "large", "equal", "negative", "int32", "few", "list"]


def _pick(*choices: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(
        *(each if isinstance(each, st.SearchStrategy) else st.sampled_from(each) for each in choices)
    )


_KS = st.sampled_from([1, 2, 5, 5, 10, 40, 250, 0, -1, 2.0, None])
_PARAMETERS = st.tuples(st.sampled_from(_PARAMS), st.sampled_from([*[None] * 3, *_SELECTORS]), _SMALL)
_PATH = st.lists(st.integers(0, 199), min_size=1, max_size=_MOST_DEPTH).map(tuple)
CHOICES: dict[str, tuple[int, st.SearchStrategy[tuple[Any, ...]]]] = {
    "train": (2, _pick([640, 300, 640, 0], _GOOD)),
    "add": (4, _pick([200, 40, 1, 0], _GOOD)),
    "add_with_ids": (3, _pick([50, 7, 1], _GOOD, _IDS)),
    "search": (9, _pick([7, 1, 0, 3], _KS, _GOOD, ["", "", "D", "I", "DI", "bad"], _PARAMETERS)),
    "range_search": (3, _pick([7, 1], [0.3, 2.0, 20, -1, None], _GOOD, _PARAMETERS)),
    "search_and_reconstruct": (2, _pick([3], _KS, _GOOD)),
    "search_and_return_codes": (1, _pick([3], _KS, _GOOD)),
    "assign": (2, _pick([7, 1], _KS, _GOOD)),
    "reconstruct": (3, st.tuples(_KEYS)),
    "reconstruct_batch": (1, st.tuples(st.lists(_KEYS, max_size=4).map(tuple))),
    "reconstruct_n": (1, _pick([0, 3, 150], [1, 7, 40])),
    "remove_ids": (3, _pick(["ids", "list", *_SELECTORS], _SMALL)),
    "reset": (1, st.tuples()),
    "get": (6, st.tuples(_PATH)),
    "set": (5, st.tuples(_PATH, st.integers(0, len(_VALUES) - 1))),
    "tune": (2, _pick(["nprobe=2", "nprobe=3,efSearch=9", "k_factor_rf=2", "ht=3", "nothing=1", ""])),
    "direct map": (1, _pick([0, 1, 2])),
    "merge_from": (1, _pick([0, 500])),
    "clone": (1, st.tuples()),
    "downcast": (1, _pick(["downcast_index", "extract_index_ivf", "try_extract_index_ivf"])),
    "serialize": (1, st.tuples()),
    "copy": (1, _pick(["copy", "deepcopy"])),
    "codes": (2, _pick(["sa_encode", "sa_decode", "add_sa_codes", "sa_code_size", "wrong size"])),
    "call": (2, _pick(["search", "add", "train", "reset", "reconstruct", "nothing", "sa_encode"], [0, 1, 4])),
}
RARE: dict[str, st.SearchStrategy[tuple[Any, ...]]] = {"deserialize": st.tuples(), "pickle": st.tuples()}


def steps() -> st.SearchStrategy[Step]:
    """Any step, the useful ones more often."""
    often = [name for name, (weight, _) in CHOICES.items() for _ in range(weight)]
    return st.sampled_from(often).flatmap(lambda name: st.tuples(st.just(name), CHOICES[name][1]))


def rare_steps() -> st.SearchStrategy[Step]:
    """Steps for which a server begins a process, which takes long."""
    return st.sampled_from(sorted(RARE)).flatmap(lambda name: st.tuples(st.just(name), RARE[name]))


class Running:
    """A program in the middle: the object, and the arrays that its steps take."""

    def __init__(self, f: Any, it: Any, data: Data) -> None:
        self.f, self.it, self.data = f, it, data
        self.is_binary = "Binary" in type(it).__name__

    def do(self, step: Step) -> Any:
        """What a step gives, and how many vectors there are after it."""
        name, choices = step
        found = _STEPS[name](self, *choices)
        return found, self.it.ntotal, self.it.is_trained

    # ---- arrays and parameters -------------------------------------------------------------------

    def rows(self, of: Any, n: int, layout: str) -> Any:
        return _LAID[layout](of[:n])

    def ids(self, kind: str, n: int) -> Any:
        made: dict[str, Any] = {
            "next": np.arange(self.it.ntotal, self.it.ntotal + n),
            "large": np.arange(n) + 2**40,
            "equal": np.full(n, 7),
            "negative": -np.arange(n) - 2,
            "int32": np.arange(n, dtype="int32"),
            "few": np.arange(max(0, n - 1)),
            "list": list(range(n)),
        }
        return made[kind]

    def selector(self, kind: str, n: int) -> Any:
        f = self.f
        first, second = f.IDSelectorRange(n, n + 60), f.IDSelectorArray(np.arange(0, 200, n + 1))
        if kind == "range":
            return first
        if kind in ("array", "batch"):
            return second if kind == "array" else f.IDSelectorBatch(np.arange(0, 200, n + 2))
        if kind == "bitmap":
            return f.IDSelectorBitmap(np.full(30, 85 + n, np.uint8))
        if kind in ("all", "not"):
            return f.IDSelectorAll() if kind == "all" else f.IDSelectorNot(first)
        if kind == "nested":
            return f.IDSelectorNot(
                f.IDSelectorOr(f.IDSelectorAnd(first, second), f.IDSelectorRange(150, 160))
            )
        return getattr(f, f"IDSelector{kind.capitalize() if kind != 'xor' else 'XOr'}")(first, second)

    def params(self, kind: str, selector: str | None, n: int) -> dict[str, Any]:
        """Keywords with search parameters, or none."""
        f = self.f
        if kind == "none" and selector is None:
            return {}
        chosen = {} if selector is None else {"sel": self.selector(selector, n)}
        if kind == "PreTransform":
            inner = f.SearchParametersIVF(nprobe=n, **chosen) if n % 2 else f.SearchParameters(**chosen)
            return {"params": f.SearchParametersPreTransform(index_params=inner)}
        if kind == "Refine":
            return {"params": f.IndexRefineSearchParameters(k_factor=float(n), **chosen)}
        if kind == "quantizer":
            inner = f.SearchParametersHNSW(efSearch=n + 1)
            return {"params": f.SearchParametersIVF(nprobe=n, quantizer_params=inner, **chosen)}
        fields = {"IVF": {"nprobe": n}, "HNSW": {"efSearch": n}, "PQ": {}}.get(kind, {})
        made = getattr(f, f"SearchParameters{kind if kind in ('IVF', 'HNSW', 'PQ') else ''}")(
            **fields, **chosen
        )
        return {"params": made}

    # ---- steps -----------------------------------------------------------------------------------

    def train(self, n: int, layout: str) -> Any:
        return self.it.train(self.rows(self.data.xt, n, layout))

    def add(self, n: int, layout: str) -> Any:
        return self.it.add(self.rows(self.data.xb, n, layout))

    def add_with_ids(self, n: int, layout: str, ids: str) -> Any:
        return self.it.add_with_ids(self.rows(self.data.xb, n, layout), self.ids(ids, n))

    def search(self, n: int, k: Any, layout: str, filled: str, params: tuple[Any, ...]) -> Any:
        more = self.params(*params)
        shape = (n, k if isinstance(k, int) and k > 0 else 1)
        dtype = "int32" if self.is_binary else "float32"
        if "D" in filled or filled == "bad":
            more["D"] = np.zeros(shape, dtype if filled != "bad" else "float64")
        if "I" in filled:
            more["I"] = np.zeros(shape, "int64")
        found = self.it.search(self.rows(self.data.xq, n, layout), k, **more)
        return found, more.get("D"), more.get("I")

    def range_search(self, n: int, radius: Any, layout: str, params: tuple[Any, ...]) -> Any:
        return self.it.range_search(self.rows(self.data.xq, n, layout), radius, **self.params(*params))

    def search_by(self, name: str) -> Callable[..., Any]:
        return lambda n, k, layout: getattr(self.it, name)(self.rows(self.data.xq, n, layout), k)

    def remove_ids(self, kind: str, n: int) -> Any:
        if kind in ("ids", "list"):
            ids = np.array([n, 2 * n, 1000 + n, 199])
            return self.it.remove_ids(ids if kind == "ids" else ids.tolist())
        return self.it.remove_ids(self.selector(kind, n))

    def walked(self, path: tuple[int, ...]) -> tuple[Any, str]:
        """The object that a path leads to, and the name of the field there."""
        thing = self.it
        names = fields_of(thing)
        for at in path[:-1]:
            inner = getattr(thing, names[at % len(names)])
            if not fields_of(inner):
                break
            thing, names = inner, fields_of(inner)
        return thing, names[path[-1] % len(names)]

    def get(self, path: tuple[int, ...]) -> Any:
        thing, name = self.walked(path)
        return name, _plain(getattr(thing, name))

    def set(self, path: tuple[int, ...], value: int) -> Any:
        thing, name = self.walked(path)
        if name.startswith("own_"):  # FAISS here would free what is not its own
            return name
        setattr(thing, name, _VALUES[value])
        return name, _plain(getattr(thing, name))

    def tune(self, text: str) -> Any:
        return self.f.ParameterSpace().set_index_parameters(self.it, text)

    def map_directly(self, kind: int) -> Any:
        return self.it.set_direct_map_type(kind)

    def cloned(self) -> Any:
        return (self.f.clone_binary_index if self.is_binary else self.f.clone_index)(self.it)

    def merge_from(self, add_id: int) -> Any:
        other = self.cloned()
        return self.it.merge_from(other, add_id), other.ntotal

    def clone(self) -> Any:
        self.it = self.cloned()
        return class_names(type(self.it))

    def downcast(self, name: str) -> Any:
        return getattr(self.f, name)(self.it)

    def serialize(self) -> Any:
        return (self.f.serialize_index_binary if self.is_binary else self.f.serialize_index)(self.it)

    def deserialize(self) -> Any:
        name = "deserialize_index_binary" if self.is_binary else "deserialize_index"
        self.it = getattr(self.f, name)(self.serialize())
        return class_names(type(self.it))

    def pickle(self) -> Any:
        self.it = pickle.loads(pickle.dumps(self.it))
        return class_names(type(self.it))

    def copy(self, how: str) -> Any:
        self.it = getattr(copy, how)(self.it)
        return class_names(type(self.it))

    def codes(self, what: str) -> Any:
        if what == "sa_code_size":
            return self.it.sa_code_size()
        if what == "wrong size":
            return self.it.sa_decode(np.zeros((2, 3), np.uint8))
        found = self.it.sa_encode(self.data.xq)
        return found if what == "sa_encode" else getattr(self.it, what)(found)

    def call(self, name: str, n: int) -> Any:
        return getattr(self.it, name)(*range(n))


def _plain(value: Any) -> Any:
    return class_names(type(value)) if hasattr(value, "this") else value


def fields_of(thing: Any) -> list[str]:
    """The public fields of an object of FAISS's class of that name, whichever module it is of."""
    kind = getattr(faiss, type(thing).__name__, None)
    if not isinstance(kind, type) or not hasattr(thing, "this"):
        return []
    names = [name for name in dir(kind) if not name.startswith("_") and name not in ("this", "thisown")]
    return [name for name in names if isinstance(getattr(kind, name), property)]


_LAID: dict[str, Callable[[Any], Any]] = {
    "plain": lambda x: x,
    "float64": lambda x: x.astype("float64"),
    "float16": lambda x: x.astype("float16"),
    "fortran": np.asfortranarray,
    "second": lambda x: np.repeat(x, 2, axis=0)[::2],
    "list": lambda x: x.tolist(),
    "row": lambda x: x[0] if len(x) else x.reshape(-1),
    "narrow": lambda x: x[:, :-1],
    "texts": lambda x: x.astype(str),
    "none": lambda x: None,
}
_BY_NAME = ("search_and_reconstruct", "search_and_return_codes", "assign")
_STEPS: dict[str, Callable[..., Any]] = {
    **{name: getattr(Running, name) for name in (*CHOICES, *RARE) if hasattr(Running, name)},
    **{name: lambda run, *args, name=name: run.search_by(name)(*args) for name in _BY_NAME},
    "reconstruct": lambda run, key: run.it.reconstruct(key),
    "reconstruct_batch": lambda run, keys: run.it.reconstruct_batch(list(keys)),
    "reconstruct_n": lambda run, n0, n: run.it.reconstruct_n(n0, n),
    "reset": lambda run: run.it.reset(),
    "direct map": Running.map_directly,
}

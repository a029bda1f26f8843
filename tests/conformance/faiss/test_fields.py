"""Every public field of every class, two levels deep: read, set and read again as with ``faiss``.

Fields that a server does not let be set are told in docs/faiss-compatibility.md; all others are FAISS's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import pytest
from tests.conformance.faiss.outcomes import Outcome, class_names, outcome, told
from tests.conformance.faiss.programs import data_for, recipe
from tests.conformance.faiss.recipes import RECIPES
from tests.conformance.faiss.steps import fields_of

_DEPTH = 2
_POINTING = "in the server's memory"
_LEFT = ("enterpoint",)  # as it lies in memory, until the graph is built


def _filled(f: Any, name: str) -> Any:
    data, made = data_for(name), recipe(name)(f)
    outcome(lambda: made.train(data.xt))
    if hasattr(made, "add"):
        outcome(lambda: made.add(data.xb))
    return made


def _walked(here: Any, there: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any, Any]]:
    """Both objects of each field, with the way to it."""
    for name in fields_of(here):
        yield f"{path}{name}", here, there
        if depth < _DEPTH - 1:
            inner = outcome(lambda name=name: getattr(here, name))  # type: ignore[misc]
            if inner[0] == "gave" and inner[1][0] == "object":
                found = outcome(lambda name=name: getattr(there, name))  # type: ignore[misc]
                if found[0] == "gave":
                    yield from _walked(getattr(here, name), getattr(there, name), f"{path}{name}.", depth + 1)


def _read(thing: Any, name: str) -> Outcome:
    """A field, with how long it is where it is a vector, and who owns it where it is an object."""

    def read() -> Any:
        value = getattr(thing, name)
        if type(value).__name__.endswith("Vector") and hasattr(value, "size"):
            return class_names(type(value)), value.size(), value.thisown
        return (value, value.thisown) if hasattr(value, "thisown") else value

    return outcome(read)


def _is_refused(found: Outcome, *why: str) -> bool:
    return found[:2] == ("raised", "RemoteError") and any(each in found[2] for each in why)


def _changed(value: Any) -> Any:
    """Another value of the kind."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value + 0.5


@pytest.mark.parametrize("name", RECIPES)
def test_fields_are_read_as_with_faiss(remote: Any, name: str) -> None:
    here, there = (_filled(f, name) for f in (faiss, remote))
    wrong = []
    for path, ours, theirs in _walked(here, there):
        field = path.rpartition(".")[2]
        wanted, found = _read(ours, field), _read(theirs, field)
        if wanted[:1] == ("gave",) and wanted[1][:2] == ("object", "SwigPyObject"):
            place = getattr(theirs, field)
            assert _is_refused(outcome(lambda place=place: place.next()), _POINTING), path  # type: ignore[misc]
        elif wanted != found:
            wrong.append(f"{path}: {told(wanted)}, not {told(found)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", RECIPES)
def test_fields_are_set_as_with_faiss(remote: Any, name: str) -> None:
    """To another value of the kind; on top, to some of wrong kinds. Numbers alone: an object is refused."""
    here, there = (recipe(name)(f) for f in (faiss, remote))
    wrong, n_tried = [], 0
    for path, ours, theirs in _walked(here, there):
        field = path.rpartition(".")[2]
        before = outcome(lambda ours=ours, field=field: getattr(ours, field))  # type: ignore[misc]
        if field.startswith("own_"):  # FAISS here would free what is not its own: see test_programs
            continue
        if field in _LEFT or before[0] != "gave" or before[1][0] not in ("bool", "int", "float"):
            continue
        value = getattr(ours, field)
        of_wrong_kinds: tuple[Any, ...] = () if "." in path else ("x", None, np.int64(3), [1])
        for wanted in (_changed(value), *of_wrong_kinds):
            found = outcome(lambda theirs=theirs, field=field, wanted=wanted: setattr(theirs, field, wanted))  # type: ignore[misc]
            if _is_refused(found, "laid out", "cannot be set", "at most", "number of bits"):
                continue
            expected = outcome(lambda ours=ours, field=field, wanted=wanted: setattr(ours, field, wanted))  # type: ignore[misc]
            n_tried += 1
            if (expected, _read(ours, field)) != (found, _read(theirs, field)):
                wrong.append(f"{path} = {wanted!r}: {told(expected)}, not {told(found)}")
    assert not wrong, "\n".join(wrong)
    assert n_tried >= 4


_VECTORS = {
    "IndexFlatL2": ["codes"],
    "IndexPQ": ["pq.centroids", "codes"],
    "IndexIDMap": ["id_map"],
    "IndexHNSWFlat": ["hnsw.levels", "hnsw.assign_probas", "hnsw.cum_nneighbor_per_level"],
    "IndexScalarQuantizer": ["sq.trained", "codes"],
    "IndexIVFPQ": ["pq.centroids"],
    "PCAMatrix": ["mean", "eigenvalues", "PCAMat", "A", "b"],
    "IndexResidualQuantizer": ["rq.codebooks"],
    "IndexLSH": ["thresholds", "rrot.A"],
    "IndexBinaryFlat": ["xb"],
}


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name, paths in _VECTORS.items() for path in paths]
)
def test_vectors_of_numbers_are_copied_out_as_with_faiss(remote: Any, name: str, path: str) -> None:
    found = []
    for f in (faiss, remote):
        owner = thing = _filled(f, name)  # the owner must not go before its parts
        for part in path.split("."):
            thing = getattr(thing, part)
        found.append(outcome(lambda f=f, thing=thing: f.vector_to_array(thing)))  # type: ignore[misc]
        del owner
    assert found[0] == found[1]
    assert found[0][0] == "gave"


def test_vectors_of_floats_are_filled_with_as_many_as_they_have_and_no_others(remote: Any) -> None:
    """A vector of another length would lead FAISS out of it: the index is fetched, changed and sent back."""
    index = _filled(remote, "PCAMatrix")
    remote.copy_array_to_vector(np.ones(16, "float32"), index.mean)
    assert remote.vector_to_array(index.mean).all()
    with pytest.raises(remote.RemoteError, match="has 16 numbers, got 17"):
        remote.copy_array_to_vector(np.zeros(17, "float32"), index.mean)
    local = index.to_local()
    faiss.copy_array_to_vector(np.zeros(16, "float32"), local.mean)
    again = remote.to_remote(local)
    assert not remote.vector_to_array(again.mean).any()

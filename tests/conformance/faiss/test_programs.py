"""Programs give the same with ``faiss_proxy`` as with ``faiss``, as docs/faiss-compatibility.md says."""

from __future__ import annotations

import importlib
import pickle
import types
from typing import Any

import faiss
import numpy as np
import pytest
from tests.conformance.faiss import table
from tests.conformance.faiss.comparing import compared
from tests.conformance.faiss.differences import DIFFERS, NOT_TRIED
from tests.conformance.faiss.outcomes import class_names, outcome
from tests.conformance.faiss.programs import data_for, recipe
from tests.conformance.faiss.recipes import (
    FACTORY,
    FACTORY_BINARY,
    FAMILIES,
    NO_RECIPE,
    RECIPES,
    all_classes,
)

import faiss_proxy
from faissbase.dropin.allowed import MADE


def test_every_class_of_the_installed_faiss_has_a_recipe_or_a_reason_for_none() -> None:
    assert set(all_classes()) == RECIPES.keys() | NO_RECIPE.keys()
    assert not RECIPES.keys() & NO_RECIPE.keys()


@pytest.mark.parametrize("name", NO_RECIPE)
def test_a_class_without_a_recipe_is_known_by_name(name: str) -> None:
    assert class_names(getattr(faiss_proxy, name)) == class_names(getattr(faiss, name))
    assert getattr(faiss_proxy, name) == getattr(faiss, name)


@pytest.mark.parametrize("name", [*RECIPES, *FACTORY, *FACTORY_BINARY])
def test_a_program_gives_the_same_on_a_server(remote: Any, name: str) -> None:
    found = compared(remote, name)
    wrong = [str(each) for each in found if not each.is_same and each.reason is None]
    assert not wrong, "\n".join(wrong)
    if name in RECIPES:
        assert table.row(name, found) in table.PATH.read_text().splitlines(), (
            f"docs/faiss-compatibility.md is stale, run: {table.COMMAND}"
        )


def test_the_table_has_these_classes_and_reasons() -> None:
    text = table.PATH.read_text().splitlines()
    rows = [line for line in text if line.startswith("| `")]
    assert [line.split("`")[1] for line in rows] == [*RECIPES, *NO_RECIPE]
    rest = [line for line in text if not line.startswith("| `")]
    assert rest == [line for line in table.text({}).splitlines() if not line.startswith("| `")]


def test_every_deliberate_difference_names_steps_that_there_are() -> None:
    assert all(reason and reason[0] != " " for *_, reason in [*DIFFERS, *NOT_TRIED])


@pytest.mark.parametrize("name", RECIPES)
def test_without_a_server_the_object_is_one_of_faiss(name: str) -> None:
    made = recipe(name)(faiss_proxy)
    assert type(made) is getattr(faiss, name)
    assert isinstance(made, getattr(faiss_proxy, name))
    assert getattr(faiss_proxy, name) == type(made)  # noqa: E721  # two classes that count as one
    assert issubclass(getattr(faiss, name), getattr(faiss_proxy, name))


@pytest.mark.parametrize("name", ["IndexFlatL2", "IndexIVFFlat", "IndexIDMap", "IndexPreTransform"])
def test_without_a_server_a_program_gives_the_same(name: str) -> None:
    wrong = [str(each) for each in compared(faiss_proxy, name) if not each.is_same]
    assert not wrong, "\n".join(wrong)


def test_a_class_derived_from_one_is_of_this_process_without_a_server() -> None:
    class Mine(faiss_proxy.IndexFlatL2):  # type: ignore[misc]
        def add_twice(self, x: Any) -> None:
            self.add(x)
            self.add(x)

    made = Mine(4)
    made.add_twice(np.ones((3, 4), "float32"))
    assert (made.ntotal, isinstance(made, faiss.IndexFlatL2)) == (6, True)


def test_a_class_derived_from_one_runs_on_a_server(remote: Any) -> None:
    class Mine(remote.IndexFlatL2):  # type: ignore[misc]
        def add_twice(self, x: Any) -> None:
            self.add(x)
            self.add(x)

    made = Mine(4)
    made.add_twice(np.ones((3, 4), "float32"))
    assert (made.ntotal, isinstance(made, remote.IndexFlatL2)) == (6, True)
    assert type(made.to_local()) is faiss.IndexFlatL2


def test_what_was_found_really_came_from_the_server(remote: Any) -> None:
    index = remote.IndexFlatL2(4)
    assert not isinstance(index, faiss.Index)
    assert index._handle.number > 0


def test_warnings_of_faiss_come_to_this_process(remote: Any, capfd: pytest.CaptureFixture[str]) -> None:
    data, said = data_for("IndexIVFFlat"), []
    for module in (faiss, remote):
        index = module.IndexIVFFlat(module.IndexFlatL2(data.d), data.d, 40)
        assert outcome(lambda index=index: index.train(data.xt[:100]))[0] == "gave"  # type: ignore[misc]
        captured = capfd.readouterr()
        said.append(captured.out + captured.err)
    assert said[0] == said[1]
    assert "WARNING clustering" in said[0]


def test_families_are_those_whose_objects_live_on_a_server() -> None:
    assert set(FAMILIES) < set(MADE)


def test_modules_of_contrib_work_with_objects_on_a_server(remote: Any) -> None:
    factory_tools = importlib.import_module("faiss_proxy.contrib.factory_tools")
    index = remote.index_factory(16, "IVF4,Flat")
    assert factory_tools.faiss is faiss_proxy
    assert factory_tools.get_code_size(16, "PQ4x4") == 2
    assert factory_tools.reverse_index_factory(index) == "IVF4,Flat"


def test_classes_of_swigfaiss_are_those_of_the_package(remote: Any) -> None:
    from faiss_proxy import swigfaiss

    assert swigfaiss.IndexFlatL2 is remote.IndexFlatL2


_derived: Any = None


def test_a_pickled_index_of_a_derived_class_has_that_class_again(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = types.new_class("_derived", (remote.IndexFlatL2,))
    made.__module__, made.__qualname__ = __name__, "_derived"
    monkeypatch.setitem(globals(), "_derived", made)
    index = made(4)
    index.add(np.ones((3, 4), "float32"))
    again = pickle.loads(pickle.dumps(index))
    assert (type(again), again.ntotal) == (made, 3)


def test_who_owns_what_is_told_as_it_was_set(remote: Any) -> None:
    for module in (faiss, remote):
        quantizer = module.IndexFlatL2(4)
        index = module.IndexIVFFlat(quantizer, 4, 2)
        index.referenced_objects = [quantizer]
        for value in (False, True, False):
            index.own_fields = value
            assert index.own_fields is value
        with pytest.raises(TypeError, match="argument 2 of type 'bool'"):
            index.own_fields = 1

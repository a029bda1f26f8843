"""Programs drawn at random give the same with ``faiss_proxy`` as with ``faiss``, step by step.

``FAISS_EXAMPLES`` says how many are run; the same ones always, but for ``FAISS_SEED``.
"""

from __future__ import annotations

import os
import re
from typing import Any

import faiss
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.conformance.faiss import steps
from tests.conformance.faiss.differences import not_drawn
from tests.conformance.faiss.outcomes import Outcome, outcome, told
from tests.conformance.faiss.programs import data_for, recipe
from tests.conformance.faiss.recipes import BINARIES, FACTORY, FACTORY_BINARY, INDEXES

import faiss_proxy
from faissbase.errors import UnavailableError

N_EXAMPLES = int(os.environ.get("FAISS_EXAMPLES", "60"))
SEED = os.environ.get("FAISS_SEED")
NAMES = [
    name
    for name in [*INDEXES, *BINARIES, *FACTORY, *FACTORY_BINARY]
    if outcome(lambda name=name: recipe(name)(faiss))[0] == "gave"  # type: ignore[misc]
]
# What a server says where it does not do what FAISS does: each is a deliberate difference.
REFUSALS = re.compile(
    "cannot be set|says how memory is laid out|takes or gives memory|in the server's memory|"
    "is no position|are no positions|ends FAISS's process|does not end|at most|of the ids|"
    "reading it ended|cannot be sent|runs in this process|there are lists|given to itself|not trained|"
    "is in IDSelectorRange|keeps its refining codes|rows or more|1 or more|wants more rows|without vectors|"
    "reconstructs no vectors|lists that are not there|is a number of bits"
)


class Program:
    """Its steps, done with both modules; ends at the first that differs."""

    def __init__(self, name: str) -> None:
        self.name, self.lines = name, [f"make {name}"]
        self.n_refused = self.n_given = 0
        data = data_for(name)
        self.there, self.here = (steps.Running(f, recipe(name)(f), data) for f in (faiss_proxy, faiss))

    def do(self, step: steps.Step) -> None:
        """With the server first: what it refuses, FAISS may not survive."""
        if not_drawn(self.name, step, self.here.it):
            return
        self.lines.append(f"{step[0]} {step[1]}")
        there = outcome(lambda: self.there.do(step))
        if there[:2] == ("raised", "RemoteError"):
            assert REFUSALS.search(there[2]), self.shown(there, None)
            self.n_refused += 1
            return
        assert there[:2] != ("raised", UnavailableError.__name__), self.shown(there, None)
        here = outcome(lambda: self.here.do(step))
        assert here == there, self.shown(there, here)
        self.n_given += here[0] == "gave"

    def shown(self, there: Outcome, here: Outcome | None) -> str:
        program = "\n    ".join(self.lines)
        return f"\n    {program}\nfaiss:       {told(here or ())}\nfaiss_proxy: {told(there)}"


PROGRAMS = st.tuples(
    st.sampled_from(NAMES),
    st.booleans(),
    st.lists(steps.steps(), min_size=4, max_size=14),
    st.one_of(st.none(), st.none(), st.none(), steps.rare_steps()),
)


def run(name: str, is_filled: bool, drawn: list[steps.Step], last: steps.Step | None) -> Program:
    program = Program(name)
    if is_filled:
        drawn = [("train", (640, "plain")), ("add", (200, "plain")), *drawn]
    if last is not None:
        drawn = [*drawn, last, ("search", (7, 5, "plain", "", ("none", None, 0)))]
    for step in drawn:
        program.do(step)
    return program


_SETTINGS = settings(
    max_examples=N_EXAMPLES,
    derandomize=SEED is None,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # a program is shown whole: to shrink one takes minutes
    suppress_health_check=list(HealthCheck),
)


def test_programs_drawn_at_random_give_the_same_on_a_server(remote: Any) -> None:
    counted = {"programs": 0, "steps": 0, "refused": 0, "given": 0}

    @_SETTINGS
    @given(PROGRAMS)
    def check(drawn: Any) -> None:
        program = run(*drawn)
        counted["programs"] += 1
        counted["steps"] += len(program.lines) - 1
        counted["refused"] += program.n_refused
        counted["given"] += program.n_given

    (seed(int(SEED))(check) if SEED else check)()
    assert counted["programs"] >= N_EXAMPLES
    print(counted)
    assert counted["given"] > 0.3 * counted["steps"], (
        counted
    )  # what Hypothesis draws varies with what is imported
    assert counted["refused"] < 0.1 * counted["steps"], counted


def test_a_planted_fault_is_found(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail: a search that gives one number otherwise."""
    search = steps.Running.search

    def wrong(self: Any, *args: Any) -> Any:
        found = search(self, *args)
        if self.f is faiss_proxy and found[0][0].size:
            found[0][0][0, 0] += 1
        return found

    monkeypatch.setitem(steps._STEPS, "search", wrong)
    with pytest.raises(AssertionError, match="make IndexFlatL2"):
        run("IndexFlatL2", True, [("search", (3, 5, "plain", "", ("none", None, 0)))], None)


@pytest.mark.parametrize("name", steps.CHOICES)
def test_every_kind_of_step_is_done_by_some_index(remote: Any, name: str) -> None:
    """No kind of step fails always, in both modules alike."""
    done = {
        "direct map": ("IVF4,Flat", (1,)),
        "train": ("IVF4,Flat", (640, "plain")),
        "add_with_ids": ("IVF4,Flat", (7, "plain", "next")),
        "search": ("IVF4,Flat", (7, 5, "plain", "DI", ("IVF", "nested", 3))),
        "range_search": ("IVF4,Flat", (7, 2.0, "plain", ("IVF", "range", 3))),
        "reconstruct": ("Flat", (3,)),
        "reconstruct_batch": ("Flat", ((3, 1),)),
        "reconstruct_n": ("Flat", (0, 7)),
        "remove_ids": ("Flat", ("range", 3)),
        "get": ("IVF4,Flat", ((0,),)),
        "set": ("IndexFlatL2", ((steps.fields_of(faiss.IndexFlatL2(2)).index("verbose"),), 6)),
        "tune": ("IVF4,Flat", ("nprobe=2",)),
        "merge_from": ("Flat", (0,)),
        "downcast": ("IVF4,Flat", ("extract_index_ivf",)),
        "copy": ("Flat", ("deepcopy",)),
        "codes": ("SQ8", ("sa_decode",)),
        "call": ("Flat", ("reset", 0)),
        "add": ("Flat", (40, "plain")),
        "reset": ("Flat", ()),
        "clone": ("Flat", ()),
        "serialize": ("Flat", ()),
        "assign": ("Flat", (7, 5, "plain")),
        "search_and_reconstruct": ("Flat", (3, 5, "plain")),
        "search_and_return_codes": ("IVF4,Flat", (3, 5, "plain")),
    }
    program = run(done[name][0], True, [(name, done[name][1])], None)
    assert program.n_refused == 0
    assert outcome(lambda: program.here.do((name, done[name][1])))[0] == "gave"

"""The same programs with ``faiss`` and with ``faiss_proxy``, and how their outcomes compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
from tests.conformance.faiss.differences import DIFFERS, NOT_TRIED, reason_of
from tests.conformance.faiss.outcomes import Outcome, told
from tests.conformance.faiss.programs import run


@dataclass(frozen=True)
class Compared:
    """A step with both modules. ``reason`` is why it may differ, or was not tried."""

    group: str
    what: str
    here: Outcome | None
    there: Outcome | None
    reason: str | None

    @property
    def is_same(self) -> bool:
        return self.here == self.there

    def __str__(self) -> str:
        here, there = (told(each or ()) for each in (self.here, self.there))
        return f"{self.group}: {self.what}\n    faiss:       {here}\n    faiss_proxy: {there}"


def compared(f: Any, name: str) -> list[Compared]:
    """Every step of the program of a class, with ``faiss`` and with ``f``."""

    def skipped(name: str, group: str, what: str) -> bool:
        return reason_of(NOT_TRIED, name, group, what) is not None

    here, there = (run(module, name, skipped) for module in (faiss, f))
    return [
        Compared(*step, here.get(step), there.get(step), _reason(name, step, there.get(step)))
        for step in {**here, **there}
    ]


def _reason(name: str, step: tuple[str, str], there: Outcome | None) -> str | None:
    """Why a step may differ: a refusal that says so, or a copy; never a silent other answer."""
    is_refused = there is not None and there[:2] == ("raised", "RemoteError")
    return reason_of(DIFFERS, name, *step) if is_refused or step[0] == "copies" else None

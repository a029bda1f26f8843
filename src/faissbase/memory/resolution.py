"""One plan, of decisions that may contradict each other. Knows no model and no database.

Facts are taken in their order. What a decision would do to a memory that an earlier one has closed or changed
was decided on a text that is no more: the fact is then added by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from faissbase.memory.replies import sameness

Operation: TypeAlias = Literal["ADD", "UPDATE", "REPLACE", "DELETE", "NOOP"]
MemoryId: TypeAlias = "int | str"

_RANK = {"REPLACE": 0, "UPDATE": 0, "ADD": 1, "NOOP": 2, "DELETE": 3}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a fact does.

    Attributes
    ----------
    operation : str
        ``ADD``: store ``text`` as a new memory. ``UPDATE``: ``text`` is the memory's next version.
        ``REPLACE``: close the memory, and store ``text`` as a new one. ``DELETE``: close the memory.
        ``NOOP``: nothing.
    fact : int
        Place of the fact among those given. Each has one decision, and ``DELETE`` of more memories maybe.
    memory_id : int, str or None
        The memory it is done to; for ``NOOP`` the one that says it already. None for ``ADD``.
    text : str or None
        What is to be stored, and embedded; None where nothing is.
    """

    operation: Operation
    fact: int
    memory_id: MemoryId | None = None
    text: str | None = None


def resolved(facts: Sequence[str], proposed: Sequence[Decision], problems: list[str]) -> tuple[Decision, ...]:
    """Decisions for all ``facts``, in their order, that can be carried out; the others go to ``problems``."""
    plan = _Plan(facts, problems)
    for fact in range(len(facts)):
        mine = [decision for decision in proposed if decision.fact == fact]
        plan.take(fact, sorted(dict.fromkeys(mine), key=lambda decision: _RANK[decision.operation]))
    return tuple(plan.decisions)


@dataclass(slots=True)
class _Plan:
    """What has been decided so far, and what it does to memories."""

    facts: Sequence[str]
    problems: list[str]
    decisions: list[Decision] = field(default_factory=list)
    changed: set[MemoryId] = field(default_factory=set)
    closed: set[MemoryId] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)

    def take(self, fact: int, proposed: Sequence[Decision]) -> None:
        """Decide on one fact, by its proposals in the order of their rank."""
        for decision in self._one_and_deletes(proposed):
            settled = self._settled(decision)
            if settled is not None:
                self._keep(self._told_once(settled))
        if not self._has_decided(fact):
            self._keep(self._told_once(self._added(fact)))

    def _one_and_deletes(self, proposed: Sequence[Decision]) -> Iterator[Decision]:
        """The first, and after it whatever closes other memories; the rest contradicts the first."""
        for decision in proposed:
            if decision is proposed[0] or decision.operation == "DELETE":
                yield decision
            elif decision.operation == "REPLACE":  # of several memories by the text of the first
                yield Decision("DELETE", decision.fact, decision.memory_id)
            else:
                self._tell(decision, f"{proposed[0].operation} was decided too")

    def _settled(self, decision: Decision) -> Decision | None:
        """``decision`` as it can be done after those before; None where nothing is left to do."""
        memory_id, fact = decision.memory_id, decision.fact
        if memory_id in self.closed:
            if decision.operation == "DELETE":
                return None if self._has_decided(fact) else Decision("NOOP", fact, memory_id)
            self._tell(decision, "an earlier decision closes that memory")
            return self._added(fact)
        if memory_id in self.changed and decision.operation != "NOOP":
            self._tell(decision, "an earlier decision changes that memory")
            return None if decision.operation == "DELETE" else self._added(fact)
        if decision.operation == "DELETE" and Decision("NOOP", fact, memory_id) in self.decisions:
            self._tell(decision, "that memory is what says the fact")
            return None
        return decision

    def _told_once(self, decision: Decision) -> Decision:
        """``decision``, without storing again what is stored by one before."""
        if decision.text is None or sameness(decision.text) not in self.stored:
            return decision
        if decision.memory_id is None:
            return Decision("NOOP", decision.fact)
        return Decision("DELETE", decision.fact, decision.memory_id)

    def _keep(self, decision: Decision) -> None:
        self.decisions.append(decision)
        if decision.text is not None:
            self.stored.add(sameness(decision.text))
        if decision.memory_id is not None and decision.operation != "NOOP":
            (self.changed if decision.operation == "UPDATE" else self.closed).add(decision.memory_id)

    def _has_decided(self, fact: int) -> bool:
        return any(decision.fact == fact for decision in self.decisions)

    def _added(self, fact: int) -> Decision:
        return Decision("ADD", fact, None, self.facts[fact])

    def _tell(self, decision: Decision, reason: str) -> None:
        where = "" if decision.memory_id is None else f" of memory {decision.memory_id!r}"
        self.problems.append(f"left out {decision.operation}{where} for fact {decision.fact}: {reason}")

"""The FAISS objects that are alive here, who holds them, and who may touch them when.

An index and whatever it leads to (its quantizer, its sub-indexes) are one graph: its objects share memory, so
they share one lock. Many may read at once; who changes something is alone.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from faissbase.sharing import Sharing

if TYPE_CHECKING:
    from faissbase.dropin.gathering import Searches
    from faissbase.dropin.named import Named

_REMEMBERED = 64
_NUMBER_SHIFT = 128 - 52  # what JSON takes anywhere, with room to count on
Step = tuple[Any, ...]
_versions = count()
GPU = threading.RLock()  # FAISS's calls that lead to a GPU run one at a time; taken after the graphs' locks


class Graph:
    """What shares memory. ``joined`` is the graph that it has become part of."""

    def __init__(self) -> None:
        self.lock = Sharing()
        self.joined: Graph | None = None
        self.named: dict[str, Named] = {}
        self.kept: list[Any] = []  # what was made a part of something, for FAISS does not keep it
        self.is_single = True  # whether no other index shares its memory
        self.is_rebuilt = False  # whether parts have taken the place of others
        self.is_on_gpu = False  # whether calls lead to a GPU
        self.told: dict[tuple[int, str], Any] = {}  # fields of objects that were set for their readers alone
        self.change()

    def change(self) -> None:
        """Note that something is not as it was; the lock is held alone."""
        self.version = next(_versions)

    def root(self) -> Graph:
        graph = self
        while graph.joined is not None:
            graph = graph.joined
        if graph is not self:
            self.joined = graph  # the way is short next time
        return graph

    def join(self, other: Graph) -> None:
        """Become one with ``other``; both locks are held alone."""
        root, other_root = self.root(), other.root()
        if root is not other_root:
            other_root.joined = root
            root.is_single = False
            root.named |= other_root.named
            root.kept += other_root.kept
            root.told |= other_root.told
            root.is_rebuilt = root.is_rebuilt or other_root.is_rebuilt
            root.is_on_gpu = root.is_on_gpu or other_root.is_on_gpu
            root.change()


@dataclass(eq=False, slots=True)
class Held:
    """An object, the graph it is of, and how it was reached from another; ``keeps`` must not go before it."""

    thing: Any
    graph: Graph = field(default_factory=Graph)
    parent: Held | None = None
    step: Step | None = None
    keeps: tuple[Any, ...] = ()
    searches: Searches | None = None

    @property
    def is_alone(self) -> bool:
        """Whether no other index leads to this one."""
        return self.parent is None and self.graph.joined is None and self.graph.is_single

    def steps_from(self, root: Held) -> list[Step] | None:
        """The way here from ``root``; None where there is none that can be told."""
        steps: list[Step] = []
        held: Held | None = self
        while held is not root:
            if held is None or held.step is None:
                return None
            steps.append(held.step)
            held = held.parent
        return steps[::-1]


@contextmanager
def locked(held: Iterable[Held], *, alone: bool) -> Iterator[list[Graph]]:
    """The graphs of some objects, locked together in an order that all keep to."""
    wanted = list(held)
    while True:
        graphs = sorted({each.graph.root() for each in wanted}, key=id)
        with ExitStack() as stack:
            for graph in graphs:
                graph.lock.take(alone=alone)
                stack.callback(graph.lock.give_back, alone=alone)
            if {each.graph.root() for each in wanted} == set(graphs):
                if any(graph.is_on_gpu for graph in graphs):
                    stack.enter_context(GPU)
                yield graphs
                return


class Session:
    """What one client holds. Its calls are remembered for a while, so that one sent twice is done once.

    Numbers of objects begin anywhere: a client that has not heard that its objects were lost, with the
    process or a lease, must not find a later object under the number of an earlier one.
    """

    def __init__(self) -> None:
        self.seen_s = time.monotonic()
        self._lock = threading.Lock()
        self._held: dict[int, Held] = {}
        self._n = uuid.uuid4().int >> _NUMBER_SHIFT
        self._answers: OrderedDict[str, tuple[threading.Event, list[Any]]] = OrderedDict()

    def hold(self, held: Held) -> int:
        with self._lock:
            self._n += 1
            self._held[self._n] = held
            return self._n

    def find(self, number: Any) -> Held:
        found = self._held.get(number)
        if found is None:
            raise LookupError(number)
        return found

    def drop(self, numbers: Iterable[int]) -> None:
        with self._lock:
            dropped = [self._held.pop(number, None) for number in numbers]
        del dropped  # what FAISS frees takes a while: not under the lock

    def __len__(self) -> int:
        return len(self._held)

    def once(self, call_id: str, run: Callable[[], Any]) -> Any:
        """What ``run`` gives, or has given when the same call came before."""
        with self._lock:
            known = self._answers.get(call_id)
            if known is None:
                done, answer = self._answers[call_id] = threading.Event(), []
                while len(self._answers) > _REMEMBERED:
                    self._answers.popitem(last=False)
        if known is not None:
            known[0].wait()
            return known[1][0]
        try:
            answer.append(run())
            return answer[0]
        finally:
            if not answer:
                self._answers.pop(call_id, None)
                answer.append(None)
            done.set()


class Sessions:
    """All sessions of a process; those that are silent for too long lose what they hold."""

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def find(self, name: str) -> Session:
        """The session of that name, begun where there is none."""
        with self._lock:
            session = self._sessions.setdefault(name, Session())
            session.seen_s = time.monotonic()
            return session

    def end(self, name: str) -> None:
        with self._lock:
            session = self._sessions.pop(name, None)
        del session

    def end_silent(self) -> None:
        """End those whose lease is over."""
        until = time.monotonic() - self.lease_s
        with self._lock:
            silent = [name for name, session in self._sessions.items() if session.seen_s < until]
        for name in silent:
            self.end(name)

    def n_held(self) -> int:
        with self._lock:
            return sum(map(len, self._sessions.values()))

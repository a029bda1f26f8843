"""Questions that come while others are on their way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from faissbase.gathering import Gathering

_WAIT_S = 10.0
Told = Gathering[str, str]


class Asked:
    """Answers in capitals; a question for which there is a gate waits until that is open."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, ...]] = []
        self.gates: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._under_way = self.most_under_way = 0

    def answer(self, group: Sequence[str]) -> list[str]:
        with self._lock:
            self.groups.append(tuple(group))
            self._under_way += 1
            self.most_under_way = max(self.most_under_way, self._under_way)
        try:
            for asked in group:
                if asked in self.gates:
                    assert self.gates[asked].wait(_WAIT_S)
            return [asked.upper() for asked in group]
        finally:
            with self._lock:
                self._under_way -= 1


def has_room(taken: Sequence[str], _: str) -> bool:
    return len(taken) < 3


def begun(gathering: Told, asked: str, found: dict[str, str]) -> threading.Thread:
    thread = threading.Thread(target=lambda: found.update({asked: gathering.ask(asked)}))
    thread.start()
    return thread


def until(holds: Callable[[], bool]) -> None:
    for _ in range(int(_WAIT_S / 0.005)):
        if holds():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not come to that")


def test_those_that_wait_become_one_as_long_as_they_fit() -> None:
    asked, found = Asked(), dict[str, str]()
    gathering = Told(asked.answer, has_room, 1)
    gate = asked.gates["a"] = threading.Event()
    threads = [begun(gathering, "a", found)]
    until(lambda: len(asked.groups) == 1)
    for n, each in enumerate("bcde", 1):
        threads.append(begun(gathering, each, found))
        until(lambda n=n: len(gathering._line) == n)  # type: ignore[misc]
    gate.set()
    for thread in threads:
        thread.join(_WAIT_S)
    assert asked.groups == [("a",), ("b", "c", "d"), ("e",)]
    assert found == {each: each.upper() for each in "abcde"}
    assert asked.most_under_way == 1


def test_no_more_than_at_once_are_under_way_and_all_come_back() -> None:
    asked, found = Asked(), dict[str, str]()
    gathering = Told(asked.answer, lambda taken, other: False, 2)
    threads = [begun(gathering, f"q{n}", found) for n in range(200)]
    for thread in threads:
        thread.join(_WAIT_S)
    assert len(found) == len(asked.groups) == 200
    assert asked.most_under_way <= 2


def test_who_has_waited_long_goes_all_the_same_and_the_rest_stay_as_few_as_before() -> None:
    asked, found = Asked(), dict[str, str]()
    gathering = Told(asked.answer, has_room, 1, patience_s=0.02)
    gate = asked.gates["stuck"] = threading.Event()
    stuck = begun(gathering, "stuck", found)
    until(lambda: len(asked.groups) == 1)
    assert gathering.ask("b") == "B"
    assert gathering._free == 0  # the first is still on its way
    gate.set()
    stuck.join(_WAIT_S)
    assert found == {"stuck": "STUCK"}
    assert (gathering._free, len(gathering._line)) == (1, 0)


def test_who_was_taken_along_just_as_it_lost_patience_waits_for_the_others() -> None:
    asked, found = Asked(), dict[str, str]()
    gathering = Told(asked.answer, has_room, 1, patience_s=0.05)
    first, second = (asked.gates.setdefault(each, threading.Event()) for each in "ab")
    threads = [begun(gathering, "a", found)]
    until(lambda: len(asked.groups) == 1)
    threads += [begun(gathering, each, found) for each in "bc"]
    until(lambda: len(gathering._line) == 2)
    first.set()
    until(lambda: ("b", "c") in asked.groups or ("c", "b") in asked.groups)
    threading.Event().wait(0.1)  # longer than anybody has patience
    second.set()
    for thread in threads:
        thread.join(_WAIT_S)
    assert found == {"a": "A", "b": "B", "c": "C"}
    assert len(asked.groups) == 2
    assert gathering._free == 1

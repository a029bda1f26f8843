"""Threads that serve requests: tenants in turn, what is alike together, and nobody who has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from faissbase.errors import InvalidInputError
from faissbase.server.operations import Operation
from faissbase.server.working import Answer, Gone, Workers


class Asked:
    """What the operations below need of a call."""

    def __init__(self, tenant: str, what: Any) -> None:
        self.key = self
        self.tenant = tenant
        self.what = what


class Scene:
    """One thread that is held up until `go`, and what it has run in the meantime and after."""

    def __init__(self) -> None:
        self.ran: list[list[Any]] = []
        self.go = threading.Event()
        self.workers = Workers(1, "test")
        self.alone = Operation(("GET",), "/alone", "read", "", lambda call: self._run([call])[0], dict)
        self.together = Operation(
            ("GET",), "/together", "read", "", lambda call: self._run([call])[0], dict,
            likeness=lambda call: call.what[0], together=self._run,
        )  # fmt: skip

    def _run(self, calls: list[Any]) -> list[Any]:
        whats = [call.what for call in calls]
        if whats == ["wait"]:
            assert self.go.wait(30)
        self.ran.append(whats)
        if "bad" in [what[1:] for what in whats]:
            raise InvalidInputError("bad")
        return [{"what": what} for what in whats]

    def serve(self, operation: Operation, call: Any) -> Answer:
        return 200, operation.encode(operation.run(call))

    async def ask(self, tenant: str, what: str, *, together: bool = False, is_gone: bool = False) -> Answer:
        operation = self.together if together else self.alone
        call = cast("Any", Asked(tenant, what))
        return await self.workers.serve(operation, call, self.serve, lambda: is_gone)

    def all_of(self, *asked: tuple[str, str], **more: Any) -> list[Any]:
        """Ask for these while the thread is busy, then let it go; the answers in the same order."""

        async def ask_all() -> list[Any]:
            first = asyncio.ensure_future(self.ask("first", "wait"))
            await asyncio.sleep(0)
            others = [asyncio.ensure_future(self.ask(*each, **more)) for each in asked]
            await asyncio.sleep(0)
            self.go.set()
            await first
            return await asyncio.gather(*others, return_exceptions=True)

        return asyncio.run(ask_all())


@pytest.fixture
def scene() -> Iterator[Scene]:
    found = Scene()
    yield found
    found.go.set()
    found.workers.close()


def test_tenants_take_turns(scene: Scene) -> None:
    scene.all_of(*[("many", f"m{i}") for i in range(4)], ("one", "o"), ("two", "t"))
    assert scene.ran[1:] == [["m0"], ["o"], ["t"], ["m1"], ["m2"], ["m3"]]


def test_what_is_alike_is_one_call_and_others_wait_for_their_tenants_next_turn(scene: Scene) -> None:
    asked = [("many", "a1"), ("many", "b1"), ("many", "a2"), ("one", "a3"), ("many", "b2")]
    answers = scene.all_of(*asked, together=True)
    assert scene.ran[1:] == [["a1", "a2"], ["a3"], ["b1", "b2"]]
    assert answers == [(200, b'{"what":"%s"}' % what.encode()) for _, what in asked]


def test_no_more_are_taken_than_are_worth_it_and_the_rest_keeps_its_order(scene: Scene) -> None:
    scene.together = replace(scene.together, most_together=lambda call: {"a": 2, "b": None}[call.what[0]])
    asked = ["a1", "a2", "a3", "a4", "b1", "b2", "b3", "a5", "a6"]
    answers = scene.all_of(*[("many", what) for what in asked], ("one", "o1"), together=True)
    assert scene.ran[1:] == [["a1", "a2"], ["o1"], ["a3", "a4"], ["b1", "b2"], ["b3"], ["a5", "a6"]]
    assert [status for status, _ in answers] == [200] * 10


def test_where_it_cannot_be_told_how_many_are_worth_it_all_are_taken(scene: Scene) -> None:
    scene.together = replace(scene.together, most_together=lambda _: 1 // 0)
    asked = [f"a{i}" for i in range(9)]
    scene.all_of(*[("many", what) for what in asked], together=True)
    assert scene.ran[1:] == [asked]


def test_one_that_is_wrong_fails_alone(scene: Scene) -> None:
    answers = scene.all_of(("many", "a1"), ("many", "abad"), ("many", "a2"), together=True)
    assert isinstance(answers[1], InvalidInputError)
    assert [answers[0], answers[2]] == [(200, b'{"what":"a1"}'), (200, b'{"what":"a2"}')]


@pytest.mark.parametrize("together", [True, False])
def test_who_has_left_is_not_served(scene: Scene, together: bool) -> None:
    answers = scene.all_of(("many", "a1"), ("many", "a2"), together=together, is_gone=True)
    assert [type(answer) for answer in answers] == [Gone, Gone]
    assert scene.ran == [["wait"]]


def test_what_waits_is_answered_before_the_end() -> None:
    scene = Scene()
    closing = threading.Thread(target=scene.workers.close)

    async def ask_and_close() -> list[Answer]:
        asked = [asyncio.ensure_future(scene.ask("a", what)) for what in ("wait", "x", "y")]
        await asyncio.sleep(0)
        closing.start()
        scene.go.set()
        return await asyncio.gather(*asked)

    assert [status for status, _ in asyncio.run(ask_and_close())] == [200, 200, 200]
    closing.join(30)
    assert not closing.is_alive()


def test_many_threads_answer_everybody() -> None:
    workers = Workers(4, "test")
    operation = Operation(
        ("GET",), "/", "read", "", lambda call: {"n": call.what}, dict,
        likeness=lambda call: call.what % 3, together=lambda calls: [{"n": call.what} for call in calls],
    )  # fmt: skip

    async def ask(n: int) -> bytes:
        call = cast("Any", Asked(f"t{n % 5}", n))
        answer: bytes = (await workers.serve(operation, call, cast("Any", None), lambda: False))[1]
        return answer

    async def ask_all() -> list[bytes]:
        return await asyncio.gather(*map(ask, range(3000)))

    try:
        assert asyncio.run(ask_all()) == [b'{"n":%d}' % n for n in range(3000)]
    finally:
        workers.close()


def test_of_idle_threads_the_one_that_worked_last_is_woken() -> None:
    workers = Workers(3, "test")
    operation = Operation(
        ("GET",), "/", "read", "", lambda call: {"thread": threading.get_ident()}, dict
    )  # fmt: skip

    def idle() -> int:
        return len(workers._idle)

    async def ask() -> Answer:
        while idle() < 3:
            await asyncio.sleep(0)
        call = cast("Any", Asked("t", 0))
        return await workers.serve(operation, call, lambda op, call: (200, op.run(call)), lambda: False)

    async def ask_all() -> list[Answer]:
        return [await ask() for _ in range(20)]

    try:
        assert len({answer["thread"] for _, answer in asyncio.run(ask_all())}) == 1
    finally:
        workers.close()


def test_one_event_loop_after_another_is_answered(scene: Scene) -> None:
    scene.go.set()
    for what in ("x", "y"):
        assert asyncio.run(scene.ask("a", what)) == (200, b'{"what":"%s"}' % what.encode())


def test_a_loop_that_has_ended_holds_up_nobody(scene: Scene) -> None:
    async def ask_and_leave() -> None:
        asked = asyncio.ensure_future(scene.ask("a", "wait"))
        await asyncio.sleep(0)
        asked.cancel()

    asyncio.run(ask_and_leave())
    scene.go.set()
    assert asyncio.run(scene.ask("a", "x"))[0] == 200

"""Calls that lead to a GPU run one at a time, and what is on one is freed between them. No GPU is needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import faiss
import pytest

from faissbase.dropin import gpus
from faissbase.dropin.allowed import made_class
from faissbase.dropin.graphs import GPU, Held, locked
from faissbase.dropin.refusals import Refused

_PATIENCE_S = 20
_freed: list[int] = []


class _Freed(faiss.IndexFlatL2):  # type: ignore[misc]  # faiss has no types for it
    """Notes that it is freed, and whether that was its turn."""

    @staticmethod
    def __swig_destroy__(thing: faiss.Index) -> None:
        _freed.append(thing.d)
        faiss.IndexFlatL2.__swig_destroy__(thing)


def _wait_until(is_so: Callable[[], bool]) -> None:
    stop = time.monotonic() + _PATIENCE_S
    while not is_so():
        assert time.monotonic() < stop
        time.sleep(0.005)


def test_an_owner_frees_its_object_when_no_call_runs() -> None:
    owner = gpus.Owner(_Freed(7))
    assert not owner.thing.this.own()
    with GPU:
        del owner
        time.sleep(0.05)
        assert _freed == []
    _wait_until(lambda: _freed == [7])


def test_calls_that_lead_to_a_gpu_run_one_at_a_time_though_they_only_read() -> None:
    held = Held("an index")
    held.graph.is_on_gpu = True
    other = Held("of other resources")
    other.graph.is_on_gpu = True
    inside, most = 0, 0

    def read(which: Held) -> None:
        nonlocal inside, most
        for _ in range(20):
            with locked([which], alone=False):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=read, args=(which,)) for which in (held, held, other, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
    assert most == 1


def test_what_a_part_on_a_gpu_is_joined_to_leads_there_too() -> None:
    shards, part = Held("shards"), Held("part")
    part.graph.is_on_gpu = True
    with locked([shards, part], alone=True):
        shards.graph.join(part.graph)
    assert shards.graph.root().is_on_gpu
    with locked([shards], alone=False):
        is_taken: list[bool] = []
        asker = threading.Thread(target=lambda: is_taken.append(not GPU.acquire(blocking=False)))
        asker.start()
        asker.join(_PATIENCE_S)
    assert is_taken == [True]


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="FAISS has a GPU here")
def test_a_faiss_without_gpus_tells_none_and_makes_nothing_for_them() -> None:
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this FAISS is for GPUs, and there is none")
    assert gpus.told() == {"classes": {}, "functions": {}, "constants": {}}
    with pytest.raises(Refused, match="cannot be made on the server"):
        made_class("StandardGpuResources")

"""SemanticCache: how long entries are kept, how many, and how they are removed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cache.worlds import Clock, Make, Topics, responses

from faissbase.cache import Scope, SemanticCache
from faissbase.cache.limits import Ledger
from faissbase.collection.collection import LocalCollection
from faissbase.errors import InvalidInputError

# ---- times ---------------------------------------------------------------------------------------


def test_an_answer_is_good_until_its_time_is_up_and_not_a_moment_longer(make: Make) -> None:
    clock = Clock()
    cache = make(ttl_s=10, clock=clock)
    cache.store("a", "A")
    clock.now += 9.999
    assert responses(cache, "a", "a: 0.99") == ["A", "A"]
    clock.now += 0.001
    assert responses(cache, "a", "a: 0.99") == [None, None]


def test_an_entry_may_have_its_own_time(make: Make) -> None:
    clock = Clock()
    cache = make(ttl_s=10, clock=clock)
    cache.store("short", 1, ttl_s=1)
    cache.store("long", 2, ttl_s=100)
    clock.now += 50
    assert responses(cache, "short", "long") == [None, 2]


def test_what_expired_is_computed_anew_and_good_again(make: Make) -> None:
    clock = Clock()
    cache = make(ttl_s=10, clock=clock)
    cache.store("a", "old")
    clock.now += 10
    assert cache.get_or_compute("a", lambda: "new") == "new"
    clock.now += 9
    assert (responses(cache, "a"), len(cache)) == (["new"], 1)


def test_expired_entries_hide_no_live_one_behind_them(make: Make) -> None:
    clock = Clock()
    cache = make(clock=clock, threshold=0.5)
    for i in range(20):
        cache.store(f"a: 0.99{i:02d}", "dead", ttl_s=1)
    cache.store("a: 0.9", "alive")
    clock.now += 2
    assert responses(cache, "a") == ["alive"]


def test_purge_removes_what_has_expired(make: Make) -> None:
    clock = Clock()
    cache = make(clock=clock, max_entries=100)
    cache.store("a", 1, ttl_s=5)
    cache.store("b", 2)
    clock.now += 5
    assert (cache.purge(), len(cache)) == (1, 1)


def test_stores_purge_by_themselves(make: Make) -> None:
    clock = Clock()
    cache = make(ttl_s=10, clock=clock)
    cache.store("a", 1)
    clock.now += 120
    cache.store("b", 2)
    assert len(cache) == 1


# ---- limits --------------------------------------------------------------------------------------


def test_who_was_used_longest_ago_makes_room(make: Make) -> None:
    cache = make(max_entries=3)
    for prompt in "abc":
        cache.store(prompt, prompt)
    cache.check("a")
    cache.store("d", "d")
    assert responses(cache, *"abcd") == ["a", None, "c", "d"]
    assert (len(cache), cache.counters.evicted) == (3, 1)


def test_who_was_used_least_makes_room_with_lfu(make: Make) -> None:
    cache = make(max_entries=3, eviction="lfu")
    for prompt in "abc":
        cache.store(prompt, prompt)
    for prompt in ("a", "a", "b", "c", "c"):
        cache.check(prompt)
    cache.store("d", "d")
    assert responses(cache, *"abcd") == ["a", None, "c", "d"]


def test_similar_hits_count_as_use(make: Make) -> None:
    cache = make(max_entries=2)
    cache.store("a", 1)
    cache.store("b", 2)
    cache.check("a: 0.99")
    cache.store("c", 3)
    assert responses(cache, "a", "b") == [1, None]


def test_the_cache_never_holds_more_bytes_than_allowed(make: Make) -> None:
    cache = make(max_bytes=10_000)
    for i in range(100):
        cache.store(f"prompt {i}", "x" * (i * 31 % 2000))
        assert sum(entry.size_bytes for entry in cache._shelf.entries.all()) <= 10_000
    assert len(cache) >= 4


def test_an_answer_larger_than_the_cache_is_not_kept_and_removes_nobody(make: Make) -> None:
    cache = make(max_bytes=1_000)
    cache.store("a", "small")
    assert cache.store("b", "x" * 2_000) is False
    assert responses(cache, "a", "b") == ["small", None]


def test_expired_entries_make_room_first(make: Make) -> None:
    clock = Clock()
    cache = make(max_entries=2, clock=clock)
    cache.store("old", 1)
    cache.store("expired", 2, ttl_s=1)
    clock.now += 1
    cache.store("new", 3)
    assert responses(cache, "old", "expired", "new") == [1, None, 3]


def test_limits_and_uses_hold_on_reopening(tmp_path: Path) -> None:
    with SemanticCache(Topics(), path=tmp_path / "c", max_entries=3) as cache:
        for prompt in "abc":
            cache.store(prompt, prompt)
        cache.check("a")
    with SemanticCache(Topics(), path=tmp_path / "c", max_entries=3) as cache:
        cache.store("d", "d")
        assert responses(cache, *"abcd") == ["a", None, "c", "d"]
    with SemanticCache(Topics(), path=tmp_path / "c", max_entries=2) as cache:
        cache.store("e", "e")
        assert len(cache) == 2


def test_bytes_of_an_earlier_process_count_from_the_first_store_on(tmp_path: Path) -> None:
    with SemanticCache(Topics(), path=tmp_path / "c") as cache:
        for number in range(10):
            cache.store(f"large {number}", "x" * 10_000)
    with SemanticCache(Topics(), path=tmp_path / "c", max_bytes=50_000) as cache:
        cache.store("small", "y")
        sizes = [entry.size_bytes for entry in cache._shelf.entries.all()]
        assert 0 < sum(sizes) <= 50_000
        assert responses(cache, "small") == ["y"]


def test_entries_that_another_process_has_removed_take_no_room(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with SemanticCache(Topics(), path=path, max_entries=5, eviction="lfu") as cache:
        for prompt in "abcde":
            cache.store(prompt, prompt)
            cache.check(prompt)
        with SemanticCache(Topics(), path=path) as other:
            other.clear()
        for prompt in "vwxyz":
            cache.store(prompt, prompt)
        assert responses(cache, *"vwxyz") == list("vwxyz")


def test_threads_that_store_together_do_not_take_each_other_for_strangers(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(max_entries=50)
    for number in range(50):
        cache.store(f"first {number}", number)
    reloads: list[object] = []
    monkeypatch.setattr(Ledger, "load", lambda self, entries: reloads.append(entries))

    def store_many(thread: int) -> None:
        for number in range(25):
            cache.store(f"{thread} {number}", number)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(store_many, range(8)))
    assert (reloads, len(cache) <= 50) == ([], True)


# ---- removing ------------------------------------------------------------------------------------


def _filled(make: Make) -> SemanticCache:
    cache = make(max_entries=100)
    cache.store("a", 1, tags=["x", "y"])
    cache.store("b", 2, tags=["y"], scope=Scope(tenant="acme"))
    cache.store("c", 3, scope=Scope(tenant="acme", model="small"))
    return cache


@pytest.mark.parametrize(
    ("what", "n_removed"),
    [
        ({"tags": "x"}, 1),
        ({"tags": ["x", "y"]}, 2),
        ({"tags": "none"}, 0),
        ({"tenant": "acme"}, 2),
        ({"tenant": "acme", "tags": "y"}, 1),
        ({"model": "small"}, 1),
        ({"scope": Scope(tenant="acme")}, 1),
        ({"prompt": "a"}, 1),
        ({"prompt": "b"}, 0),
        ({"prompt": "b", "scope": Scope(tenant="acme")}, 1),
    ],
)
def test_invalidate_removes_what_matches_and_nothing_else(
    make: Make, what: dict[str, Any], n_removed: int
) -> None:
    cache = _filled(make)
    assert cache.invalidate(**what) == n_removed
    assert len(cache) == 3 - n_removed
    assert cache.invalidate(**what) == 0


def test_invalidation_removes_vector_and_value_together() -> None:
    with SemanticCache(Topics()) as cache:
        cache.store("a", object(), tags="x")
        cache.store("b", object())
        cache.invalidate(tags="x")
        cache.store("b", object())
        values: Any = cache._shelf.entries._values
        assert len(values._objects) == len(cache) == 1
        assert cache.check("a: 0.99") is None


def test_invalidate_without_anything_is_refused(make: Make) -> None:
    with pytest.raises(InvalidInputError, match=r"clear\(\) removes everything"):
        make().invalidate()
    with pytest.raises(InvalidInputError, match="names one entry"):
        make().invalidate("a", tags="x")
    with pytest.raises(InvalidInputError, match="a tag is a string"):
        make().store("a", 1, tags=[5])  # type: ignore[list-item]


def test_at_no_moment_of_clearing_is_the_calibrated_threshold_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def opened_after(change: Any) -> Any:
        def changed(*args: Any, **terms: Any) -> Any:
            found = change(*args, **terms)
            with SemanticCache(Topics(), path=tmp_path / "c") as other:
                seen.append(other.threshold)
            return found

        return changed

    with SemanticCache(Topics(), path=tmp_path / "c") as cache:
        cache._shelf.entries.keep_setting("threshold", 0.77)
        cache.store("a", 1)
        for name in ("delete", "upsert", "reset"):
            monkeypatch.setattr(LocalCollection, name, opened_after(getattr(LocalCollection, name)))
        cache.clear()
    assert set(seen) == {0.77}


def test_clear_leaves_it_empty_and_usable(make: Make) -> None:
    cache = _filled(make)
    cache.clear()
    assert (len(cache), responses(cache, "a")) == (0, [None])
    cache.store("a", 9)
    assert responses(cache, "a", "a: 0.99") == [9, 9]

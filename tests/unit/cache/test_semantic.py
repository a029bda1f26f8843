"""SemanticCache: look-ups, scopes, guards, counters, reopening."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cache.worlds import Clock, D, Make, Topics, responses

import faissbase
from faissbase.cache import CacheHit, Scope, SemanticCache
from faissbase.errors import AccessError, ConflictError, InvalidInputError, NotReadyError, UnavailableError

# ---- looking up ----------------------------------------------------------------------------------


def test_an_empty_cache_misses(make: Make) -> None:
    cache = make()
    assert cache.check("a") is None
    assert len(cache) == 0


def test_the_same_text_hits_exactly_without_embedding(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make()
    assert cache.store("a", {"text": "A"}) is True
    monkeypatch.setattr(Topics, "embed", lambda *_: pytest.fail("embedded"))
    hit = cache.check("a")
    assert isinstance(hit, CacheHit)
    assert (hit.response, hit.kind, hit.score, hit.stored_prompt) == ({"text": "A"}, "exact", 1.0, "a")


def test_the_exact_entry_comes_before_one_that_is_only_similar(make: Make) -> None:
    cache = make()
    cache.store("a", "near")
    cache.store("a: 0.99", "exact")
    assert responses(cache, "a: 0.99") == ["exact"]


@pytest.mark.parametrize(("prompt", "is_hit"), [("a: 0.905", True), ("a: 0.895", False), ("b", False)])
def test_similar_prompts_hit_from_the_threshold_on(make: Make, prompt: str, is_hit: bool) -> None:
    cache = make(threshold=0.9)
    cache.store("a", "A")
    hit = cache.check(prompt)
    assert (hit is not None) == is_hit
    if hit is not None:
        assert (hit.kind, hit.response, hit.prompt, hit.stored_prompt) == ("similar", "A", prompt, "a")
        assert hit.score == pytest.approx(0.905, abs=1e-5)


def test_the_nearest_of_several_serves(make: Make) -> None:
    cache = make(threshold=0.5)
    for cosine in ("0.7", "0.9", "0.8"):
        cache.store(f"a: {cosine}", cosine)
    assert responses(cache, "a: 0.91") == ["0.9"]


def test_a_cached_none_is_a_hit(make: Make) -> None:
    cache = make()
    cache.store("a", None)
    hit = cache.check("a")
    assert hit is not None
    assert hit.response is None
    assert cache.get_or_compute("a", lambda: pytest.fail("computed again")) is None


def test_storing_again_replaces(make: Make) -> None:
    cache = make()
    cache.store("a", 1)
    cache.store("a", 2)
    assert (len(cache), responses(cache, "a")) == (1, [2])


def test_get_or_compute_computes_once(make: Make) -> None:
    cache = make()
    answers = iter(["first", "second"])
    assert cache.get_or_compute("a", lambda: next(answers)) == "first"
    assert cache.get_or_compute("a", lambda: next(answers)) == "first"
    assert cache.get_or_compute("a: 0.99", lambda: next(answers)) == "first"


def test_a_function_that_requires_an_argument_is_given_the_prompt(make: Make) -> None:
    assert make().get_or_compute("shout", lambda prompt: prompt.upper()) == "SHOUT"


def test_errors_are_raised_and_not_cached(make: Make) -> None:
    cache = make()

    def fail() -> None:
        raise ConnectionError("no model")

    with pytest.raises(ConnectionError, match="no model"):
        cache.get_or_compute("a", fail)
    assert len(cache) == 0
    assert cache.get_or_compute("a", lambda: "fine") == "fine"


def test_keep_if_says_what_is_not_worth_keeping(make: Make) -> None:
    cache = make()
    assert (
        cache.get_or_compute("a", lambda: "cut of", keep_if=lambda answer: answer.endswith(".")) == "cut of"
    )
    assert (len(cache), cache.counters.not_stored) == (0, 1)


def test_memory_gives_the_very_object_back() -> None:
    thing = object()
    with SemanticCache(Topics()) as cache:
        assert cache.get_or_compute("a", lambda: thing) is thing
        assert cache.get_or_compute("a", lambda: 0) is thing


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_what_can_be_read_only_once_is_no_answer_to_keep(make: Make) -> None:
    async def answer() -> str:
        return "late"

    cache = make()
    assert list(cache.get_or_compute("a", lambda: iter([1, 2]))) == [1, 2]
    assert list(cache.get_or_compute("a", lambda: iter([1, 2]))) == [1, 2]
    assert asyncio.run(cache.get_or_compute("b", answer)) == "late"
    assert asyncio.run(cache.get_or_compute("b", answer)) == "late"
    for value in (iter([1]), answer()):
        with pytest.raises(InvalidInputError, match="read only once"):
            cache.store("a", value)
    assert len(cache) == 0


def test_a_store_that_a_clear_overtakes_leaves_no_entry_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SemanticCache(Topics(), guard=None) as cache, ThreadPoolExecutor(1) as threads:
        entries = cache._shelf.entries
        put = entries.put
        clearing: list[Future[None]] = []

        def put_late(*args: Any) -> None:
            clearing.append(threads.submit(cache.clear))
            wait(clearing, timeout=0.2)
            put(*args)

        monkeypatch.setattr(entries, "put", put_late)
        cache.store("a", object())
        clearing[0].result()
        assert [entries.decode(entry) for entry in entries.all()] == []


def test_an_answer_that_a_folder_cannot_keep_is_returned_and_counted(tmp_path: Path) -> None:
    with SemanticCache(Topics(), path=tmp_path / "c") as cache:
        assert cache.get_or_compute("a", lambda: {1, 2}) == {1, 2}
        assert (len(cache), cache.counters.not_stored) == (0, 1)
        with pytest.raises(InvalidInputError, match="type set"):
            cache.store("a", {1, 2})


def test_large_answers_are_kept(make: Make) -> None:
    cache = make()
    cache.store("a", "x" * 3_000_000)
    assert responses(cache, "a") == ["x" * 3_000_000]
    prompt = "long " * 400_000
    cache.store(prompt, None)
    hit = cache.check(prompt)
    assert hit is not None
    assert hit.stored_prompt == prompt
    assert cache.invalidate(prompt) == 1


def test_an_embedder_out_of_reach_does_not_stop_computing(make: Make) -> None:
    class Down(Topics):
        def embed(self, texts: Any) -> Any:
            raise UnavailableError("no embedder")

    cache = make()
    cache._matching.embedder = Down()
    assert cache.get_or_compute("a", lambda: 5) == 5
    assert (len(cache), cache.counters.not_stored, cache.counters.misses) == (0, 1, 1)
    with pytest.raises(UnavailableError, match="no embedder"):
        cache.check("a")


def test_an_embedder_that_fails_in_its_own_way_does_not_stop_computing(make: Make) -> None:
    class Down(Topics):
        def embed(self, texts: Any) -> Any:
            raise ConnectionError("provider down")

    cache = make()
    cache._matching.embedder = Down()
    assert cache.get_or_compute("a", lambda: 5) == 5
    with pytest.raises(UnavailableError, match=r"topics-32.*provider down"):
        cache.check("a")


def test_a_prompt_without_direction_does_not_stop_computing(make: Make) -> None:
    class Blank(Topics):
        def embed(self, texts: Any) -> Any:
            return 0 * super().embed(texts)

    cache = make()
    cache._matching.embedder = Blank()
    assert cache.get_or_compute("a", lambda: 5) == 5
    with pytest.raises(InvalidInputError, match="zero vector"):
        cache.check("a")


def test_an_answer_is_returned_though_the_cache_was_closed_meanwhile(make: Make) -> None:
    cache = make()

    def slow() -> str:
        cache.close()
        return "dear"

    assert cache.get_or_compute("a", slow) == "dear"
    assert cache.counters.not_stored == 1


def test_an_answer_is_returned_though_it_may_not_be_written(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise AccessError("the tenant's quota is used up")

    cache = make()
    monkeypatch.setattr(cache._shelf.entries, "put", refuse)
    assert cache.get_or_compute("a", lambda: "dear") == "dear"
    assert cache.counters.not_stored == 1


def test_use_after_close_is_an_error(make: Make) -> None:
    cache = make()
    cache.close()
    cache.close()
    for use in (cache.check, lambda prompt: cache.store(prompt, 1), cache.invalidate, cache.explain):
        with pytest.raises(NotReadyError, match="closed"):
            use("a")


def test_a_closed_cache_leaves_the_collection_it_was_given_alone() -> None:
    with faissbase.connect(":memory:") as db:
        collection = db.create_collection("answers", dimension=D, metric="cosine")
        cache = SemanticCache(Topics(), collection=collection)
        cache.store("a", 1)
        hit = cache.check("a")
        assert hit is not None
        cache.close()
        for change in (lambda: cache.invalidate("a"), lambda: cache.report_false_hit(hit), cache.clear):
            with pytest.raises(NotReadyError, match="the SemanticCache is closed"):
                change()
        with SemanticCache(Topics(), collection=collection) as again:
            assert again.check("a") is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ttl_s": 0}, "ttl_s must be a positive number"),
        ({"ttl_s": True}, "ttl_s must be"),
        ({"max_entries": 0}, "max_entries must be a whole number from 1"),
        ({"max_bytes": 1.5}, "max_bytes must be a whole number"),
        ({"eviction": "fifo"}, "'lru' or 'lfu', got 'fifo'"),
        ({"threshold": "high"}, "threshold must be a cosine"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SemanticCache(Topics(), **settings)


@pytest.mark.parametrize("prompt", [None, 5, b"a", "\ud800"])
def test_what_is_no_text_is_refused(make: Make, prompt: Any) -> None:
    with pytest.raises(InvalidInputError, match="prompt"):
        make().check(prompt)


# ---- scopes --------------------------------------------------------------------------------------

SCOPES = [
    Scope(),
    Scope(tenant="acme"),
    Scope(tenant="other"),
    Scope(model="small"),
    Scope(system_prompt="Be brief."),
    Scope(parameters={"temperature": 0.5}),
    Scope(parameters={"temperature": 0.6}),
    Scope(tools=[{"name": "search"}]),
    Scope(model="acme"),
]


def test_no_scope_ever_sees_an_answer_of_another(make: Make) -> None:
    cache = make()
    for i, scope in enumerate(SCOPES):
        for prompt in ("a", "a: 0.99"):
            assert cache.check(prompt, scope=scope) is None
        cache.store("a", i, scope=scope)
    for i, scope in enumerate(SCOPES):
        for prompt in ("a", "a: 0.95"):
            hit = cache.check(prompt, scope=scope)
            assert hit is not None
            assert hit.response == i


def test_neighbours_of_other_scopes_neither_show_nor_hide_anything(make: Make) -> None:
    cache = make(threshold=0.5)
    for i in range(30):
        cache.store("a", "theirs", scope=Scope(tenant=f"other {i}"))
    assert cache.check("a: 0.99") is None
    assert cache.explain("a: 0.99").candidates == []
    cache.store("a: 0.8", "mine")
    assert responses(cache, "a: 0.99") == ["mine"]
    assert [each.prompt for each in cache.explain("a: 0.99").candidates] == ["a: 0.8"]
    assert [each.prompt for each in cache.explain("b").candidates] == ["a: 0.8"]


def test_equal_parameters_are_the_same_scope_in_any_order_and_form(make: Make) -> None:
    cache = make()
    cache.store("a", 1, scope=Scope(parameters={"temperature": 1, "stop": ["x"]}))
    assert cache.check("a", scope=Scope(parameters={"stop": ("x",), "temperature": 1.0})) is not None


def test_what_a_call_leaves_open_is_the_scope_of_the_cache(make: Make) -> None:
    cache = make(scope=Scope(tenant="acme", model="small"))
    cache.store("a", 1, scope=Scope(model="large"))
    assert cache.check("a") is None
    assert cache.check("a", scope=Scope(tenant="acme", model="large")) is not None
    assert cache.check("a", scope=Scope(tenant="other", model="large")) is None


def test_a_scope_that_cannot_be_compared_is_refused(make: Make) -> None:
    with pytest.raises(InvalidInputError, match="must be JSON"):
        make().check("a", scope=Scope(parameters={"client": object()}))
    with pytest.raises(InvalidInputError, match="got dict"):
        make().check("a", scope={"tenant": "a"})  # type: ignore[arg-type]


# ---- guards, verifier, explanations --------------------------------------------------------------


def test_guards_refuse_what_similarity_cannot_see() -> None:
    with SemanticCache(threshold=0.5) as cache:
        cache.store("How do I boil 2 eggs?", "4 minutes")
        assert cache.check("How do I boil 3 eggs?") is None
        hit = cache.check("How can I boil 2 eggs?")
        assert hit is not None
        assert "numbers" in str(cache.explain("How do I boil 3 eggs?"))
    with SemanticCache(threshold=0.5, guard=None) as cache:
        cache.store("How do I boil 2 eggs?", "4 minutes")
        assert cache.check("How do I boil 3 eggs?") is not None


def test_refused_neighbours_hide_no_good_one_behind_them(make: Make) -> None:
    cache = make(threshold=0.5, guard=lambda a, b: None if b == "a: 0.9" else "not that one")
    for i in range(40):
        cache.store(f"a: 0.99{i:02d}", "wrong")
    cache.store("a: 0.9", "right")
    assert responses(cache, "a") == ["right"]


def test_the_verifier_has_the_last_word_on_similar_hits_only(make: Make) -> None:
    asked: list[tuple[str, str]] = []

    def verifier(prompt: str, hit: CacheHit) -> bool:
        asked.append((prompt, hit.stored_prompt))
        return bool(hit.response == "good")

    cache = make(verifier=verifier)
    cache.store("a", "good")
    cache.store("b", "bad")
    assert responses(cache, "a", "a: 0.99", "b: 0.99") == ["good", "good", None]
    assert asked == [("a: 0.99", "a"), ("b: 0.99", "b")]


def test_the_verifier_is_not_asked_about_every_neighbour(make: Make) -> None:
    asked: list[str] = []

    def verifier(prompt: str, hit: CacheHit) -> bool:
        asked.append(hit.stored_prompt)
        return False

    cache = make(threshold=0.5, verifier=verifier)
    for i in range(50):
        cache.store(f"a: 0.9{i:02d}", i)
    assert cache.check("a") is None
    assert len(asked) == 8


def test_the_verifier_is_asked_once_about_an_entry(make: Make) -> None:
    asked: list[str] = []

    def refuse(prompt: str, hit: CacheHit) -> bool:
        asked.append(hit.stored_prompt)
        return False

    cache = make(threshold=0.5, verifier=refuse)
    for number in range(4):
        cache.store(f"t: 0.9{number}", number)
        cache.store(f"t: 0.9{number}", number, scope=Scope(tenant="a"))
        cache.store(f"t: 0.9{number}", number, scope=Scope(tenant="b"))
    assert cache.check("t") is None
    assert sorted(asked) == [f"t: 0.9{number}" for number in range(4)]


@pytest.mark.parametrize("answer", [RuntimeError("down"), "yes", 1, None])
def test_a_verifier_that_fails_means_a_miss(make: Make, answer: Any) -> None:
    def verifier(prompt: str, hit: CacheHit) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = make(verifier=verifier)
    cache.store("a", "A")
    assert cache.check("a: 0.99") is None
    assert "verifier" in cache.explain("a: 0.99").reason


def test_explain_says_why_and_counts_nothing(make: Make) -> None:
    clock = Clock()
    cache = make(clock=clock)
    assert "nothing is stored" in cache.explain("a").reason
    cache.store("a", "A", ttl_s=10)
    exact, similar, miss = (cache.explain(prompt) for prompt in ("a", "a: 0.95", "a: 0.5"))
    assert [exact.outcome, similar.outcome, miss.outcome] == ["exact", "similar", "miss"]
    assert "same text" in exact.reason
    assert "0.9500 reaches the threshold 0.9000" in similar.reason
    assert "0.5000 is below the threshold 0.9000" in miss.reason
    assert "0.9500  'a': served" in str(similar)
    clock.now += 12
    assert "expired 2 s ago" in cache.explain("a: 0.95").reason
    assert cache.counters.hits == cache.counters.misses == 0


def test_explain_and_check_agree(make: Make) -> None:
    cache = make(threshold=0.8)
    for i in range(30):
        cache.store(f"topic {i % 7}: 0.{50 + i}", i)
    for i in range(100):
        prompt = f"topic {i % 9}: 0.{i:02d}"
        hit, told = cache.check(prompt), cache.explain(prompt)
        assert told.hit == hit
        assert (told.outcome == "miss") == (hit is None)


# ---- counters ------------------------------------------------------------------------------------


def test_counters_tell_what_has_happened(make: Make) -> None:
    clock = Clock()
    cache = make(clock=clock)

    def slow() -> str:
        clock.now += 3
        return "A"

    cache.get_or_compute("a", slow)
    for prompt in ("a", "a: 0.99", "b"):
        cache.check(prompt)
    told = cache.counters
    assert (told.exact_hits, told.similar_hits, told.hits, told.misses, told.stored) == (1, 1, 2, 2, 1)
    assert told.saved_seconds == 6
    assert told.hit_rate == 0.5


def test_a_reported_false_hit_is_counted_and_not_served_again_to_that_prompt(make: Make) -> None:
    cache = make()
    cache.store("a", "A")
    hit = cache.check("a: 0.99")
    assert hit is not None
    cache.report_false_hit(hit)
    assert cache.counters.false_hits == 1
    assert responses(cache, "a: 0.99", "a", "a: 0.98") == [None, "A", "A"]
    assert "reported" in cache.explain("a: 0.99").reason


def test_a_wrong_answer_to_the_very_prompt_is_removed_when_reported(make: Make) -> None:
    cache = make()
    cache.store("a", "A")
    hit = cache.check("a")
    assert hit is not None
    cache.report_false_hit(hit)
    assert len(cache) == 0


# ---- reopening, collections ----------------------------------------------------------------------


def test_a_folder_keeps_answers_and_what_belongs_to_them(tmp_path: Path) -> None:
    clock = Clock()
    with SemanticCache(Topics(), path=tmp_path / "c", clock=clock, guard=None) as cache:
        cache.store("a", {"text": "A"}, tags=["x"], ttl_s=100, seconds=2.5)
        before = cache.check("a")
    with SemanticCache(Topics(), path=tmp_path / "c", clock=clock, guard=None) as cache:
        assert cache.check("a") == before
        assert cache.check("a: 0.99") is not None
        assert cache.invalidate(tags="x") == 1


def test_another_embedder_is_refused_on_reopening(tmp_path: Path) -> None:
    SemanticCache(Topics(), path=tmp_path / "c").close()
    other = Topics()
    other.name = "others-32"
    with pytest.raises(ConflictError, match=r"'topics-32'.*'others-32'"):
        SemanticCache(other, path=tmp_path / "c")
    SemanticCache(Topics(), path=tmp_path / "c").close()


def test_a_collection_of_a_database_serves_as_well(memory: faissbase.Database) -> None:
    collection = memory.create_collection("answers", dimension=32)
    with SemanticCache(Topics(), collection=collection, guard=None) as cache:
        cache.store("a", [1, 2])
        assert responses(cache, "a: 0.99") == [[1, 2]]
    with SemanticCache(Topics(), collection=collection, guard=None) as cache:
        assert len(cache) == 1


def test_unsuitable_collections_are_refused(memory: faissbase.Database, tmp_path: Path) -> None:
    wrong = memory.create_collection("wrong", dimension=32, metric="l2")
    with pytest.raises(InvalidInputError, match=r"metric 'cosine'.*'l2'"):
        SemanticCache(Topics(), collection=wrong)
    right = memory.create_collection("right", dimension=32)
    with pytest.raises(InvalidInputError, match="not both"):
        SemanticCache(Topics(), collection=right, path=tmp_path)
    with pytest.raises(InvalidInputError, match="the collection 'right' has d=32"):
        SemanticCache(collection=right)


# ---- calibration ---------------------------------------------------------------------------------


def _pairs() -> list[tuple[str, str, bool]]:
    different = [(f"topic {i}", f"topic {i}: 0.{i % 60 + 20:02d}", False) for i in range(600)]
    same = [(f"other {i}", f"other {i}: 0.9{i % 10}", True) for i in range(100)]
    return different + same


def test_calibrate_sets_the_threshold_between_same_and_different(make: Make) -> None:
    cache = make()
    found = cache.calibrate(_pairs(), max_false_hits=0.02)
    assert 0.7 < found.threshold <= 0.9
    assert cache.threshold == found.threshold
    assert found.hits == 1.0
    assert found.interval[1] <= 0.02


def test_what_is_no_pair_or_tag_is_named(make: Make) -> None:
    cache = make()
    with pytest.raises(InvalidInputError, match=r"pair 0 must be .*got 5"):
        cache.calibrate([5])  # type: ignore[list-item]
    with pytest.raises(InvalidInputError, match=r"tags are .*got 5"):
        cache.store("a", 1, tags=5)  # type: ignore[arg-type]


def test_a_threshold_of_zero_is_kept(tmp_path: Path) -> None:
    with SemanticCache(Topics(), path=tmp_path / "c") as cache:
        cache._shelf.entries.keep_setting("threshold", 0.0)
    with SemanticCache(Topics(), path=tmp_path / "c") as cache:
        assert cache.threshold == 0.0


def test_pairs_that_the_guard_refuses_do_not_raise_the_threshold(make: Make) -> None:
    pairs = [(f"t {i}", f"t {i}: 0.99", False) for i in range(400)]
    pairs += [(f"same {i}", f"same {i}: 0.9", True) for i in range(100)]
    assert make().calibrate(pairs).hits == 0
    guarded = make(guard=lambda a, b: "different" if a.startswith("t ") else None)
    assert guarded.calibrate(pairs).hits == 1


def test_a_calibrated_threshold_is_kept_and_a_given_one_wins(tmp_path: Path) -> None:
    with SemanticCache(Topics(), path=tmp_path / "c", guard=None) as cache:
        threshold = cache.calibrate(_pairs(), max_false_hits=0.02).threshold
        cache.clear()
    with SemanticCache(Topics(), path=tmp_path / "c") as cache:
        assert cache.threshold == threshold
    with SemanticCache(Topics(), path=tmp_path / "c", threshold=0.5) as cache:
        assert cache.threshold == 0.5


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("a", "b")], "pair 0 must be"),
        ([("a", "b", "yes")], "pair 0 says 'yes'"),
        ([("a", 5, True)], "a prompt is a str"),
        ([("a", "b", True)], "at least"),
        ([], "none of the 0 pairs"),
    ],
)
def test_pairs_that_cannot_be_used_leave_the_threshold_alone(make: Make, pairs: Any, message: str) -> None:
    cache = make()
    with pytest.raises(InvalidInputError, match=message):
        cache.calibrate(pairs)
    assert cache.threshold == 0.9

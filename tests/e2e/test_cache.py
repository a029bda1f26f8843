"""Caches of several processes: on a server, killed in the middle, on one folder together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.server.running import Running, made, new_key
from tests.unit.cache.worlds import Clock, Topics

import faissbase
from faissbase.cache import CachedOpenAI, FAISSBackend, Scope, SemanticCache
from faissbase.errors import ConflictError

ROOT = Path(__file__).parents[2]


def _child(program: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


# ---- on a server ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = made(tmp_path_factory.mktemp("cache") / "data")
    _, key = new_key(folder, "acme", "admin")
    with Running(folder) as running:
        yield running.url, key
        assert running.stop() == 0


@pytest.fixture
def collection(address: tuple[str, str], request: pytest.FixtureRequest) -> Iterator[Any]:
    with faissbase.connect(address[0], api_key=address[1]) as db:
        yield db.create_collection(request.node.name, dimension=32)


def test_a_cache_on_a_server_hits_misses_and_tells_scopes_apart(collection: Any) -> None:
    with SemanticCache(Topics(), collection=collection, guard=None) as cache:
        cache.store("a", {"text": "A"}, tags=["x"])
        cache.store("a", None, scope=Scope(tenant="acme"))
        similar = cache.check("a: 0.95")
        assert similar is not None
        assert (similar.kind, similar.response, round(similar.score, 4)) == ("similar", {"text": "A"}, 0.95)
        of_tenant = cache.check("a: 0.95", scope=Scope(tenant="acme"))
        assert of_tenant is not None
        assert of_tenant.response is None
        assert cache.check("b") is None
        assert cache.invalidate(tags="x") == 1
        assert (len(cache), cache.check("a")) == (1, None)


def test_times_limits_and_embedders_hold_on_a_server(collection: Any) -> None:
    clock = Clock()
    settings: dict[str, Any] = {"collection": collection, "guard": None, "clock": clock}
    with SemanticCache(Topics(), max_entries=3, ttl_s=10, **settings) as cache:
        for prompt in "abcd":
            cache.store(prompt, prompt)
        assert [cache.check(prompt) is not None for prompt in "abcd"] == [False, True, True, True]
        clock.now += 10
        assert cache.check("d: 0.99") is None
        assert cache.purge() == 3
    with SemanticCache(Topics(), **settings) as cache:
        assert len(cache) == 0
    other = Topics()
    other.name = "another"
    with pytest.raises(ConflictError, match="another"):
        SemanticCache(other, collection=collection)


def test_two_clients_of_a_server_share_answers(address: tuple[str, str], collection: Any) -> None:
    with faissbase.connect(address[0], api_key=address[1]) as db:
        other = db.get_collection(collection.name)
        with (
            SemanticCache(Topics(), collection=collection) as one,
            SemanticCache(Topics(), collection=other) as two,
        ):
            assert one.get_or_compute("a", lambda: [1]) == [1]
            assert two.get_or_compute("a", lambda: [2]) == [1]
            two.clear()
            assert one.check("a") is None


def test_streams_and_large_answers_travel(collection: Any) -> None:
    with SemanticCache(Topics(), collection=collection) as cache:
        chunks = ["x" * 200_000, None, {"end": True}]
        assert list(cache.stream("a", lambda: iter(chunks))) == chunks
        assert list(cache.stream("a", lambda: iter(()))) == chunks
        cache.store("long " * 50_000, "short")
        assert cache.check("long " * 50_000) is not None


def test_a_server_that_is_gone_does_not_stop_the_application(tmp_path: Path) -> None:
    folder = made(tmp_path / "data")
    _, key = new_key(folder, "acme", "admin")
    with Running(folder) as running, faissbase.connect(running.url, api_key=key, timeout_s=2) as db:
        cache = SemanticCache(Topics(), collection=db.create_collection("c", dimension=32))
        assert cache.get_or_compute("a", lambda: 1) == 1
        running.stop()
        assert cache.get_or_compute("a", lambda: 2) == 2
        assert cache.counters.not_stored == 1


# ---- killed in the middle ------------------------------------------------------------------------

_STORING = """
import sys
from tests.unit.cache.worlds import Topics
from faissbase.cache import SemanticCache
cache = SemanticCache(Topics(), path=sys.argv[1], guard=None, max_entries=50)
for i in range(10_000):
    topic = f"topic {i % 60}"
    if i % 7 == 6:
        cache.invalidate(topic)
        print("-", topic, flush=True)
    else:
        cache.store(topic, {"answers": topic, "n": i})
        print(i, topic, flush=True)
"""


@pytest.mark.parametrize("n_lines", [1, 40, 133])
def test_what_was_stored_when_the_process_was_killed_is_there_whole(tmp_path: Path, n_lines: int) -> None:
    child = _child(_STORING, tmp_path / "c")
    assert child.stdout is not None
    newest: dict[str, str] = {}
    for _ in range(n_lines):
        number, topic = child.stdout.readline().rstrip().split(" ", 1)
        newest[topic] = number
    child.kill()
    rest = child.stdout.read()
    child.wait()
    touched = {line.split(" ", 1)[1] for line in rest.splitlines() if " " in line}
    topics = Topics()
    with SemanticCache(topics, path=tmp_path / "c", guard=None, max_entries=50) as cache:
        stored = {entry.prompt: cache._shelf.entries.decode(entry) for entry in cache._shelf.entries.all()}
        assert all(value["answers"] == prompt for prompt, value in stored.items())
        for prompt in stored:
            hit = cache.check(f"{prompt}: 0.99")
            assert hit is not None
            assert hit.response["answers"] == prompt
        records = cache._shelf.entries._collection.get(
            where={"scope": {"$exists": True}}, include_vectors=True
        )
        for record in records:
            assert record.vector is not None
            assert np.allclose(record.vector, topics.embed([record.metadata["prompt"]])[0], atol=1e-6)
        # Within the limit, an answer that was acknowledged is there, unless what followed was about it.
        touched.add(f"topic {(n_lines + len(rest.splitlines())) % 60}")  # under way when it was killed
        for topic, number in list(newest.items())[-20:]:
            if topic not in touched:
                assert (topic not in stored) if number == "-" else stored[topic]["n"] == int(number)


_ADDING = """
import sys
import numpy as np
from faissbase.cache import FAISSBackend
backend = FAISSBackend(8, path=sys.argv[1])
for i in range(10_000):
    vector = np.eye(8)[i % 8] + 0.001 * i
    backend.add(f"key {i % 8}", vector, {"value": vector.tolist()})
    print(i, flush=True)
"""


def test_vector_and_value_of_a_backend_agree_after_a_kill(tmp_path: Path) -> None:
    child = _child(_ADDING, tmp_path / "c")
    assert child.stdout is not None
    for _ in range(50):
        child.stdout.readline()
    child.kill()
    child.wait()
    with FAISSBackend(8, path=tmp_path / "c") as backend:
        assert len(backend) == 8
        for i in range(8):
            value = backend.get_value(f"key {i}")
            [(key, score)] = backend.search(value)
            assert (key, round(score, 5)) == (f"key {i}", 1.0)


# ---- two processes on one folder -----------------------------------------------------------------

_FILLING = """
import sys
from tests.unit.cache.worlds import Topics
from faissbase.cache import SemanticCache
with SemanticCache(Topics(), path=sys.argv[1], guard=None, max_entries=40) as cache:
    for i in range(60):
        cache.store(f"{sys.argv[2]} {i}", [sys.argv[2], i], tags=sys.argv[2])
"""


def test_processes_on_one_folder_share_answers_and_limits(tmp_path: Path) -> None:
    with SemanticCache(Topics(), path=tmp_path / "c", guard=None, max_entries=40) as cache:
        cache.store("mine", "mine")
        children = [_child(_FILLING, tmp_path / "c", name) for name in ("red", "blue")]
        assert [child.wait() for child in children] == [0, 0]
        cache.store("mine", "mine")
        assert len(cache) <= 40
        newest = cache.check("red 59: 0.99") or cache.check("blue 59: 0.99")
        assert newest is not None
        assert newest.response[1] == 59
        cache.invalidate(tags="red")
        assert cache.check("red 59") is None


def test_an_invalidation_of_another_process_is_seen_at_once(tmp_path: Path) -> None:
    with SemanticCache(Topics(), path=tmp_path / "c", guard=None) as cache:
        cache.store("a", 1, tags="x")
        assert cache.check("a: 0.99") is not None
        program = (
            "import sys\nfrom tests.unit.cache.worlds import Topics\n"
            "from faissbase.cache import SemanticCache\n"
            "with SemanticCache(Topics(), path=sys.argv[1]) as cache: print(cache.invalidate(tags='x'))"
        )
        child = _child(program, tmp_path / "c")
        assert child.communicate()[0] == "1\n"
        assert (cache.check("a"), cache.check("a: 0.99")) == (None, None)


def test_an_openai_client_is_served_from_a_cache_on_a_server(collection: Any) -> None:
    openai = pytest.importorskip("openai")
    from tests.openai_server import OpenAIServer

    with OpenAIServer() as model, SemanticCache(Topics(), collection=collection) as cache:
        model.reply_always("Paris.")
        client: Any = CachedOpenAI(openai.OpenAI(base_url=model.url, api_key="k"), cache)
        for _ in range(2):
            answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])
            assert answer.choices[0].message.content == "Paris."
        assert len(model.paths()) == 1

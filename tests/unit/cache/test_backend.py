"""FAISSBackend: the contract its users know, and what it does beyond it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.cache import FAISSBackend
from faissbase.errors import ConflictError, InvalidInputError, NotReadyError

D = 16
_rng = np.random.default_rng(5)


def _vector() -> Any:
    return _rng.standard_normal(D).astype(np.float32)


@pytest.fixture(params=["memory", "folder"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FAISSBackend]:
    path = None if request.param == "memory" else tmp_path / "cache"
    with FAISSBackend(D, path=path) as made:
        yield made


def test_search_of_an_empty_backend_finds_nothing(backend: FAISSBackend) -> None:
    assert backend.search(_vector()) == []


def test_add_returns_nothing_and_the_value_comes_back(backend: FAISSBackend) -> None:
    assert backend.add("a", _vector(), {"value": {"answer": [1, None]}}) is None  # type: ignore[func-returns-value]
    assert backend.get_value("a") == {"answer": [1, None]}
    assert backend.get_value("b") is None


def test_scores_are_exact_cosines_in_descending_order(backend: FAISSBackend) -> None:
    vectors = [_vector() * (i + 1) for i in range(200)]
    for i, vector in enumerate(vectors):
        backend.add(str(i), vector, {"value": i})
    query = _vector()
    found = backend.search(query, top_k=200)
    cosines = [float(v @ query / np.linalg.norm(v) / np.linalg.norm(query)) for v in vectors]
    expected = sorted(range(200), key=lambda i: -cosines[i])
    assert [key for key, _ in found] == [str(i) for i in expected]
    assert np.allclose([score for _, score in found], sorted(cosines, reverse=True), atol=1e-6)
    assert all(type(key) is str and type(score) is float for key, score in found)


def test_scores_never_leave_the_range_of_a_cosine(backend: FAISSBackend) -> None:
    for i in range(300):
        vector = _vector() * 10.0 ** (i % 9)
        backend.add("same", vector, {"value": i})
        backend.add("opposite", -vector, {"value": i})
        assert all(-1.0 <= score <= 1.0 for _, score in backend.search(vector, top_k=2))


def test_the_callers_vector_is_not_changed(backend: FAISSBackend) -> None:
    vector = _vector() * 7
    kept = vector.copy()
    backend.add("a", vector, {"value": 1})
    backend.search(vector)
    assert (vector == kept).all()


def test_inner_products_are_raw_without_normalize() -> None:
    with FAISSBackend(2, normalize=False) as backend:
        backend.add("long", [3.0, 4.0], {"value": 1})
        backend.add("zero", [0.0, 0.0], {"value": 2})
        assert backend.search([2.0, 1.0], top_k=2) == [("long", 10.0), ("zero", 0.0)]


def test_an_existing_key_is_replaced(backend: FAISSBackend) -> None:
    first, second = _vector(), _vector()
    backend.add("a", first, {"value": "old", "only": "before"})
    backend.add("a", second, {"value": "new"})
    assert len(backend) == 1
    assert backend.get_value("a") == "new"
    [(key, score)] = backend.search(second, top_k=5)
    assert (key, round(score, 5)) == ("a", 1.0)
    assert backend.search(second, where={"only": "before"}) == []


def test_top_k_is_honoured_after_deletions(backend: FAISSBackend) -> None:
    query = _vector()
    for i in range(100):
        backend.add(str(i), query + 0.01 * i * _vector(), {"value": i})
    for key, _ in backend.search(query, top_k=60):
        backend.delete(key)
    assert len(backend.search(query, top_k=40)) == 40
    assert len(backend.search(query, top_k=1000)) == 40


def test_deletion_removes_vector_and_value(backend: FAISSBackend) -> None:
    vector = _vector()
    backend.add("a", vector, {"value": 1})
    backend.delete("a")
    backend.delete("never there")
    assert backend.search(vector) == []
    assert backend.get_value("a") is None


def test_where_filters_by_the_other_metadata(backend: FAISSBackend) -> None:
    vector = _vector()
    backend.add("de", vector, {"value": 1, "lang": "de"})
    backend.add("en", -vector, {"value": 2, "lang": "en"})
    assert [key for key, _ in backend.search(vector, top_k=5, where={"lang": "en"})] == ["en"]


def test_clear_leaves_it_usable(backend: FAISSBackend) -> None:
    backend.add("a", _vector(), {"value": 1})
    backend.clear()
    assert (len(backend), backend.search(_vector()), backend.get_value("a")) == (0, [], None)
    backend.add("b", _vector(), {"value": 2})
    assert backend.get_value("b") == 2


_CLEARED = """
import gc, os
import numpy as np
from faissbase.cache import FAISSBackend

def rss_mib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

with FAISSBackend(2048) as backend:
    block = np.random.default_rng(0).standard_normal((1500, 2048)).astype(np.float32)
    backend.add("warm", block[0], {"value": 0})
    backend.search(block[0])
    before = rss_mib()
    for i, vector in enumerate(block):
        backend.add(str(i), vector, {"value": bytes(20_000)})
    backend.search(block[0])
    full = rss_mib()
    backend.clear()
    gc.collect()
    print(before, full, rss_mib())
    assert backend.search(block[0]) == []
"""


def test_memory_comes_back_after_clear() -> None:
    """In a process of its own: what other tests have left takes and gives memory, too."""
    told = subprocess.run([sys.executable, "-c", _CLEARED], capture_output=True, text=True, check=True).stdout
    before, full, after = map(float, told.split())
    assert full - before > 25
    assert after - before < 0.4 * (full - before)


def test_closing_twice_is_no_error_and_use_afterwards_is(backend: FAISSBackend) -> None:
    backend.close()
    backend.close()
    with pytest.raises(NotReadyError, match="closed"):
        backend.search(_vector())
    with pytest.raises(NotReadyError, match="closed"):
        backend.add("a", _vector(), {"value": 1})


@pytest.mark.parametrize(
    ("key", "vector", "metadata", "message"),
    [
        ("a", [1.0, 2.0], {"value": 1}, "d=16"),
        ("a", [0.0] * D, {"value": 1}, "zero vector"),
        ("a", [float("nan")] * D, {"value": 1}, "not finite"),
        ("", [1.0] * D, {"value": 1}, "id ''"),
        ("a", [1.0] * D, "value", "must be a dict, got str"),
        ("a", [1.0] * D, {"value": 1, "other": object()}, "JSON"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(
    backend: FAISSBackend, key: str, vector: Any, metadata: Any, message: str
) -> None:
    backend.add("a", _vector(), {"value": "before"})
    with pytest.raises(InvalidInputError, match=message):
        backend.add(key, vector, metadata)
    assert (len(backend), backend.get_value("a")) == (1, "before")
    with pytest.raises(ValueError, match="d=16"):
        backend.search([1.0, 2.0])


def test_top_k_below_one_is_refused(backend: FAISSBackend) -> None:
    with pytest.raises(InvalidInputError, match="k"):
        backend.search(_vector(), top_k=0)


def test_values_in_memory_are_the_very_objects() -> None:
    thing = object()
    with FAISSBackend(2) as backend:
        backend.add("a", [1, 0], {"value": thing})
        assert backend.get_value("a") is thing


def test_a_folder_keeps_everything(tmp_path: Path) -> None:
    vector = _vector()
    with FAISSBackend(D, path=tmp_path / "cache") as backend:
        backend.add("a", vector, {"value": {"text": "ü\ud800", "n": 2**70}, "lang": "en"})
    with FAISSBackend(D, path=tmp_path / "cache") as again:
        assert again.get_value("a") == {"text": "ü\ud800", "n": 2**70}
        [(key, score)] = again.search(vector, top_k=5, where={"lang": "en"})
        assert (key, round(score, 5)) == ("a", 1.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"at": {1, 2}}, r"value\['at'\] is of type set"),
        ([1, (2, 3)], r"value\[1\] is of type tuple"),
        ({"x": float("inf")}, r"value\['x'\] is inf"),
        ({1: "x"}, "key 1"),
    ],
)
def test_a_folder_refuses_what_json_would_not_give_back(tmp_path: Path, value: Any, message: str) -> None:
    with FAISSBackend(D, path=tmp_path / "cache") as backend:
        with pytest.raises(InvalidInputError, match=message):
            backend.add("a", _vector(), {"value": value})
        assert len(backend) == 0


def test_a_folder_made_with_other_settings_is_refused(tmp_path: Path) -> None:
    FAISSBackend(D, path=tmp_path / "cache").close()
    with pytest.raises(ConflictError, match="metric"):
        FAISSBackend(D, normalize=False, path=tmp_path / "cache")
    with pytest.raises(ConflictError, match="dimension"):
        FAISSBackend(D + 1, path=tmp_path / "cache")


def test_threads_may_use_it_together(backend: FAISSBackend) -> None:
    vectors = _rng.standard_normal((8, D)).astype(np.float32)

    def work(me: int) -> None:
        for round in range(25):
            key = f"{(me + round) % 4}"
            backend.add(key, vectors[me], {"value": [me, round]})
            for found, score in backend.search(vectors[me], top_k=4):
                assert -1 <= score <= 1
                value = backend.get_value(found)
                assert value is None or len(value) == 2
            if round % 5 == 4:
                backend.delete(key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(backend) == len(backend.search(vectors[0], top_k=100)) <= 4


_WITHOUT_FAISS = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('faiss', 'swigfaiss'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Refuse())
"""


def _run_without_faiss(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_FAISS + program], capture_output=True, text=True, check=True
    ).stdout


def test_the_package_imports_without_faiss_and_construction_names_the_install_line() -> None:
    told = _run_without_faiss("""
import faissbase.cache
from faissbase.errors import NotFoundError
assert faissbase.NotFoundError is NotFoundError
try:
    faissbase.cache.FAISSBackend(dim=3)
except ImportError as error:
    print(error)
""")
    assert told == "FAISSBackend needs faiss: pip install faiss-cpu\n"
    told = _run_without_faiss("""
from faissbase.cache import SemanticCache
try:
    SemanticCache()
except ImportError as error:
    print(error)
""")
    assert told == "SemanticCache needs faiss: pip install faiss-cpu\n"


def test_the_root_still_has_every_name() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import faissbase; print([n for n in faissbase.__all__ if n not in dir(faissbase)]);"
            "from faissbase import *; print(connect, Database, faissbase.Stats)",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.startswith("[]\n<function connect")

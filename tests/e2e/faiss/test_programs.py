"""Programs written for FAISS print the same, to the last bit, where the proxy stands in its place."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import faiss
import pytest
from tests.e2e.faiss.running import n_calls, wait_until, with_faiss, with_proxy
from tests.e2e.server.running import Running

TUTORIALS = (
    "flat",
    "ivf_flat",
    "ivf_pq",
    "hnsw",
    "pq_fastscan",
    "pq_fastscan_refine",
    "refine_comparison",
)
PAGES = ("ids_and_transforms", "special_operations", "binary", "warnings")
# The package, the program that uses it, and how many calls it makes at least.
USERS = (
    ("langchain_community", "langchain_store.py", 100),
    ("datasets", "hf_datasets.py", 100),
    ("llama_index.vector_stores.faiss", "llama_index_store.py", 100),
    ("faiss_imputer", "imputer.py", 10),
    ("torch", "torch_tensors.py", 20),
    ("txtai", "txtai_store.py", 50),
    ("haystack_integrations", "haystack_store.py", 20),
    ("autofaiss", "autofaiss_build.py", 20),
)


def _assert_same(
    server: Running, folder: Path, program: str, *words: str, n_least: int = 5, is_mixed: bool = False
) -> None:
    before = n_calls(server)
    theirs = with_faiss(program, *words, cwd=folder)
    assert n_calls(server) == before
    ours = with_proxy(program, *words, cwd=folder, url=server.url, is_mixed=is_mixed)
    assert theirs.stdout, theirs.stderr
    assert ours.stdout == theirs.stdout, ours.stderr
    assert ours.returncode == theirs.returncode, ours.stderr
    assert ours.stderr.splitlines()[-1:] == theirs.stderr.splitlines()[-1:]
    wait_until(lambda: n_calls(server) >= before + n_least, "hardly a call came to the server")


@pytest.mark.parametrize("tutorial", TUTORIALS)
def test_tutorial_prints_the_same(server: Running, tmp_path: Path, tutorial: str) -> None:
    _assert_same(server, tmp_path, "tutorials.py", tutorial)


@pytest.mark.parametrize("page", PAGES)
def test_page_of_the_manual_prints_the_same(server: Running, tmp_path: Path, page: str) -> None:
    _assert_same(server, tmp_path, "manual.py", page, n_least=1)


def test_files_are_the_clients_and_have_the_same_bytes(server: Running, tmp_path: Path) -> None:
    _assert_same(server, tmp_path, "manual.py", "files_and_parameters", str(tmp_path))
    assert (tmp_path / "kept.index").exists()


def test_what_stays_local_prints_the_same_and_feeds_remote_indexes(server: Running, tmp_path: Path) -> None:
    _assert_same(server, tmp_path, "manual.py", "local_parts", n_least=2, is_mixed=True)


def test_warnings_of_cpp_arrive_on_the_clients_streams(server: Running, tmp_path: Path) -> None:
    ours = with_proxy("manual.py", "warnings", cwd=tmp_path, url=server.url)
    assert "WARNING clustering 300 points to 20 centroids" in ours.stderr
    assert ours.stdout.index("Training level-1 quantizer") < ours.stdout.index("trained\n")
    assert not any("WARNING clustering" in line for line in server.lines)


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this FAISS is for GPUs")
def test_gpus_are_missing_on_both_sides_and_the_proxy_says_where(server: Running, tmp_path: Path) -> None:
    theirs = with_faiss("tutorials.py", "gpus", cwd=tmp_path)
    ours = with_proxy("tutorials.py", "gpus", cwd=tmp_path, url=server.url)
    assert (theirs.returncode, ours.returncode) == (1, 1)
    assert ours.stdout == theirs.stdout == "number of GPUs: 0\n"
    assert f"the FAISS of the server at {server.url} is not one for GPUs" in ours.stderr


@pytest.mark.parametrize(("package", "program", "n_least"), USERS, ids=[program for _, program, _ in USERS])
def test_users_of_faiss_get_the_same_answers(
    server: Running, tmp_path: Path, package: str, program: str, n_least: int
) -> None:
    if find_spec(package.split(".")[0]) is None or find_spec(package) is None:
        pytest.skip(f"{package} is not there: pip install 'faissbase[integrations]'")
    _assert_same(server, tmp_path, program, str(tmp_path), n_least=n_least)

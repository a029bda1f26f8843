"""One server for all programs, and one thread: graphs are built in the order of threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import pytest
from tests.e2e.server.running import Running

import faiss_proxy


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Running(tmp_path_factory.mktemp("faiss")) as running:
        yield running.url


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread alone always builds the same graph."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture
def remote(url: str) -> Iterator[Any]:
    with faiss_proxy.remote(url):
        faiss_proxy.omp_set_num_threads(1)
        yield faiss_proxy

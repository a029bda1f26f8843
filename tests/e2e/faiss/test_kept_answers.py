"""A client that keeps answers gives none that the index would not give now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from tests.e2e.server.running import Running

import faiss_proxy

_D = 16


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Running(tmp_path_factory.mktemp("kept")) as running:
        yield running.url


@pytest.fixture
def xb() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).random((2000, _D), dtype=np.float32)


def test_an_answer_is_given_again_while_nothing_has_changed(url: str, xb: npt.NDArray[np.float32]) -> None:
    with faiss_proxy.remote(url, cache_bytes=1 << 20):
        index = faiss_proxy.IndexFlatL2(_D)
        index.add(xb)
        first = index.search(xb[:300], 50)
        again = index.search(xb[:300], 50)
        assert all(map(np.array_equal, first, again))
        assert again[0] is not first[0]
        again[1][:] = -7  # the caller's own
        labels = np.empty((300, 50), np.int64)
        filled = index.search(xb[:300], 50, D=np.empty((300, 50), np.float32), I=labels)
        assert filled[1] is labels
        assert np.array_equal(labels, first[1])


def test_kept_answers_do_not_travel_again(tmp_path: Path, xb: npt.NDArray[np.float32]) -> None:
    with Running(tmp_path) as running, faiss_proxy.remote(running.url, cache_bytes=1 << 20):
        index = faiss_proxy.IndexFlatL2(_D)
        index.add(xb)
        for _ in range(3):
            index.search(xb[:300], 50)
        running.stop()
        sizes = [line["bytes"] for line in running.logged() if line["message"] == "request"]
    large, small = sizes[-3], sizes[-2:]
    assert large > 300 * 50 * 12
    assert max(small) < 1000


def test_every_change_of_an_index_is_seen(url: str, xb: npt.NDArray[np.float32]) -> None:
    with faiss_proxy.remote(url, cache_bytes=1 << 20):
        quantizer = faiss_proxy.IndexFlatL2(_D)
        remote = faiss_proxy.IndexIVFFlat(quantizer, _D, 8)
        local = faiss.IndexIVFFlat(faiss.IndexFlatL2(_D), _D, 8)
        both = (remote, local)
        wide = faiss.SearchParametersIVF(nprobe=8)
        for index in both:
            index.train(xb)
        _check_equal(*both, xb)
        for change in (
            lambda index: index.add(xb[:900]),
            lambda index: setattr(index, "nprobe", 4),
            lambda index: index.add_with_ids(xb[900:], np.arange(5000, 6100)),
            lambda index: index.remove_ids(np.arange(100)),
            lambda index: index.reset(),
        ):
            for index in both:
                change(index)
            _check_equal(*both, xb)
        chosen = faiss_proxy.SearchParametersIVF(nprobe=8)
        assert np.array_equal(
            remote.search(xb[:3], 2, params=chosen)[1], local.search(xb[:3], 2, params=wide)[1]
        )


def _check_equal(remote: faiss_proxy.Index, local: faiss.Index, xb: npt.NDArray[np.float32]) -> None:
    for _ in range(2):  # asked, and asked again
        assert all(map(np.array_equal, remote.search(xb[:50], 5), local.search(xb[:50], 5)))


def test_what_another_client_changes_is_seen(url: str, xb: npt.NDArray[np.float32]) -> None:
    with faiss_proxy.remote(url, cache_bytes=1 << 20):
        index = faiss_proxy.IndexFlatL2(_D)
        index.add(xb[:1000])
        index.save_as("shared")
        before = index.search(xb[:5], 1)
        with faiss_proxy.remote(url):
            faiss_proxy.open_index("shared").reset()
        assert (index.search(xb[:5], 1)[1] == -1).all()
        assert (before[1] >= 0).all()


# ---- k-means on the server ---------------------------------------------------------------------------


def test_kmeans_on_the_server_gives_what_it_gives_here(url: str, xb: npt.NDArray[np.float32]) -> None:
    here = faiss.Kmeans(_D, 20, niter=6, seed=3)
    with faiss_proxy.remote(url):
        there = faiss_proxy.Kmeans(_D, 20, niter=6, seed=3, remote=True)
        local = faiss_proxy.Kmeans(_D, 20, niter=6, seed=3)
    objectives = [each.train(xb) for each in (here, there, local)]
    assert objectives[0] == objectives[1] == objectives[2]
    for each in (there, local):
        assert np.array_equal(each.centroids, here.centroids)
        assert np.array_equal(each.obj, here.obj)
        assert all(map(np.array_equal, each.assign(xb), here.assign(xb)))
    assert there.iteration_stats[0].keys() == here.iteration_stats[0].keys()


def test_kmeans_on_a_server_wants_one() -> None:
    with pytest.raises(faiss_proxy.RemoteError, match="no server is configured"):
        faiss_proxy.Kmeans(_D, 20, remote=True)


def test_a_clustering_trains_an_index_that_is_on_the_server(url: str, xb: npt.NDArray[np.float32]) -> None:
    found = []
    with faiss_proxy.remote(url):
        for module in (faiss, faiss_proxy):
            parameters = module.ClusteringParameters()
            parameters.niter = 4
            clustering, index = module.Clustering(_D, 10, parameters), module.IndexFlatL2(_D)
            clustering.train(xb, index)
            found.append((module.vector_to_array(clustering.centroids), index.ntotal))
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] == 10

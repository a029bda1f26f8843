"""GPUs of the server: programs for them print the same as where FAISS itself has the GPU.

Wherever FAISS has none, all of this is skipped; what needs none is in ``tests/unit``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from tests.e2e.faiss.running import ROOT, with_faiss, with_proxy
from tests.e2e.server.running import PATIENCE_S, Running, made, new_key

import faiss_proxy
from faissbase.errors import AccessError

pytestmark = pytest.mark.skipif(not faiss.get_num_gpus(), reason="FAISS has no GPU here")
PAGE = (ROOT / "docs" / "faiss-proxy.md").read_text()
SUBJECTS = ("tutorial", "classes", "there_and_back", "several", "brute_force", "kmeans", "refused")
D = 64


@pytest.fixture
def rows() -> Any:
    return np.random.default_rng(1).random((1000, D), dtype=np.float32)


@pytest.fixture
def connected(server: Running) -> Iterator[Running]:
    with faiss_proxy.remote(server.url):
        yield server


@pytest.mark.parametrize("client", ["without", "with"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_programs_print_the_same(server: Running, tmp_path: Path, subject: str, client: str) -> None:
    """``client``: whether the client's own FAISS knows GPUs, too."""
    theirs = with_faiss("gpus.py", subject, cwd=tmp_path)
    assert theirs.returncode == 0, theirs.stderr
    flags = ["--without-gpus"] if client == "without" else []
    is_mixed = subject == "kmeans"  # what it has found is assigned to here
    ours = with_proxy("gpus.py", subject, cwd=tmp_path, url=server.url, is_mixed=is_mixed, flags=flags)
    assert ours.stdout == theirs.stdout, ours.stderr
    assert ours.returncode == 0, ours.stderr


def test_the_pages_program_runs(connected: Running, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"^```python gpu\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    xb = np.random.default_rng(0).random((50_000, 128), dtype=np.float32)
    names: dict[str, Any] = {"faiss": faiss_proxy, "xb": xb, "xq": xb[:5]}
    exec(program, names)
    assert capsys.readouterr().out == f"{faiss.get_num_gpus()}\n"
    assert names["I"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert faiss_proxy.open_index("photos").ntotal == len(xb)


def test_threads_share_an_index_on_a_gpu(server: Running, tmp_path: Path) -> None:
    ours = with_proxy("gpus.py", "threads", cwd=tmp_path, url=server.url)
    assert ours.stdout == '{"wrong": ["list"]}\n', ours.stderr


def test_memory_of_a_gpu_is_free_when_nobody_holds_the_index(connected: Running, rows: Any) -> None:
    res = faiss_proxy.StandardGpuResources()
    index = faiss_proxy.GpuIndexFlatL2(res, D)
    index.add(np.tile(rows, (100, 1)))
    full = _taken(res)
    assert full > 100 * rows.nbytes
    del index
    stop = time.monotonic() + PATIENCE_S
    while _taken(res) > full - 100 * rows.nbytes:
        assert time.monotonic() < stop
        time.sleep(0.05)


def _taken(res: Any) -> int:
    return sum(size for kinds in res.getMemoryInfo().values() for _, size in kinds.values())


def test_an_index_on_a_gpu_comes_here_and_has_no_name(connected: Running, rows: Any) -> None:
    index = faiss_proxy.index_cpu_to_all_gpus(faiss_proxy.IndexFlatL2(D))
    index.add(rows)
    here = index.to_local()
    assert isinstance(here, faiss.IndexFlat)
    assert np.array_equal(here.reconstruct_n(0, 1000), rows)
    with pytest.raises(faiss_proxy.RemoteError, match="save what index_gpu_to_cpu gives"):
        index.save_as("on-a-gpu")
    faiss_proxy.index_gpu_to_cpu(index).save_as("off-it")
    assert faiss_proxy.open_index("off-it").ntotal == 1000


def test_what_takes_places_in_memory_names_another_way(server: Running, tmp_path: Path) -> None:
    ours = with_proxy("gpus.py", "by_place", cwd=tmp_path, url=server.url, flags=["--without-gpus"])
    assert "AttributeError: faiss.bfKnn is nothing that the server at" in ours.stderr
    assert ours.stderr.rstrip().endswith("use faiss.knn_gpu")


def test_a_tenant_takes_no_more_of_a_gpu_than_it_may(tmp_path: Path, rows: Any) -> None:
    most, data = 200 << 20, made(tmp_path / "data")
    with Running(data, "--faiss-gpu-bytes", most) as running, faiss_proxy.remote(running.url):
        res = faiss_proxy.StandardGpuResources()
        index = faiss_proxy.GpuIndexFlatL2(res, D)
        index.add(rows)
        with pytest.raises(faiss_proxy.RemoteError, match="add wants 256,000,000 bytes of the GPU's memory"):
            index.add(np.tile(rows, (1000, 1)))
        with pytest.raises(faiss_proxy.RemoteError, match="setTempMemory wants 1,099,511,627,776 bytes"):
            res.setTempMemory(1 << 40)
        with pytest.raises(faiss_proxy.RemoteError, match="knn_gpu wants 256,"):
            faiss_proxy.knn_gpu(res, rows[:1], np.tile(rows, (1000, 1)), 3)
        assert faiss_proxy.knn_gpu(res, rows[:1], rows, 1)[1].tolist() == [[0]]
        kmeans = faiss_proxy.Kmeans(D, 5, gpu=True, remote=True)
        assert kmeans.train(rows) > 0
        flat, several = faiss_proxy.IndexFlatL2(D), list[Any]()
        with pytest.raises(faiss_proxy.RemoteError, match="wants some of the GPU's memory"):
            several.extend(faiss_proxy.index_cpu_to_all_gpus(flat) for _ in range(50))
        assert index.search(rows[:1], 1)[1].tolist() == [[0]]  # there is no room left, and none is wanted
        del several
        assert index.ntotal == 1000
        assert index.search(rows[:1], 1)[1].tolist() == [[0]]


def test_lists_that_there_are_not_are_refused(connected: Running, rows: Any) -> None:
    index = faiss_proxy.GpuIndexIVFFlat(faiss_proxy.StandardGpuResources(), D, 16, faiss_proxy.METRIC_L2)
    index.train(rows)
    index.add(rows)
    for wrong in (16, -2):
        with pytest.raises(faiss_proxy.RemoteError, match="there are lists 0 to 15"):
            index.search_preassigned(rows[:1], 3, np.full((1, 1), wrong), np.zeros((1, 1), np.float32))


def test_a_key_that_only_reads_makes_nothing_on_a_gpu(tmp_path: Path) -> None:
    folder = made(tmp_path / "data")
    _, text = new_key(folder, "one", "read")
    with Running(folder) as running, faiss_proxy.remote(running.url, text):
        assert faiss_proxy.get_num_gpus() == faiss.get_num_gpus()
        with pytest.raises(AccessError):
            faiss_proxy.StandardGpuResources()

"""A saved store opens as it was, or says what is wrong with it: never a wrong answer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import orjson
import pytest
from xxhash import xxh3_64

from faissbase.ann import resident
from faissbase.errors import (
    AccessError,
    CorruptionError,
    FaissbaseError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from faissbase.rag import FAISSVectorStore, saved
from faissbase.types import Float32

D = 8
SPECS = [
    "Flat",
    "IVFFlat",
    "HNSW",
    "HNSW_SQ8",
    "IVF8_HNSW8,SQ8",
    "IVF8(IVF2,SQfp16),SQ8",
    "PQ4x4",
    "PCA4,Flat",
    "HNSW16_PQ4x4",
]
METRICS = ["L2", "IP", "cosine"]


def vectors(n: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def filled(spec: str = "HNSW", metric: str = "L2", n: int = 700) -> FAISSVectorStore:
    store = FAISSVectorStore(D, spec, metric)
    store.add(vectors(n), [{"n": i, "text": f"chunk {i} é"} for i in range(n)])
    return store


def answers(store: FAISSVectorStore) -> Any:
    found = store.batch_search(vectors(20, seed=1), k=5, where={"n": {"$lt": 600}})
    return [each.tolist() for each in found[1]], found[2], np.round(np.concatenate(found[0]), 4).tolist()


@pytest.mark.parametrize(("spec", "metric"), list(zip(SPECS, METRICS * 3, strict=False)))
def test_what_is_saved_is_loaded_and_goes_on(
    spec: str, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "EXACT_NUMBERS", 0)
    monkeypatch.setattr(resident, "_QUERIES", 30)
    monkeypatch.setattr(resident, "_SHARES", (0.5,))
    monkeypatch.setattr(resident.Resident, "_exact_us", lambda *_: float("inf"))
    store = filled(spec, metric)
    store.delete([0, 1, 2, 699])
    store.save(tmp_path / "store")
    loaded = FAISSVectorStore.load(tmp_path / "store")
    kind = (loaded.dimension, loaded.metric, loaded.index_type, loaded.index, len(loaded))
    assert kind == (D, store.metric, spec, store.index, 696)
    assert answers(loaded) == answers(store)
    assert loaded.add(vectors(2, seed=3)) == [700, 701]
    assert loaded.search(vectors(2, seed=3)[1], k=1, recall=1.0)[1].size == 1
    assert loaded.delete(list(range(300))) == 297
    loaded.save(tmp_path / "store")
    again = FAISSVectorStore.load(tmp_path / "store")
    assert len(again) == 401
    assert answers(again) == answers(loaded)


def test_an_empty_store_is_saved_too(tmp_path: Path) -> None:
    store = FAISSVectorStore(D, "HNSW", "cosine")
    store.add(vectors(1))
    store.delete([0])
    store.save(tmp_path)
    loaded = FAISSVectorStore.load(tmp_path)
    assert len(loaded) == 0
    assert loaded.add(vectors(1)) == [1]


def test_load_of_a_store_takes_what_is_saved_in_its_place(tmp_path: Path) -> None:
    filled().save(tmp_path)
    store = FAISSVectorStore(dimension=D)
    store.add(vectors(3, seed=9))
    assert store.load(tmp_path) is store
    assert (len(store), store.index_type) == (700, "HNSW")
    assert store.add(vectors(1)) == [700]
    other = FAISSVectorStore(D, metric="IP")
    with pytest.raises(InvalidInputError, match="has metric='l2', this one 'ip'"):
        other.load(tmp_path)
    with pytest.raises(InvalidInputError, match=f"has dimension={D}, this one 4"):
        FAISSVectorStore(4).load(tmp_path)


def test_nothing_of_what_was_deleted_is_in_the_files(tmp_path: Path) -> None:
    store = FAISSVectorStore(D, "HNSW")
    xb = vectors(100)
    store.add(xb, [{"text": f"secret number {i}"} for i in range(100)])
    store.save(tmp_path)
    store.delete([42])
    store.save(tmp_path)
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"secret number 41" in everything
    assert b"secret number 42" not in everything
    assert xb[41].tobytes() in everything
    assert xb[42].tobytes() not in everything


def test_any_faiss_reads_the_vectors(tmp_path: Path) -> None:
    for metric in METRICS:
        filled("HNSW", metric).save(tmp_path / metric)
        [path] = (tmp_path / metric).glob("vectors.*.faiss")
        index = faiss.read_index(str(path))
        assert isinstance(index, faiss.IndexFlat)
        assert (index.ntotal, index.d) == (700, D)
        assert faiss.serialize_index(index).tobytes() == path.read_bytes()
        [text] = (tmp_path / metric).glob("metadata.*.json")
        said = orjson.loads(text.read_bytes())
        assert said["ids"] == list(range(700))
        assert said["metadata"][3]["n"] == 3


def test_saving_again_leaves_no_files_behind_and_touches_none_of_others(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    store = filled()
    for _ in range(3):
        store.save(tmp_path)
    (tmp_path / "vectors.77.faiss").write_bytes(b"left by a save that was killed")
    store.save(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["index.4.faiss", "metadata.4.json", "notes.txt", "store.json", "vectors.4.faiss"]


def test_only_a_folder_of_a_store_is_loaded_and_saved_into(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"it has no store\.json"):
        FAISSVectorStore.load(tmp_path)
    with pytest.raises(NotFoundError, match="no store is saved"):
        FAISSVectorStore.load(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="is a file, a store is saved into a folder"):
        filled(n=3).save(tmp_path / "file")
    with pytest.raises(NotFoundError):
        FAISSVectorStore.load(tmp_path / "file")
    (tmp_path / "store.json").write_text('{"format": "of another program"}')
    with pytest.raises(CorruptionError, match="of another program"):
        FAISSVectorStore.load(tmp_path)
    with pytest.raises(InvalidInputError, match="save into another folder, or remove"):
        filled(n=3).save(tmp_path)
    assert (tmp_path / "store.json").read_text() == '{"format": "of another program"}'


@pytest.mark.parametrize("spec", ["Flat", "HNSW", "IVFFlat"])
def test_no_damaged_byte_goes_unnoticed(spec: str, tmp_path: Path) -> None:
    filled(spec, n=300).save(tmp_path)
    rng = np.random.default_rng(5)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for at in {0, len(whole) - 1, *rng.integers(0, len(whole), 60).tolist()}:
            damaged = bytearray(whole)
            damaged[at] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            with pytest.raises(CorruptionError, match=path.name.split(".")[0]):
                FAISSVectorStore.load(tmp_path)
        path.write_bytes(whole)
    assert len(FAISSVectorStore.load(tmp_path)) == 300


@pytest.mark.parametrize("spec", ["HNSW", "IVFFlat"])
def test_files_cut_short_longer_or_missing_are_noticed(spec: str, tmp_path: Path) -> None:
    filled(spec, n=300).save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for content in (b"", whole[:-1], whole[: len(whole) // 2], whole + b"\0"):
            path.write_bytes(content)
            with pytest.raises(CorruptionError):
                FAISSVectorStore.load(tmp_path)
        path.unlink()
        with pytest.raises(NotFoundError if path.name == "store.json" else CorruptionError):
            FAISSVectorStore.load(tmp_path)
        path.write_bytes(whole)


def test_a_damaged_index_is_built_anew_where_that_is_asked(tmp_path: Path) -> None:
    store = filled()
    store.save(tmp_path)
    [path] = tmp_path.glob("index.*.faiss")
    path.write_bytes(b"not an index")
    with pytest.raises(CorruptionError, match="index"):
        FAISSVectorStore.load(tmp_path)
    loaded = FAISSVectorStore.load(tmp_path, rebuild_index=True)
    assert loaded.index == store.index
    assert answers(loaded) == answers(store)


def forged(folder: Path, content: bytes) -> None:
    """Put ``content`` in the place of the index, its checksum agreeing: as whoever wishes us ill can."""
    said = orjson.loads((folder / "store.json").read_bytes())["store"]
    file = said["files"]["index"]
    (folder / file["name"]).write_bytes(content)
    file |= {"size_bytes": len(content), "checksum": xxh3_64(content).hexdigest()}
    (folder / "store.json").write_bytes(saved._manifest(said))


def test_a_forged_graph_that_leads_outside_is_refused_before_it_is_searched(tmp_path: Path) -> None:
    filled("HNSW", n=300).save(tmp_path)
    [path] = tmp_path.glob("index.*.faiss")
    whole = path.read_bytes()
    graph = faiss.read_index(str(path))
    links = faiss.vector_to_array(graph.hnsw.neighbors)
    at = whole.find(links.tobytes())
    assert at > 0
    for wrong in (300, 2**31 - 1, -7):
        forged(tmp_path, whole[:at] + np.int32(wrong).tobytes() + whole[at + 4 :])
        with pytest.raises(CorruptionError, match=r"neighbors\[0\] = .* out of range"):
            FAISSVectorStore.load(tmp_path)
    assert len(FAISSVectorStore.load(tmp_path, rebuild_index=True)) == 300


def test_a_forged_list_that_names_other_rows_is_refused(tmp_path: Path) -> None:
    filled("IVFFlat", n=600).save(tmp_path)
    [path] = tmp_path.glob("index.*.faiss")
    whole = path.read_bytes()
    index = faiss.read_index(str(path))
    ids = faiss.rev_swig_ptr(index.invlists.get_ids(1), index.invlists.list_size(1)).copy()
    at = whole.find(ids.tobytes())
    for wrong in (600, -1, 2**62):
        forged(tmp_path, whole[:at] + np.int64(wrong).tobytes() + whole[at + 8 :])
        with pytest.raises(CorruptionError, match="of the index"):
            FAISSVectorStore.load(tmp_path)


def test_an_index_whose_lists_lie_in_another_file_is_never_opened(tmp_path: Path) -> None:
    filled("IVF4,Flat", n=600).save(tmp_path / "store")
    (tmp_path / "victim").write_bytes(b"x" * 4096)
    index = faiss.index_factory(D, "IVF4,Flat")
    index.train(vectors(600))
    lists = faiss.OnDiskInvertedLists(4, index.code_size, str(tmp_path / "lists"))
    index.replace_invlists(lists)
    index.add(vectors(600))
    faiss.write_index(index, str(tmp_path / "foreign"))
    forged(tmp_path / "store", (tmp_path / "foreign").read_bytes())
    with pytest.raises(CorruptionError, match="names another file to read vectors from"):
        FAISSVectorStore.load(tmp_path / "store")


def test_an_index_of_another_kind_is_refused(tmp_path: Path) -> None:
    filled("HNSW").save(tmp_path / "a")
    filled("IVFFlat").save(tmp_path / "b")
    [path] = (tmp_path / "b").glob("index.*.faiss")
    forged(tmp_path / "a", path.read_bytes())
    with pytest.raises(CorruptionError, match="expected"):
        FAISSVectorStore.load(tmp_path / "a")


def test_a_failing_disk_at_any_step_leaves_the_old_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(n=300).save(tmp_path)
    before = answers(FAISSVectorStore.load(tmp_path))
    newer = filled(n=320)
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    for name, errors in (("fsync", (errno.EIO, errno.ENOSPC)), ("replace", (errno.EIO,))):
        for failing in range(1, 5):
            calls = 0

            def fail(*args: Any, name: str = name, n: int = failing, number: int = errors[0]) -> Any:
                nonlocal calls
                calls += 1
                if calls == n:
                    raise OSError(number, os.strerror(number))
                return real[name](*args)

            monkeypatch.setattr(os, name, fail)
            try:
                newer.save(tmp_path)
            except UnavailableError:
                monkeypatch.undo()
                assert answers(FAISSVectorStore.load(tmp_path)) == before
            finally:
                monkeypatch.undo()
            if calls < failing:
                break
            filled(n=300).save(tmp_path)
    newer.save(tmp_path)
    assert len(FAISSVectorStore.load(tmp_path)) == 320


_FULL = """
import resource, signal, sys
import numpy as np
from faissbase.errors import UnavailableError
from faissbase.rag import FAISSVectorStore
folder, spec = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = FAISSVectorStore(8, spec)
store.add(np.random.default_rng(0).standard_normal((2000, 8)), [{"n": i} for i in range(2000)])
n_failed = 0
for limit in (10, 1000, 40_000, 63_000, 64_100, 90_000, 150_000, 200_000, 260_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        store.save(folder)
    except UnavailableError as error:
        n_failed += 1
        assert "free some space" in str(error), error
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert len(FAISSVectorStore.load(folder)) == 300
print(n_failed)
"""


@pytest.mark.parametrize("spec", ["HNSW", "IVFFlat"])
def test_a_full_disk_is_told_and_the_old_store_stays(spec: str, tmp_path: Path) -> None:
    filled(n=300).save(tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path), spec], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= 5
    assert len(FAISSVectorStore.load(tmp_path)) == 2000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(AccessError, match="cannot save into"):
        filled(n=3).save(tmp_path / "store")
    tmp_path.chmod(0o700)


def test_loading_beside_saving_always_gets_one_store_whole(tmp_path: Path) -> None:
    stores = [filled("HNSW", n=n) for n in (290, 300)]
    stores[0].save(tmp_path)

    enough = threading.Event()

    def save(store: FAISSVectorStore) -> None:
        while not enough.is_set():
            store.save(tmp_path)

    savers = [threading.Thread(target=save, args=(store,)) for store in stores]
    for saver in savers:
        saver.start()
    try:
        for _ in range(10):
            loaded = FAISSVectorStore.load(tmp_path)
            assert len(loaded) in (290, 300)
            assert loaded.search(vectors(300)[len(loaded) - 1], k=1)[2][0]["n"] == len(loaded) - 1
    finally:
        enough.set()
        for saver in savers:
            saver.join()
    assert len(list(tmp_path.iterdir())) == 4


_KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from faissbase.rag import FAISSVectorStore

folder = sys.argv[1]
rng = np.random.default_rng(0)
old, new = FAISSVectorStore(8, "HNSW"), FAISSVectorStore(8, "HNSW")
old.add(rng.standard_normal((300, 8)), [{"store": "old"}] * 300)
new.add(rng.standard_normal((310, 8)), [{"store": "new"}] * 310)

def counted(fatal):
    n = 0
    def step(event, args):
        nonlocal n
        if event == "fsync" or (event in ("open", "os.rename", "os.remove") and folder in str(args[0])):
            n += 1
            if n == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
    return step

def save(fatal):
    step, fsync = counted(fatal), os.fsync
    os.fsync = lambda fd: (step("fsync", ()), fsync(fd))
    sys.addaudithook(step)
    new.save(folder)
    os._exit(0)

n_old = n_new = 0
for fatal in range(1, 1000):
    old.save(folder)
    child = os.fork()
    if child == 0:
        save(fatal)
    status = os.waitpid(child, 0)[1]
    loaded = FAISSVectorStore.load(folder)
    told = {each["store"] for each in loaded.search([1] * 8, k=400)[2]}
    assert (told, len(loaded)) in (({"old"}, 300), ({"new"}, 310)), (fatal, told, len(loaded))
    n_old, n_new = n_old + (told == {"old"}), n_new + (told == {"new"})
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
old.save(folder)
print(n_old, n_new, len(list(Path(folder).iterdir())))
"""


def test_killed_at_any_step_of_a_save_the_old_or_the_new_store_opens(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    n_old, n_new, n_files = map(int, run.stdout.split())
    assert n_old >= 8
    assert n_new >= 2
    assert n_files == 4


def test_every_error_of_loading_is_one_of_ours(tmp_path: Path) -> None:
    """Whatever stands in ``store.json``, its checksum agreeing."""
    filled(n=5).save(tmp_path)
    said = orjson.loads((tmp_path / "store.json").read_bytes())["store"]
    wrong: dict[str, list[Any]] = {
        "dimension": [0, -1, 9, 10**9, "8", None, 2.0],
        "metric": ["l1", 3, None],
        "index_type": ["Nothing", 3, None, "IVF0,Flat"],
        "n": [4, 6, -1, 2**60],
        "next_id": [0, "5"],
        "files": [{}, None, {"vectors": said["files"]["vectors"]}],
        "factory": ["HNSW3", "", None, "IVF4,Flat"],
        "index": [None, {}, {"n_trained": "x"}, [], {"n_trained": 1, "curve": {"k": 1}}],
    }
    for field, values in wrong.items():
        for value in values:
            (tmp_path / "store.json").write_bytes(saved._manifest(said | {field: value}))
            with pytest.raises(FaissbaseError):
                FAISSVectorStore.load(tmp_path)
    outside = {**said["files"], "vectors": {**said["files"]["vectors"], "name": "../vectors.1.faiss"}}
    (tmp_path / "store.json").write_bytes(saved._manifest(said | {"files": outside}))
    with pytest.raises(CorruptionError, match="names the file"):
        FAISSVectorStore.load(tmp_path)

"""Index files of FAISS are loaded: their vectors, under their ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

import faissbase
from faissbase.cli.main import main
from faissbase.collection.collection import LocalCollection
from faissbase.errors import InvalidInputError, NotFoundError

D, N = 16, 500
XB = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
IDS = np.random.default_rng(1).permutation(10 * N)[:N].astype(np.int64)


def _made(factory: str, ids: Any = None, metric: int = faiss.METRIC_L2) -> Any:
    index = faiss.index_factory(D, factory, metric)
    index.train(XB)
    if ids is None:
        index.add(XB)
    else:
        index.add_with_ids(XB, ids)
    return index


@pytest.fixture
def docs(memory: faissbase.Database) -> LocalCollection:
    return memory.create_collection("docs", D, "l2")


def _loaded(docs: LocalCollection, index: Any, tmp_path: Path, name: str = "a.faiss") -> dict[str, Any]:
    faiss.write_index(index, str(tmp_path / name))
    report = docs.load_file(tmp_path / name, batch_rows=64)
    assert report.n_rows == index.ntotal
    return {record.id: record.vector for record in docs.get(include_vectors=True, limit=2 * N)}


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "NSG8", "IVF4,Flat", "IVF4,SQ8,RFlat", "PQ4x4fs,RFlat"])
def test_vectors_that_are_numbered_keep_their_numbers(
    docs: LocalCollection, tmp_path: Path, factory: str
) -> None:
    found = _loaded(docs, _made(factory), tmp_path)
    assert sorted(found, key=int) == [str(row) for row in range(N)]
    assert all(np.array_equal(found[str(row)], XB[row]) for row in range(N))


@pytest.mark.parametrize(
    "factory", ["IVF4,Flat", "IDMap,Flat", "IDMap2,Flat", "IDMap,IVF4,Flat", "IDMap2,HNSW8"]
)
def test_vectors_with_ids_keep_their_ids(docs: LocalCollection, tmp_path: Path, factory: str) -> None:
    found = _loaded(docs, _made(factory, IDS), tmp_path, "a.index")
    assert found.keys() == {str(id) for id in IDS}
    assert all(np.array_equal(found[str(id)], XB[row]) for row, id in enumerate(IDS))


@pytest.mark.parametrize(
    "factory",
    ["SQ8", "PQ4np", "IVF4,PQ4np", "IVF4,SQ8", "PQ4x4fs", "IVF4,RaBitQ", "PCA8,IVF4,Flat", "OPQ4,PQ4np"],
)
def test_codes_give_what_faiss_gives(docs: LocalCollection, tmp_path: Path, factory: str) -> None:
    index = _made(factory)
    wanted = faiss.clone_index(index)
    ivf = faiss.try_extract_index_ivf(wanted)
    if ivf is not None:
        ivf.make_direct_map()
    found = _loaded(docs, index, tmp_path)
    assert all(np.allclose(found[str(row)], wanted.reconstruct(row), atol=1e-5) for row in range(N))


def test_a_search_answers_as_the_index_did(docs: LocalCollection, tmp_path: Path) -> None:
    index = _made("IVF4,Flat", IDS)
    faiss.extract_index_ivf(index).nprobe = 4
    _loaded(docs, index, tmp_path)
    distances, ids = index.search(XB[:5] + 0.1, 10)
    found = docs.search(XB[:5] + 0.1, 10)
    assert found.ids == ids.astype(str).tolist()
    assert np.allclose(found.distances, distances, rtol=1e-4)


def test_metadata_comes_from_a_rows_file_and_ids_from_the_index(
    docs: LocalCollection, tmp_path: Path
) -> None:
    faiss.write_index(_made("IDMap,Flat", IDS), str(tmp_path / "a.faiss"))
    (tmp_path / "a.faiss.rows.jsonl").write_text("".join(f'{{"row": {row}}}\n' for row in range(N)))
    docs.load_file(tmp_path / "a.faiss")
    assert docs.get([str(IDS[7])])[0].metadata == {"row": 7}


def test_an_interrupted_load_goes_on_in_the_same_order(docs: LocalCollection, tmp_path: Path) -> None:
    index = _made("IVF4,Flat", IDS)
    faiss.write_index(index, str(tmp_path / "a.faiss"))
    faiss.write_index(index, str(tmp_path / "b.faiss"))
    from faissbase.collection.transfer import Source

    one, two = (Source(tmp_path / name, batch_rows=64).reader(D) for name in ("a.faiss", "b.faiss"))
    whole = [id for batch in one.batches() for id in batch.ids or []]
    rest = [id for batch in two.batches(skip_rows=130) for id in batch.ids or []]
    assert whole[130:] == rest


def _damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _on_disk(path: Path) -> None:
    index = _made("IVF4,Flat")
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(path.with_name("lists.bin")))
    index.replace_invlists(lists, False)
    faiss.write_index(index, str(path))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_damaged, "cannot read vectors from"),
        (lambda path: faiss.write_index(_made("ITQ,LSH"), str(path)), "reverse transform not implemented"),
        (
            lambda path: faiss.write_index(_made("IDMap,Flat", np.zeros(N, np.int64)), str(path)),
            "different ids",
        ),
        (lambda path: faiss.write_index(_made("IVF4,Flat", IDS // 2), str(path)), "different ids"),
        (_on_disk, "names another file"),
        (
            lambda path: faiss.write_index(_made("IVF4,PQ4x4fs"), str(path)),
            "IndexIVFPQFastScan does not give",
        ),
        (
            lambda path: faiss.write_index(_made("IVF4,RaBitQfs"), str(path)),
            "IndexIVFRaBitQFastScan does not",
        ),
        (lambda path: path.write_bytes(b"no index"), "cannot read vectors from"),
        (lambda path: faiss.write_index(faiss.IndexFlatL2(D + 1), str(path)), f"d={D + 1}"),
        (
            lambda path: faiss.write_index_binary(faiss.IndexBinaryFlat(64), str(path)),
            "cannot read vectors from",
        ),
    ],
)
def test_what_has_no_vectors_to_give_is_refused(
    docs: LocalCollection, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "a.faiss"
    faiss.write_index(_made("Flat"), str(path))
    spoil(path)
    with pytest.raises(InvalidInputError, match=reason):
        docs.load_file(path)
    assert len(docs) == 0


def test_a_file_that_is_not_there_is_not_found(docs: LocalCollection, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.faiss"):
        docs.load_file(tmp_path / "gone.faiss")


def test_the_command_makes_a_collection_of_an_index(tmp_path: Path) -> None:
    faiss.write_index(_made("Flat"), str(tmp_path / "a.faiss"))
    words = ["load", str(tmp_path / "a.faiss"), "docs", "--metric", "l2", "--data", str(tmp_path / "db")]
    assert main([*words[:3], *words[5:]]) == 2  # by which metric it is compared is not guessed
    assert main([*words, "--quiet"]) == 0
    with faissbase.connect(tmp_path / "db", read_only=True) as db:
        assert (db.get_collection("docs").dimension, len(db.get_collection("docs"))) == (D, N)

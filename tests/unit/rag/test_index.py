"""DocumentIndex: what is stored follows the folder, and is found; on a folder and on a server alike."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.rag.pdfs import pdf_of

import faissbase
from faissbase.embedding import HashedEmbedder
from faissbase.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from faissbase.rag import Document, DocumentIndex, load_documents
from faissbase.rag.writing import chunk_id
from faissbase.types import Float32

FACTS = ["Cats sleep all day.", "Rain falls from clouds.", "Bread needs flour and yeast."]


class Counting:
    """An embedder that keeps the texts it was given, and fails when told to."""

    def __init__(self, name: str = "counting", dimension: int = 256) -> None:
        self._inner = HashedEmbedder(dimension)
        self.name = name
        self.dimension = dimension
        self.texts: list[str] = []
        self.fails_after: int | None = None

    def embed(self, texts: Sequence[str]) -> Float32:
        if self.fails_after is not None and len(self.texts) + len(texts) > self.fails_after:
            raise UnavailableError("the model does not answer")
        self.texts += texts
        return self._inner.embed(texts)


@pytest.fixture
def embedder() -> Counting:
    return Counting()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three kinds of files."""
    root = tmp_path / "handbook"
    (root / "deep").mkdir(parents=True)
    (root / "pets.txt").write_text(FACTS[0])
    (root / "deep" / "weather.md").write_text(f"# Weather\n\n## Rain\n\n{FACTS[1]}\n")
    (root / "kitchen.pdf").write_bytes(pdf_of(["Nothing here.", FACTS[2]]))
    return root


def test_a_folder_is_indexed_and_found_with_where_it_is_from(
    db: Any, embedder: Counting, folder: Path
) -> None:
    index = DocumentIndex(db, "docs", embedder, chunk_chars=60, overlap_chars=0)
    report = index.add_folder(folder)
    assert report.added == ["handbook/kitchen.pdf", "handbook/pets.txt", "handbook/deep/weather.md"]
    assert (report.skipped, report.n_reused) == ({}, 0)
    assert report.n_embedded == len(index) == len(embedder.texts)
    [hit] = index.search("what falls from the clouds?", k=1)
    assert FACTS[1] in str(hit.document)
    assert hit.metadata["source"] == "handbook/deep/weather.md"
    assert hit.metadata["headings"][0] == "Weather"
    [hit] = index.search("flour and yeast for bread", k=1)
    assert (hit.metadata["source"], hit.metadata["page"]) == ("handbook/kitchen.pdf", 2)
    assert index.sources() == sorted(report.added)


def test_only_what_has_changed_is_embedded_again(db: Any, embedder: Counting, folder: Path) -> None:
    index = DocumentIndex(db, "docs", embedder, chunk_chars=60, overlap_chars=0)
    (folder / "long.txt").write_text("\n\n".join(f"Paragraph {i} is about the number {i}." for i in range(9)))
    index.add_folder(folder)
    n_before = len(index)
    embedder.texts.clear()
    report = index.add_folder(folder)
    assert (len(report.unchanged), embedder.texts, report.changed) == (4, [], [])
    text = (folder / "long.txt").read_text().replace("number 4", "letter x")
    (folder / "long.txt").write_text(text)
    (folder / "pets.txt").unlink()
    (folder / "new.md").write_text("# New\n\nBrand new.")
    report = index.add_folder(folder)
    assert (report.changed, report.removed) == (["handbook/long.txt"], ["handbook/pets.txt"])
    assert report.added == ["handbook/new.md"]
    assert embedder.texts == ["Paragraph 4 is about the letter x.", "New\n\n# New\n\nBrand new."]
    assert (report.n_embedded, report.n_reused) == (2, 8)
    assert len(index) == n_before
    assert not [hit for hit in index.search("cats sleep", k=20) if FACTS[0] in str(hit.document)]
    [hit] = index.search("paragraph about the letter x", k=1)
    assert hit.document == "Paragraph 4 is about the letter x."
    [hit] = index.search("paragraph about the number 7", k=1)
    assert hit.document == "Paragraph 7 is about the number 7."


def test_a_document_that_shrinks_grows_or_empties_leaves_nothing_behind(db: Any, embedder: Counting) -> None:
    index = DocumentIndex(db, "docs", embedder, chunk_chars=40, overlap_chars=0)
    for n in (5, 2, 7, 0, 3, 1):
        text = "\n\n".join(f"Part {i} of {n} parts in all, round {n}." for i in range(n))
        index.add_documents([Document(text, "a"), Document("Something else.", "b")])
        found = {hit.document for hit in index.search("part of parts", k=50)}
        wanted = {f"Part {i} of {n} parts in all, round {n}." for i in range(n)} | {"Something else."}
        assert found == wanted
        assert len(index) == n + 1


def test_a_filter_a_threshold_and_mmr_narrow_what_comes_back(db: Any, embedder: Counting) -> None:
    index = DocumentIndex(db, "docs", embedder)
    index.add_documents(
        [Document(FACTS[0], f"cat{i}", metadata={"lang": "en", "n": i}) for i in range(4)]
        + [Document("Cats sleep, dogs run in the park.", "dogs", metadata={"lang": "de"})]
    )
    assert {hit.metadata["source"] for hit in index.search("cats", where={"lang": "de"})} == {"dogs"}
    assert [hit.metadata["n"] for hit in index.search("cats", where={"n": {"$gte": 3}})] == [3]
    hits = index.search("Cats sleep all day.", k=5)
    assert hits[0].score > 0.99
    least = (hits[0].score + hits[-1].score) / 2
    assert len(index.search("Cats sleep all day.", k=5, score_threshold=least)) == 4
    diverse = index.mmr_search("Cats sleep all day.", k=2, fetch_k=5, lambda_mult=0.3)
    assert [hit.metadata["source"][:3] for hit in diverse] == ["cat", "dog"]
    assert index.mmr_search("cats", k=3, where={"lang": "fr"}) == []
    assert index.hybrid_search("dogs park", k=1)[0].metadata["source"] == "dogs"
    with pytest.raises(InvalidInputError, match="text must be a string, got int"):
        index.search(7)  # type: ignore[arg-type]


def test_files_that_cannot_be_read_are_told_and_what_was_stored_of_them_stays(
    db: Any, embedder: Counting, folder: Path
) -> None:
    index = DocumentIndex(db, "docs", embedder)
    index.add_folder(folder)
    (folder / "pets.txt").write_bytes(b"caf\xe9")
    (folder / "kitchen.pdf").write_bytes(b"%PDF-1.4 broken")
    (folder / "link.md").symlink_to(folder / "pets.txt")
    (folder / "empty.txt").write_text("")
    report = index.add_folder(folder)
    unread = ("pets.txt", "kitchen.pdf", "link.md", "empty.txt")
    assert set(report.skipped) == {f"handbook/{name}" for name in unread}
    assert "not utf-8" in report.skipped["handbook/pets.txt"]
    assert report.skipped["handbook/empty.txt"] == "holds nothing but blanks"
    assert report.added == []
    assert report.removed == []
    assert index.search("cats sleep", k=1)[0].document == FACTS[0]


def test_a_label_stands_for_one_folder(db: Any, embedder: Counting, folder: Path, tmp_path: Path) -> None:
    index = DocumentIndex(db, "docs", embedder)
    index.add_folder(folder)
    other = tmp_path / "other" / "handbook"
    other.mkdir(parents=True)
    (other / "more.txt").write_text("More to read.")
    with pytest.raises(ConflictError, match=r"'handbook' stands for .*/handbook in index 'docs', not for"):
        index.add_folder(other)
    assert len(index.sources()) == 3
    assert index.add_folder(other, label="more").added == ["more/more.txt"]
    assert len(index.sources()) == 4
    moved = folder.rename(tmp_path / "moved")
    report = index.add_folder(moved, label="handbook")
    assert (len(report.unchanged), report.added, report.removed) == (3, [], [])
    with pytest.raises(NotFoundError, match="no folder at"):
        index.add_folder(folder)


def test_documents_are_deleted_by_source(db: Any, embedder: Counting) -> None:
    index = DocumentIndex(db, "docs", embedder, chunk_chars=30, overlap_chars=0)
    index.add_documents([Document("One. " * 30, "a"), Document("Two.", "b")])
    assert index.delete_documents(["a", "a", "none"]) == 1
    assert index.sources() == ["b"]
    assert len(index) == 1
    assert index.delete_documents("b") == 1
    assert len(index) == 0


def test_another_embedder_is_refused_by_name_and_by_dimension(db: Any, embedder: Counting) -> None:
    DocumentIndex(db, "docs", embedder).add_documents(Document(FACTS[0], "a"))
    with pytest.raises(
        ConflictError, match=r"version '1' of index 'docs' was embedded by 'counting' \(d=256\)"
    ):
        DocumentIndex(db, "docs", Counting("other"))
    with pytest.raises(ConflictError, match="d=64"):
        DocumentIndex(db, "docs", Counting(dimension=64))
    assert len(DocumentIndex(db, "docs", Counting())) == 1


def test_versions_are_made_filled_switched_and_deleted(db: Any, embedder: Counting) -> None:
    index = DocumentIndex(db, "docs", embedder)
    index.add_documents(Document("Old text.", "a"))
    better = Counting("better", 128)
    second = index.create_version("2024", embedder=better, chunk_chars=30, overlap_chars=0)
    assert [(each.version, each.embedder, each.dimension) for each in index.list_versions()] == [
        ("1", "counting", 256),
        ("2024", "better", 128),
    ]
    second.add_documents(Document("New text. And more of it, in two chunks.", "a"))
    assert [hit.document for hit in index.search("text")] == ["Old text."]  # as before
    reader = DocumentIndex(db, "docs", embedder)
    with pytest.raises(ConflictError, match="version '1' of index 'docs' answers: switch to another first"):
        index.delete_version("1")
    index.switch_version("2024")
    assert DocumentIndex(db, "docs", better).version == "2024"
    with pytest.raises(ConflictError, match="was embedded by 'better'"):
        reader.search("text")
    assert len(DocumentIndex(db, "docs", embedder, version="1").search("text")) == 1
    second.delete_version("1")
    assert [each.version for each in second.list_versions()] == ["2024"]
    assert "docs.version.1" not in db.list_collections()
    with pytest.raises(NotFoundError, match="index 'docs' has no version '1'; there are: 2024"):
        DocumentIndex(db, "docs", embedder, version="1")
    with pytest.raises(NotFoundError, match="has no version 'x'"):
        second.switch_version("x")
    with pytest.raises(AlreadyExistsError, match="has a version '2024' already"):
        second.create_version("2024")


def test_a_switch_is_seen_by_an_index_that_is_open_elsewhere(db: Any, embedder: Counting) -> None:
    writer, reader = DocumentIndex(db, "docs", embedder), DocumentIndex(db, "docs", embedder)
    writer.add_documents(Document("First version.", "a"))
    assert reader.search("version")[0].document == "First version."
    writer.create_version("2").add_documents(Document("Second version.", "a"))
    assert reader.search("version")[0].document == "First version."
    writer.switch_version("2")
    assert reader.search("version")[0].document == "Second version."
    writer.delete_version("1")
    writer.create_version("1").add_documents(Document("First again.", "a"))
    writer.switch_version("1")
    assert reader.search("version")[0].document == "First again."
    assert writer.version == reader.version == "1"


def test_versions_are_listed_in_the_order_they_were_made(db: Any, embedder: Counting) -> None:
    index = DocumentIndex(db, "docs", embedder)
    for version in ("z", "y", "x"):
        index.create_version(version)
    index.switch_version("y")
    for version in ("1", "z"):
        index.delete_version(version)
    index.create_version("a")
    index.create_version("1")
    assert [each.version for each in index.list_versions()] == ["y", "x", "a", "1"]


def test_many_who_make_an_index_at_once_make_one(db: Any, embedder: Counting) -> None:
    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(lambda _: DocumentIndex(db, "docs", embedder), range(6)))
    assert {index.version for index in made} == {"1"}
    assert [each.version for each in made[0].list_versions()] == ["1"]
    made[0].add_documents(Document(FACTS[0], "a"))
    assert {index.search("cats")[0].document for index in made} == {FACTS[0]}


def test_a_version_that_cannot_be_made_leaves_none(db: Any, embedder: Counting) -> None:
    index = DocumentIndex(db, "docs", embedder)
    for bad in ({"index_type": "Nonsense"}, {"metric": "l7"}, {"chunk_chars": 0}):
        with pytest.raises(InvalidInputError):
            index.create_version("2", **bad)
    with pytest.raises(InvalidInputError, match="collection name"):
        index.create_version("a/b")
    assert [each.version for each in index.list_versions()] == ["1"]
    index.create_version("2", metric="ip", index_type="HNSW")
    assert index.list_versions()[1].metric == "ip"


def test_an_index_that_cannot_be_made_leaves_none(db: Any, embedder: Counting) -> None:
    for bad in ({"metric": "l7"}, {"index_type": "Nonsense"}):
        with pytest.raises(InvalidInputError):
            DocumentIndex(db, "docs", embedder, **bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="name must be a string"):
        DocumentIndex(db, "", embedder)
    index = DocumentIndex(db, "docs", embedder)
    assert (index.version, len(index)) == ("1", 0)


def test_an_embedder_that_fails_midway_is_gone_on_from_later(
    db: Any, embedder: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faissbase.rag.writing._BATCH_CHUNKS", 10)
    index = DocumentIndex(db, "docs", embedder)
    documents = [Document(f"Document number {i}.", f"d{i}") for i in range(40)]
    embedder.fails_after = 25
    with pytest.raises(UnavailableError, match="does not answer"):
        index.add_documents(documents)
    assert len(index) == 20
    embedder.fails_after = None
    report = index.add_documents(documents)
    assert (len(report.unchanged), len(report.added), report.n_embedded) == (20, 20, 20)
    assert len(index) == 40


def test_bad_documents_are_refused_before_anything_is_stored(db: Any, embedder: Counting) -> None:
    index = DocumentIndex(db, "docs", embedder)
    with pytest.raises(InvalidInputError, match="source 'a' is repeated within one call"):
        index.add_documents([Document("x", "a"), Document("y", "a")])
    with pytest.raises(InvalidInputError, match="expected documents, got str"):
        index.add_documents(["text"])  # type: ignore[list-item]
    with pytest.raises(InvalidInputError, match="documents must be a list, got NoneType"):
        index.add_documents(None)  # type: ignore[arg-type]
    assert len(index) == 0


def test_sources_of_any_length_and_texts_with_any_letters_are_stored(db: Any, embedder: Counting) -> None:
    index = DocumentIndex(db, "docs", embedder)
    documents = [
        Document("A path that is very long.", "p/" * 2000 + "a.md"),
        Document("zero \x00 byte, emoji 🐈, right to left שלום", "日本/é #1?.md"),
        Document("Line\u2028separator", "a#0"),
    ]
    assert len(index.add_documents(documents).added) == 3
    assert len(index.add_documents(documents).unchanged) == 3
    assert {hit.document for hit in index.search("path", k=9)} == {each.text for each in documents}
    assert index.delete_documents([each.source for each in documents]) == 3
    assert len(index) == 0


def test_a_write_that_ended_halfway_is_put_right_by_the_next(db: Any, embedder: Counting) -> None:
    """What a client leaves on a server that is killed between two pieces of a batch."""
    index = DocumentIndex(db, "docs", embedder, chunk_chars=40, overlap_chars=0)
    long = Document("\n\n".join(f"Part {i} of a long document, old." for i in range(6)), "a")
    index.add_documents([long, Document("Another.", "b")])
    chunks = db.get_collection("docs.version.1")
    vector = np.ones((1, 256), np.float32)
    # New chunks beyond the end that no first one tells of, and one of a document never told of.
    orphans = [("a", 6), ("c", 1)]
    for source, position in orphans:
        metadata = {"source": source, "chunk": position, "n_chunks": 9, "text_hash": "x"}
        chunks.upsert([chunk_id(source, position)], vector, [metadata], ["left behind"])
    chunks.delete([chunk_id("a", 3)])  # of the old ones, one was deleted already
    chunks.update([chunk_id("a", 0)], metadatas=[{"document_hash": ""}])
    report = index.add_documents(long)
    assert report.changed == ["a"]
    assert (report.n_embedded, report.n_reused) == (1, 5)
    found = {hit.document for hit in index.search("left behind", k=20)}
    assert found == {f"Part {i} of a long document, old." for i in range(6)} | {"Another."}


def test_a_deletion_of_a_version_that_was_not_finished_is_finished_on_opening(
    db: Any, embedder: Counting
) -> None:
    index = DocumentIndex(db, "docs", embedder)
    index.create_version("2")
    db.get_collection("docs.versions").update(["version:2"], metadatas=[{"is_going": True}])
    assert [each.version for each in index.list_versions()] == ["1"]
    reopened = DocumentIndex(db, "docs", embedder)
    assert "docs.version.2" not in db.list_collections()
    assert len(reopened.create_version("2")) == 0


def test_a_version_written_down_but_not_made_is_made_when_it_is_used(db: Any, embedder: Counting) -> None:
    index = DocumentIndex(db, "docs", embedder)
    index.create_version("2")
    db.delete_collection("docs.version.2")
    again = DocumentIndex(db, "docs", embedder, version="2")
    again.add_documents(Document(FACTS[0], "a"))
    assert len(again) == 1


def test_a_damaged_list_of_versions_is_told(db: Any, embedder: Counting) -> None:
    DocumentIndex(db, "docs", embedder)
    db.get_collection("docs.versions").update(["current"], metadatas=[{"metric": 5}])
    with pytest.raises(CorruptionError, match="'current' of index 'docs' is not a version"):
        DocumentIndex(db, "docs", embedder)


def test_an_index_is_there_after_reopening_and_may_be_read_only(tmp_path: Path, embedder: Counting) -> None:
    with faissbase.connect(tmp_path / "db") as db:
        DocumentIndex(db, "docs", embedder).add_documents(Document(FACTS[0], "a"))
    with faissbase.connect(tmp_path / "db", read_only=True) as db:
        index = DocumentIndex(db, "docs", embedder)
        assert index.search("cats")[0].document == FACTS[0]
        assert repr(index) == "<DocumentIndex 'docs', version '1': 1 chunks>"
        with pytest.raises(faissbase.AccessError):
            index.add_documents(Document(FACTS[1], "b"))


_KILLED = """
import sys
from faissbase.embedding import HashedEmbedder
from faissbase.rag import Document, DocumentIndex, load_documents
import faissbase, faissbase.rag.writing as writing
writing._BATCH_CHUNKS = 3
db = faissbase.connect(sys.argv[1])
index = DocumentIndex(db, "docs", HashedEmbedder(128), chunk_chars=40, overlap_chars=0)
print("open", flush=True)
for turn in range(10_000):
    n = 1 + turn % 4
    index.add_documents([
        Document("\\n\\n".join(f"Part {i} of {n}, turn {turn}, document {d}." for i in range(n)), f"d{d}")
        for d in range(5)
    ])
    print(turn, flush=True)
"""


def test_killed_while_documents_are_replaced_each_is_of_one_turn(tmp_path: Path) -> None:
    for round in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(tmp_path / f"db{round}")], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(4 + round):
                assert child.stdout.readline()
            child.kill()
        with faissbase.connect(tmp_path / f"db{round}") as db:
            index = DocumentIndex(db, "docs", HashedEmbedder(128), chunk_chars=40, overlap_chars=0)
            index.add_documents([Document("Untouched.", "other")])  # puts right what was left
            stored = db.get_collection("docs.version.1").get(where={"source": {"$ne": "other"}})
            _check_whole([(record.metadata, str(record.document)) for record in stored])
            assert len(index) == len(stored) + 1
            documents = [Document(f"Last text of {d}.", f"d{d}") for d in range(5)]
            index.add_documents(documents)
            assert {hit.document for hit in index.search("text", k=50)} == {
                "Untouched.",
                *(document.text for document in documents),
            }


def _check_whole(records: list[tuple[dict[str, Any], str]]) -> None:
    """Every document that says it is whole is of one turn, and has all its chunks."""
    for source in {metadata["source"] for metadata, _ in records}:
        mine = {m["chunk"]: (m, text) for m, text in records if m["source"] == source}
        first, text = mine[0]
        if first["document_hash"]:
            turn = text.split("turn ")[1].split(",")[0]
            assert sorted(mine) == list(range(first["n_chunks"]))
            assert all(f"turn {turn}," in text for _, text in mine.values())


@pytest.mark.parametrize("is_changed", ["replaced", "in place"])
def test_what_was_changed_after_it_was_made_is_stored_as_it_is_now(
    db: Any, embedder: Counting, folder: Path, is_changed: str
) -> None:
    index = DocumentIndex(db, "docs", embedder)
    loaded = load_documents(folder / "pets.txt")[0]
    index.add_documents(loaded)
    if is_changed == "replaced":
        loaded = replace(loaded, text=FACTS[2], metadata={"team": "kitchen"})
    else:
        loaded.metadata["team"] = "kitchen"
    assert index.add_documents(loaded).changed == ["pets.txt"]
    hits = index.search("cats or bread", k=5, where={"team": "kitchen"})
    assert [hit.document for hit in hits] == [loaded.text]


@pytest.mark.parametrize("n_done", [0, 1])
def test_a_removal_that_ended_halfway_is_not_taken_for_the_document(
    db: Any, embedder: Counting, monkeypatch: pytest.MonkeyPatch, n_done: int
) -> None:
    index = DocumentIndex(db, "docs", embedder, chunk_chars=40, overlap_chars=0)
    long = Document("\n\n".join(f"Part {i} of a long document." for i in range(6)), "a")
    index.add_documents(long)
    with monkeypatch.context() as patch:
        _fail_after(patch, index, n_done)
        with pytest.raises(UnavailableError):
            index.delete_documents("a")
    index.add_documents(long)
    found = {hit.document for hit in index.search("part of a document", k=20)}
    assert found == {f"Part {i} of a long document." for i in range(6)}
    assert index.delete_documents("a") == 1
    assert len(index) == 0


def test_more_chunks_than_a_server_takes_at_once_are_replaced_and_removed(
    db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = DocumentIndex(db, "docs", HashedEmbedder(64), chunk_chars=5, overlap_chars=0)
    text = "\n\n".join(f"{i:05d}" for i in range(2_100))
    index.add_documents(Document(text, "a"))
    sizes = _sizes_of_calls(monkeypatch, index)
    assert index.add_documents(Document(f"{text}\n\nlast", "a")).n_embedded == 1
    index.add_documents([Document("one", "a"), *(Document("more", f"b{i}") for i in range(1_100))])
    assert len(index) == 1_101
    assert index.delete_documents(index.sources()) == 1_101
    assert len(index) == 0
    assert max(sizes) == 1_000


def _sizes_of_calls(patch: pytest.MonkeyPatch, index: DocumentIndex) -> list[int]:
    """How many ids each call to the index's collection has, from now on."""
    collection, sizes = index._open(), list[int]()

    def counted(call: Any) -> Any:
        def called(ids: Any = None, *args: Any, **more: Any) -> Any:
            sizes.append(len(ids))
            return call(ids, *args, **more)

        return called

    for name in ("update", "delete", "get"):
        patch.setattr(collection, name, counted(getattr(collection, name)))
    return sizes


def _fail_after(patch: pytest.MonkeyPatch, index: DocumentIndex, n_done: int) -> None:
    """Have the index's collection fail at its next write but ``n_done``."""
    collection = index._open()
    writes = iter(range(n_done))

    def failing(write: Any) -> Any:
        def called(*args: Any, **more: Any) -> Any:
            if next(writes, None) is None:
                raise UnavailableError("the server does not answer")
            return write(*args, **more)

        return called

    for name in ("update", "delete"):
        patch.setattr(collection, name, failing(getattr(collection, name)))

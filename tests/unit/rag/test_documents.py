"""Files of a folder become documents, whatever is in it; what cannot says which file it is, and why."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.unit.rag.pdfs import pdf_of

from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.rag import Document, load_documents, split
from faissbase.rag.documents import File, files_in, parse_document
from faissbase.rag.headings import Outline

ROOT = Path(__file__).parents[3]


def by_source(documents: list[Document]) -> dict[str, Document]:
    return {document.source: document for document in documents}


def test_a_folder_is_read_by_kind_with_paths_as_sources(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain é")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "b.md").write_text("# Title")
    (tmp_path / "deep" / "er" / "C.PDF").write_bytes(pdf_of(["one", "two"]))
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.md").write_text("hidden")
    (tmp_path / ".hidden.md").write_text("hidden")
    found = by_source(load_documents(tmp_path))
    assert list(found) == ["a.txt", "deep/b.md", "deep/er/C.PDF"]
    assert [each.kind for each in found.values()] == ["text", "markdown", "pdf"]
    assert found["a.txt"].text == "plain é"
    assert found["deep/er/C.PDF"].text == "one\n\ntwo"
    assert found["deep/er/C.PDF"].page_starts == (0, 5)
    [alone] = load_documents(tmp_path / "deep" / "b.md")
    assert (alone.source, alone.text) == ("b.md", "# Title")


def test_this_repository_s_own_pages_are_cut_within_size_and_at_their_places() -> None:
    documents = load_documents(ROOT / "docs")
    assert len(documents) >= 10
    for chars, overlap in ((1200, 150), (300, 0), (80, 20)):
        chunks = split(documents, chunk_chars=chars, overlap_chars=overlap)
        for chunk in chunks:
            assert 0 < len(chunk.text) <= chars
            assert chunk.document.text[chunk.start : chunk.end] == chunk.text
        for document in documents:
            mine = [chunk for chunk in chunks if chunk.source == document.source]
            assert [chunk.position for chunk in mine] == list(range(len(mine)))
            assert {chunk.n_chunks for chunk in mine} == {len(mine)}


def test_nothing_but_blanks_is_lost_between_chunks() -> None:
    for document in load_documents(ROOT / "docs"):
        end = 0
        for chunk in split(document, chunk_chars=500, overlap_chars=0):
            assert not document.text[end : chunk.start].strip()
            end = chunk.end
        assert not document.text[end:].strip()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("bom é".encode("utf-8-sig"), "bom é"),
        ("sixteen é".encode("utf-16"), "sixteen é"),
        ("big é".encode("utf-16-be"), None),
        ("thirty-two é".encode("utf-32"), "thirty-two é"),
        (b"", ""),
        (b"\r\nlines\r\n", "\r\nlines\r\n"),
    ],
)
def test_text_is_read_by_its_byte_order_mark_or_as_utf_8(
    data: bytes, text: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    if text is None:
        with pytest.raises(InvalidInputError, match=r"a\.txt"):
            load_documents(path)
    else:
        assert load_documents(path)[0].text == text


def test_another_encoding_is_told_with_the_byte_and_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes("naïve café".encode("cp1252"))
    (tmp_path / "good.md").write_text("fine")
    with pytest.raises(InvalidInputError, match=r"old\.txt: not utf-8, byte 0xef at 2: say its encoding"):
        load_documents(tmp_path)
    assert [each.source for each in load_documents(tmp_path, skip_unreadable=True)] == ["good.md"]
    assert load_documents(tmp_path, encoding="cp1252")[1].text == "naïve café"
    with pytest.raises(InvalidInputError, match="encoding 'klingon' is not known"):
        load_documents(tmp_path, encoding="klingon")
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01text")
    with pytest.raises(InvalidInputError, match="holds zero bytes, so it is no text"):
        load_documents(tmp_path / "binary.txt")


def test_links_and_pipes_and_loops_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "real.md").write_text("real")
    (folder / "link.md").symlink_to(secret)
    (folder / "dangling.md").symlink_to(tmp_path / "none")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    problems = {file.source: file.problem for file in files_in(folder)}
    assert problems == {
        "dangling.md": "a symbolic link, which is not followed",
        "link.md": "a symbolic link, which is not followed",
        "pipe.txt": "not a regular file",
        "real.md": None,
    }
    with pytest.raises(InvalidInputError, match="symbolic link"):
        load_documents(folder)
    assert [each.text for each in load_documents(folder, skip_unreadable=True)] == ["real"]
    (tmp_path / "way").symlink_to(folder)
    assert len(load_documents(tmp_path / "way", skip_unreadable=True)) == 1


def test_names_that_are_no_text_and_files_too_large_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.md"))).write_text("x")
    except OSError:
        pytest.skip("this file system takes no such names")
    [file] = files_in(tmp_path)
    assert file.problem == "its name is not valid text"
    monkeypatch.setattr("faissbase.rag.documents.MAX_FILE_BYTES", 10)
    (tmp_path / "large.txt").write_text("more than ten")
    problems = [file.problem for file in files_in(tmp_path)]
    assert "13 bytes, at most 10 are read" in problems


def test_what_is_not_there_or_of_no_known_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no file or folder at"):
        load_documents(tmp_path / "none")
    (tmp_path / "a.docx").write_text("")
    with pytest.raises(InvalidInputError, match=r"is of no known kind: \.txt"):
        load_documents(tmp_path / "a.docx")


@pytest.mark.parametrize("compressed", [True, False])
def test_a_pdf_has_pages_and_chunks_know_theirs(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "manual.pdf"
    pages = [f"This is page {n}. " + "All of it is about cats. " * 12 for n in range(1, 5)]
    path.write_bytes(pdf_of(pages, compressed=compressed))
    [document] = load_documents(path)
    assert len(document.page_starts) == 4
    chunks = split(document, chunk_chars=200, overlap_chars=0)
    assert [chunk.page for chunk in chunks if chunk.text.startswith("This is page")] == [1, 2, 3, 4]
    assert all(chunk.metadata["page"] == chunk.page for chunk in chunks)
    short = Document("one\n\ntwo", "short.pdf", "pdf", page_starts=(0, 5))
    assert [(chunk.text, chunk.page) for chunk in split(short)] == [("one", 1), ("two", 2)]


def test_a_pdf_of_another_program_is_read(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("pdf")
    figure = pyplot.figure()
    figure.text(0.1, 0.5, "Nearest neighbours of everything")
    figure.savefig(tmp_path / "figure.pdf")
    [document] = load_documents(tmp_path)
    assert "Nearest neighbours of everything" in document.text


def test_pdfs_without_text_encrypted_or_damaged_are_told_and_end_nothing(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter()
    writer.add_blank_page(200, 200)
    writer.write(str(tmp_path / "scan.pdf"))
    with pytest.raises(InvalidInputError, match=r"scan\.pdf: 1 pages without text, scanned perhaps"):
        load_documents(tmp_path / "scan.pdf")
    locked = pypdf.PdfWriter(clone_from=pypdf.PdfReader(BytesIO(pdf_of(["secret"]))))
    locked.encrypt("password", algorithm="RC4-128")
    locked.write(str(tmp_path / "locked.pdf"))
    with pytest.raises(InvalidInputError, match="encrypted, its password is needed"):
        load_documents(tmp_path / "locked.pdf")
    (tmp_path / "empty.pdf").write_bytes(b"")
    (tmp_path / "text.pdf").write_text("this is no PDF")
    for name in ("empty.pdf", "text.pdf"):
        with pytest.raises(InvalidInputError, match=f"{name}: not a PDF that can be read"):
            load_documents(tmp_path / name)


def test_a_pdf_damaged_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    whole = pdf_of(["The first page.", "The second page."])
    rng = np.random.default_rng(3)
    n_read = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 6)):
            damaged[at] = rng.integers(0, 256)
        cut = bytes(damaged[: rng.integers(1, len(whole) + 1)]) if rng.random() < 0.3 else bytes(damaged)
        try:
            n_read += bool(parse_document(File(tmp_path / "a.pdf", "a.pdf"), cut).text)
        except InvalidInputError:
            continue
    assert n_read > 20


def test_headings_are_those_of_commonmark() -> None:
    text = (
        "---\ntitle: x\n# not a heading\n---\n"
        "# One #\ntext\n\n## Two `code` [link](there) ##\n```python\n# a comment\n```\n"
        "~~~\n## not\n~~~\nSet by\n======\n####### seven\n#hash\n    # code\n\nUnder\n-----\n- item\n---\n"
        "### my_name *bold*\n"
    )
    outline = Outline(text)
    found = [(heading.level, heading.title) for heading in outline.headings]
    assert found == [(1, "One"), (2, "Two code link"), (1, "Set by"), (2, "Under"), (3, "my_name bold")]
    assert outline.at(text.index("a comment")) == ("One", "Two code link")
    assert outline.at(0) == ()
    assert outline.at(len(text)) == ("Set by", "Under", "my_name bold")


def test_chunks_know_their_headings_and_are_embedded_under_them() -> None:
    text = "# Guide\n\nHello.\n\n## Install\n\n" + "Take the wheel and put it in. " * 8
    text += "\n\n## Remove\n\nThrow it away."
    chunks = split(Document(text, "guide.md", "markdown"), chunk_chars=120, overlap_chars=0)
    last = chunks[-1]
    assert last.headings == ("Guide", "Remove")
    assert last.embedded_text == "Guide > Remove\n\n" + last.text
    assert last.metadata == {
        "source": "guide.md",
        "kind": "markdown",
        "chunk": len(chunks) - 1,
        "n_chunks": len(chunks),
        "start": last.start,
        "end": last.end,
        "headings": ["Guide", "Remove"],
    }
    plain = split(Document("# not a heading here", "a", metadata={"lang": "en"}))[0]
    assert plain.headings == ()
    assert plain.metadata["lang"] == "en"


def test_overlap_repeats_the_end_of_the_chunk_before() -> None:
    text = " ".join(f"Sentence number {i} is here." for i in range(60))
    chunks = split(Document(text, "a"), chunk_chars=200, overlap_chars=60)
    shared = [before.end - after.start for before, after in pairwise(chunks)]
    assert all(0 < each <= 60 for each in shared)


@pytest.mark.parametrize("line", ["word " * 200_000, "x" * 300_000, "漢字" * 50_000])
@pytest.mark.parametrize("kind", ["text", "markdown"])
def test_a_line_without_end_takes_seconds_and_loses_nothing(line: str, kind: str) -> None:
    text = f"# Begin\n\nshort\n{line}\n\n# End\n\nlast words"
    begin = time.process_time()
    chunks = split(Document(text, "a", kind), overlap_chars=0)  # type: ignore[arg-type]  # a literal
    assert time.process_time() - begin < 30
    joined = "".join(chunk.text for chunk in chunks)
    assert joined.replace(" ", "").replace("\n", "") == text.replace(" ", "").replace("\n", "")
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    if kind == "markdown":
        assert chunks[-1].headings == ("End",)


def test_many_headings_take_seconds() -> None:
    outline = Outline("".join(f"# {i}\n\n## below {i}\n\n" for i in range(20_000)))
    places = [heading.start for heading in outline.headings]
    begin = time.process_time()
    paths = [outline.at(place) for place in places]
    assert time.process_time() - begin < 5
    assert paths[0] == ("0",)
    assert paths[-1] == ("19999", "below 19999")


def test_empty_documents_have_no_chunks() -> None:
    for text in ("", " \n\t\n", "\ufeff".strip("\ufeff")):
        assert split([Document(text, "a"), Document(text, "b", "markdown")]) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Document("x", ""), "a document needs a text and a source"),
        (lambda: Document(b"x", "a"), "a document needs a text and a source"),  # type: ignore[arg-type]
        (lambda: Document("x", "a", "html"), "kind must be 'text'"),  # type: ignore[arg-type]
        (lambda: Document("x", "a", metadata={"page": 3}), "metadata of 'a' have 'page'"),
        (lambda: Document("x", "a", metadata={"a": {1}}), "document 'a' cannot be stored"),
        (lambda: Document("\ud800", "a"), "document 'a' cannot be stored"),
        (lambda: split(Document("x", "a"), chunk_chars=0), "chunk_chars must be a whole number of 1 or more"),
        (
            lambda: split(Document("x", "a"), chunk_chars=10, overlap_chars=10),
            r"from 0 to chunk_chars - 1 \(9\)",
        ),
        (lambda: split(Document("x", "a"), overlap_chars=-1), "got -1"),
        (lambda: Document("x", "a", metadata=None), "must be a dict, got None"),  # type: ignore[arg-type]
        (lambda: Document("x", "a\ud800"), "cannot be stored"),
    ],
)
def test_bad_arguments_are_told_with_their_value(make: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()  # type: ignore[operator]


def test_hashes_tell_every_difference() -> None:
    hashes = {
        Document("a", "s").content_hash,
        Document("b", "s").content_hash,
        Document("a", "s", "markdown").content_hash,
        Document("a", "s", metadata={"x": 1}).content_hash,
        Document("a", "s", page_starts=(0,)).content_hash,
    }
    assert len(hashes) == 5
    assert Document("a", "s").content_hash == Document("a", "other").content_hash


def test_without_the_extra_the_package_imports_and_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_of(["x"]))
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('semantic_text_splitter', 'pypdf', 'httpx', 'sqlalchemy'):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from faissbase.errors import NotReadyError
from faissbase.rag import Document, FAISSVectorStore, load_documents, split
store = FAISSVectorStore(2)
store.add([[1, 2]])
for call in (lambda: split(Document('x', 'a')), lambda: load_documents(sys.argv[1])):
    try:
        call()
    except NotReadyError as error:
        print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.count('pip install "faissbase[rag]"') == 2

"""Files as documents: text, Markdown and PDF, read from a folder. Knows files, neither chunks nor vectors."""

from __future__ import annotations

import codecs
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import orjson

from faissbase.errors import InvalidInputError, NotFoundError, NotReadyError
from faissbase.storage.files import os_errors

Kind = Literal["text", "markdown", "pdf"]

KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".pdf": "pdf",
}
RESERVED = frozenset(
    {"source", "folder", "kind", "chunk", "n_chunks", "start", "end", "headings", "page"}
    | {"document_hash", "text_hash"}
)
"""Fields of metadata that chunks have of their own."""
MAX_FILE_BYTES = 64 << 20

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PAGE_BREAK = "\n\n"
# What a damaged PDF raises within pypdf, beside its own errors.
_PDF_ERRORS = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    AssertionError,
    NotImplementedError,
    OSError,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Document:
    """A text and where it is from.

    Attributes
    ----------
    text : str
    source : str
        Its name: documents of one index are told apart by it.
    kind : {"text", "markdown", "pdf"}
        How it is cut into chunks.
    metadata : dict
        Whatever is to come along with each chunk.
    page_starts : tuple of int
        Where in ``text`` each page begins; empty where there are no pages.
    content_hash : str
        Of all that chunks are made from, as it is now.
    """

    text: str
    source: str
    kind: Kind = "text"
    metadata: dict[str, Any] = field(default_factory=dict)
    page_starts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not isinstance(self.source, str) or not self.source:
            raise InvalidInputError("a document needs a text and a source, both strings")
        if self.kind not in KINDS.values():
            raise InvalidInputError(f"kind must be 'text', 'markdown' or 'pdf', got {self.kind!r}")
        if not isinstance(self.metadata, dict):
            raise InvalidInputError(f"metadata of {self.source!r} must be a dict, got {self.metadata!r}")
        taken = sorted(RESERVED & self.metadata.keys())
        if taken:
            raise InvalidInputError(
                f"metadata of {self.source!r} have {taken[0]!r}, which chunks set themselves"
            )
        _ = self.content_hash

    @property
    def content_hash(self) -> str:
        try:
            self.source.encode()
            metadata = orjson.dumps(self.metadata, option=orjson.OPT_SORT_KEYS)
            text = self.text.encode()
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidInputError(f"document {self.source!r} cannot be stored: {error}") from error
        return content_hash(self.kind.encode(), text, metadata, repr(self.page_starts).encode())


def content_hash(*pieces: bytes) -> str:
    """A hash of the pieces, which tells (b"a", b"bc") from (b"ab", b"c")."""
    digest = blake2b(digest_size=16)
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class File:
    """A file of a folder: ``source`` is its path from there, ``problem`` why it cannot be taken, if so."""

    path: Path
    source: str
    problem: str | None = None


def files_in(folder: Path) -> Iterator[File]:
    """Every file of a known kind below ``folder``, in the order of their names.

    Hidden files and folders are passed over. Symbolic links are not followed: they may lead anywhere.
    """
    with os_errors(f"cannot list {folder}"):
        for parent, folders, names in os.walk(folder, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(parent) / name
                if not name.startswith(".") and path.suffix.lower() in KINDS:
                    yield File(path, path.relative_to(folder).as_posix(), _problem(path))


def _raise(error: OSError) -> None:
    raise error


def _problem(path: Path) -> str | None:
    try:
        str(path).encode()
        status = path.lstat()
    except UnicodeEncodeError:
        return "its name is not valid text"
    except OSError as error:
        return error.strerror
    if stat.S_ISLNK(status.st_mode):
        return "a symbolic link, which is not followed"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size > MAX_FILE_BYTES:
        return f"{status.st_size:,} bytes, at most {MAX_FILE_BYTES:,} are read"
    return None


def load_documents(
    path: str | os.PathLike[str], *, encoding: str = "utf-8", skip_unreadable: bool = False
) -> list[Document]:
    """The document in a file, or those in a folder and all below it.

    Parameters
    ----------
    path : path
        ``.txt``, ``.rst``, ``.md``, ``.markdown`` and ``.pdf`` are read. In a folder, other files and hidden
        ones are passed over.
    encoding : str
        Of text without a byte order mark.
    skip_unreadable : bool
        Leave out files of a folder that cannot be read, instead of an error.

    Returns
    -------
    list of Document
        ``source`` is the path from the folder, or the file's name.

    Raises
    ------
    NotFoundError
        Nothing there.
    InvalidInputError
        A file that cannot be read as what it is: says which and why.
    NotReadyError
        pypdf is not installed and there is a PDF (``pip install "faissbase[rag]"``).
    """
    root = Path(path)
    if not root.exists():
        raise NotFoundError(f"no file or folder at {root}")
    if not root.is_dir():
        if root.suffix.lower() not in KINDS:
            raise InvalidInputError(f"{root} is of no known kind: {', '.join(KINDS)}")
        return [read_document(File(root, root.name, _problem(root.resolve())), encoding)]
    documents = []
    for file in files_in(root):
        try:
            documents.append(read_document(file, encoding))
        except InvalidInputError:
            if not skip_unreadable:
                raise
    return documents


def read_document(file: File, encoding: str = "utf-8") -> Document:
    """The document in a file; `InvalidInputError` says which file and why it is none."""
    return parse_document(file, read_bytes(file), encoding)


def read_bytes(file: File) -> bytes:
    """What is in a file that can be taken."""
    if file.problem is not None:
        raise InvalidInputError(f"{file.path}: {file.problem}")
    try:
        return file.path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{file.path}: {error.strerror}") from error


def file_hash(file: File, data: bytes, encoding: str = "utf-8") -> str:
    """A hash of what the document of a file is made from, without reading it as one."""
    kind = KINDS[file.path.suffix.lower()]
    return content_hash(kind.encode(), b"" if kind == "pdf" else encoding.encode(), data)


def parse_document(file: File, data: bytes, encoding: str = "utf-8") -> Document:
    """The document that a file's bytes are."""
    kind = KINDS[file.path.suffix.lower()]
    if kind == "pdf":
        pages = _pdf_pages(file, data)
        starts, at = [], 0
        for page in pages:
            starts.append(at)
            at += len(page) + len(_PAGE_BREAK)
        return Document(_PAGE_BREAK.join(pages), file.source, kind, {}, tuple(starts))
    return Document(_decoded(file, data, encoding), file.source, kind)


def _decoded(file: File, data: bytes, encoding: str) -> str:
    marked = next((name for mark, name in _BOMS if data.startswith(mark)), None)
    if marked is None and b"\0" in data and encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        raise InvalidInputError(f"{file.path}: holds zero bytes, so it is no text")
    try:
        return data.decode(marked or encoding)
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{file.path}: not {marked or encoding}, byte 0x{data[error.start]:02x} at {error.start:,}: "
            "say its encoding, encoding='cp1252' for instance"
        ) from error
    except LookupError as error:
        raise InvalidInputError(f"encoding {encoding!r} is not known") from error


def _pdf_pages(file: File, data: bytes) -> list[str]:
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise NotReadyError('PDF files are read by pypdf: pip install "faissbase[rag]"') from error
    try:
        reader = pypdf.PdfReader(BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InvalidInputError(f"{file.path}: encrypted, its password is needed")
        pages = [_storable(page.extract_text()) for page in reader.pages]
    except InvalidInputError:
        raise
    except (PyPdfError, *_PDF_ERRORS) as error:
        raise InvalidInputError(f"{file.path}: not a PDF that can be read: {error}") from error
    if not any(page.strip() for page in pages):
        raise InvalidInputError(f"{file.path}: {len(pages)} pages without text, scanned perhaps")
    return pages


def _storable(text: str) -> str:
    """Text of a PDF without what UTF-8 cannot hold: fonts may name half a character."""
    return text.encode("utf-8", "replace").decode()

"""Questions to a folder of Markdown, text and PDF files, answered with the passages that speak of them.

    pip install "faissbase[rag]"
    python examples/rag_markdown.py docs "How do I run the server with TLS?"
    python examples/rag_markdown.py docs --data ./rag-data --watch 5

Runs offline: without ``--model``, texts are embedded by hashed words, which find what shares words with the
question and know nothing of meaning. With ``--url`` and ``--model``, an OpenAI-compatible server embeds
(OpenAI, Ollama, vLLM, TEI), which finds more.

The first run embeds the folder. Later ones embed only what has changed, and forget what was removed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import faissbase
from faissbase.embedding import Embedder, HashedEmbedder, OpenAIEmbedder
from faissbase.rag import DocumentIndex

PROMPT = """Answer the question from the passages alone, and name their numbers.

{passages}

Question: {question}
"""


def main() -> None:
    """Bring the index up to date, then answer."""
    parser = argparse.ArgumentParser(description="Questions to a folder of documents.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("question", nargs="?", help="without one, they are read from the terminal")
    parser.add_argument("--data", default="./rag-data", help="a folder for the index, or https://host:port")
    parser.add_argument(
        "--url", help="of an OpenAI-compatible server, http://localhost:11434/v1 for instance"
    )
    parser.add_argument("--model", help="the model that embeds there")
    parser.add_argument("-k", type=int, default=3, help="passages for each question")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="follow the folder instead of asking")
    given = parser.parse_args()

    with faissbase.connect(given.data) as db:
        index = DocumentIndex(db, "handbook", _embedder(given.url, given.model))
        _update(index, given.folder)
        while given.watch:
            time.sleep(given.watch)
            _update(index, given.folder)
        if given.question:
            _answer(index, given.question, given.k)
        else:
            while question := input("\n? "):
                _answer(index, question, given.k)


def _embedder(url: str | None, model: str | None) -> Embedder:
    return OpenAIEmbedder(model, base_url=url) if model else HashedEmbedder()


def _update(index: DocumentIndex, folder: Path) -> None:
    report = index.add_folder(folder)
    for what in ("added", "changed", "removed"):
        for source in getattr(report, what):
            print(f"{what}: {source}")
    for source, reason in report.skipped.items():
        print(f"skipped: {source}: {reason}")
    print(f"{len(index)} passages of {len(index.sources())} documents, {report.n_embedded} embedded now")


def _answer(index: DocumentIndex, question: str, k: int) -> None:
    """The prompt for a language model: the passages with where they are from, and the question."""
    hits = index.hybrid_search(question, k)
    passages = []
    for number, hit in enumerate(hits, 1):
        where = " > ".join([hit.metadata["source"], *hit.metadata.get("headings", [])])
        page = f", page {hit.metadata['page']}" if "page" in hit.metadata else ""
        passages.append(f"[{number}] {where}{page}\n{hit.document}")
    print(PROMPT.format(passages="\n\n".join(passages) or "(none)", question=question))


if __name__ == "__main__":
    main()

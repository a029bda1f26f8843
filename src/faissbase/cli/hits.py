"""Search hits as JSON and as lines that fit a terminal. Knows hits; not collections, not options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from faissbase.cli import text
from faissbase.collection.answers import Explanation
from faissbase.types import Hit, Metric

Mode = Literal["vector", "text", "hybrid"]

_INDENT = "    "
_VECTOR_NUMBERS = 6
_LONGEST_LINE = 1000


@dataclass(frozen=True, slots=True)
class Scope:
    """What was searched."""

    metric: Metric
    ntotal: int
    is_filtered: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The hits of each query, how they were found, and their vectors by id where asked for."""

    mode: Mode
    scope: Scope
    hits: list[list[Hit]]
    seconds: float
    vectors: Mapping[str, list[float]] = field(default_factory=dict)
    explanation: Explanation | None = None

    def document(self) -> dict[str, Any]:
        """One flat list of hits; ``query`` counts from 0, ``rank`` from 1."""
        document: dict[str, Any] = {
            "mode": self.mode,
            "metric": self.scope.metric,
            "ntotal": self.scope.ntotal,
            "took_ms": 1000 * self.seconds,
            "hits": [
                self._hit_document(query, rank, hit)
                for query, hits in enumerate(self.hits)
                for rank, hit in enumerate(hits, 1)
            ],
        }
        if self.explanation is not None:
            document["explain"] = {**asdict(self.explanation.plan), "times_ms": self.explanation.times_ms}
        return document

    def _hit_document(self, query: int, rank: int, hit: Hit) -> dict[str, Any]:
        document: dict[str, Any] = {"query": query, "rank": rank, "id": hit.id}
        document |= {"score": hit.score, "distance": hit.distance}
        document |= {"metadata": hit.metadata, "document": hit.document}
        if hit.id in self.vectors:
            document["vector"] = self.vectors[hit.id]
        return document

    def lines(self, fields: Sequence[str] | None, width: int | None) -> Iterator[str]:
        """A title and the hits of each query, then how the search was run."""
        for query, hits in enumerate(self.hits):
            title = f"query {query}: " if len(self.hits) > 1 else ""
            yield title + self._title(len(hits))
            yield from self._hit_lines(hits, fields, width or _LONGEST_LINE)
        if self.explanation is not None:
            yield ""
            yield str(self.explanation)

    def _title(self, n: int) -> str:
        ranked = {"text": "BM25", "hybrid": f"{self.scope.metric} and BM25 fused"}
        by = ranked.get(self.mode, self.scope.metric)
        which = "that match the filter, " if self.scope.is_filtered else ""
        took = text.duration(self.seconds)
        return f"{text.count(n, 'hit')} {which}of {self.scope.ntotal:,} records by {by}, in {took}"

    def _hit_lines(self, hits: Sequence[Hit], fields: Sequence[str] | None, width: int) -> Iterator[str]:
        if not hits:
            return
        rows = [["#", "score", "distance", "id"]]
        for rank, hit in enumerate(hits, 1):
            rows.append([str(rank), text.real(hit.score), text.real(hit.distance), text.printable(hit.id)])
        header, *lines = text.table(rows, ">>><")
        yield text.clip(header, width)
        for hit, line in zip(hits, lines, strict=True):
            yield text.clip(line, width)
            for detail in self._details(hit, fields):
                yield text.clip(_INDENT + detail, width)

    def _details(self, hit: Hit, fields: Sequence[str] | None) -> Iterator[str]:
        vector = self.vectors.get(hit.id)
        metadata = text.compact(hit.metadata, fields)
        if metadata:
            yield metadata
        if hit.document:
            yield text.first_line(hit.document)
        if vector is not None:
            shown = ", ".join(f"{value:.4g}" for value in vector[:_VECTOR_NUMBERS])
            more = ", ..." if len(vector) > _VECTOR_NUMBERS else ""
            yield f"[{shown}{more}]  d={len(vector)}"

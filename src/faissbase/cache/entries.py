"""What a semantic cache keeps: one record an entry, its vector and its value together, in a collection.

Knows records and filters: no prompts that resemble each other, no limits.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from faissbase.cache.values import Values
from faissbase.embedding import Embedder, check_same_embedder
from faissbase.errors import AlreadyExistsError, CorruptionError, InvalidInputError
from faissbase.types import Collection, Float32, Hit, Where

SETTINGS_ID = "settings"
FORMAT = 1
_PAGE = 500
_IS_ENTRY: dict[str, Any] = {"scope": {"$exists": True}}
# Longer texts are kept as documents, which may be 16 MiB; a server takes metadata of 64 KiB.
_MOST_IN_METADATA = 48 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer. ``text`` is the value as `Values` has encoded it; times are of the cache's clock."""

    key: str
    scope: str
    prompt: str
    text: str
    stored_at: float
    expires_at: float | None = None
    tags: tuple[str, ...] = ()
    tenant: str | None = None
    model: str | None = None
    seconds: float = 0.0
    size_bytes: int = 0
    uses: int = 0
    used_at: float = 0.0

    def is_alive(self, now: float) -> bool:
        return self.expires_at is None or now < self.expires_at

    @classmethod
    def of(cls, key: str, metadata: Mapping[str, Any], document: str | None) -> Entry:
        fields = {name: value for name, value in metadata.items() if name in cls.__dataclass_fields__}
        fields["tags"] = tuple(fields["tags"])
        if document is not None:
            fields["prompt"], fields["text"] = json.loads(document)
        return cls(key=key, **fields)

    @classmethod
    def of_hit(cls, hit: Hit) -> Entry:
        return cls.of(hit.id, hit.metadata, hit.document)

    def stored_form(self) -> tuple[dict[str, Any], str | None]:
        """Metadata and document of its record."""
        names = [name for name in self.__dataclass_fields__ if name != "key"]
        metadata = {name: getattr(self, name) for name in names} | {"tags": list(self.tags)}
        if 6 * len(self.prompt) + 2 * len(self.text) <= _MOST_IN_METADATA:  # as JSON at their longest
            return metadata, None
        return metadata | {"prompt": "", "text": ""}, json.dumps([self.prompt, self.text])


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries are meant: those that match every field that is set, and any of the tags."""

    key: str | None = None
    scope: str | None = None
    tenant: str | None = None
    model: str | None = None
    tags: tuple[str, ...] = field(default=())

    def matches(self, facts: Entry) -> bool:
        wanted = ((name, getattr(self, name)) for name in ("key", "scope", "tenant", "model"))
        is_meant = all(value is None or getattr(facts, name) == value for name, value in wanted)
        return is_meant and (not self.tags or any(tag in facts.tags for tag in self.tags))

    def where(self) -> dict[str, Any]:
        """The same as a filter; the key, which is an id, is left out."""
        wanted: list[dict[str, Any]] = [
            {name: value}
            for name in ("scope", "tenant", "model")
            if (value := getattr(self, name)) is not None
        ]
        if self.tags:
            wanted.append({"$or": [{"tags": {"$contains": tag}} for tag in self.tags]})
        return {"$and": [_IS_ENTRY, *wanted]}


class Entries:
    """The entries of one collection, whose embedder is stored with them and checked. Thread-safe."""

    def __init__(self, collection: Collection, values: Values, embedder: Embedder) -> None:
        self._collection = collection
        self._values = values
        self._axis = np.eye(1, collection.dimension, dtype=np.float32)
        self._check_settings(embedder)

    def _check_settings(self, embedder: Embedder) -> None:
        told = {"format": FORMAT, "embedder": embedder.name, "dimension": embedder.dimension}
        if not self._collection.get([SETTINGS_ID]):
            with suppress(AlreadyExistsError):  # another process was faster: what it says counts
                self._collection.add([SETTINGS_ID], self._axis, [told])
        settings = self.settings()
        if settings.get("format") != FORMAT:
            raise CorruptionError(
                f"the cache is of format {settings.get('format')!r}, this version knows {FORMAT}"
            )
        stored = (settings["embedder"], settings["dimension"])
        check_same_embedder(stored, embedder, f"the cache {self._collection.name!r}")

    def settings(self) -> dict[str, Any]:
        """What was stored about the cache itself."""
        [record] = self._collection.get([SETTINGS_ID])
        return record.metadata

    def keep_setting(self, name: str, value: Any) -> None:
        self._collection.update([SETTINGS_ID], [{name: value}])

    def __len__(self) -> int:
        return max(0, self._collection.ntotal - 1)

    def find(self, key: str) -> Entry | None:
        """The entry of that key, expired or not."""
        records = self._collection.get([key])
        return Entry.of(key, records[0].metadata, records[0].document) if records else None

    def nearest(self, vector: Float32, k: int, where: Where | None) -> list[Hit]:
        """The k nearest entries that match; `Entry.of_hit` reads one."""
        hits: list[Hit] = self._collection.search(vector, k, where)
        return hits

    def writing(self) -> AbstractContextManager[Any]:
        """Held from the encoding of a value until its entry is put; writes that begin meanwhile wait."""
        return self._values.writing()

    def encode(self, value: Any) -> str:
        """The value's text; coroutines and iterators are refused, which only the first to be served reads."""
        if isinstance(value, Awaitable | Iterator | AsyncIterator):
            raise InvalidInputError(
                f"a {type(value).__qualname__} can be read only once: await it with aget_or_compute, share "
                "it with stream or astream, or store what it gives as a list"
            )
        return self._values.encode(value)

    def decode(self, entry: Entry) -> Any:
        """The value, or `KeyError` where the entry was removed meanwhile."""
        return self._values.decode(entry.text)

    def size_bytes(self, value: Any, prompt: str, text: str) -> int:
        """What an entry costs: value, prompt and vector."""
        vector_bytes = 4 * self._collection.dimension
        return self._values.size_bytes(value, text) + len(prompt.encode()) + vector_bytes

    def forget(self, entry: Entry) -> None:
        """This encoded value will not be stored."""
        self._values.forget([entry.text])

    def put(self, entry: Entry, vector: Float32) -> None:
        """Store an entry, in the place of the one of its key; its text is forgotten where that fails."""
        metadata, document = entry.stored_form()
        with self._values.writing():
            previous = self._texts([entry.key])
            try:
                self._collection.upsert([entry.key], vector.reshape(1, -1), [metadata], [document])
            except BaseException:
                self._values.forget([entry.text])
                raise
            self._values.forget(previous)

    def remove(self, keys: list[str]) -> int:
        """Remove entries, vectors and values together; how many there were."""
        if not keys:
            return 0
        with self._values.writing():
            texts = self._texts(keys)
            n_removed = self._collection.delete(keys)
            self._values.forget(texts)
        return n_removed

    def remove_where(self, where: Where) -> tuple[int, list[str]]:
        """Remove the entries that match: how many there were, and the keys seen just before."""
        with self._values.writing():
            entries = list(self.all(where))
            n_removed = self._collection.delete(where=where) if entries else 0
            self._values.forget(entry.text for entry in entries)
        return n_removed, [entry.key for entry in entries]

    def clear(self) -> None:
        """Remove all; their room comes back as that of all deleted records does.

        Not by `reset`, which would leave a moment without settings: a process that is killed in it, or opens
        the cache in it, would go on without the threshold that was calibrated.
        """
        with self._values.writing():
            self._collection.delete(where=_IS_ENTRY)
            self._values.forget_all()

    def note_uses(self, uses: Mapping[str, tuple[int, float]]) -> None:
        """Store how often and when last entries were used; those that are gone are passed over."""
        keys = list(uses)
        for first in range(0, len(keys), _PAGE):
            there = [record.id for record in self._collection.get(keys[first : first + _PAGE])]
            told = [{"uses": uses[key][0], "used_at": uses[key][1]} for key in there]
            if there:
                self._collection.update(there, told)

    def all(self, where: Where | None = None) -> Iterator[Entry]:
        """Every entry, oldest write first."""
        wanted = where or _IS_ENTRY
        cursor = None
        while True:
            page = self._collection.scroll(wanted, limit=_PAGE, cursor=cursor)
            for record in page.records:
                yield Entry.of(record.id, record.metadata, record.document)
            cursor = page.cursor
            if cursor is None:
                return

    def _texts(self, keys: Iterable[str]) -> list[str]:
        """The values of these keys, where they have to be forgotten with their records."""
        if not self._values.is_local:
            return []
        records = self._collection.get(list(keys))
        return [Entry.of(record.id, record.metadata, record.document).text for record in records]

"""The asynchronous twin of `remote`: the same operations, awaited. `AsyncDatabase` is made by `aconnect`.

What an operation sends and how an answer is read is written once, in `calls`.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from httpx import USE_CLIENT_DEFAULT

from faissbase.client import calls, files
from faissbase.client.calls import Facts
from faissbase.client.exchange import (
    LINES,
    Exchange,
    Forms,
    Heard,
    NotTaken,
    Steps,
    T,
    answer_of,
    is_worth_trying_again,
    wait_s,
)
from faissbase.client.settings import Address, client_options, long_timeout
from faissbase.collection.answers import Explanation
from faissbase.collection.care import OptimizeReport
from faissbase.collection.recall import RecallReport
from faissbase.collection.stats import Stats
from faissbase.collection.telling import Told
from faissbase.collection.transfer import LoadReport, Source
from faissbase.database.backup import new_backup
from faissbase.errors import AlreadyExistsError, NotFoundError, NotReadyError, UnavailableError
from faissbase.sharded.reports import ShardedExplanation, ShardedOptimizeReport, ShardedStats
from faissbase.sharing import EachProcess
from faissbase.types import Hit, Metric, OpenHere, Page, Record, RepairReport, VerifyReport, Where


class AsyncConnection:
    """A pool of connections to one server, of one event loop."""

    def __init__(self, address: Address) -> None:
        self.url = address.url
        self.forms = Forms()
        self._http = EachProcess(lambda: httpx.AsyncClient(**client_options(address)))
        self._long = long_timeout(address)
        self._chance = random.Random()

    async def run(self, steps: Steps[T]) -> T:
        """Drive an operation to its end."""
        try:
            exchange = next(steps)
            while True:
                try:
                    answer = await self._answer(exchange)
                except NotTaken as error:
                    exchange = steps.throw(error)
                else:
                    exchange = steps.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found

    async def _answer(self, exchange: Exchange) -> Any:
        tried, content, told = 0, exchange.content(), b""
        while True:
            status, media, retry_after, failure = None, None, None, None
            try:
                status, media, retry_after, told = await self._asked(exchange, content)
            except httpx.HTTPError as error:
                failure = error
            except RuntimeError as error:  # httpx, once it is closed
                raise NotReadyError("the database is closed: aconnect() again") from error
            is_going_on = exchange.is_long and isinstance(failure, httpx.ReadTimeout)
            if is_going_on or not is_worth_trying_again(status, told, tried):
                break
            await asyncio.sleep(wait_s(tried, retry_after=retry_after, chance=self._chance))
            tried += 1
        if status is None:
            raise UnavailableError(f"{self.url} does not answer: {failure}") from failure
        return answer_of(status, told, media)

    async def _asked(
        self, exchange: Exchange, content: bytes | None
    ) -> tuple[int, str | None, str | None, bytes]:
        """Status, media type, when to try again, and content of the answer to a request."""
        async with self._http.own().stream(
            exchange.method,
            exchange.path,
            content=content,
            headers=exchange.headers(),
            timeout=self._long if exchange.is_long else USE_CLIENT_DEFAULT,
        ) as response:
            media, retry_after = response.headers.get("content-type"), response.headers.get("retry-after")
            if exchange.told is None or media != LINES:
                return response.status_code, media, retry_after, await response.aread()
            heard = Heard(exchange.told)
            async for line in response.aiter_lines():
                heard.hear(line)
            return heard.status, None, None, heard.content

    async def backup(self, exchange: Exchange, path: Path) -> None:
        """Write the backup that answers a request to ``path``, whole or not at all."""
        request = self._http.own().stream(
            exchange.method, exchange.path, content=exchange.content(), timeout=self._long
        )
        with new_backup(path) as out:
            try:
                async with request as response:
                    if response.status_code != 200:
                        answer_of(response.status_code, await response.aread())
                    async for piece in response.aiter_raw():
                        await asyncio.to_thread(out.write, piece)
            except httpx.HTTPError as error:
                raise UnavailableError(f"{self.url} does not answer: {error}") from error
            except RuntimeError as error:  # httpx, once it is closed
                raise NotReadyError("the database is closed: aconnect() again") from error

    async def close(self) -> None:
        await self._http.own().aclose()


class AsyncDatabase(OpenHere):
    """The collections of one tenant of a server; use it with ``async with``, or `close` it."""

    def __init__(self, address: Address) -> None:
        self._connection = AsyncConnection(address)
        self.url = address.url

    def __repr__(self) -> str:
        return f"<faissbase database at {self.url}>"

    async def __aenter__(self) -> AsyncDatabase:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def create_collection(
        self, name: str, dimension: int, metric: Metric = "cosine", index_type: str = "auto"
    ) -> AsyncCollection:
        """Make an empty collection; see `Database.create_collection`."""
        return self._collection(await self._connection.run(calls.create(name, dimension, metric, index_type)))

    async def get_collection(self, name: str) -> AsyncCollection:
        """The collection of that name, or `NotFoundError`."""
        return self._collection(await self._connection.run(calls.describe(name)))

    async def get_or_create_collection(
        self, name: str, dimension: int, metric: Metric = "cosine", index_type: str = "auto"
    ) -> AsyncCollection:
        """The collection of that name, made where there is none; `ConflictError` where it is another kind."""
        try:
            found = await self._connection.run(calls.describe(name))
        except NotFoundError:
            try:
                return await self.create_collection(name, dimension, metric, index_type)
            except AlreadyExistsError:  # somebody else was faster
                found = await self._connection.run(calls.describe(name))
        return self._collection(calls.check_same(found, dimension, metric, index_type))

    async def list_collections(self) -> list[str]:
        """The names there are, sorted."""
        return await self._connection.run(calls.names())

    async def delete_collection(self, name: str) -> None:
        """Delete a collection and all it holds. `NotFoundError` where there is none."""
        await self._connection.run(calls.delete_index(name))

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """Write all collections of this tenant to one file; see `RemoteDatabase.backup`."""
        await self._connection.backup(calls.backup(), Path(path))

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    def _collection(self, facts: Facts) -> AsyncCollection:
        return AsyncCollection(self._connection, facts)


class AsyncCollection(OpenHere):
    """A collection that a server holds; the methods are those of a collection in a folder."""

    def __init__(self, connection: AsyncConnection, facts: Facts) -> None:
        self._connection = connection
        self._facts = facts

    def __repr__(self) -> str:
        facts = self._facts
        return f"<collection {facts.name!r}: d={facts.dimension}, {facts.metric}, {facts.index_type}>"

    @property
    def name(self) -> str:
        return self._facts.name

    @property
    def dimension(self) -> int:
        return self._facts.dimension

    @property
    def metric(self) -> Metric:
        return self._facts.metric

    @property
    def index_type(self) -> str:
        return self._facts.index_type

    async def ntotal(self) -> int:
        """The number of records, under FAISS's name."""
        return await self._connection.run(calls.ntotal(self._facts))

    async def add(
        self, ids: Any, vectors: Any, metadatas: Any = None, documents: Any = None, *, progress: bool = False
    ) -> int:
        """Store new records; more than 1,000 travel in pieces, each stored whole or not at all."""
        return await self._connection.run(
            calls.put(
                self._facts,
                self._connection.forms,
                ids,
                vectors,
                metadatas,
                documents,
                mode="add",
                progress=progress,
            )
        )

    async def upsert(
        self, ids: Any, vectors: Any, metadatas: Any = None, documents: Any = None, *, progress: bool = False
    ) -> int:
        """Store records, replacing those whose ids exist; in pieces, as `add`."""
        return await self._connection.run(
            calls.put(
                self._facts,
                self._connection.forms,
                ids,
                vectors,
                metadatas,
                documents,
                mode="upsert",
                progress=progress,
            )
        )

    async def update(
        self,
        ids: Any,
        metadatas: Any = None,
        documents: Any = None,
        vectors: Any = None,
        *,
        replace: bool = False,
    ) -> int:
        """Change parts of stored records, all or none, and return how many."""
        steps = calls.update(self._facts, ids, metadatas, documents, vectors, replace=replace)
        return await self._connection.run(steps)

    async def get(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        limit: int | None = None,
        include_vectors: bool = False,
    ) -> list[Record]:
        """Records by ids, in their order, or by filter, oldest first; many come page by page."""
        return await self._connection.run(
            calls.get(self._facts, ids, where, limit, include_vectors=include_vectors)
        )

    async def scroll(
        self,
        where: Where | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
        include_vectors: bool = False,
    ) -> Page:
        """One page of matching records; pass ``page.cursor`` on for the next."""
        return await self._connection.run(
            calls.scroll(self._facts, where, limit, cursor, include_vectors=include_vectors)
        )

    async def delete(self, ids: Any = None, *, where: Where | None = None) -> int:
        """Delete records by ids, 10,000 at a time, or by filter, and return how many there were."""
        return await self._connection.run(calls.delete(self._facts, ids, where))

    async def count(self, where: Where | None = None) -> int:
        """How many records match."""
        return await self._connection.run(calls.count(self._facts, where))

    async def search(
        self,
        xq: Any,
        k: int = 10,
        where: Where | None = None,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        rerank: int | None = None,
    ) -> Any:
        """The k nearest records: hits for one vector, a `SearchResult` for many."""
        knobs = {"recall": recall, "nprobe": nprobe, "ef_search": ef_search, "rerank": rerank}
        return await self._connection.run(
            calls.search(self._facts, self._connection.forms, xq, k, where, knobs)
        )

    async def range_search(self, xq: Any, radius: float, where: Where | None = None) -> Any:
        """Every matching record nearer than ``radius``."""
        return await self._connection.run(calls.range_search(self._facts, xq, radius, where))

    async def text_search(self, query: str, k: int = 10, where: Where | None = None) -> list[Hit]:
        """The k matching records whose documents rank highest for the words of ``query``."""
        return await self._connection.run(calls.text_search(self._facts, query, k, where))

    async def hybrid_search(
        self, text: str, vector: Any, k: int = 10, where: Where | None = None
    ) -> list[Hit]:
        """The k best by text and vector together, by reciprocal rank fusion of both rankings."""
        return await self._connection.run(calls.text_search(self._facts, text, k, where, vector))

    async def explain(
        self,
        xq: Any,
        k: int = 10,
        where: Where | None = None,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        rerank: int | None = None,
    ) -> Explanation | ShardedExplanation:
        """Run a search and tell how it was run."""
        knobs = {"recall": recall, "nprobe": nprobe, "ef_search": ef_search, "rerank": rerank}
        return await self._connection.run(calls.explain(self._facts, xq, k, where, knobs))

    async def reset(self) -> int:
        """Remove every record and return how many there were."""
        return await self._connection.run(calls.reset(self._facts))

    async def train(self, xt: Any = None) -> None:
        """Have a named index learn anew, from vectors given or stored, and be built."""
        await self._connection.run(calls.train(self._facts, xt))

    async def load_file(
        self,
        path: str | os.PathLike[str],
        *,
        rows: str | os.PathLike[str] | None = None,
        id_column: str = "id",
        vector_column: str = "vector",
        document_column: str = "document",
        batch_rows: int | None = None,
        restart: bool = False,
        progress: bool = False,
    ) -> LoadReport:
        """Upsert every record of a file, in constant memory; the file is read here.

        Interrupted, it begins again at the first row, whatever ``restart`` says, and replaces what is stored
        already by itself. The parameters are those of `LocalCollection.load_file`.
        """
        rows_path = None if rows is None else Path(rows)
        source = Source(Path(path), rows_path, id_column, vector_column, document_column, batch_rows)
        steps = files.load(self._facts, self._connection.forms, source, progress=progress)
        return await self._connection.run(steps)

    async def export(
        self, path: str | os.PathLike[str], where: Where | None = None, *, progress: bool = False
    ) -> int:
        """Write the matching records to a file that `load_file` reads; how many. It is written here.

        Page by page: what others write meanwhile may be in it or not.
        """
        return await self._connection.run(files.export(self._facts, Path(path), where, progress=progress))

    async def optimize(
        self, *, wait: bool = True, progress: bool | Told = False
    ) -> OptimizeReport | ShardedOptimizeReport:
        """Compact, and build the index to the end; with ``wait=False`` in the background, there.

        ``progress`` shows a bar, or is called with the phase of the work, how much of it is done, and of how
        much; the server tells twice a second.
        """
        return await self._connection.run(calls.optimize(self._facts, wait, progress))

    async def stats(self) -> Stats | ShardedStats:
        """Sizes and debts of this collection; ``path`` is its address."""
        return await self._connection.run(calls.stats(self._facts, self._connection.url))

    async def recall_report(self, *, budget_s: float = 5.0) -> RecallReport:
        """Have recent questions asked again, exactly, and the effort fitted to them, there.

        ``budget_s`` is the processor time to spend, at most 60 s; see `LocalCollection.recall_report`.
        """
        return await self._connection.run(calls.recall_report(self._facts, budget_s))

    async def verify(self) -> VerifyReport:
        """Have every byte read, and what is damaged told."""
        return await self._connection.run(calls.verify(self._facts))

    async def repair(self) -> RepairReport:
        """Have what is damaged made whole out of what is sound; it takes a key with the scope ``admin``.

        The index answers nobody meanwhile. ``quarantine_path`` is told from the server's data folder.
        """
        return await self._connection.run(calls.repair(self._facts))

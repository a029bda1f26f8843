"""What the server needs of a database, and the two kinds there are: folders, and shards in object storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.collection.recall import RecallReport
from faissbase.collection.stats import Served
from faissbase.collection.store import Config
from faissbase.collection.telling import Told
from faissbase.database.database import DEFAULT_TENANT, Database
from faissbase.database.placements import Places
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.database import REFRESH_S, ShardedDatabase
from faissbase.sharded.places import ShardPlaces
from faissbase.storage.totals import Totals
from faissbase.types import Collection, Durability, Metric, Placement, VerifyReport, Where


class ServedCollection(Collection, Protocol):
    """What routes ask of a collection beyond what the application layers do."""

    def first_within(self, xq: Any, radius: float, where: Where | None, k: int | None) -> Any: ...
    def explain(
        self,
        xq: Any,
        k: int = 10,
        where: Where | None = None,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        rerank: int | None = None,
    ) -> Any: ...
    def is_by_graph(
        self,
        nq: int,
        k: int,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        rerank: int | None = None,
    ) -> bool: ...
    def train(self, xt: Any = None) -> None: ...
    def optimize(self, *, wait: bool = True, progress: bool | Told = False) -> Any: ...
    def stats(self) -> Any: ...
    def verify(self) -> VerifyReport: ...
    def recall_report(self, *, budget_s: float = 5.0) -> RecallReport: ...


class ServedDatabase(Protocol):
    """The collections of one tenant."""

    def create_collection(
        self, name: str, dimension: int, metric: Metric = "cosine", index_type: str = "auto"
    ) -> Any: ...
    def list_collections(self) -> Sequence[str]: ...
    def describe(self, name_or_id: str) -> Config: ...
    def describe_all(self) -> Sequence[Config]: ...
    def placement(self, config: Config) -> Placement: ...
    def open(self, config: Config) -> Any: ...
    def totals(self, config: Config, *, is_fresh: bool = False) -> Totals: ...
    def served(self, config: Config) -> Served | None:
        """What is open of a collection; None where nothing is."""
        ...

    def oldest_s(self) -> float | None:
        """For how long news of what is served from elsewhere may have been missed; None where nothing is."""
        ...

    def count_stored(self, config: Config, ids: list[str]) -> int: ...
    def delete_collection(self, name: str) -> None: ...
    def open_backup(self) -> IO[bytes]: ...
    def close(self) -> None: ...


OpenDatabase: TypeAlias = Callable[[str], ServedDatabase]


def folder_databases(
    folder: Path,
    *,
    durability: Durability = "full",
    memory_budget: int | None = None,
    bounds: Bounds = UNBOUNDED,
    refresh_s: float = REFRESH_S,
    cache: Path | None = None,
) -> OpenDatabase:
    """What opens the collections of a tenant in a folder.

    ``cache`` is for copies of the shards of those whose records are in object storage by now.
    """

    def places() -> Places | None:
        if cache is None:
            return None

        def at(url: str, read_only: bool) -> ShardedDatabase:
            return ShardedDatabase(
                open_bucket(url),
                cache,
                read_only=read_only,
                memory_budget=memory_budget,
                bounds=bounds,
                refresh_s=refresh_s,
            )

        return ShardPlaces(at)

    def opened(tenant: str) -> Database:
        return Database(
            folder,
            read_only=False,
            durability=durability,
            tenant=tenant,
            memory_budget=memory_budget,
            bounds=bounds,
            places=places(),
        )

    return opened


def sharded_databases(
    url: str,
    cache: Path,
    *,
    read_only: bool,
    memory_budget: int | None = None,
    bounds: Bounds = UNBOUNDED,
    refresh_s: float = REFRESH_S,
) -> OpenDatabase:
    """What opens the datasets of a tenant below a URL, each tenant's in a folder of its own."""

    def opened(tenant: str) -> ShardedDatabase:
        return ShardedDatabase(
            open_bucket(f"{url.rstrip('/')}/{tenant}"),
            cache / tenant,
            read_only=read_only,
            memory_budget=memory_budget,
            bounds=bounds,
            refresh_s=refresh_s,
        )

    return opened


def deployed_databases(
    url: str, cache: Path, *, read_only: bool, bounds: Bounds = UNBOUNDED, refresh_s: float = REFRESH_S
) -> OpenDatabase:
    """What opens the datasets that a deployment on Ray serves: each tenant has one of its own.

    That of the default tenant has the name in the URL, those of others that name, a hyphen and theirs. Joins
    the cluster at once.
    """
    from faissbase.sharded import runner  # ray costs nobody else anything

    name = runner.joined(url)

    def opened(tenant: str) -> ShardedDatabase:
        own = name if tenant == DEFAULT_TENANT else f"{name}-{tenant}"
        cluster = runner.RayCluster(own)
        return cluster.connect(cache / tenant, read_only=read_only, bounds=bounds, refresh_s=refresh_s)

    return opened

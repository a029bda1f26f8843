"""`FAISSVectorStore`: vectors with metadata in memory, saved into a folder and loaded from it.

For a store that several processes write, or that must not lose an acknowledged write, use a collection.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from faissbase.collection import inputs
from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.filters.tree import Everything, parse
from faissbase.rag import checking, saved
from faissbase.rag.diversity import diverse
from faissbase.rag.rows import Found, Rows
from faissbase.sharing import Sharing
from faissbase.types import Float32, Metric, Slots, Where

__all__ = ["FAISSVectorStore"]

_DEAD_SHARE = 0.25


class _LoadedHere:
    """`FAISSVectorStore.load`, of the class and of a store: both are written, and neither may mislead."""

    def __get__(self, store: FAISSVectorStore | None, owner: type[FAISSVectorStore]) -> _Load:
        return _Load(store, owner)


class _Load:
    """Reads a saved store: into a new one, or in the place of what the store that it is called on holds."""

    def __init__(self, store: FAISSVectorStore | None, owner: type[FAISSVectorStore]) -> None:
        self._store = store
        self._owner = owner

    def __call__(self, directory: str | os.PathLike[str], *, rebuild_index: bool = False) -> FAISSVectorStore:
        """The store that was saved into ``directory``.

        ``FAISSVectorStore.load(directory)`` makes a store. ``store.load(directory)`` has a store hold what
        was saved instead of what it holds, and returns it; dimension and metric must be its own, the index
        type is the saved one.

        Parameters
        ----------
        directory : path
        rebuild_index : bool
            Leave the file of the index aside and build it anew from the vectors: for a folder from somebody
            whom you do not trust, or one whose index file is damaged.

        Raises
        ------
        NotFoundError
            No store is saved there.
        CorruptionError
            A file is damaged, missing or not ours. Nothing is loaded.
        InvalidInputError
            ``store.load`` of another dimension or metric.
        """
        folder = Path(directory)

        def loaded(facts: saved.Facts) -> tuple[saved.Facts, Rows]:
            if self._store is not None:
                self._store._check_same(facts, folder)
            return facts, Rows.loaded(folder, facts, rebuild_index=rebuild_index)

        facts, rows = saved.consistently(folder, loaded)
        store = self._store or self._owner(facts.dimension, facts.index_type, facts.metric)
        store._hold(facts, rows)
        return store


class FAISSVectorStore:
    """Vectors with metadata, searched by FAISS. Thread-safe: many search at once.

    Parameters
    ----------
    dimension : int
        Numbers in a vector, 1 to 65,535.
    index_type : str
        ``"Flat"`` or ``"FlatL2"`` (exact), ``"IVFFlat"``, ``"HNSW"``, or whatever ``create_collection``
        takes: ``"auto"``, ``"IVF_PQ"``, a factory string such as ``"HNSW32,SQ8"``. One that has to be
        trained trains itself once there are enough vectors, and is exact until then. Small stores are
        scanned, whatever index there is: that is exact, and faster.
    metric : {"L2", "IP", "cosine"}
        L2 is the squared distance, as FAISS has it. For cosine, vectors are brought to unit length.

    Examples
    --------
    >>> store = FAISSVectorStore(dimension=3, index_type="HNSW", metric="IP")
    >>> store.add([[1, 0, 0], [0, 1, 0]], [{"text": "east"}, {"text": "north"}])
    [0, 1]
    >>> distances, indices, metadata = store.search([0.9, 0.1, 0], k=1)
    >>> indices.tolist(), metadata
    ([0], [{'text': 'east'}])
    """

    load = _LoadedHere()

    def __init__(self, dimension: int, index_type: str = "Flat", metric: str = "L2") -> None:
        self._dimension = checking.dimension(dimension)
        self._metric = checking.metric(metric)
        self._index_type = checking.text(index_type, "index_type")
        self._sharing = Sharing()  # searches together; alone whoever changes what they read
        self._changing = threading.Lock()  # one change at a time, its preparation too
        self._next_id = 0
        self._rows = Rows.none(self._dimension, self._metric, self._index_type)

    def __repr__(self) -> str:
        kind = f"d={self.dimension}, {self.metric}, {self.index_type}"
        return f"<FAISSVectorStore: {len(self)} vectors, {kind}>"

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self._dimension

    @property
    def metric(self) -> Metric:
        """``"l2"``, ``"ip"`` or ``"cosine"``."""
        return self._metric

    @property
    def index_type(self) -> str:
        """As it was asked for."""
        return self._index_type

    @property
    def index(self) -> str:
        """FAISS's factory string of the index that there is; ``"Flat"`` where there is none."""
        with self._sharing.reading():
            return self._rows.resident.spec.factory

    @property
    def is_trained(self) -> bool:
        """Whether the index asked for is there, or needs no training; until then searches are exact."""
        with self._sharing.reading():
            return self._rows.resident.is_trained

    def __len__(self) -> int:
        """How many vectors there are, without those that were deleted."""
        with self._sharing.reading():
            return self._rows.resident.n_alive

    @property
    def ntotal(self) -> int:
        """`len`, under FAISS's name."""
        return len(self)

    # ---- changing ------------------------------------------------------------------------------------

    def add(self, vectors: Any, metadata: Any = None) -> list[int]:
        """Add vectors, all or none, and return their ids, which rise and are never given again.

        Parameters
        ----------
        vectors : array_like, (n, d) or (d,)
            Lists, NumPy of any float or int type, torch, Arrow. Never changed.
        metadata : list of dict, optional
            One JSON object for each vector; dates become ISO strings.

        Raises
        ------
        InvalidInputError
            Wrong d, a number that is not finite, a zero vector with cosine, metadata that are too many, too
            few or not JSON: says which row. Nothing was stored.
        """
        stored, _, _ = inputs.stored_form(vectors, self._dimension, self._metric)
        encoded = inputs.encode_metadatas(metadata, len(stored))
        if not len(stored):
            return []
        with self._changing:
            ids = np.arange(self._next_id, self._next_id + len(stored), dtype=np.int64)
            with self._sharing.writing():
                self._rows = self._rows.extended(stored, ids, encoded)
                self._next_id += len(ids)
            self._rows.resident.tune()
        found: list[int] = ids.tolist()
        return found

    def delete(self, ids: Any = None, *, where: Where | None = None) -> int:
        """Delete by ids or by filter, and return how many there were. Unknown ids are passed over.

        Metadata go at once, and no search finds the vectors any more, whatever the index. Their memory comes
        back once a quarter of the store is deleted, with `compact`, and with `save`, which writes nothing of
        them.
        """
        if (ids is None) == (where is None):
            raise InvalidInputError("delete() needs either ids or where")
        wanted = None if ids is None else np.unique(checking.ids(ids))
        filter = parse(where)
        if where is not None and isinstance(filter, Everything):
            raise InvalidInputError("delete(where={}) would remove every vector: make a new store for that")
        with self._changing:
            rows = self._rows
            found = rows.rows_of(wanted) if wanted is not None else np.flatnonzero(rows.mask(filter))
            if len(found):
                with self._sharing.writing():
                    self._rows = rows.buried(found)
                self._compact(_DEAD_SHARE)
        return len(found)

    def compact(self) -> None:
        """Give back the memory of what was deleted; an index is built anew for that. Searches go on."""
        with self._changing:
            self._compact(0.0)

    def _compact(self, share: float) -> None:
        resident = self._rows.resident
        dead = resident.n - resident.n_alive
        if dead and dead >= share * resident.n:
            rows = self._rows.compacted()
            rows.resident.tune()
            with self._sharing.writing():
                self._rows = rows

    def train(self) -> None:
        """Build the index now, from as many vectors as there are.

        Not needed: it is built by itself once there are enough to train it well.

        Raises
        ------
        NotReadyError
            Too few for FAISS to train it at all; says how many it needs.
        """
        with self._changing:
            with self._sharing.writing():
                self._rows.resident.train()
            self._rows.resident.tune()

    # ---- searching -----------------------------------------------------------------------------------

    def search(
        self,
        query_vector: Any,
        k: int = 10,
        *,
        where: Where | None = None,
        score_threshold: float | None = None,
        recall: float = 0.95,
    ) -> Found:
        """The k nearest vectors: distances, ids and metadata, aligned, nearest first, and none missing.

        Parameters
        ----------
        query_vector : array_like, (d,) or (1, d)
        k : int
            Fewer come back only where fewer vectors match.
        where : dict, optional
            Only vectors whose metadata match: the filter language of the collections.
        score_threshold : float, optional
            Only hits whose score is at least this. The score is larger when nearer: the inner product or
            cosine itself, ``1 / (1 + distance)`` for L2.
        recall : float
            The share of the true k nearest that has to come back, in (0, 1]; 1 is an exact search.

        Returns
        -------
        distances : float32[m]
            As FAISS gives them: squared for L2 (smaller is nearer), the inner product otherwise (larger is
            nearer).
        indices : int64[m]
            The ids that `add` returned.
        metadata : list of dict
        """
        query = self._checked_query(query_vector)
        return self._search(query, k, where, score_threshold, recall)[0]

    def batch_search(
        self,
        query_vectors: Any,
        k: int = 10,
        *,
        where: Where | None = None,
        score_threshold: float | None = None,
        recall: float = 0.95,
    ) -> tuple[list[Float32], list[Slots], list[list[dict[str, Any]]]]:
        """`search` for many queries, ``(nq, d)``: three lists of nq, the i-th of each for query i."""
        queries, _ = inputs.check_queries(query_vectors, self._dimension, self._metric)
        found = self._search(queries, k, where, score_threshold, recall)
        return [one[0] for one in found], [one[1] for one in found], [one[2] for one in found]

    def mmr_search(
        self,
        query_vector: Any,
        k: int = 4,
        *,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        where: Where | None = None,
        score_threshold: float | None = None,
        recall: float = 0.95,
    ) -> Found:
        """`search` for hits that are unlike each other, by maximal marginal relevance.

        Of the ``fetch_k`` nearest, k are chosen one after the other, each near the query and unlike those
        before it, both by cosine, whatever the metric. ``lambda_mult`` is the weight of being near: 1 is the
        k of largest cosine, 0 is all difference. In the order of choosing.
        """
        query = self._checked_query(query_vector)
        k, fetch_k = inputs.check_k(k), checking.count(fetch_k, "fetch_k")
        weight = checking.share(lambda_mult, "lambda_mult")
        asked = (max(k, fetch_k), *self._checked(where, score_threshold, recall))
        with self._sharing.reading():
            rows = self._rows
            distances, ids, metadata = rows.search(query, *asked)[0]
            candidates = rows.resident.vectors[rows.rows_of(ids)]
        chosen = diverse(query[0], candidates, k, weight)
        return distances[chosen], ids[chosen], [metadata[i] for i in chosen]

    def _checked_query(self, vector: Any) -> Float32:
        query, _ = inputs.check_queries(vector, self._dimension, self._metric)
        if len(query) != 1:
            raise InvalidInputError(f"search() takes one vector, got {len(query)}: use batch_search()")
        return query

    def _checked(self, where: Where | None, threshold: float | None, recall: float) -> tuple[Any, ...]:
        least = None if threshold is None else checking.number(threshold, "score_threshold")
        return parse(where), least, inputs.check_fraction(recall, "recall")

    def _search(
        self, queries: Float32, k: int, where: Where | None, threshold: float | None, recall: float
    ) -> list[Found]:
        asked = (inputs.check_k(k, len(queries)), *self._checked(where, threshold, recall))
        with self._sharing.reading():
            return self._rows.search(queries, *asked)

    def get(self, ids: Any) -> list[dict[str, Any]]:
        """The metadata of these ids, in their order; `NotFoundError` names one that is not there."""
        wanted = checking.ids(ids)
        with self._sharing.reading():
            rows = self._rows.rows_of(wanted)
            if len(rows) != len(wanted):
                missing = set(wanted.tolist()) - set(self._rows.ids[rows].tolist())
                raise NotFoundError(f"no vector with id {min(missing)}")
            return [orjson.loads(self._rows.metadata[row]) for row in rows.tolist()]

    # ---- files ---------------------------------------------------------------------------------------

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the store into a folder, made where there is none, replacing the one saved there before.

        As a whole: killed at any moment, or with the disk full, the folder holds the store as it was or as
        it is now. What was deleted is compacted away first. Searches go on meanwhile, changes wait.

        Raises
        ------
        InvalidInputError
            ``directory`` is a file, or its ``store.json`` is not one of ours.
        UnavailableError, AccessError
            The disk is full or failed, or may not be written.
        """
        with self._changing:
            self._compact(0.0)
            rows = self._rows
            saved.write(Path(directory), rows.facts(self._index_type, self._next_id), rows.contents())

    def _check_same(self, facts: saved.Facts, folder: Path) -> None:
        for what in ("dimension", "metric"):
            has, mine = getattr(facts, what), getattr(self, what)
            if has != mine:
                raise InvalidInputError(f"the store in {folder} has {what}={has!r}, this one {mine!r}")

    def _hold(self, facts: saved.Facts, rows: Rows) -> None:
        with self._changing, self._sharing.writing():
            self._rows = rows
            self._index_type, self._next_id = facts.index_type, facts.next_id

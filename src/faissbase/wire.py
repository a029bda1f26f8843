"""What travels between client and server: the bodies of requests and answers, under ``/v1``.

Knows no HTTP and no collections. A request with a field that is not named here is refused.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from faissbase.types import Placement

Include = Literal["metadata", "document", "vector"]
Values = list[float]


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Every request may name its tenant, which must be the one of its key."""

    tenant_id: str | None = None


class Empty(Body):
    """No fields but the tenant."""


# ---- indexes -------------------------------------------------------------------------------------


class CreateIndex(Body):
    """A new, empty index."""

    name: str
    dimension: int
    index_type: str = "auto"
    metric: Literal["cosine", "l2", "ip"] = "cosine"


class IndexInfo(msgspec.Struct):
    """An index: ``id`` never changes, ``name`` is unique within its tenant; routes take both.

    ``ntotal`` is null in a list where the file that tells it is damaged, and for FAISS indexes. ``kind`` is
    "collection", or "faiss" for an index that a drop-in client has made and named. ``placement`` is where its
    records are: "folder", or "sharded" in object storage.
    """

    id: str
    name: str
    tenant_id: str
    dimension: int
    metric: str
    index_type: str
    ntotal: int | None
    kind: str = "collection"
    placement: Placement = "folder"


class IndexList(msgspec.Struct):
    indexes: list[IndexInfo]


class Deleted(msgspec.Struct):
    deleted: int


class Ntotal(msgspec.Struct):
    ntotal: int


# ---- records -------------------------------------------------------------------------------------


class RecordIn(msgspec.Struct, forbid_unknown_fields=True):
    """A record to be stored."""

    id: str
    values: Values
    metadata: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    document: str | None = None


class PutVectors(Body):
    """Records to be stored, all or none."""

    vectors: list[RecordIn]


class Stored(msgspec.Struct):
    """How many records are durable now."""

    upserted: int


class UpdateVectors(Body):
    """Parts of stored records: lists as long as ``ids``, where null leaves a part as it is.

    Metadata are merged into the stored ones, or take their place with ``replace``.
    """

    ids: list[str]
    metadatas: list[msgspec.Raw] | None = None
    documents: list[str | None] | None = None
    vectors: list[Values] | None = None
    replace: bool = False


class Updated(msgspec.Struct):
    updated: int


class Count(Body):
    """How many records match; all of them without a filter."""

    filter: dict[str, Any] | None = None


class Counted(msgspec.Struct):
    count: int


class GetVectors(Body):
    """Records by id, or by filter, page by page."""

    ids: list[str] | None = None
    filter: dict[str, Any] | None = None
    limit: int = 1000
    cursor: str | None = None
    include_vectors: bool = False


class DeleteVectors(Body):
    """Records to be deleted, by id or by filter."""

    ids: list[str] | None = None
    filter: dict[str, Any] | None = None


class RecordOut(msgspec.Struct, omit_defaults=True):
    """A stored record; ``values`` where vectors were asked for."""

    id: str
    metadata: dict[str, Any]
    document: str | None = None
    values: Values | None = None


class RecordPage(msgspec.Struct):
    """``cursor`` continues a listing; null after the last record, and where ids were asked."""

    vectors: list[RecordOut]
    cursor: str | None


# ---- searches ------------------------------------------------------------------------------------


class Search(Body):
    """The k nearest: of one ``vector``, of several ``vectors``, for words of ``text``, or of both fused."""

    vector: Values | None = None
    vectors: list[Values] | None = None
    text: str | None = None
    k: int = 10
    filter: dict[str, Any] | None = None
    recall: float | None = None
    nprobe: int | None = None
    ef_search: int | None = None
    rerank: int | None = None
    include: list[Include] = msgspec.field(default_factory=lambda: ["metadata"])
    explain: bool = False


class HitOut(msgspec.Struct):
    """A hit: ``score`` is larger when nearer, ``distance`` is as FAISS gives it."""

    id: str
    score: float
    distance: float | None
    metadata: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    document: str | msgspec.UnsetType | None = msgspec.UNSET
    values: Values | msgspec.UnsetType = msgspec.UNSET


class PlanOut(msgspec.Struct, omit_defaults=True):
    """How a search was run; see ``explain`` of a collection. ``version`` and ``shards``: of a sharded one."""

    path: str
    n_slots: int
    n_matching: int
    predicted_ms: dict[str, float]
    times_ms: dict[str, float]
    target: float
    version: int | None = None
    shards: dict[str, PlanOut] = {}


class Results(msgspec.Struct, omit_defaults=True):
    results: list[HitOut]
    explain: PlanOut | None = None


class ManyResults(msgspec.Struct, omit_defaults=True):
    """One list of hits for each vector asked."""

    results: list[list[HitOut]]
    explain: PlanOut | None = None


class SpecializedSearch(Body):
    """Other ways to ask: ``range``, ``by_id``, ``recommend``, or a ``batch`` of searches."""

    type: Literal["range", "by_id", "recommend", "batch"]
    vector: Values | None = None
    radius: float | None = None
    id: str | None = None
    positive: list[str] = []
    negative: list[str] = []
    searches: list[Search] = []
    k: int | None = None
    filter: dict[str, Any] | None = None
    recall: float | None = None
    include: list[Include] = msgspec.field(default_factory=lambda: ["metadata"])


class Batch(msgspec.Struct):
    """The answer to each search of a batch, in their order."""

    answers: list[Results]


# ---- care ----------------------------------------------------------------------------------------


class Train(Body):
    """Training vectors; without any, the stored ones are used."""

    vectors: list[Values] | None = None


class Optimize(Body):
    """``wait`` false leaves it to the background, and is answered at once."""

    wait: bool = True


class Told(msgspec.Struct):
    """How far long work is: its phase, how much of that is done, and of how much."""

    phase: str
    done: int
    total: int


class MeasureRecall(Body):
    """How long recent questions are asked again."""

    budget_s: float = 5.0


# ---- keys ----------------------------------------------------------------------------------------


class CreateKey(Body):
    """A new key of the caller's tenant."""

    scopes: list[Literal["read", "write", "admin"]]
    name: str = ""
    indexes: list[str] | None = None
    expires_in_s: float | None = None


class RotateKey(Body):
    """``grace_s``: how many seconds longer the old key is good."""

    grace_s: float = 0.0


class KeyOut(msgspec.Struct, omit_defaults=True):
    """A key without its secret; ``key``, the text to send, comes once, when it is made."""

    id: str
    tenant_id: str
    name: str
    scopes: list[str]
    state: str
    created_s: float
    indexes: list[str] | None = None
    expires_s: float | None = None
    key: str | None = None


class KeyList(msgspec.Struct):
    keys: list[KeyOut]


# ---- the server ----------------------------------------------------------------------------------


class Health(msgspec.Struct, omit_defaults=True):
    """``live``: it answers; ``ready``: it takes requests. ``no_data``: the data folder was moved or removed.

    ``age_s``: how many seconds ago object storage was asked for newer versions, of all that is served from
    there the longest.
    """

    status: Literal["ok", "stopping", "no_data"]
    live: bool
    ready: bool
    age_s: float | None = None


class Fault(msgspec.Struct):
    """What went wrong: a stable ``code`` for programs, a sentence for people, the id that is in the log."""

    code: str
    message: str
    request_id: str
    details: dict[str, Any] = {}


class FaultBody(msgspec.Struct):
    error: Fault


class ToldLine(msgspec.Struct, omit_defaults=True):
    """A line that tells how far the work is; the last has the status, and the answer or what went wrong."""

    progress: Told | None = None
    status: int | None = None
    answer: dict[str, Any] | None = None
    error: Fault | None = None

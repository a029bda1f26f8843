"""What a group takes and returns goes through pickle unchanged: it may live in another process."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

import faissbase
from faissbase.sharded.group import ShardGroup
from faissbase.sharded.merging import ShardHits, ShardResult
from faissbase.sharded.worker import METHODS, Call, Health, Reply

D = 8
KNOBS = {"recall": None, "nprobe": None, "ef_search": None, "rerank": None}


def travelled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def test_all_that_a_group_answers_travels(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((50, D), np.float32)
    with faissbase.connect((tmp_path / "bucket").as_uri(), cache=tmp_path / "cache", refresh_s=0) as db:
        docs = db.create_collection("docs", D, metric="l2")
        docs.upsert([f"i{i}" for i in range(50)], x, [{"n": i} for i in range(50)], ["some words"] * 50)
        manifest, group = docs._current
        assert isinstance(group, ShardGroup)
        where, name = {"n": {"$lt": 9}}, manifest.shards[0].name
        calls: dict[str, tuple[Any, ...]] = {
            "search_one": (x[0], 5, where, KNOBS),
            "search_many": (x, 5, where, KNOBS),
            "within": (x, 9.0, where, None),
            "text_search": ("words", 5, where),
            "explain": (x, 5, where, KNOBS),
            "get": (["i1", "i2"], True),
            "count": (where,),
            "page": (name, where, 4, None, True),
            "slots_of": (["i1"],),
            "matching": (where,),
            "stats": (),
            "verify": (),
        }
        assert calls.keys() == METHODS
        for method, args in calls.items():
            call = travelled(Call("docs", manifest.version, (name,), method, args))
            answer = getattr(group, method)(*call.args)
            reply = travelled(Reply(manifest.version, (name,), answer))
            assert shown(reply.value) == shown(answer), method


def shown(value: Any) -> object:
    """A value as something that compares."""
    if isinstance(value, faissbase.SearchResult):
        return value.ids, repr(value.distances.tolist()), value.metadatas, value.documents
    if isinstance(value, dict):
        return {key: shown(each) for key, each in value.items()}
    if isinstance(value, faissbase.Explanation):
        return repr(value), shown(value.result)
    return value if isinstance(value, list | int) else repr(value)


def test_flags_and_errors_travel() -> None:
    hits = travelled(ShardHits([], ("a",)))
    assert (list(hits), hits.complete, hits.shards_missing) == ([], False, ("a",))
    none = np.empty((1, 0), np.int64)
    assert travelled(ShardResult(none, none.astype(np.float32), "l2", {}, ("a",))).shards_missing == ("a",)
    reply = travelled(Reply(1, (), error=faissbase.CorruptionError("a checksum differs")))
    assert (type(reply.error), str(reply.error)) == (faissbase.CorruptionError, "a checksum differs")
    assert travelled(Health("life", "node", 7, 0, {("docs", 1): ("s",)})).held == {("docs", 1): ("s",)}

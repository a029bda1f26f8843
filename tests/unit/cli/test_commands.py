"""What each command answers, in words and in JSON."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from faissbase.cli import bench, measure
from faissbase.database.database import connect

pytestmark = pytest.mark.usefixtures("data")

VECTOR = "[1, 0, 0, 0, 0, 0, 0, 0]"


def test_search_by_vector_gives_the_hits_of_the_library(data: Path, cli: Any) -> None:
    found = cli(
        "search", "docs", "--vector", VECTOR, "-k", "4", "--where", '{"parity": "odd"}', "--json"
    ).json
    with connect(data, read_only=True) as db:
        hits = db.get_collection("docs").search(orjson.loads(VECTOR), 4, {"parity": "odd"})
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in hits]
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3, 4]
    assert found["hits"][0] == {
        "query": 0,
        "rank": 1,
        "id": hits[0].id,
        "score": hits[0].score,
        "distance": hits[0].distance,
        "metadata": hits[0].metadata,
        "document": hits[0].document,
    }
    facts = {key: found[key] for key in ("collection", "mode", "metric", "k", "ntotal", "where")}
    assert facts == {
        "collection": "docs",
        "mode": "vector",
        "metric": "l2",
        "k": 4,
        "ntotal": 40,
        "where": {"parity": "odd"},
    }


def test_search_reads_a_vector_from_stdin(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = cli("search", "docs", "--vector", VECTOR, "--json").json["hits"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(VECTOR))
    assert cli("search", "docs", "--vector", "-", "--json").json["hits"] == given


def test_search_reads_one_query_a_row(tmp_path: Path, cli: Any) -> None:
    np.save(tmp_path / "q.npy", np.eye(8, dtype=np.float32)[:3])
    hits = cli("search", "docs", "--vector-file", "q.npy", "-k", "2", "--json").json["hits"]
    assert [(hit["query"], hit["rank"]) for hit in hits] == [(q, r) for q in range(3) for r in (1, 2)]
    shown = cli("search", "docs", "--vector-file", "q.npy", "-k", "2").out
    assert [f"query {q}: 2 hits of 40 records by l2" in shown for q in range(3)] == [True] * 3


def test_search_by_id_text_and_both(cli: Any) -> None:
    by_id = cli("search", "docs", "--id", "d7", "--json").json
    assert (by_id["mode"], by_id["hits"][0]["id"], by_id["hits"][0]["distance"]) == ("vector", "d7", 0.0)
    by_text = cli("search", "docs", "--text", "number 7", "-k", "3", "--json").json
    assert (by_text["mode"], by_text["hits"][0]["id"], by_text["hits"][0]["distance"]) == ("text", "d7", None)
    both = cli("search", "docs", "--text", "number 7", "--vector", VECTOR, "--json").json
    assert both["mode"] == "hybrid"
    assert "d7" in [hit["id"] for hit in both["hits"]]


def test_search_explains_itself(cli: Any) -> None:
    words = ("search", "docs", "--vector", VECTOR, "--where", '{"n": {"$lt": 5}}', "--explain")
    explained = cli(*words, "--json").json["explain"]
    assert explained["n_matching"] == 5
    assert set(explained["times_ms"]) == {"filter", "search", "rows"}
    shown = cli(*words).out
    assert "5 hits that match the filter, of 40 records" in shown
    assert "matching   5 of 40 slots" in shown


def test_search_shows_a_hit_in_a_few_lines(cli: Any) -> None:
    lines = cli(
        "search", "docs", "--id", "d4", "-k", "1", "--include-vectors", "--fields", "n"
    ).out.splitlines()
    assert lines[0].startswith("1 hit of 40 records by l2, in ")
    assert lines[1].split() == ["#", "score", "distance", "id"]
    assert lines[2].split() == ["1", "1.0000", "0.0000", "d4"]
    assert lines[3:5] == ["    n=4", "    document number 4"]
    assert lines[5].startswith("    [")
    assert lines[5].endswith(", ...]  d=8")


def test_search_includes_vectors_as_they_were_given(data: Path, cli: Any) -> None:
    [hit] = cli("search", "docs", "--id", "d4", "-k", "1", "--include-vectors", "--json").json["hits"]
    with connect(data, read_only=True) as db:
        [record] = db.get_collection("docs").get(ids="d4", include_vectors=True)
    assert record.vector is not None
    assert np.array_equal(np.array(hit["vector"], np.float32), record.vector)


def test_a_search_without_hits_is_no_error(cli: Any) -> None:
    ran = cli("search", "empty", "--vector", "[1, 2, 3]")
    assert (ran.code, ran.out.splitlines()[0][:28]) == (0, "0 hits of 0 records by cosin")


def test_stats_of_one_and_of_all(cli: Any) -> None:
    one = cli("stats", "docs", "--json").json
    assert (one["ntotal"], one["dimension"], one["metric"], one["tombstones"]) == (40, 8, "l2", 0)
    everything = cli("stats", "--json").json["collections"]
    assert [stats["name"] for stats in everything] == ["docs", "empty"]
    header, docs, empty = cli("stats").out.splitlines()
    assert header.split()[:3] == ["collection", "records", "d"]
    assert docs.split()[:4] == ["docs", "40", "8", "l2"]
    assert empty.split()[:4] == ["empty", "0", "3", "cosine"]


def test_delete_and_optimize(cli: Any) -> None:
    assert cli("delete", "docs", "--id", "d1", "--id", "d2", "--id", "none", "--json").json == {
        "collection": "docs",
        "deleted": 2,
        "ntotal": 38,
    }
    assert cli("delete", "docs", "--where", '{"parity": "even"}', "--yes").out == (
        "deleted 19 records, 19 are left in 'docs'\n"
    )
    assert "21  (672 bytes: faissbase optimize docs gives it back)" in cli("stats", "docs").out
    assert cli("optimize", "docs", "--json").json == {
        "collection": "docs",
        "slots_before": 40,
        "slots_after": 19,
        "reclaimed_bytes": 672,
        "slots_indexed": 0,
        "segments": 0,
    }
    assert cli("verify").code == 0


@pytest.mark.parametrize("suffix", ["npy", "fvecs"])
def test_export_asks_before_it_replaces_the_rows_file_too(suffix: str, tmp_path: Path, cli: Any) -> None:
    (tmp_path / f"a.{suffix}.rows.jsonl").write_text("mine\n")
    refused = cli("export", "docs", f"a.{suffix}")
    assert refused.code == 2
    assert f"a.{suffix}.rows.jsonl exists already" in refused.err
    assert (tmp_path / f"a.{suffix}.rows.jsonl").read_text() == "mine\n"
    assert cli("export", "docs", f"a.{suffix}", "--overwrite", "--json").json["n_rows"] == 40


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_export_to_a_folder_is_a_wrong_call(target: str, cli: Any) -> None:
    refused = cli("export", "docs", target, "--overwrite", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "invalid_input")


def test_load_says_what_it_did(tmp_path: Path, cli: Any) -> None:
    np.save(tmp_path / "x.npy", np.eye(5, dtype=np.float32))
    loaded = cli("load", "x.npy", "x", "--metric", "ip", "--json").json
    facts = {key: loaded[key] for key in ("collection", "is_new", "dimension", "metric", "ntotal", "n_rows")}
    assert facts == {
        "collection": "x",
        "is_new": True,
        "dimension": 5,
        "metric": "ip",
        "ntotal": 5,
        "n_rows": 5,
    }
    first, second, third = cli("load", "x.npy", "x").out.splitlines()
    assert first.startswith("loaded 5 rows in ")
    assert second == "collection 'x' holds 5 records, d=5, ip"
    assert third.startswith("5 rows replaced a record of the same id;")


def test_load_counts_the_records_that_another_file_has_replaced(tmp_path: Path, cli: Any) -> None:
    for name in ("first", "second"):
        np.save(tmp_path / f"{name}.npy", np.eye(5, dtype=np.float32))
    assert cli("load", "first.npy", "x", "--json").json["n_replaced"] == 0
    assert cli("load", "second.npy", "x", "--json").json["n_replaced"] == 5


def test_load_takes_other_columns_and_a_rows_file(tmp_path: Path, cli: Any) -> None:
    rows = [{"key": "a", "emb": [1, 2], "body": "hello"}, {"key": "b", "emb": [3, 4], "body": "world"}]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    columns = ("--id-column", "key", "--vector-column", "emb", "--document-column", "body")
    assert cli("load", "a.jsonl", "a", *columns).code == 0
    assert cli("search", "a", "--text", "world", "--json").json["hits"][0]["id"] == "b"
    np.save(tmp_path / "v.npy", np.eye(2, dtype=np.float32))
    assert cli("load", "v.npy", "v", "--rows", "a.jsonl", "--id-column", "key").code == 0
    assert cli("search", "v", "--id", "b", "-k", "1", "--json").json["hits"][0]["id"] == "b"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SINGLES_S", "_BATCHES_S", "_FILTERED_S", "_WRITES_S"):
        monkeypatch.setattr(bench, name, 0.02)


@pytest.mark.usefixtures("hasty")
def test_bench_measures_without_changing_anything(data: Path, cli: Any) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*.f32")}
    found = cli("bench", "docs", "-k", "3", "--where", '{"parity": "odd"}', "--json").json
    assert (found["recall"], found["filtered"]["recall"], found["filtered"]["n_matching"]) == (1.0, 1.0, 20)
    assert found["n_compared"] == 40
    assert found["single"]["n"] >= 1
    assert found["durable_upserts"]["single_per_s"] > 0
    assert {path: path.read_bytes() for path in data.rglob("*.f32")} == before
    assert cli("list").out == "docs\nempty\n"
    assert [path.name for path in data.parent.iterdir()] == [data.name]
    shown = cli("bench", "docs").out
    assert "recall@10 against raw FAISS" in shown
    assert "1.0000" in shown


@pytest.mark.usefixtures("hasty")
def test_bench_of_what_does_not_fit_twice_leaves_raw_faiss_out(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_MEMORY_SHARE", 0.0)
    ran = cli("bench", "docs", "--json")
    assert (ran.json["n_compared"], ran.json["recall"], ran.json["single"]["ratio"]) == (0, None, None)
    assert "not compared with raw FAISS" in ran.err
    assert cli("bench", "docs", "--quiet").code == 0


def test_plan_forecasts_an_index(cli: Any) -> None:
    plan = cli("plan", "--n", "1000000", "--d", "768", "--json").json
    assert plan["family"] == "hnsw"
    assert plan["ram_bytes"] < 0.6 * 4 * 768 * 1_000_000
    small = cli("plan", "--n", "1000000", "--d", "768", "--ram", "200MB", "--json").json
    assert small["ram_bytes"] <= 200_000_000
    assert small["alternatives"][0]["factory"] == plan["factory"]
    assert "needs" in small["alternatives"][0]["reason"]
    assert "exact search needs no index" in cli("plan", "--n", "100", "--d", "8").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--n", "5"], "give --n and --d, or a collection"),
        (["docs", "--n", "5"], "give a collection, or --n and --d"),
        (["--n", "5", "--d", "5", "--ram", "much"], "expected a size such as 2GB"),
        (["--n", "5", "--d", "5", "--recall", "2"], "expected a number above 0"),
        (["--n", "1000000", "--d", "768", "--ram", "1MB"], "need at least"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(cli: Any, words: list[str], told: str) -> None:
    done = cli("plan", *words)
    assert done.code == 2
    assert told in done.err


def test_plan_of_a_collection_says_what_it_needs(cli: Any) -> None:
    plan = cli("plan", "docs", "--json").json
    assert (plan["n"], plan["factory"], plan["measured"]) == (40, "Flat", {})


def test_a_search_asks_for_the_recall_that_it_is_told(cli: Any) -> None:
    exact = cli("search", "docs", "--id", "d1", "--recall", "1", "--json").json
    assert exact["hits"] == cli("search", "docs", "--id", "d1", "--json").json["hits"]
    assert cli("search", "docs", "--id", "d1", "--recall", "1.5").code == 2
    assert cli("search", "docs", "--text", "word", "--recall", "0.9").code == 2


def test_collections_of_a_tenant_are_reached_by_its_name(data: Path, cli: Any) -> None:
    np.save(data.parent / "xb.npy", np.eye(8, dtype=np.float32))
    assert cli("load", "xb.npy", "own", "--tenant", "acme").code == 0
    with connect(data, tenant="acme") as db:
        assert db.list_collections() == ["own"]
    assert cli("list", "--tenant", "acme", "--json").json == {"collections": ["own"]}
    assert cli("list", "--json").json == {"collections": ["docs", "empty"]}
    assert cli("search", "own", "--vector", VECTOR, "-k", "1", "--tenant", "acme", "--json").json["hits"]
    assert cli("stats", "own", "--tenant", "acme", "--json").json["ntotal"] == 8
    for command in (["verify"], ["repair", "own", "--yes"], ["export", "own", "own.jsonl"]):
        assert cli(*command, "--tenant", "acme").code == 0, command
    assert cli("stats", "own").code == 3
    refused = cli("list", "--tenant", "../other")
    assert refused.code == 2
    assert "../other" in refused.err
    assert cli("backup", "all.tar", "--json").json["collections"] == ["acme/own", "docs", "empty"]

"""A damaged index is made whole while the server runs, and holds up nobody meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.server.running import made_damaged
from tests.unit.server.test_app import ask

from faissbase.collection.collection import LocalCollection
from faissbase.server.app import Server
from faissbase.server.databases import folder_databases
from faissbase.server.keys import Keys
from faissbase.server.settings import Settings
from faissbase.server.tenants import Tenants
from faissbase.types import RepairReport

D, FLOAT_BYTES, PATIENCE_S = 2, 4, 30
IDS = [f"r{i}" for i in range(8)]


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """With an index ``docs`` whose vectors are in their file."""
    found = Server(Settings(), Keys(folder), Tenants(folder, folder_databases(folder)))
    for name in ("docs", "other"):
        records = [{"id": id, "values": [i, 1]} for i, id in enumerate(IDS)]
        ask(found, "POST", "/index", json={"name": name, "dimension": D, "metric": "l2"})
        ask(found, "POST", f"/index/{name}/vectors", json={"vectors": records})
        ask(found, "POST", f"/index/{name}/optimize")
    yield found
    found.close()


def damage(server: Server, slot: int) -> Path:
    """Change a stored vector of ``docs``; the folder of its files."""
    database = server._tenants.database("default")
    found = database.open(database.describe("docs"))
    with found._parts().store.records.write_transaction() as transaction:
        found._parts().store.checkpoint(transaction)  # else it would be put back from its redo copy
    folder: Path = server._tenants.folder / "default" / found._config.uuid
    [path] = folder.glob("vectors.*.f32")
    with open(path, "r+b") as file:
        file.seek(slot * D * FLOAT_BYTES)
        file.write(b"\x55" * FLOAT_BYTES)
    return folder


def test_what_is_damaged_is_put_aside_and_the_rest_goes_on(server: Server) -> None:
    folder = damage(server, 3)
    [found] = ask(server, "POST", "/index/docs/verify")
    assert found.json()["ok"] is False
    [answer] = ask(server, "POST", "/index/docs/repair")
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["quarantined_ids"] == ["r3"]
    assert report["quarantine_path"] == f"default/{folder.name}/quarantine.0.jsonl"
    assert '"id":"r3"' in (folder / "quarantine.0.jsonl").read_text()
    [verified] = ask(server, "POST", "/index/docs/verify")
    assert (verified.json()["ok"], verified.json()["rows_checked"]) == (True, 7)
    [stored] = ask(server, "POST", "/index/docs/vectors", json={"vectors": [{"id": "r3", "values": [3, 1]}]})
    assert stored.json() == {"upserted": 1}
    [hits] = ask(server, "POST", "/index/docs/search", json={"vector": [3, 1], "k": 1})
    assert hits.json()["results"][0]["id"] == "r3"


def test_an_index_that_cannot_be_read_is_found_and_repaired(tmp_path: Path) -> None:
    folder = made_damaged(tmp_path / "damaged")
    server = Server(Settings(), Keys(folder), Tenants(folder, folder_databases(folder)))
    [found] = ask(server, "GET", "/index/docs")
    assert (found.status_code, found.json()["name"], found.json()["ntotal"]) == (200, "docs", None)
    assert ask(server, "GET", "/index/docs/ntotal")[0].json()["error"]["code"] == "corruption"
    assert ask(server, "POST", "/index/docs/repair")[0].status_code == 200
    assert ask(server, "GET", "/index/docs")[0].json()["ntotal"] > 200
    server.close()


def test_an_index_that_is_sound_stays_as_it_is(server: Server) -> None:
    [answer] = ask(server, "POST", "/index/docs/repair")
    assert (answer.json()["quarantined_ids"], answer.json()["quarantine_path"]) == ([], None)
    assert [each.json() for each in ask(server, "GET", "/index/docs/ntotal")] == [{"ntotal": 8}]


def test_it_takes_an_admin_key_and_tells_nothing_of_others(server: Server, folder: Path) -> None:
    for tenant, scope, status in (
        ("default", "write", 403),
        ("acme", "admin", 404),
        ("default", "admin", 200),
    ):
        _, key = server._keys.create(tenant, [scope])
        assert ask(server, "POST", "/index/docs/repair", key=key)[0].status_code == status


def test_while_it_is_repaired_it_answers_nobody_and_others_do(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()
    repair = LocalCollection.repair

    def slowly(collection: LocalCollection) -> RepairReport:
        with collection._opening:
            has_begun.set()
            assert may_end.wait(PATIENCE_S)
        return repair(collection)

    monkeypatch.setattr(LocalCollection, "repair", slowly)
    running = threading.Thread(target=ask, args=(server, "POST", "/index/docs/repair"))
    running.start()
    try:
        assert has_begun.wait(PATIENCE_S)
        body = {"vector": [1, 1], "k": 1}
        for path in ("search", "verify", "optimize", "repair"):
            [answer] = ask(server, "POST", f"/index/docs/{path}", json=body if path == "search" else {})
            expected = (409, "conflict") if path == "repair" else (503, "unavailable")
            assert (answer.status_code, answer.json()["error"]["code"]) == expected
        assert ask(server, "POST", "/index/other/search", json=body)[0].status_code == 200
        assert ask(server, "GET", "/index")[0].status_code == 200
    finally:
        may_end.set()
        running.join()
    assert ask(server, "POST", "/index/docs/search", json=body)[0].status_code == 200

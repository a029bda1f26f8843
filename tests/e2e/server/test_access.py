"""Who may do what: every route against every kind of key, and the keys themselves."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from tests.e2e.server.running import Running, done, new_key, refused, run

from faissbase.server.app import OPERATIONS
from faissbase.server.keys import Keys
from faissbase.server.operations import Operation

OURS, THEIRS = "ours", "theirs"
ROUTES = [(method, op) for op in OPERATIONS for method in op.methods]
OF_INDEX = [(method, op) for method, op in ROUTES if "{index}" in op.path]
WITH_BODY = [(method, op) for method, op in ROUTES if op.body is not None]
BODIES: dict[str, dict[str, Any]] = {
    "CreateIndex": {"name": "new", "dimension": 2},
    "PutVectors": {"vectors": [{"id": "a", "values": [9, 9]}]},
    "UpdateVectors": {"ids": ["a"], "metadatas": [{"n": 1}]},
    "GetVectors": {"ids": ["a"]},
    "DeleteVectors": {"ids": ["a"]},
    "Search": {"vector": [0, 0]},
    "SpecializedSearch": {"type": "by_id", "id": "a"},
    "CreateKey": {"scopes": ["admin"]},
}


def name_of(route: Any) -> str:
    return f"{route[0]} {route[1].path}" if isinstance(route, tuple) else str(route)


@dataclass(frozen=True)
class Gate:
    """A server with the index ``docs`` of one tenant, and the texts of keys of all kinds."""

    running: Running
    index_id: str
    key_id: str
    texts: dict[str, str]
    clients: dict[str | None, httpx.Client]

    def ask(
        self, kind: str | None, method: str, op: Operation, index: str = "docs", **body: Any
    ) -> httpx.Response:
        """A request that would be served for the admin of ``docs``, with another key."""
        path = op.path.replace("{index}", index).replace("{vector:rest}", "a").replace("{key}", self.key_id)
        content = None if op.body is None else {**BODIES.get(op.body.__name__, {}), **body}
        return self.clients[kind].request(method, path, json=content)

    def state(self) -> tuple[Any, ...]:
        """What no refused request may change."""
        client = self.clients["admin"]
        indexes = done(client.get("/index"))["indexes"]
        records = done(client.get("/index/docs/vectors"))["vectors"]
        keys = done(client.get("/keys"))["keys"]
        return indexes, records, keys


def made_keys(folder: Path) -> tuple[str, dict[str, str]]:
    """The id of a key to aim at, and the texts of all kinds."""
    target, text = new_key(folder, OURS, "read", name="target")
    texts = {"target": text, "wrong": f"{text[:-1]}{'A' if text[-1] != 'A' else 'B'}"}
    for scope in ("read", "write", "admin"):
        _, texts[scope] = new_key(folder, OURS, scope)
        _, texts[f"{THEIRS} {scope}"] = new_key(folder, THEIRS, scope)
    _, texts["limited"] = new_key(folder, OURS, "admin", indexes=["extra"])
    before = Keys(folder, clock=lambda: 0.0)
    _, texts["expired"] = before.create(OURS, ["admin"], expires_in_s=1)
    revoked, texts["revoked"] = before.create(OURS, ["admin"])
    before.revoke(revoked.id)
    before.close()
    return target.id, texts


@pytest.fixture(scope="module")
def gate(server: Running) -> Iterator[Gate]:
    key_id, texts = made_keys(server.folder)
    with ExitStack() as stack:
        clients: dict[str | None, httpx.Client] = {
            kind: stack.enter_context(server.client(text)) for kind, text in texts.items()
        }
        clients[None] = stack.enter_context(server.client())
        client = clients["admin"]
        for index in ("docs", "extra"):
            done(client.post("/index", json={"name": index, "dimension": 2, "metric": "l2"}), 201)
            done(client.post(f"/index/{index}/vectors", json={"vectors": [{"id": "a", "values": [0, 1]}]}))
        info = done(client.get("/index/docs"))
        yield Gate(server, info["id"], key_id, texts, clients)


@pytest.fixture
def unchanged(gate: Gate) -> Iterator[None]:
    before = gate.state()
    yield
    assert gate.state() == before


# ---- letting in -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_nothing_is_served_without_a_good_key(gate: Gate, route: tuple[str, Operation]) -> None:
    for kind in (None, "wrong", "revoked", "expired"):
        answer = gate.ask(kind, *route)
        refused(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_a_key_does_no_more_than_its_scopes(gate: Gate, route: tuple[str, Operation]) -> None:
    scopes = ("read", "write", "admin")
    needed = scopes.index(route[1].scope)
    for scope in scopes[:needed]:
        assert route[1].scope in refused(gate.ask(scope, *route), 403, "access")


@pytest.mark.parametrize("route", [each for each in ROUTES if each[1].scope == "read"], ids=name_of)
def test_a_key_that_may_read_reads_everything(gate: Gate, route: tuple[str, Operation]) -> None:
    assert gate.ask("read", *route).status_code == 200


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", OF_INDEX, ids=name_of)
def test_what_is_another_tenants_reads_like_what_is_not_there(
    gate: Gate, route: tuple[str, Operation]
) -> None:
    for kind in (f"{THEIRS} admin", "limited"):
        messages = {
            refused(gate.ask(kind, *route, index=index), 404, "not_found").replace(index, "X")
            for index in ("docs", gate.index_id, "nosuch", "0" * 32)
        }
        assert len(messages) == 1


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
def test_a_body_that_names_another_tenant_is_refused(gate: Gate, route: tuple[str, Operation]) -> None:
    for tenant in (THEIRS, "", "default", OURS.upper()):
        assert tenant in refused(gate.ask("admin", *route, tenant_id=tenant), 403, "access")


def test_a_search_within_a_batch_that_names_another_tenant_is_refused(gate: Gate) -> None:
    body = {"type": "batch", "searches": [{"vector": [0, 0], "tenant_id": THEIRS}]}
    with gate.running.client(gate.texts["read"]) as client:
        refused(client.post("/index/docs/specialized_search", json=body), 403, "access")


def test_a_body_may_name_the_tenant_of_its_key(gate: Gate) -> None:
    with gate.running.client(gate.texts["read"]) as client:
        body = {"vector": [0, 0], "tenant_id": OURS}
        assert len(done(client.post("/index/docs/search", json=body))["results"]) == 1


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_is_open_to_all(gate: Gate, path: str) -> None:
    with gate.running.client() as client:
        assert done(client.get(path)) == {"status": "ok", "live": True, "ready": True}
        refused(client.post(path), 405, "method_not_allowed")


def test_a_key_may_come_as_bearer(gate: Gate) -> None:
    text = gate.texts["read"]
    with gate.running.client() as client:
        for value in (f"Bearer {text}", f"bearer {text}", f"BEARER   {text}"):
            done(client.get("/index", headers={"authorization": value}))
        for value in (f"Basic {text}", text, "Bearer", f"Bearer x{text}", f"Bearer {text}x"):
            refused(client.get("/index", headers={"authorization": value}), 401, "unauthenticated")


@pytest.mark.parametrize("text", ["", "fb", "fb_", "fb__", "_", "fb_000000000000_", "x" * 5000])
def test_what_is_no_key_is_refused(gate: Gate, text: str) -> None:
    with gate.running.client(text) as client:
        refused(client.get("/index"), 401, "unauthenticated")


def test_the_id_of_a_key_is_no_key(gate: Gate) -> None:
    secret = gate.texts["target"].split("_", 2)[2]
    for text in (gate.key_id, f"fb_{gate.key_id}", f"fb_{gate.key_id}_", f"fb_{'0' * 12}_{secret}", secret):
        with gate.running.client(text) as client:
            refused(client.get("/index"), 401, "unauthenticated")


# ---- tenants ----------------------------------------------------------------------------------------


def test_tenants_have_names_of_their_own(gate: Gate) -> None:
    with gate.running.client(gate.texts[f"{THEIRS} write"]) as client:
        assert done(client.get("/index")) == {"indexes": []}
        done(client.post("/index", json={"name": "docs", "dimension": 3}), 201)
        done(client.post("/index/docs/vectors", json={"vectors": [{"id": "t", "values": [1, 2, 3]}]}))
        assert [each["tenant_id"] for each in done(client.get("/index"))["indexes"]] == [THEIRS]
        assert client.delete("/index/docs").status_code == 204
    with gate.running.client(gate.texts["read"]) as client:
        assert [each["id"] for each in done(client.get("/index/docs/vectors"))["vectors"]] == ["a"]


def test_metrics_name_the_indexes_of_who_asks_alone(gate: Gate) -> None:
    with gate.running.client(gate.texts[f"{THEIRS} write"]) as client:
        done(client.post("/index", json={"name": "secret-plan", "dimension": 3}), 201)
        theirs = client.get("/metrics").text
        assert client.delete("/index/secret-plan").status_code == 204
    with gate.running.client(gate.texts["read"]) as client:
        ours = client.get("/metrics").text
    with gate.running.client(gate.texts["limited"]) as client:
        limited = client.get("/metrics").text
    assert 'faissbase_index_records{index="secret-plan"} 0' in theirs
    assert "docs" not in theirs
    assert 'faissbase_index_records{index="docs"} 1' in ours
    assert "secret-plan" not in ours
    assert 'faissbase_index_records{index="extra"} 1' in limited
    assert "docs" not in limited
    assert 'faissbase_requests_total{method="GET",route="/index",status="200"}' in ours


def test_a_key_for_one_index_works_there_and_lists_it_alone(gate: Gate) -> None:
    with gate.running.client(gate.texts["limited"]) as client:
        assert [each["name"] for each in done(client.get("/index"))["indexes"]] == ["extra"]
        assert len(done(client.post("/index/extra/search", json={"vector": [0, 0]}))["results"]) == 1
        refused(client.post("/index", json={"name": "other", "dimension": 2}), 403, "access")


def test_a_key_may_be_limited_to_the_id_of_an_index(gate: Gate) -> None:
    _, text = new_key(gate.running.folder, OURS, "read", indexes=[gate.index_id])
    with gate.running.client(text) as client:
        for index in ("docs", gate.index_id):
            assert done(client.get(f"/index/{index}"))["name"] == "docs"
        refused(client.get("/index/extra"), 404, "not_found")


# ---- keys -------------------------------------------------------------------------------------------


@pytest.fixture
def admin(gate: Gate) -> Iterator[httpx.Client]:
    with gate.running.client(gate.texts["admin"]) as client:
        yield client


def is_let_in(gate: Gate, text: str) -> bool:
    with gate.running.client(text) as client:
        answer = client.get("/index")
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


def test_a_key_is_shown_once_and_listed_without_its_secret(gate: Gate, admin: httpx.Client) -> None:
    body = {"scopes": ["write", "read"], "name": "nightly", "indexes": ["docs"], "expires_in_s": 3600}
    made = done(admin.post("/keys", json=body), 201)
    text = made.pop("key")
    assert (made["scopes"], made["indexes"], made["state"]) == (["read", "write"], ["docs"], "active")
    assert (made["name"], made["tenant_id"]) == ("nightly", OURS)
    assert made["expires_s"] == pytest.approx(made["created_s"] + 3600)
    listing = admin.get("/keys")
    assert made in done(listing)["keys"]
    assert text.split("_", 2)[2] not in listing.text
    assert is_let_in(gate, text)


def test_a_key_is_revoked_at_once(gate: Gate, admin: httpx.Client) -> None:
    made = done(admin.post("/keys", json={"scopes": ["read"]}), 201)
    with gate.running.client(made["key"]) as client:
        done(client.get("/index"))
        assert done(admin.delete(f"/keys/{made['id']}"))["state"] == "revoked"
        refused(client.get("/index"), 401, "unauthenticated")
    assert done(admin.delete(f"/keys/{made['id']}"))["state"] == "revoked"
    refused(admin.post(f"/keys/{made['id']}/rotate"), 422, "invalid_input")
    refused(admin.delete("/keys/nosuch"), 404, "not_found")


@pytest.mark.parametrize("grace_s", [0, 3600])
def test_a_rotated_key_is_good_for_its_time_of_grace(gate: Gate, admin: httpx.Client, grace_s: int) -> None:
    old = done(admin.post("/keys", json={"scopes": ["read"], "name": "n", "indexes": ["docs"]}), 201)
    new = done(admin.post(f"/keys/{old['id']}/rotate", json={"grace_s": grace_s}), 201)
    for field in ("scopes", "name", "indexes", "tenant_id"):
        assert new[field] == old[field]
    assert new["id"] != old["id"]
    assert is_let_in(gate, new["key"])
    assert is_let_in(gate, old["key"]) == (grace_s > 0)
    [listed] = [each for each in done(admin.get("/keys"))["keys"] if each["id"] == old["id"]]
    assert listed["state"] == ("active" if grace_s else "revoked")


def test_an_admin_knows_the_keys_of_its_tenant_alone(gate: Gate, admin: httpx.Client) -> None:
    with gate.running.client(gate.texts[f"{THEIRS} admin"]) as client:
        tenants = {each["tenant_id"] for each in done(client.get("/keys"))["keys"]}
        assert tenants == {THEIRS}
        for answer in (client.delete(f"/keys/{gate.key_id}"), client.post(f"/keys/{gate.key_id}/rotate")):
            refused(answer, 404, "not_found")
    assert is_let_in(gate, gate.texts["target"])
    assert {each["tenant_id"] for each in done(admin.get("/keys"))["keys"]} == {OURS}


def test_a_key_for_some_indexes_manages_no_keys(gate: Gate) -> None:
    with gate.running.client(gate.texts["limited"]) as client:
        for answer in (
            client.post("/keys", json={"scopes": ["read"]}),
            client.get("/keys"),
            client.delete(f"/keys/{gate.key_id}"),
            client.post(f"/keys/{gate.key_id}/rotate"),
        ):
            refused(answer, 403, "access")
    assert is_let_in(gate, gate.texts["target"])


WRONG_KEYS: list[dict[str, Any]] = [
    {"scopes": []},
    {"scopes": ["root"]},
    {"scopes": "read"},
    {"scopes": ["read"], "name": "x" * 201},
    {"scopes": ["read"], "name": "two\nlines"},
    {"scopes": ["read"], "expires_in_s": 0},
    {"scopes": ["read"], "expires_in_s": -5},
    {"scopes": ["read"], "indexes": ["../docs"]},
    {"scopes": ["read"], "indexes": ["a b"]},
    {"scopes": ["read"], "tenant": THEIRS},
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("body", WRONG_KEYS, ids=str)
def test_a_key_that_makes_no_sense_is_not_made(admin: httpx.Client, body: dict[str, Any]) -> None:
    refused(admin.post("/keys", json=body), 422, "invalid_input")


def test_the_command_line_makes_and_ends_keys_of_a_running_server(gate: Gate) -> None:
    folder = gate.running.folder
    words = ("--tenant", OURS, "--scopes", "read", "--data", folder, "--json")
    made = run("keys", "create", *words)
    key = orjson.loads(made.stdout)
    with gate.running.client(key["key"]) as client:
        assert "docs" in [each["name"] for each in done(client.get("/index"))["indexes"]]
        assert run("keys", "revoke", key["id"], "--data", folder).returncode == 0
        refused(client.get("/index"), 401, "unauthenticated")


def test_an_answer_is_given_again_to_the_same_key_alone(gate: Gate, admin: httpx.Client) -> None:
    again = {"idempotency-key": "once"}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/keys", {"scopes": ["read"]}),
        ("/index/docs/vectors", {"vectors": [{"id": "a", "values": [0, 1]}]}),
    ]
    for path, body in asked:
        first = admin.post(path, json=body, headers=again)
        assert first.is_success
        assert admin.post(path, json=body, headers=again).json() == first.json()
    with gate.running.client(gate.texts["limited"]) as client:
        refused(client.post(asked[0][0], json=asked[0][1], headers=again), 403, "access")
        refused(client.post(asked[1][0], json=asked[1][1], headers=again), 404, "not_found")


# ---- secrets ----------------------------------------------------------------------------------------


def test_no_secret_is_in_the_folder_and_none_in_the_log(gate: Gate, admin: httpx.Client) -> None:
    made = done(admin.post("/keys", json={"scopes": ["read"]}), 201)["key"]
    texts = [made, *gate.texts.values()]
    with gate.running.client() as client:
        for text in texts:
            client.get("/index", headers={"authorization": f"Bearer {text}"})
            client.get("/index", headers={"x-api-key": text})
            client.get(f"/index/{text}", headers={"x-api-key": text}, params={"key": text})
        last = client.get("/index")
    gate.running.line_of(last.headers["x-request-id"])
    files = {path: path.read_bytes() for path in gate.running.folder.rglob("*") if path.is_file()}
    log = "".join(gate.running.lines)
    assert "/index/{index}" in log
    for text in texts:
        secret = text.split("_", 2)[2]
        assert secret not in log
        assert [path for path, content in files.items() if secret.encode() in content] == []


def test_the_file_of_keys_is_for_its_owner_alone(gate: Gate) -> None:
    files = list(gate.running.folder.glob("keys.sqlite*"))
    assert gate.running.folder / "keys.sqlite" in files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_the_log_says_who_asked_for_what(gate: Gate) -> None:
    with gate.running.client(gate.texts["target"]) as client:
        answer = client.get("/index/docs/ntotal", headers={"x-request-id": "my-own.id_1"})
        refused(client.get("/index/nosuch"), 404, "not_found")
    assert answer.headers["x-request-id"] == "my-own.id_1"
    line = gate.running.line_of("my-own.id_1")
    assert (line["tenant"], line["key"], line["method"]) == (OURS, gate.key_id, "GET")
    assert (line["route"], line["status"], line["bytes"]) == (
        "/index/{index}/ntotal",
        200,
        len(answer.content),
    )
    assert line["ms"] > 0

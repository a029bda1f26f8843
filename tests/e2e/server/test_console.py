"""The console's files: served by their exact names to everybody, and nothing beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.e2e.server.hostile import Line
from tests.e2e.server.running import Running, done, made, new_key, refused

import faissbase.server
from faissbase.server.watching import openapi

FILES = Path(faissbase.server.__path__[0]) / "console"
NAMES = sorted(each.name for each in FILES.iterdir())
SCRIPTS = {name: (FILES / name).read_text() for name in NAMES if name.endswith(".js")}
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
NOT_THERE = [
    "/console/nosuch.js",
    "/console/index.html/",
    "/console//index.html",
    "/console/./index.html",
    "/console/../console/index.html",
    "/console/..%2fpages.py",
    "/console/%2e%2e/pages.py",
    "/console/../pages.py",
    "/console/../../../../../../etc/passwd",
    "/console/index.html%00",
    "/console/index.html%00.js",
    "/console/console",
    "/console\\index.html",
    "/CONSOLE/",
    "/Console/index.html",
    "//console/",
    "/console/%252e%252e/pages.py",
    "/v1/console/",
    "/index.html",
    "/favicon.ico",
]


@dataclass(frozen=True)
class Target:
    """A server with keys: who has one, and who has none. ``files`` is a client of all its paths."""

    running: Running
    key: str
    http: httpx.Client
    files: httpx.Client


def started(folder: Path, *options: object) -> Iterator[Target]:
    _, key = new_key(made(folder), "acme", "write")
    with (
        Running(folder, *options) as running,
        running.client(key) as http,
        httpx.Client(base_url=running.url, trust_env=False) as files,
    ):
        yield Target(running, key, http, files)
        assert running.stop() == 0


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    yield from started(tmp_path_factory.mktemp("console") / "data")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    yield from started(tmp_path_factory.mktemp("without") / "data", "--no-console")


# ---- what is served ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_served_to_who_has_no_key(target: Target, name: str) -> None:
    answer = target.files.get(f"/console/{name}")
    assert (answer.status_code, answer.content) == (200, (FILES / name).read_bytes())
    assert answer.headers["content-type"] == MEDIA[Path(name).suffix]
    assert int(answer.headers["content-length"]) == len(answer.content)
    policy = {
        part.split()[0]: part.split()[1:] for part in answer.headers["content-security-policy"].split(";")
    }
    assert policy["default-src"] == ["'none'"]
    for kind in ("script-src", "style-src", "connect-src"):
        assert policy[kind] == ["'self'"]
    for kind in ("base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert policy[kind] == ["'none'"]
    assert policy["require-trusted-types-for"] == ["'script'"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert "set-cookie" not in answer.headers


def test_the_address_leads_to_the_console(target: Target) -> None:
    page = target.files.get("/console/")
    assert page.content == (FILES / "index.html").read_bytes()
    for path in ("/", "/console"):
        answer = target.files.get(path)
        assert (answer.status_code, answer.headers["location"]) == (307, "console/")
        assert target.files.get(path, follow_redirects=True).content == page.content


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_known_is_not_sent_again(target: Target, name: str) -> None:
    path = f"/console/{name}"
    tag = target.files.get(path).headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = target.files.get(path, headers={"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert "content-security-policy" in answer.headers
    for other in ('"other"', tag.strip('"'), ""):
        assert target.files.get(path, headers={"if-none-match": other}).status_code == 200


def test_the_head_of_a_file_is_that_of_the_file(target: Target) -> None:
    for path in ("/console/", "/console/main.js"):
        whole, head = target.files.get(path), target.files.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert {**head.headers, "x-request-id": ""}.keys() == {**whole.headers}.keys()
        for name in ("content-length", "etag", "content-type"):
            assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_a_file_is_only_read(target: Target, method: str) -> None:
    answer = target.files.request(method, "/console/main.js")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", NOT_THERE)
def test_no_other_path_is_served(target: Target, path: str) -> None:
    """They are as before: without a key nobody learns whether they are there."""
    for key, status in (("", 401), (f"X-API-Key: {target.key}\r\n", 404)):
        line = Line(target.running)
        line.send(f"GET {path} HTTP/1.1\r\nHost: here\r\n{key}\r\n".encode())
        found, body = line.answer()
        line.close()
        assert found == status, body
        assert body.startswith(b'{"error":')


def test_the_data_needs_a_key_all_the_same(target: Target) -> None:
    for path in ("/v1/index", "/v1/metrics", "/v1/openapi.json", "/v1/console/main.js"):
        refused(target.files.get(path), 401, "unauthenticated")
        refused(
            target.files.get(path, headers={"referer": f"{target.running.url}/console/"}),
            401,
            "unauthenticated",
        )


def test_the_files_count_as_one_route(target: Target) -> None:
    answer = target.files.get("/console/main.js")
    line = target.running.line_of(answer.headers["x-request-id"])
    assert (line["route"], line["tenant"], line["bytes"]) == ("/console", None, len(answer.content))
    assert (
        'faissbase_requests_total{method="GET",route="/console",status="200"}'
        in target.http.get("/metrics").text
    )


def test_a_server_can_do_without(without: Target) -> None:
    for path in ("/", "/console", "/console/", *(f"/console/{name}" for name in NAMES)):
        refused(without.files.get(path), 401, "unauthenticated")
        refused(without.files.get(path, headers={"x-api-key": without.key}), 404, "not_found")
    assert "console" not in "".join(without.running.lines)


def test_the_server_says_where_its_console_is(target: Target) -> None:
    assert f"its console is at {target.running.url}/console/\n" in target.running.lines


# ---- without keys --------------------------------------------------------------------------------


def may_make(running: Running, name: str, **headers: str) -> bool:
    with running.client() as http:
        answer = http.post("/index", json={"name": name, "dimension": 2}, headers=headers)
    assert answer.status_code in (201, 401)
    return answer.status_code == 201


def test_while_there_are_no_keys_the_console_may_ask_and_no_other_page(tmp_path: Path) -> None:
    with Running(made(tmp_path / "data")) as running:
        port = running.url.rpartition(":")[2]
        assert may_make(running, "own", origin=running.url)
        assert may_make(running, "named", origin=f"http://localhost:{port}", host=f"localhost:{port}")
        for i, (origin, host) in enumerate(
            (
                ("http://elsewhere.example", f"127.0.0.1:{port}"),
                ("null", f"127.0.0.1:{port}"),
                ("http://127.0.0.1:1", f"127.0.0.1:{port}"),
                ("http://127.0.0.1", f"127.0.0.1:{port}"),
                (f"https://127.0.0.1:{port}", f"127.0.0.1:{port}"),
                (f"http://localhost:{port}", f"127.0.0.1:{port}"),
                (f"http://127.0.0.1:{port}.elsewhere.example", f"127.0.0.1:{port}"),
                (f"http://elsewhere.example:{port}", f"elsewhere.example:{port}"),
            )
        ):
            assert not may_make(running, f"theirs{i}", origin=origin, host=host), (origin, host)
        with running.client() as http:
            assert [each["name"] for each in done(http.get("/index"))["indexes"]] == ["named", "own"]


def test_without_a_console_no_page_may_ask(tmp_path: Path) -> None:
    with Running(made(tmp_path / "data"), "--no-console") as running:
        assert not may_make(running, "own", origin=running.url)
        assert may_make(running, "program")


# ---- what is in the files ------------------------------------------------------------------------


def test_the_console_asks_for_documented_routes_alone() -> None:
    asked = set(re.findall(r'\["([A-Z]+)", "(/v1[^"]*)"\]', SCRIPTS["api.js"]))
    assert len(asked) >= 15
    paths = openapi(None)["paths"]  # type: ignore[arg-type]
    assert asked <= {(method.upper(), path) for path, methods in paths.items() for method in methods}


def test_one_file_alone_sends_requests() -> None:
    for name, text in SCRIPTS.items():
        assert len(re.findall(r"\bfetch\(", text)) == (1 if name == "api.js" else 0), name
        calls = re.findall(r"XMLHttpRequest|WebSocket|EventSource|sendBeacon|new Image|importScripts", text)
        assert calls == [], name


def test_no_data_can_become_markup_or_a_script() -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    for name, text in SCRIPTS.items():
        assert re.findall(ways, text) == [], name
    page = (FILES / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|style=|javascript:", page) == []


def test_a_key_is_never_kept_beyond_the_tab() -> None:
    for name, text in SCRIPTS.items():
        assert re.findall(r"localStorage|document\.cookie|indexedDB", text) == [], name
        assert ("sessionStorage" in text) == (name == "session.js")


def test_nothing_comes_from_elsewhere() -> None:
    for name in NAMES:
        text = (FILES / name).read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert re.findall(r"https?://|@import|\burl\(", text) == [], name


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r'(?:src|href)="([\w.]+)"', (FILES / "index.html").read_text()))
    for text in SCRIPTS.values():
        named |= set(re.findall(r'from "\./([\w.]+)"', text))
    assert named == {*NAMES} - {"index.html"}

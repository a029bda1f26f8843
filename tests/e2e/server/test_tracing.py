"""Spans of requests, as a collector gets them: one each, in the caller's trace, and what they tell."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.e2e.server.running import Running, done, made, made_damaged, new_key, refused

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
LONGEST_STOP_S = 20.0


class Collector:
    """A collector on a port of its own; keeps what it is sent."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.resource: dict[str, Any] = {}
        self.spans: list[Span] = []
        collector = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.path, self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *words: Any) -> None:
                return None

        self.server = HTTPServer(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        self.paths.append(path)
        for each in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = facts(each.resource.attributes)
            for scope in each.scope_spans:
                self.spans.extend(scope.spans)

    def span_of(self, request_id: str) -> Span:
        [found] = [span for span in self.spans if told(span)["faissbase.request_id"] == request_id]
        return found


def facts(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def told(span: Span) -> dict[str, Any]:
    return facts(span.attributes)


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "data")


def test_each_request_is_one_span(folder: Path, collector: Collector) -> None:
    _, key = new_key(folder, "acme", "write")
    with Running(folder, "--otel-endpoint", collector.url) as running, running.client(key) as http:
        done(
            http.post("/index", json={"name": "docs", "dimension": 2}, headers={"x-request-id": "made"}), 201
        )
        body = {"vector": [1, 0]}
        done(http.post("/index/docs/search", json=body, headers={"x-request-id": "searched"}))
        with running.client() as stranger:
            refused(stranger.get("/index", headers={"x-request-id": "out"}), 401, "unauthenticated")
        refused(http.get("/nosuch", headers={"x-request-id": "lost"}), 404, "not_found")
        assert http.get(f"{running.url}/console/main.js", headers={"x-request-id": "page"}).is_success
        assert running.stop() == 0
    assert set(collector.paths) == {"/v1/traces"}
    assert len(collector.spans) == 5
    assert told(collector.span_of("page"))["http.route"] == "/console"
    assert collector.resource["service.name"] == "faissbase"
    span = collector.span_of("searched")
    assert (span.name, span.kind) == ("POST /v1/index/{index}/search", Span.SPAN_KIND_SERVER)
    assert told(span) == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "http.route": "/v1/index/{index}/search",
        "http.response.status_code": 200,
        "faissbase.tenant": "acme",
        "faissbase.request_id": "searched",
    }
    assert told(collector.span_of("made"))["http.response.status_code"] == 201
    out, lost = collector.span_of("out"), collector.span_of("lost")
    assert (out.name, told(out)["http.response.status_code"]) == ("GET", 401)
    assert "faissbase.tenant" not in told(out)
    assert told(lost)["http.response.status_code"] == 404
    assert {span.status.code for span in collector.spans} == {Status.STATUS_CODE_UNSET}
    for span in collector.spans:
        assert span.end_time_unix_nano > span.start_time_unix_nano
        assert running.line_of(told(span)["faissbase.request_id"])["trace_id"] == span.trace_id.hex()


def test_the_trace_of_the_caller_goes_on(folder: Path, collector: Collector) -> None:
    with Running(folder, "--otel-endpoint", f"{collector.url}/") as running, running.client() as http:
        for name, parent in (
            ("good", f"00-{TRACE}-{PARENT}-01"),
            ("unsampled", f"00-{TRACE}-{PARENT}-00"),
            ("wrong", "00-xyz-1-01"),
        ):
            done(http.get("/index", headers={"x-request-id": name, "traceparent": parent}))
        assert running.stop() == 0
    good = collector.span_of("good")
    assert (good.trace_id.hex(), good.parent_span_id.hex()) == (TRACE, PARENT)
    assert running.line_of("good")["trace_id"] == TRACE
    assert running.line_of("unsampled")["trace_id"] == TRACE
    wrong = collector.span_of("wrong")
    assert wrong.trace_id.hex() != TRACE
    assert wrong.parent_span_id == b""
    assert len(collector.spans) == 2


def test_what_is_the_servers_fault_is_an_error(tmp_path: Path, collector: Collector) -> None:
    folder = made_damaged(tmp_path / "data")
    with Running(folder, "--otel-endpoint", collector.url) as running, running.client() as http:
        refused(http.get("/index/docs/vectors"), 500, "corruption")
        assert running.stop() == 0
    [span] = collector.spans
    assert (told(span)["http.response.status_code"], told(span)["error.type"]) == (500, "500")
    assert span.status.code == Status.STATUS_CODE_ERROR


def test_requests_are_served_where_no_collector_listens(folder: Path, collector: Collector) -> None:
    with Running(folder, "--otel-endpoint", "http://127.0.0.1:9") as running, running.client() as http:
        done(http.get("/index"))
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < LONGEST_STOP_S
    assert all(
        line.startswith(("{", "faissbase serves", "its console", "no API key")) for line in running.lines
    )


def test_without_an_endpoint_there_is_no_trace(folder: Path) -> None:
    headers = {"x-request-id": "plain", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    with Running(folder) as running, running.client() as http:
        done(http.get("/index", headers=headers))
        assert "trace_id" not in running.line_of("plain")

"""A span for each request, sent to an OpenTelemetry collector. Knows OpenTelemetry; imported where it is on.

Source: the semantic conventions for HTTP server spans. ``url.path`` is left out: ids of records are in it.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from faissbase._version import __version__
from faissbase.dropin.frames import PATH as FAISS
from faissbase.server.app import STORY, TRACE_ID
from faissbase.server.pages import ROUTE as CONSOLE
from faissbase.server.routing import PREFIX

_PATH = "/v1/traces"
_SEND_S = 5.0
_WHOLE = (FAISS, CONSOLE)  # routes that say all of their path
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_CONTEXT = TraceContextTextMapPropagator()


class Tracing:
    """Where spans go. `close` sends what is left."""

    def __init__(self, endpoint: str) -> None:
        service = Resource.create({"service.name": "faissbase", "service.version": __version__})
        told = OTELResourceDetector().detect()  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
        self._provider = TracerProvider(resource=service.merge(told), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint.rstrip("/").removesuffix(_PATH) + _PATH, timeout=_SEND_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))

    def traced(self, app: ASGIApp) -> ASGIApp:
        return _Traced(app, self._provider)

    def close(self) -> None:
        self._provider.shutdown()


class _Traced:
    """The server, with a span around each request; its trace goes on where the caller says which it is."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self._app = app
        self._tracer = provider.get_tracer("faissbase", __version__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        attributes = {
            "http.request.method": method,
            "url.scheme": scope["scheme"],
            "network.protocol.version": scope["http_version"],
        }
        span = self._tracer.start_span(method, _caller(scope), SpanKind.SERVER, attributes)
        try:
            scope[TRACE_ID] = format_trace_id(span.get_span_context().trace_id)
            await self._app(scope, receive, send)
            _tell(span, method, scope[STORY])
        finally:
            span.end()


def _caller(scope: Scope) -> Any:
    """The trace that the caller is in, by its ``traceparent``."""
    heads = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return _CONTEXT.extract(heads)


def _tell(span: Span, method: str, story: Any) -> None:
    """What one request was."""
    span.set_attribute("faissbase.request_id", story.request_id)
    span.set_attribute("http.response.status_code", story.status)
    if story.key is not None:
        span.set_attribute("faissbase.tenant", story.key.tenant)
    if story.route != "none":
        route = story.route if story.route in _WHOLE else PREFIX + story.route
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
    if story.status >= 500:
        span.set_attribute("error.type", str(story.status))
        span.set_status(StatusCode.ERROR)

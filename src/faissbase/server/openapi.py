"""The OpenAPI document, made from the routes and the structs they take and give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from faissbase._version import __version__
from faissbase.server.bodies import ARROW
from faissbase.server.downloads import CONTENT_TYPE as TAR
from faissbase.server.downloads import Download
from faissbase.server.operations import Operation
from faissbase.server.telling import LINES
from faissbase.wire import FaultBody, ToldLine

_REF = "#/components/schemas/{name}"
_METADATA = {"RecordIn": ["object", "null"], "HitOut": ["object"]}
_FILES: dict[Any, str] = {bytes: "text/plain", Download: TAR}
_FAULTS = {
    "400": "The body cannot be read",
    "401": "No key, or none that is good",
    "403": "The key is not good for this",
    "404": "No such index, record or key",
    "405": "The path takes another method",
    "408": "The body took too long",
    "409": "It exists already, or somebody else was faster",
    "413": "More than the settings allow",
    "415": "A content type or encoding that is not understood",
    "422": "The request makes no sense, and why",
    "429": "Asked too often, or a quota is used up",
    "500": "A bug, or damaged data",
    "503": "Storage cannot serve now; later it may",
}


def document(operations: Sequence[Operation], open_paths: Sequence[Operation]) -> dict[str, Any]:
    """OpenAPI 3.1 of these routes; those of ``open_paths`` need no key."""
    everything = (*operations, *open_paths)
    types = [
        each for op in everything for each in (op.body, *_answers(op)) if each not in (None, dict, *_FILES)
    ]
    types.append(ToldLine)
    schemas, components = msgspec.json.schema_components([*types, FaultBody], ref_template=_REF)
    for name, kinds in _METADATA.items():  # raw JSON to msgspec, which does not look into it
        components[name]["properties"]["metadata"] = {"type": kinds}
    updated = components["UpdateVectors"]["properties"]["metadatas"]["anyOf"]
    updated[0] = {"type": "array", "items": {"type": ["object", "null"]}}
    schema_of = {id(kind): schema for kind, schema in zip(types, schemas, strict=False)}
    paths: dict[str, dict[str, Any]] = {}
    for op in everything:
        path = "/v1" + op.path.replace(":rest}", "}")
        for method in op.methods:
            entry = _entry(op, schema_of, schemas[-1], is_open=op in open_paths)
            if method == "GET":
                entry.pop("requestBody", None)  # it is taken, but OpenAPI does not foresee it
            entry["operationId"] = _id(method, path)
            paths.setdefault(path, {})[method.lower()] = entry
    keys = {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}, "bearer": _BEARER}
    return {
        "openapi": "3.1.0",
        "info": {"title": "faissbase", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": keys},
        "security": [{"key": []}, {"bearer": []}],
    }


def _id(method: str, path: str) -> str:
    """A name for each operation, as programs that are made from this document call it."""
    words = [word.strip("{}").replace(".", "_") for word in path.split("/")[2:]]
    return "_".join([method.lower(), *words])


def _answers(op: Operation) -> tuple[Any, ...]:
    return op.answer if isinstance(op.answer, tuple) else (op.answer,)


_BEARER = {"type": "http", "scheme": "bearer"}


def _entry(op: Operation, schema_of: dict[int, Any], fault: Any, *, is_open: bool) -> dict[str, Any]:
    names = [part[1:-1].removesuffix(":rest") for part in op.path.split("/") if part.startswith("{")]
    in_path = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    in_query = [
        {"name": name, "in": "query", "description": about, "schema": {"type": "string"}}
        for name, about in op.query.items()
    ]
    answers: dict[str, Any] = {str(op.status): {"description": "Done"}}
    if op.answer is not None:
        kind = _FILES.get(op.answer, "application/json")
        other = {"type": "string" if op.answer in _FILES else "object"}
        schemas = [schema_of.get(id(each), other) for each in _answers(op)]
        schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
        answers[str(op.status)]["content"] = {kind: {"schema": schema}}
        if op.tells:
            answers[str(op.status)]["content"][LINES] = {"schema": schema_of[id(ToldLine)]}
    for status, about in _FAULTS.items():
        answers[status] = {"description": about, "content": {"application/json": {"schema": fault}}}
    entry: dict[str, Any] = {"summary": op.summary, "parameters": in_path + in_query, "responses": answers}
    if op.body is not None:
        content: dict[str, Any] = {"application/json": {"schema": schema_of[id(op.body)]}}
        if op.read_arrow is not None:
            content[ARROW] = {}
        entry["requestBody"] = {"required": True, "content": content}
    if is_open:
        entry["security"] = []
    else:
        entry["description"] = f"Needs a key with the scope `{op.scope}`."
    return entry

"""The OpenAPI document: valid, whole, and true of every route."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import validate

from faissbase.server.app import OPERATIONS
from faissbase.server.operations import Operation
from faissbase.server.routing import PREFIX
from faissbase.server.watching import OPEN_OPERATIONS, openapi

ROUTES = [(method, op) for op in (*OPERATIONS, *OPEN_OPERATIONS) for method in op.methods]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    nobody: Any = None  # the document is the same for all
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(openapi(nobody)))
    return found


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def path_of(op: Operation) -> str:
    return PREFIX + re.sub(r":\w+}", "}", op.path)


def entry_of(document: dict[str, Any], method: str, op: Operation) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][path_of(op)][method.lower()]
    return found


def test_it_describes_every_route_and_no_other(document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(method, path_of(op)) for method, op in ROUTES}


@pytest.mark.parametrize(("method", "op"), ROUTES, ids=lambda each: getattr(each, "path", each))
def test_it_says_what_a_route_takes_and_needs(document: dict[str, Any], method: str, op: Operation) -> None:
    entry = entry_of(document, method, op)
    assert entry["summary"] == op.summary
    assert str(op.status) in entry["responses"]
    names = {(each["in"], each["name"]) for each in entry["parameters"]}
    in_path = {("path", name) for name in re.findall(r"{(\w+)", op.path)}
    assert names == in_path | {("query", name) for name in op.query}
    assert ("requestBody" in entry) == (op.body is not None and method != "GET")
    assert (entry.get("security") == []) == (op in OPEN_OPERATIONS)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["$ref"]] if "$ref" in value else []
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > 20
    for reference in found:
        name = reference.removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"], reference

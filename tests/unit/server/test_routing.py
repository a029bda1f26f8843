"""Which operation a path is for, and what its query string may say."""

from __future__ import annotations

import pytest

from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.server.app import OPERATIONS
from faissbase.server.faults import WrongMethod
from faissbase.server.routing import Router, query_of

ROUTER = Router(OPERATIONS)


@pytest.mark.parametrize(
    ("method", "path", "operation", "names"),
    [
        ("POST", "/v1/index", "/index", {}),
        ("GET", "/v1/index/docs", "/index/{index}", {"index": "docs"}),
        ("HEAD", "/v1/index/docs", "/index/{index}", {"index": "docs"}),
        ("GET", "/v1/index/docs/search", "/index/{index}/search", {"index": "docs"}),
        ("POST", "/v1/index/a b/vectors", "/index/{index}/vectors", {"index": "a b"}),
        ("POST", "/v1/index/docs/vectors/get", "/index/{index}/vectors/get", {"index": "docs"}),
        # A record may be called as a route is: the method tells.
        (
            "GET",
            "/v1/index/docs/vectors/get",
            "/index/{index}/vectors/{vector:rest}",
            {"index": "docs", "vector": "get"},
        ),
        (
            "DELETE",
            "/v1/index/docs/vectors/a/b\nc",
            "/index/{index}/vectors/{vector:rest}",
            {"index": "docs", "vector": "a/b\nc"},
        ),
    ],
)
def test_a_path_has_one_operation(method: str, path: str, operation: str, names: dict[str, str]) -> None:
    found, given = ROUTER.find(method, path)
    assert (found.path, given) == (operation, names)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/index/", "/v2/index", "/v1/index/a/b", "v1/index"])
def test_a_path_that_is_none_is_named(path: str) -> None:
    with pytest.raises(NotFoundError, match="no path"):
        ROUTER.find("GET", path)


def test_a_method_that_is_not_taken_is_told_which_ones_are() -> None:
    with pytest.raises(WrongMethod) as caught:
        ROUTER.find("PUT", "/v1/index/docs/vectors/get")
    assert caught.value.allowed == "DELETE, GET, HEAD, POST"


def test_parameters_are_those_of_the_operation_and_come_once() -> None:
    operation = ROUTER.find("GET", "/v1/index/docs/vectors")[0]
    assert query_of(operation, b"") == {}
    assert query_of(operation, b"limit=5&cursor=") == {"limit": "5", "cursor": ""}
    with pytest.raises(InvalidInputError, match="'limit' is given twice"):
        query_of(operation, b"limit=5&limit=6")
    with pytest.raises(InvalidInputError, match="unknown parameter 'limits'; there are: limit, cursor"):
        query_of(operation, b"limits=5")

"""What is said about bodies that cannot be read."""

from __future__ import annotations

import msgspec
import pytest

from faissbase.server.bodies import decoded
from faissbase.server.faults import Malformed
from faissbase.wire import PutVectors, Search

PUT, SEARCH = msgspec.json.Decoder(PutVectors), msgspec.json.Decoder(Search)


@pytest.mark.parametrize(
    ("decoder", "body", "told"),
    [
        (PUT, '{"vectors":[{"id":"a","values":[1]},{"id":"b","values":[1,NaN]}]}', "$.vectors[1].values[1]"),
        (PUT, '{"vectors":[{"id":"a","values":[1],"metadata":{"x":-Infinity}}]}', "$.vectors[0].metadata.x"),
        (SEARCH, '{"vector": [1, Infinity]}', "$.vector[1]"),
    ],
)
def test_what_is_not_finite_is_told_with_its_place(
    decoder: msgspec.json.Decoder[object], body: str, told: str
) -> None:
    with pytest.raises(Malformed, match="is no finite number") as caught:
        decoded(body.encode(), "application/json", decoder, "acme")
    assert str(caught.value).endswith(f" - at `{told}`")


@pytest.mark.parametrize("body", ['{"vector": [1, 2}', '{"vector": [NaN', '{"text": "NaN', "{" * 100_000])
def test_what_is_otherwise_malformed_is_told_by_its_byte(body: str) -> None:
    with pytest.raises(Malformed, match="the body is no JSON that can be read") as caught:
        decoded(body.encode(), "application/json", SEARCH, "acme")
    assert "at `$" not in str(caught.value)

"""What ``connect`` takes depends on where it leads: an option of another kind of place is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import faissbase
from faissbase.errors import InvalidInputError

PLACES = {
    "folder": "data",
    "server": "http://localhost:1",
    "bucket": "memory://options",
    "ray": "ray://auto",
}
OPTIONS: dict[str, tuple[Any, set[str]]] = {
    "durability": ("relaxed", {"folder"}),
    "memory_budget": (1 << 30, {"folder", "bucket"}),
    "read_only": (True, {"folder", "bucket", "ray"}),
    "api_key": ("fb_x", {"server"}),
    "timeout_s": (1.0, {"server"}),
    "verify": (False, {"server"}),
    "storage_options": ({}, {"bucket"}),
    "cache": ("cache", {"bucket", "ray"}),
    "allow_partial": (True, {"bucket", "ray"}),
    "refresh_s": (0.0, {"bucket", "ray"}),
}
REFUSED = [(option, kind) for option, (_, kinds) in OPTIONS.items() for kind in PLACES if kind not in kinds]


@pytest.mark.parametrize(("option", "kind"), REFUSED)
def test_an_option_of_another_place_is_refused_by_name(
    option: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=f"{option} is for .* is a {kind}"):
        faissbase.connect(PLACES[kind], **{option: OPTIONS[option][0]})
    assert list(tmp_path.iterdir()) == [], "nothing is made before all is checked"


@pytest.mark.parametrize("option", [name for name, (_, kinds) in OPTIONS.items() if "bucket" in kinds])
def test_a_bucket_takes_its_options(option: str, tmp_path: Path) -> None:
    given = {"cache": tmp_path, option: OPTIONS[option][0]}
    given["cache"] = tmp_path
    with faissbase.connect(PLACES["bucket"], **given) as db:
        assert db.list_collections() == []

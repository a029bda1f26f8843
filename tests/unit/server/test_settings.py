"""Settings: where they come from, which wins, and what is no setting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from faissbase.errors import InvalidInputError
from faissbase.server.settings import ABOUT, DEFAULTS, NAMES, Settings, load

NUMBERS = [name for name in NAMES if type(DEFAULTS[name]) in (int, float)]
WORDS = [name for name in NAMES if type(DEFAULTS[name]) is bool]


def loaded(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    return load(flags or {}, environment or {}, file)[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "own.toml"


def test_nothing_told_is_all_defaults() -> None:
    settings, sources = load({}, {})
    assert settings == Settings()
    assert set(sources.values()) == {"default"}
    assert tuple(sources) == NAMES
    assert all(ABOUT[name] for name in NAMES)


def test_the_defaults_are_for_this_machine_alone_and_lose_nothing() -> None:
    settings = Settings()
    assert (settings.is_public, settings.insecure, settings.has_tls) == (False, False, False)
    assert settings.durability == "full"


def test_a_flag_wins_over_the_environment_and_that_over_the_file(file: Path) -> None:
    file.write_text("max_k = 1\nmax_vectors = 1\nport = 1\n")
    environment = {"FAISSBASE_MAX_VECTORS": "2", "FAISSBASE_PORT": "2", "FAISSBASE_NOSUCH": "2", "MAX_K": "2"}
    settings, sources = load({"port": "3", "host": None}, environment, file)
    assert (settings.max_k, settings.max_vectors, settings.port) == (1, 2, 3)
    assert sources["max_k"] == str(file)
    assert sources["max_vectors"] == "FAISSBASE_MAX_VECTORS"
    assert (sources["port"], sources["host"]) == ("flag", "default")


def test_an_empty_variable_says_nothing() -> None:
    assert loaded(environment={"FAISSBASE_PORT": "", "FAISSBASE_HOST": ""}) == Settings()


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("Yes", True), ("off", False), ("0", False)]
)
def test_a_switch_is_a_word(text: str, value: bool) -> None:
    for name in WORDS:
        assert getattr(loaded(environment={f"FAISSBASE_{name.upper()}": text}), name) is value


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "wrong", ["", "ten", "1,5", "0x10", "nan", "-1", True, [1], {"a": 1}, b"1"], ids=repr
)
def test_a_number_is_a_number(name: str, wrong: object) -> None:
    with pytest.raises(InvalidInputError, match=rf"^{name} must be .*\(flag\)$"):
        loaded({name: wrong})


@pytest.mark.parametrize("name", [name for name in NUMBERS if type(DEFAULTS[name]) is int])
def test_a_whole_number_has_no_parts(name: str, file: Path) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name} must be a whole number, got '1.5'"):
        loaded({name: "1.5"})
    file.write_text(f"{name} = 2000.0")
    with pytest.raises(InvalidInputError, match=f"^{name} must be a whole number, got 2000.0"):
        loaded(file=file)


@pytest.mark.parametrize("name", [name for name in NUMBERS if type(DEFAULTS[name]) is float])
def test_a_number_of_seconds_or_requests_may_be_whole(name: str, file: Path) -> None:
    file.write_text(f"{name} = 7")
    assert getattr(loaded(file=file), name) == 7.0


@pytest.mark.parametrize("name", [name for name in NUMBERS if type(DEFAULTS[name]) is float])
def test_a_number_is_finite(name: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        loaded({name: "inf"})


@pytest.mark.parametrize("name", [name for name in NAMES if type(DEFAULTS[name]) is str])
@pytest.mark.parametrize("wrong", ["1", "true", "[]", "1.5"])
def test_a_text_is_a_text(name: str, wrong: str, file: Path) -> None:
    file.write_text(f"{name} = {wrong}")
    with pytest.raises(InvalidInputError, match=f"^{name} must be text"):
        loaded(file=file)


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("wrong", ["maybe", "2", "", 1, 0, None, []], ids=repr)
def test_a_switch_is_on_or_off(name: str, wrong: object) -> None:
    if wrong is None:  # a flag that was not given
        assert getattr(loaded({name: wrong}), name) is DEFAULTS[name]
        return
    with pytest.raises(InvalidInputError, match=f"^{name} must be true or false"):
        loaded({name: wrong})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("durability", "fast"),
        ("log_format", "xml"),
        ("port", "65536"),
        ("max_body_bytes", "1023"),
        ("max_k", "0"),
    ],
)
def test_a_value_out_of_bounds_is_told_with_its_bounds(name: str, value: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"^{name} must be (one of|at most|\d+ or more).*{value}"):
        loaded({name: value})


@pytest.mark.parametrize("content", ["nosuch = 1", "[server]\nport = 1", "Port = 1", "max-k = 1"])
def test_an_unknown_setting_of_the_file_is_named(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(
        InvalidInputError, match=r"own\.toml: unknown setting '(nosuch|server|Port|max-k)'; there are data"
    ):
        loaded(file=file)


@pytest.mark.parametrize("content", [b"port = ", b"port = 1\nport = 2", b"\xff\xfe", b"host = '\xff'"])
def test_a_file_that_cannot_be_read_is_named(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"^cannot read settings from .*own\.toml"):
        loaded(file=file)


def test_a_file_that_is_not_there_is_named(file: Path, tmp_path: Path) -> None:
    for missing in (file, tmp_path):
        with pytest.raises(InvalidInputError, match=f"^cannot read settings from {missing}"):
            loaded(file=missing)


def test_tls_needs_all_its_files(tmp_path: Path) -> None:
    pem = tmp_path / "a.pem"
    pem.write_text("")
    for flags, words in (
        ({"tls_cert": pem}, "tls_cert needs tls_key too"),
        ({"tls_key": pem}, "tls_key needs tls_cert too"),
        ({"tls_client_ca": pem}, "tls_client_ca needs tls_cert and tls_key too"),
        ({"tls_cert": pem, "tls_key": tmp_path / "b.pem"}, "tls_key: no file"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            loaded({name: str(path) for name, path in flags.items()})
    assert loaded({"tls_cert": str(pem), "tls_key": str(pem)}).has_tls


def test_a_certificate_is_given_or_made_but_not_both(tmp_path: Path) -> None:
    pem = tmp_path / "a.pem"
    pem.write_text("")
    assert loaded({"tls_self_signed": True, "tls_client_ca": str(pem)}).has_tls
    for names in (["tls_cert", "tls_key"], ["tls_cert"], ["tls_key"]):
        with pytest.raises(InvalidInputError, match="give it, or tls_cert and tls_key, not both"):
            loaded({"tls_self_signed": "true"} | dict.fromkeys(names, str(pem)))


def test_origins_are_told_apart_by_commas() -> None:
    assert loaded().origins == []
    assert loaded({"cors_origins": "*"}).origins == ["*"]
    two = ["https://a.example", "http://localhost:5173"]
    assert loaded({"cors_origins": " , ".join(two) + ","}).origins == two


@pytest.mark.parametrize(
    "origin",
    ["a.example", "https://a.example/", "https://A.example", "null", "https://*", "https://a b", "://a"],
)
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^cors_origins takes origins as browsers send them"):
        loaded({"cors_origins": f"https://b.example,{origin}"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_an_address_of_this_machine_is_not_public(host: str) -> None:
    assert not loaded({"host": host}).is_public


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.2", "example.org", "", "127.0.0.1.example.org"]
)
def test_any_other_address_is_public(host: str) -> None:
    assert loaded({"host": host}).is_public

"""``faissbase serve`` and ``faissbase keys`` as command lines: what they show, and what they refuse."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from tests.unit.server.conftest import Cli

from faissbase.server.keys import Keys
from faissbase.server.settings import NAMES


def complaint(cli: Cli, code: int, *words: object) -> str:
    """What a command says that does not start."""
    ran = cli(*words)
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    return ran.err


# ---- settings ---------------------------------------------------------------------------------------


def test_every_setting_is_a_flag_and_shown_with_its_source(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.toml").write_text("max_k = 1\nmax_vectors = 1\nport = 1\ninsecure = true\n")
    monkeypatch.setenv("FAISSBASE_CONFIG", "own.toml")
    monkeypatch.setenv("FAISSBASE_MAX_VECTORS", "2")
    monkeypatch.setenv("FAISSBASE_PORT", "2")
    shown = orjson.loads(cli("serve", "--show-config", "--json", "--port", 3).out)
    assert tuple(shown) == NAMES
    assert shown["max_k"] == {"value": 1, "source": "own.toml"}
    assert shown["max_vectors"] == {"value": 2, "source": "FAISSBASE_MAX_VECTORS"}
    assert shown["port"] == {"value": 3, "source": "flag"}
    assert shown["insecure"] == {"value": True, "source": "own.toml"}
    assert shown["host"] == {"value": "127.0.0.1", "source": "default"}
    assert list(tmp_path.iterdir()) == [tmp_path / "own.toml"]


def test_the_settings_that_are_shown_are_a_file_of_settings(cli: Cli, tmp_path: Path) -> None:
    first = cli("serve", "--show-config", "--data", "d", "--body-timeout-s", "1.5", "--insecure").out
    (tmp_path / "own.toml").write_text(first)
    again = cli("serve", "--show-config", "--config", "own.toml").out
    assert [line.partition("  #")[0] for line in again.splitlines()] == [
        line.partition("  #")[0] for line in first.splitlines()
    ]


def test_the_folder_is_told_by_flag_variable_or_file(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(*words: str) -> str:
        return str(orjson.loads(cli(*words, "--show-config", "--json").out)["data"]["value"])

    (tmp_path / "own.toml").write_text("data = 'filed'\n")
    assert folder("serve", "--config", "own.toml") == "filed"
    monkeypatch.setenv("FAISSBASE_DATA", "variable")
    assert folder("serve", "--config", "own.toml") == "variable"
    for words in (("serve", "--data", "./data"), ("--data", "./data", "serve"), ("serve", "--data=./data")):
        assert Path(folder(*words)) == Path("data")


def test_serve_takes_the_folder_of_all_commands_where_none_is_given(cli: Cli, tmp_path: Path) -> None:
    assert cli("keys", "create", "--tenant", "a", "--scopes", "read").code == 0
    shown = orjson.loads(cli("serve", "--show-config", "--json").out)
    assert (tmp_path / shown["data"]["value"]).resolve() == (tmp_path / "data").resolve()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nosuch = 1", "own.toml: unknown setting 'nosuch'; there are data, host"),
        ("port = 'x'", "port must be a whole number, got 'x' (own.toml)"),
        ("insecure = 'maybe'", "insecure must be true or false, got 'maybe' (own.toml)"),
        ("port = ", "cannot read settings from own.toml"),
    ],
)
def test_a_wrong_line_of_the_file_is_told_with_the_file(
    cli: Cli, tmp_path: Path, line: str, words: str
) -> None:
    (tmp_path / "own.toml").write_text(line)
    assert words in complaint(cli, 2, "serve", "--config", "own.toml")


def test_a_wrong_variable_or_flag_is_told_with_its_source(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "max_k must be 1 or more, got '0' (flag)" in complaint(cli, 2, "serve", "--max-k", 0)
    monkeypatch.setenv("FAISSBASE_LOG_FORMAT", "xml")
    assert "log_format must be one of auto, json, text, got 'xml' (environment)" in complaint(cli, 2, "serve")


# ---- refusing to start ------------------------------------------------------------------------------


def test_a_variable_that_is_no_setting_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAISSBASE_MAX_K", "FAISSBASE_MAX_KK", "FAISSBASE_API_KEY"):
        monkeypatch.setenv(name, "7")
    ran = cli("serve", "--show-config")
    assert ran.code == 0
    assert ran.err.startswith("FAISSBASE_MAX_KK is in the environment, and no setting")
    assert ran.err.count("\n") == 1


def test_an_address_that_is_taken_is_told(cli: Cli, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = complaint(cli, 4, "serve", "--data", folder, "--port", port)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in message


def test_a_host_that_is_none_is_told(cli: Cli, folder: Path) -> None:
    words = ("serve", "--data", folder, "--port", 0, "--host", "not a host", "--insecure")
    assert "Unknown error" not in complaint(cli, 4, *words)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
def test_a_public_address_needs_keys_and_tls(cli: Cli, folder: Path, host: str) -> None:
    words = ("serve", "--data", folder, "--port", 0, "--host", host)
    message = complaint(cli, 4, *words)
    assert "there is no API key yet" in message
    assert f"faissbase keys create --data {folder} --tenant NAME" in message
    keys = Keys(folder)
    keys.create("acme", ["read"])
    keys.close()
    assert "--tls-cert" in complaint(cli, 4, *words)


def test_a_folder_that_is_no_database_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    message = complaint(cli, 2, "serve", "--data", tmp_path, "--port", 0)
    assert "holds other things ('thesis.txt', ...)" in message


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_no_certificate_is_told(cli: Cli, folder: Path, tmp_path: Path, content: str) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text(content)
    words = ("serve", "--data", folder, "--port", 0, "--tls-cert", wrong, "--tls-key", wrong)
    assert str(wrong) in complaint(cli, 2, *words)


# ---- keys -------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_listed_without_its_secret(cli: Cli) -> None:
    words = (
        "--tenant",
        "acme",
        "--scopes",
        "write,read",
        "--index",
        "docs",
        "--expires",
        "12h",
        "--name",
        "n",
    )
    made = orjson.loads(cli("keys", "create", *words, "--json").out)
    listed = cli("keys", "list", "--json")
    assert orjson.loads(listed.out)["keys"] == [{name: made[name] for name in made if name != "key"}]
    assert made["key"].split("_", 2)[2] not in listed.out
    assert made["expires_s"] == pytest.approx(made["created_s"] + 12 * 3600)
    lines = cli("keys", "list").out
    assert lines.startswith(f"{made['id']}  acme  read,write  active until ")
    assert lines.endswith(" only docs  n\n")


def test_a_key_is_rotated_and_revoked_by_its_id(cli: Cli) -> None:
    first = orjson.loads(cli("keys", "create", "--tenant", "acme", "--scopes", "read", "--json").out)
    second = orjson.loads(cli("keys", "rotate", first["id"], "--json").out)
    assert cli("keys", "revoke", second["id"]).code == 0
    states = [each["state"] for each in orjson.loads(cli("keys", "list", "--json").out)["keys"]]
    assert states == ["revoked", "revoked"]
    assert "make a new one" in complaint(cli, 2, "keys", "rotate", first["id"])
    assert "no key 'nosuch'" in complaint(cli, 3, "keys", "revoke", "nosuch")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tenant", "../x", "--scopes", "read"), "tenant must be"),
        (("--tenant", "a", "--scopes", "root"), "scopes are read, write, admin"),
        (("--tenant", "a", "--scopes", ""), "scopes are read, write, admin"),
        (("--tenant", "a", "--scopes", "read", "--expires", "soon"), "a span is a number with s, m, h or d"),
        (("--tenant", "a", "--scopes", "read", "--expires", "0s"), "expire later than now"),
        (("--tenant", "a", "--scopes", "read", "--index", "a/b"), "index must be"),
        (("--scopes", "read"), "--tenant"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(cli: Cli, words: tuple[str, ...], said: str) -> None:
    assert said in complaint(cli, 2, "keys", "create", *words)


def test_a_key_that_ends_in_the_far_future_can_be_listed(cli: Cli) -> None:
    words = ("--tenant", "a", "--scopes", "read", "--expires", "99999999999999d")
    assert cli("keys", "create", *words).code in (0, 2)
    assert cli("keys", "list").code == 0


# ---- extras -----------------------------------------------------------------------------------------


def test_what_is_not_asked_for_is_not_imported() -> None:
    seldom = ("opentelemetry", "cryptography")
    program = f"import sys, faissbase.server.run; print([name for name in {seldom} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_spans_need_an_extra(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "faissbase.server.tracing", raising=False)
    for name in [name for name in sys.modules if name.startswith("opentelemetry.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    words = ("serve", "--data", folder, "--port", 0, "--otel-endpoint", "http://127.0.0.1:4318")
    assert 'pip install "faissbase[otel]"' in complaint(cli, 4, *words)
    assert "otel_endpoint must be an http or https URL" in complaint(cli, 2, *words[:-1], "collector:4317")

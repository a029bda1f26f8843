"""Errors, exit codes, help and JSON, command by command, without starting a process."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from faissbase.cli import search
from faissbase.cli.main import EXIT_CODES, build_parser
from faissbase.errors import FaissbaseError

COMMANDS = [
    "demo",
    "load",
    "search",
    "list",
    "stats",
    "optimize",
    "delete",
    "plan",
    "verify",
    "repair",
    "export",
    "backup",
    "restore",
    "bench",
    "serve",
    "keys",
    "shards",
    "promote",
    "demote",
]


def every_kind(root: type[FaissbaseError]) -> set[str]:
    """Those of the library: the server has its own, which no command line meets."""
    children = (child for child in root.__subclasses__() if child.__module__ == root.__module__)
    return {root.kind}.union(*map(every_kind, children))


def test_every_kind_of_error_has_an_exit_code() -> None:
    assert every_kind(FaissbaseError) == set(EXIT_CODES)


def test_these_are_all_the_commands() -> None:
    assert build_parser().parse_args(["list"]).command == "list"
    [actions] = [action for action in build_parser()._actions if action.dest == "command"]
    assert list(actions.choices or []) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(command: str, cli: Any) -> None:
    ran = cli(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    examples = ran.out.split("examples:")[1].split("exit codes:")[0]
    assert examples.count(f"faissbase {command}") >= 1
    assert 2 <= len(examples.strip().splitlines()) <= 4
    assert "\n  0 " in ran.out.split("exit codes:")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_parse(command: str, cli: Any) -> None:
    import shlex

    examples = cli(command, "--help").out.split("examples:")[1].split("exit codes:")[0]
    for line in examples.strip().splitlines():
        for part in line.split("&&"):
            words = shlex.split(part.split(" > ")[0], comments=True)
            assert words[0] == "faissbase"
            build_parser().parse_args(words[1:])


def test_help_names_every_exit_code(cli: Any) -> None:
    listed = cli("--help").out.split("exit codes:")[1].split("Errors are")[0]
    found = {int(line.split()[0]) for line in listed.strip().splitlines()}
    assert found == {0, 1, 130, 141, *EXIT_CODES.values()}


def test_without_words_it_shows_its_help(cli: Any) -> None:
    ran = cli()
    assert ran.code == 2
    assert ran.out == cli("--help").out


WRONG: list[tuple[list[str], int, str]] = [
    (["nosuch"], 2, "invalid choice: 'nosuch'"),
    (["--json"], 2, "give a command"),
    (["search"], 2, "required: COLLECTION"),
    (["search", "docs", "--nope"], 2, "unrecognized arguments: --nope"),
    (["search", "docs"], 2, "search by what?"),
    (["search", "docs", "--text", "a", "-k", "0"], 2, "whole number of 1 or more, got '0'"),
    (["search", "docs", "--text", "a", "-k", "many"], 2, "whole number of 1 or more, got 'many'"),
    (["search", "docs", "--text", "a", "--explain"], 2, "leave --text away"),
    (["search", "docs", "--text", "a", "--where", "n=1"], 2, "must be JSON"),
    (["search", "docs", "--text", "a", "--where", "[1]"], 2, "a filter is a JSON object"),
    (["search", "docs", "--text", "a", "--where", '{"n": {"$near": 1}}'], 2, "unknown operator '$near'"),
    (["search", "docs", "--vector", "[1, 2]"], 2, "expected vectors of d=8, got d=2"),
    (["search", "docs", "--vector", "0.5 0.5"], 2, "--vector must be JSON"),
    (["search", "docs", "--vector", '{"x": 1}'], 2, "--vector is a JSON array"),
    (["search", "docs", "--vector-file", "none.npy"], 3, "no file none.npy"),
    (["search", "docs", "--vector-file", "text.npy"], 2, "text.npy is not a .npy file"),
    (["search", "docs", "--vector-file", "two.npz"], 2, "two.npz holds several arrays"),
    (["search", "docs", "--id", "a", "--vector", "[1]"], 2, "not allowed with"),
    (["search", "docs", "--id", "none"], 3, "no record 'none' in collection 'docs'"),
    (["search", "none", "--text", "a"], 3, "no collection 'none'; there are: docs, empty"),
    (["stats", "none"], 3, "no collection 'none'"),
    (["stats", "--data", "nowhere"], 3, "no database at nowhere: give --data FOLDER"),
    (["stats", "--data", ":memory:"], 2, "is a folder, got ':memory:'"),
    (["load", "none.npy", "new"], 3, "none.npy"),
    (["load", "a.xlsx", "new"], 2, "the suffix must be one of"),
    (["load", "eye.npy", "bad name"], 2, "got 'bad name'"),
    (["load", "eye.npy", "docs"], 2, "exists with dimension=8, not 3"),
    (["load", "eye.npy", "docs", "--dimension", "8"], 2, "expected vectors of d=8, got d=3"),
    (["load", "eye.npy", "empty", "--metric", "ip"], 2, "exists with metric='cosine', not 'ip'"),
    (["load", "nan.npy", "new"], 2, "not finite"),
    (["export", "docs", "docs.xyz"], 2, "the suffix must be one of"),
    (["export", "docs", "eye.npy"], 2, "eye.npy exists already: give --overwrite"),
    (["backup", "eye.npy"], 2, "a backup never overwrites"),
    (["restore", "none", "--into", "x"], 3, "no backup at none"),
    (["restore", "eye.npy", "--into", "x"], 5, "not a whole backup"),
    (["restore", "eye.npy"], 2, "required: --into"),
    (["delete", "docs"], 2, "one of the arguments --id --where --all is required"),
    (["delete", "docs", "--all"], 2, "give --yes"),
    (["repair", "docs"], 2, "give --yes"),
    (["bench", "empty"], 2, "has no record to measure with"),
]


@pytest.fixture
def wrong_files(tmp_path: Path) -> None:
    np.save(tmp_path / "eye.npy", np.eye(3, dtype=np.float32))
    np.save(tmp_path / "nan.npy", np.full((2, 3), np.nan, np.float32))
    np.savez(tmp_path / "two.npz", a=np.eye(2), b=np.eye(2))
    (tmp_path / "text.npy").write_text("hello")


@pytest.mark.parametrize(("words", "code", "message"), WRONG, ids=lambda value: str(value)[:60])
@pytest.mark.usefixtures("data", "wrong_files")
def test_what_is_wrong_is_told_in_one_line(words: list[str], code: int, message: str, cli: Any) -> None:
    ran = cli(*words)
    assert (ran.code, ran.err.count("\n")) == (code, 1)
    assert ran.err.startswith("error: ")
    assert message in ran.err
    if "--json" not in words:
        assert ran.out == ""
        as_json = cli("--json", *words)
        assert (as_json.code, as_json.err) == (code, ran.err)
        assert as_json.json["error"]["message"] == ran.err.removeprefix("error: ").rstrip("\n")


@pytest.mark.usefixtures("data", "wrong_files")
def test_a_load_that_fails_at_once_leaves_no_collection(cli: Any) -> None:
    assert cli("load", "nan.npy", "new").code == 2
    assert cli("list").out == "docs\nempty\n"


@pytest.mark.usefixtures("data")
def test_what_a_library_prints_is_no_part_of_the_answer(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_check", lambda *_: print("a worker died"))
    ran = cli("search", "docs", "--text", "a", "--json")
    assert orjson.loads(ran.out)
    assert "a worker died\n" in ran.err


@pytest.mark.usefixtures("data")
def test_an_unexpected_error_is_called_a_bug(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(search, "_check", fail)
    ran = cli("search", "docs", "--text", "a")
    assert (ran.code, ran.out) == (6, "")
    assert ran.err == "error: RuntimeError: two lines; a bug in faissbase, FAISSBASE_DEBUG=1 shows where\n"
    monkeypatch.setenv("FAISSBASE_DEBUG", "1")
    with pytest.raises(RuntimeError):
        cli("search", "docs", "--text", "a")


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (MemoryError(), 4, "error: not enough memory\n"),
        (OSError(28, "No space left on device"), 4, "No space left on device"),
    ],
)
def test_the_end_of_a_command_decides_its_exit_code(
    raised: BaseException, code: int, message: str, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(search, "_check", fail)
    ran = cli("search", "docs", "--text", "a")
    assert ran.code == code
    assert message in ran.err


def test_options_of_all_commands_may_stand_before_and_after(data: Path, cli: Any) -> None:
    after = cli("list", "--data", data, "--json")
    before = cli("--data", data, "--json", "list")
    assert after.json == before.json == {"collections": ["docs", "empty"]}


def test_the_environment_names_the_folder(data: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data.rename(data.with_name("elsewhere"))
    monkeypatch.setenv("FAISSBASE_DATA", "elsewhere")
    assert cli("list").out == "docs\nempty\n"
    monkeypatch.setenv("FAISSBASE_DATA", ":memory:")
    assert cli("list").code == 2


@pytest.mark.usefixtures("data")
def test_quiet_keeps_results_and_errors_and_drops_remarks(cli: Any) -> None:
    words = ("search", "docs", "--id", "d3", "-k", "1")
    assert "may be among the hits" in cli(*words).err
    quiet = cli(*words, "--quiet")
    assert (quiet.code, quiet.err) == (0, "")
    assert quiet.out == cli(*words).out or quiet.out.splitlines()[1:] == cli(*words).out.splitlines()[1:]
    assert cli("--quiet", "stats", "none").err.startswith("error: ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, "empty\n"), ("\n", 2, "docs\nempty\n")])
@pytest.mark.usefixtures("data")
def test_what_destroys_asks_on_a_terminal(
    answer: str, code: int, left: str, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Terminal(answer))
        patch.setattr(sys, "stderr", terminal)
        assert cli("delete", "docs", "--all").code == code
    assert terminal.getvalue().startswith("Delete the collection 'docs' and all its files? [y/N] ")
    assert cli("list").out == left


@pytest.mark.usefixtures("data")
def test_lines_fit_the_terminal(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    lines = cli("search", "docs", "--text", "document number", "-k", "3").out.splitlines()[1:]
    assert max(map(len, lines)) <= 44
    assert len(lines) == 1 + 3 * 3


def test_a_stream_closed_from_the_start_is_no_error(
    data: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert cli("list", "--data", data).code == 0
        assert os.fstat(sys.stdout.fileno())
        sys.stdout.close()

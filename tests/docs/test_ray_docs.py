"""The guide to serving on Ray: its commands are commands, and its options are all there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from faissbase.cli import shards_ray
from faissbase.cli.arguments import Parser

GUIDE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()


def parser() -> Parser:
    made = Parser()
    shards_ray.add(made.add_subparsers(parser_class=Parser))
    return made


def test_the_commands_of_the_guide_are_commands() -> None:
    lines = [line for line in GUIDE.splitlines() if line.startswith("faissbase shards deploy s3://bucket")]
    told = [shlex.split(line.split("#")[0])[2:] for line in lines]
    assert told
    for words in told:
        args = parser().parse_args(words)
        assert (args.url, args.workers, args.replicas) == ("s3://bucket/prefix", 4, 2)


def test_every_option_is_told() -> None:
    shown = parser().parse_args(["deploy", "url"])
    flags = {f"--{name.replace('_', '-')}" for name in vars(shown)}
    for flag in flags - {"--url", "--run", "--json", "--quiet", "--data", "--default-data"}:
        assert re.search(rf"{flag}\b", GUIDE), flag


def test_nobody_else_pays_for_ray() -> None:
    """Ray, its runner and obstore are not imported by who opens a folder, nor ray by who opens a bucket."""
    code = (
        "import sys, tempfile, faissbase\n"
        "faissbase.connect(':memory:').close()\n"
        "assert 'faissbase.sharded.runner' not in sys.modules, 'runner'\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    faissbase.connect('memory://bucket', cache=folder).close()\n"
        "import faissbase.cli.main\n"
        "faissbase.cli.main.build_parser()\n"
        "assert 'faissbase.sharded.runner' not in sys.modules and 'ray' not in sys.modules, 'ray'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_who_has_no_ray_is_told_what_to_install() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import faissbase\n"
        "try: faissbase.connect('ray://auto', cache='/nowhere')\n"
        "except faissbase.NotReadyError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 'pip install "faissbase[ray]"' in run.stdout

"""``faissbase shards``: datasets of shards in object storage."""

from __future__ import annotations

from faissbase.cli import serve, shards_care
from faissbase.cli.arguments import Commands, Parser, add_command
from faissbase.cli.console import Answer, Console
from faissbase.errors import InvalidInputError


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "shards",
        run,
        summary="datasets of shards in object storage",
        about="Datasets of shards in object storage: s3://bucket/prefix, gs://, az:// or\nfile:///folder.",
        examples=["faissbase shards compact s3://vectors docs", "faissbase shards collect s3://vectors docs"],
        exit_codes="0 done; 2 the call is wrong; 3 no such dataset; 4 the store cannot be reached; 5 damaged",
    )
    actions = command.add_subparsers(metavar="ACTION", dest="action", parser_class=Parser)
    shards_care.add(actions)
    serve.add_of_shards(actions)


def run(args: object, console: Console) -> Answer:
    """No action was given."""
    raise InvalidInputError("give an action; see faissbase shards --help")

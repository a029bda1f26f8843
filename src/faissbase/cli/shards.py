"""``faissbase shards``: datasets of shards in object storage."""

from __future__ import annotations

from faissbase.cli import serve
from faissbase.cli.arguments import Commands, Parser, add_command


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "shards",
        serve.run,
        summary="datasets of shards in object storage",
        about="Collections of more vectors than one machine holds: datasets of shards in object\n"
        "storage (extra: scale). faissbase shards ACTION --help tells more of each action.",
        examples=[
            "faissbase shards serve s3://bucket/prefix --data ./keys",
            "faissbase shards serve file:///mnt/shards",
        ],
        exit_codes="0 done; 2 a setting is wrong; 4 not allowed, or no store or address",
    )
    actions = command.add_subparsers(metavar="ACTION", dest="action", parser_class=Parser, required=True)
    serve.add_of_shards(actions)

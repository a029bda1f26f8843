"""``faissbase shards``: datasets of shards in object storage."""

from __future__ import annotations

from faissbase.cli import serve
from faissbase.cli.arguments import Commands, Parser


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "shards",
        help="datasets of shards in object storage",
        description="Datasets of shards in object storage.",
        parents=[],
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=Parser)
    serve.add_of_shards(actions)

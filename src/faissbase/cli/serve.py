"""``faissbase serve``: the folder as a service over HTTP."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faissbase.cli.arguments import Commands, add_command, add_data_option, default_data
from faissbase.cli.console import Answer, Console
from faissbase.cli.extras import server_extra
from faissbase.connecting import at_home

if TYPE_CHECKING:
    from faissbase.server.settings import Settings

_ABOUT = """\
Serve the folder to many tenants by REST under /v1, until Ctrl-C or SIGTERM.

Every request needs an API key (faissbase keys create), but for /v1/health and the
files of the console, which is at /console for people with a browser. While there
are no keys at all, everything is open, to this machine alone. An address that
others can reach is refused without keys or without TLS.

Settings come from a TOML file (--config), from FAISSBASE_<NAME> in the
environment and from the options below; the later wins."""
_ABOUT_SHARDS = """\
Serve datasets of shards in object storage by the same REST as faissbase serve, until
Ctrl-C or SIGTERM. A tenant's datasets are below URL/<tenant>/; with ray://auto, in the
deployment faissbase-<tenant>, and the default tenant's in the deployment faissbase. The data folder holds
the API keys, and copies of shards. Any number of servers may serve one store, and
write to it.

Settings come from the same places as those of faissbase serve."""


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "serve",
        run,
        summary="serve the folder to many tenants by HTTP",
        about=_ABOUT,
        examples=[
            "faissbase serve --data ./data",
            "faissbase serve --host 0.0.0.0 --tls-cert chain.pem --tls-key key.pem",
            "faissbase serve --config faissbase.toml --show-config",
        ],
        exit_codes="0 stopped as asked; 2 a setting is wrong; 4 not allowed, or the address is taken",
    )
    _add_settings(command, list(_settings()))


def _add_settings(command: argparse.ArgumentParser, names: Sequence[str]) -> None:
    add_data_option(command)
    command.add_argument("--config", metavar="FILE", help="settings in TOML ($FAISSBASE_CONFIG)")
    command.add_argument(
        "--show-config", action="store_true", help="print every setting and where it comes from, and end"
    )
    for name in names:
        about, default = _settings()[name]
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            action = argparse.BooleanOptionalAction if default else "store_true"
            command.add_argument(flag, action=action, default=None, help=about)
        else:
            command.add_argument(flag, metavar=type(default).__name__.upper(), help=f"{about} ({default!r})")


def _settings() -> dict[str, tuple[str, Any]]:
    """What each setting but the folder is about, and its default."""
    from faissbase.server import settings

    return {
        name: (settings.ABOUT[name], settings.DEFAULTS[name]) for name in settings.NAMES if name != "data"
    }


def add_of_shards(commands: Commands) -> None:
    """``faissbase shards serve URL``."""
    command = add_command(
        commands,
        "serve",
        run,
        summary="serve the datasets at a URL by HTTP",
        about=_ABOUT_SHARDS,
        examples=[
            "faissbase shards serve s3://bucket/prefix --data ./keys",
            "faissbase shards serve file:///mnt/shards --refresh-s 0.5",
            "faissbase shards serve ray://auto --data ./keys",
        ],
        exit_codes="0 stopped as asked; 2 a setting is wrong; 4 not allowed, or no store or address",
    )
    command.add_argument(
        "shards", metavar="URL", help="of the store, as s3://bucket/prefix, of workers on Ray, or a folder"
    )
    _add_settings(command, [name for name in _settings() if name not in ("shards", "follow")])


def run(args: argparse.Namespace, console: Console) -> Answer:
    from faissbase.server import settings as server_settings

    file = args.config or os.environ.get("FAISSBASE_CONFIG")
    flags = {name: getattr(args, name, None) for name in _settings()}
    flags["data"] = str(args.data) if _is_told(args) else None
    flags |= {name: _url(flags[name]) for name in ("shards", "follow")}
    settings, sources = server_settings.load(flags, os.environ, Path(file) if file else None)
    if settings.data.startswith("~/"):
        settings = replace(settings, data=str(at_home(settings.data)))
    for name in server_settings.strange_variables(os.environ):
        console.note(
            f"{name} is in the environment, and no setting: faissbase serve --show-config lists them"
        )
    if args.show_config:
        return _shown(asdict(settings), sources)
    with server_extra():
        from faissbase.server.run import serve

    def started(url: str, is_open: bool) -> None:
        console.note(f"faissbase serves {settings.url or settings.data} on {url} (Ctrl-C stops it)")
        if settings.console:
            console.note(f"its console is at {url}/console/")
        if is_open:
            console.note(
                f"no API key is needed yet; faissbase keys create --data {settings.data} --tenant NAME "
                "--scopes read,write makes one, and from then on one is"
            )
        if settings.tls_self_signed:
            _tell_certificate(settings, url, console)

    with server_extra():
        serve(settings, started)
    return Answer({"stopped": True}, ["stopped"])


def _url(given: str | None) -> str | None:
    """A folder of this machine by its URL, as the other commands for shards take one; else as it is given."""
    return at_home(given).absolute().as_uri() if given and at_home(given).is_dir() else given


def _tell_certificate(settings: Settings, url: str, console: Console) -> None:
    """How callers know that it is this server."""
    from faissbase.server.self_signed import files_in

    files = files_in(Path(settings.data))
    for everywhere in ("//0.0.0.0:", "//[::]:"):
        url = url.replace(everywhere, "//localhost:")
    console.note(f"its certificate is {files.cert}, SHA-256 {files.sha256}")
    console.note(
        f'callers trust it by faissbase.connect("{url}", verify="{files.cert}") or curl --cacert {files.cert}'
    )


def _is_told(args: argparse.Namespace) -> bool:
    """Whether the folder was named on the command line."""
    return args.data != default_data() or any(word.startswith("--data") for word in args.words)


def _shown(values: dict[str, Any], sources: dict[str, str]) -> Answer:
    document = {name: {"value": value, "source": sources[name]} for name, value in values.items()}
    lines = [f"{name} = {_toml(value)}  # {sources[name]}" for name, value in values.items()]
    return Answer(document, lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)

"""``faissbase shards deploy URL``: workers on a Ray cluster, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faissbase.cli import text
from faissbase.cli.arguments import Commands, add_command, byte_count, whole
from faissbase.cli.console import Answer, Console
from faissbase.connecting import cache_folder
from faissbase.sharded.deployment import NAME

_ABOUT = """\
Serve the datasets at a URL by workers on a Ray cluster, until Ctrl-C or SIGTERM:
faissbase.connect("ray://auto") finds them, from any machine of the cluster.

Joins the cluster that runs on this machine, or --address; where none runs, one is
started here. Every node has to reach the URL, and keeps shards in --cache."""


def add(actions: Commands) -> None:
    command = add_command(
        actions,
        "deploy",
        run,
        summary="serve the datasets at a URL by workers on a Ray cluster",
        about=_ABOUT,
        examples=[
            "faissbase shards deploy s3://bucket/prefix --workers 4 --replicas 2",
            "faissbase shards deploy ./bucket --address head:6379",
        ],
        exit_codes="0 stopped as asked; 2 an option is wrong; 4 no cluster, no room on it, or no store",
    )
    command.add_argument("url", metavar="URL")
    _add_options(command)


def _add_options(command: argparse.ArgumentParser) -> None:
    """What a deployment is made of."""
    about = "end once all is open, and leave the workers to the cluster"
    command.add_argument("--detach", action="store_true", help=about)
    command.add_argument("--workers", type=whole, default=2, metavar="N", help="actors (default: 2)")
    about = "let their number grow to this while calls wait (default: --workers)"
    command.add_argument("--max-workers", type=whole, metavar="N", help=about)
    about = "workers that hold each shard, on different nodes where there are several (default: 2)"
    command.add_argument("--replicas", type=whole, default=2, metavar="N", help=about)
    about = "of the Ray cluster, as head:6379 (default: the one on this machine)"
    command.add_argument("--address", metavar="HOST:PORT", help=about)
    about = f"of the deployment, where a cluster has several (default: {NAME})"
    command.add_argument("--name", default=NAME, metavar="NAME", help=about)
    about = "processors that Ray reserves for each worker, which searches with as many threads (default: 1)"
    command.add_argument("--cpus-per-worker", type=float, default=1.0, metavar="N", help=about)
    about = "memory that Ray reserves for each worker, as 8GB (default: none)"
    command.add_argument("--memory-per-worker", type=byte_count, metavar="SIZE", help=about)
    about = "a folder on every node, with room for its shards (default: below ~/.cache/faissbase)"
    command.add_argument("--cache", type=Path, metavar="FOLDER", help=about)


def run(args: argparse.Namespace, console: Console) -> Answer:
    from faissbase.sharded import runner

    is_over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: is_over.set())
    console.note(f"starting {args.workers} workers; this takes a while where Ray is started, too")
    cluster = runner.deploy(args.url, **_facts(args))
    if args.detach:
        return _detached(cluster.status().workers, cluster.deployment.url)
    try:
        suffix = "" if args.name == NAME else f"/{args.name}"
        console.note(
            f"{args.workers} workers serve {cluster.deployment.url} (Ctrl-C stops them): "
            f'faissbase.connect("ray://auto{suffix}")'
        )
        is_over.wait()
    finally:
        cluster.stop()
    return Answer({"stopped": True}, ["stopped"])


def _detached(workers: Mapping[str, str | None], url: str) -> Answer:
    nodes = set(workers.values())
    line = f"{text.count(len(workers), 'worker')} on {text.count(len(nodes), 'node')} serve {url}"
    return Answer({"url": url, "workers": sorted(workers), "nodes": len(nodes)}, [line])


def _facts(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "workers": args.workers,
        "max_workers": args.max_workers,
        "replicas": args.replicas,
        "address": args.address,
        "may_start": not args.detach,  # what starts here ends here
        "name": args.name,
        "cpus_per_worker": args.cpus_per_worker,
        "memory_per_worker": args.memory_per_worker,
        "cache": args.cache or cache_folder(),
    }

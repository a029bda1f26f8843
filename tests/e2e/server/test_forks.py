"""Forks of a client: each process has the answers to its own questions."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.e2e.server.running import PATIENCE_S, Running, made, new_key
from tests.openai_server import OpenAIServer

PRELUDE = """
import os, signal, sys

def both(work):
    '''Run ``work(side)`` in this process and in a fork of it, side by side.'''
    process = os.fork()
    if process == 0:
        signal.alarm(30)
        work(1)
        os._exit(0)
    work(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
"""


def run_script(script: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def server(tmp_path: Path) -> tuple[Path, str]:
    folder = made(tmp_path / "data")
    return folder, new_key(folder, "acme", "admin")[1]


def test_a_fork_and_its_parent_use_one_database_of_a_server(server: tuple[Path, str]) -> None:
    folder, key = server
    with Running(folder) as running:
        run_script(
            """
            import faissbase

            db = faissbase.connect(sys.argv[1], api_key=sys.argv[2])
            docs = db.create_collection("docs", 2)
            docs.add([str(i) for i in range(100)], [[i, 1] for i in range(100)])

            def work(side):
                for turn in range(200):
                    id = str((2 * turn + side) % 100)
                    assert [record.id for record in docs.get(id)] == [id]
                if side:
                    db.close()

            both(work)
            assert len(docs) == 100
            """,
            running.url,
            key,
        )


def test_a_fork_and_its_parent_await_answers_of_one_server(server: tuple[Path, str]) -> None:
    folder, key = server
    with Running(folder) as running:
        run_script(
            """
            import asyncio
            import faissbase

            db = faissbase.aconnect(sys.argv[1], api_key=sys.argv[2])

            def work(side):
                assert asyncio.run(db.list_collections()) == []

            both(work)
            """,
            running.url,
            key,
        )


def test_a_fork_and_its_parent_use_one_embedder() -> None:
    with OpenAIServer(dimension=16) as server:
        run_script(
            """
            from faissbase.embedding import OpenAIEmbedder

            embedder = OpenAIEmbedder("mini", base_url=sys.argv[1], dimension=16)
            texts = [f"text {i}" for i in range(20)]
            wanted = [embedder.embed([text])[0].tolist() for text in texts]

            def work(side):
                for turn in range(100):
                    i = (2 * turn + side) % 20
                    assert embedder.embed([texts[i]])[0].tolist() == wanted[i]

            both(work)
            """,
            server.url,
        )

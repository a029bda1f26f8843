"""The first moments of the command: Ctrl-C while the library is still being loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The import of a command's module ends as Ctrl-C would end it.
_INTERRUPTED = """
import sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "faissbase.cli.bench":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from faissbase.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("words", "out"), [([], ""), (["--json"], '{"error":{"code":"interrupted","message":"interrupted"}}\n')]
)
def test_an_interruption_while_modules_load_is_one_line(words: list[str], out: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, "list", *words], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, out, "error: interrupted\n")

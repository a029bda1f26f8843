"""faissbase.memory imports without the optional packages, and says which one is missing."""

from __future__ import annotations

import subprocess
import sys

_WITHOUT = """
import sys
sys.modules["sqlalchemy"] = None
sys.modules["httpx"] = None
import faissbase.memory as memory
store = memory.FAISSVectorStore(2)
store.add(1, [1, 0])
assert store.count == 1
try:
    memory.ContextMemory
except memory.NotReadyError as error:
    print(error)
assert not hasattr(memory, "nothing")
"""


def test_without_sqlalchemy_the_store_works_and_the_memory_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == 'a conversation memory needs sqlalchemy: pip install "faissbase[memory]"\n'

"""Commands that need an extra say which, where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from faissbase.errors import NotReadyError


@contextmanager
def server_extra() -> Iterator[None]:
    """For imports of the server."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("faissbase"):
            raise
        raise NotReadyError(f'the server needs {error.name}: pip install "faissbase[server]"') from error

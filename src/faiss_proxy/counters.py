"""``faiss.cvar``, whose statistics of searches are those of the server while one is configured.

Of the process there that works for the tenant: what others of the tenant search meanwhile counts, too.
"""

from __future__ import annotations

from typing import Any

import faiss

from faiss_proxy import classes
from faiss_proxy.connection import Connection, RemoteError
from faiss_proxy.settings import active
from faissbase.dropin import counters


class Cvar:
    """FAISS's global variables."""

    def __getattr__(self, name: str) -> Any:
        connection = active()
        found = getattr(faiss.cvar, name)
        return found if connection is None or name not in counters.NAMES else _Counters(connection, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(faiss.cvar, name, value)

    def __repr__(self) -> str:
        return repr(faiss.cvar)


class _Counters:
    """Statistics of a server, asked for whenever a number is read."""

    def __init__(self, connection: Connection, name: str) -> None:
        local = getattr(faiss.cvar, name)
        self.__dict__.update(_connection=connection, _name=name, _local=local)

    @property  # type: ignore[misc]  # what it stands for
    def __class__(self) -> type:
        kind: type = type(self._local)
        return kind

    def __getattr__(self, name: str) -> Any:
        getattr(self._local, name)  # FAISS says that there is none
        if name not in counters.fields_of(self._local):
            raise RemoteError(f"{self._name}.{name} cannot be used with the statistics of a server")
        return self._asked(is_reset=False)[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise RemoteError(f"{self._name}.{name} is counted on the server, and cannot be set: call reset()")

    def reset(self) -> None:
        """Count from zero on."""
        self._asked(is_reset=True)

    def _asked(self, *, is_reset: bool) -> dict[str, Any]:
        body = {"op": "stats", "name": self._name, "args": [is_reset]}
        found: dict[str, Any] = classes._sent(self._connection, body, [], [], is_safe=True)
        return found


cvar = Cvar()

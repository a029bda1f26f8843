"""FAISS, executed elsewhere: ``import faiss_proxy as faiss``.

The classes and functions of the installed ``faiss``. While a server is configured, indexes made here live
there; otherwise this is FAISS itself.

>>> import faiss_proxy as faiss
>>> faiss.IndexFlatL2(8).d
8
"""

from __future__ import annotations

import types
from typing import Any

import faiss as _faiss

from faiss_proxy import classes as _classes
from faiss_proxy import functions as _functions
from faiss_proxy import gpus as _gpus
from faiss_proxy import guarded as _guarded
from faiss_proxy import settings as _settings
from faiss_proxy import several as _several
from faiss_proxy import swigfaiss as swigfaiss
from faiss_proxy import values as _values
from faiss_proxy.classes import to_remote as to_remote
from faiss_proxy.connection import RemoteError as RemoteError
from faiss_proxy.counters import cvar as cvar
from faiss_proxy.kmeans import Kmeans as Kmeans
from faiss_proxy.names import delete_index as delete_index
from faiss_proxy.names import list_indexes as list_indexes
from faiss_proxy.names import open_index as open_index
from faiss_proxy.settings import configure as configure
from faiss_proxy.settings import local as local
from faiss_proxy.settings import remote as remote
from faissbase.dropin import allowed as _allowed

__all__ = [name for name in dir(_faiss) if not name.startswith("_")]
__version__ = _faiss.__version__
_MISSING = object()


def __getattr__(name: str) -> Any:
    """A class or function of FAISS's, in its place; anything else as FAISS has it."""
    found = getattr(_faiss, name, _MISSING)
    if found is _MISSING:
        return _gpus.named(name)
    if isinstance(found, types.FunctionType) and not name.startswith("_"):
        found = _functions.placed(name, found)
    elif isinstance(found, type) and found.__module__.startswith("faiss"):
        if issubclass(found, _allowed.MADE) or _classes.is_base(found):
            found = _classes.proxy(found)
        elif name == _several.NAME:
            found = _several.vector(found)
        elif name in _guarded.NAMES:
            found = _guarded.guarded(found)
        elif _values.is_value(found):
            found = _values.recording(found)
    if not isinstance(found, types.ModuleType):
        globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})


_settings.configure_by()

"""``faiss.contrib``, whose modules use ``faiss_proxy`` where they say ``faiss``."""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_THEIRS, _OURS = "faiss", "faiss_proxy"
# Of FAISS itself, whatever the name ``faiss`` may stand for by now.
_PATH = [str(Path(str(sys.modules["faiss.loader"].__file__)).with_name("contrib"))]


def _import(name: str, *args: Any, **kwargs: Any) -> Any:
    is_theirs = name.split(".")[0] == _THEIRS
    return builtins.__import__(_OURS + name[len(_THEIRS) :] if is_theirs else name, *args, **kwargs)


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: types.ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if not name.startswith(f"{__name__}."):
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path or _PATH)
        if found is not None and isinstance(found.loader, importlib.machinery.SourceFileLoader):
            found.loader = _Loader(name, found.loader.path)
        return found


__path__ = list(_PATH)
sys.meta_path.insert(0, _Finder())

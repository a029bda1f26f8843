"""``faiss.contrib``, whose modules use ``faiss_proxy`` where they say ``faiss``."""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss_proxy

_faiss = vars(faiss_proxy)["_faiss"]
_THEIRS, _OURS = "faiss", "faiss_proxy"
_MENDING = ".torch_utils"  # gives FAISS's classes other methods: those of this process, too
# Of FAISS itself, as `_faiss` is, whatever the name ``faiss`` may stand for by now.
_PATH = [str(Path(str(sys.modules["faiss.loader"].__file__)).with_name("contrib"))]


class _Sys(types.ModuleType):
    """``sys`` for a module that looks up ``faiss`` in ``sys.modules``: it finds what it is to use."""

    def __init__(self, found: types.ModuleType) -> None:
        super().__init__("sys")
        self.modules = ChainMap({_THEIRS: found}, sys.modules)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)


def _import(name: str, *args: Any, **kwargs: Any) -> Any:
    if name == "sys":
        return _Sys(sys.modules[_OURS])
    is_theirs = name.split(".")[0] == _THEIRS
    return builtins.__import__(_OURS + name[len(_THEIRS) :] if is_theirs else name, *args, **kwargs)


def _import_faiss(name: str, *args: Any, **kwargs: Any) -> Any:
    """The same with FAISS itself."""
    if name in ("sys", _THEIRS):
        return _Sys(_faiss) if name == "sys" else _faiss
    return builtins.__import__(name, *args, **kwargs)


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: types.ModuleType) -> None:
        self._run(module, _import)
        if module.__name__.endswith(_MENDING):
            self._run(types.ModuleType(module.__name__), _import_faiss)

    def _run(self, module: types.ModuleType, imported: Any) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": imported}
        code = self.get_code(self.name)
        assert code is not None
        exec(code, module.__dict__)  # FAISS's own file, as every import does


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

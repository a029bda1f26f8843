"""FAISS's ``contrib``: its own modules, in which ``faiss`` is this package.

>>> from faiss_proxy.contrib.evaluation import knn_intersection_measure
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss_proxy as _faiss_proxy

_THEIRS = "faiss"
__path__ = [str(Path(_faiss_proxy.swigfaiss.__file__).with_name("contrib"))]


class _Loader(SourceFileLoader):
    """Runs a module of FAISS's with another meaning of ``import faiss``."""

    def exec_module(self, module: ModuleType) -> None:
        code = self.get_code(module.__name__)
        assert code is not None
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        exec(code, module.__dict__)


def _import(
    name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] = (), level: int = 0
) -> Any:
    if not level and (name == _THEIRS or name.startswith(f"{_THEIRS}.contrib")):
        name = _faiss_proxy.__name__ + name.removeprefix(_THEIRS)
    return builtins.__import__(name, globals, locals, fromlist or (), level)


class _Finder:
    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


sys.meta_path.insert(0, _Finder)

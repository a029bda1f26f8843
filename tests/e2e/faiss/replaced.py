"""Run a program that imports faiss with `faiss_proxy` in its place.

``python replaced.py [--mixed] PROGRAM ARGUMENTS``. FAISS itself, in this process, is made unable to train,
add or search, so what the program finds comes from the server; unless it is a mixed program, which has parts
that stay here.
"""

from __future__ import annotations

import functools
import runpy
import sys
from pathlib import Path
from typing import Any, NoReturn

import faiss

import faiss_proxy

_WORK = ("train", "add", "add_with_ids", "search", "range_search", "remove_ids")


def _refusing(method: Any) -> Any:
    @functools.wraps(method)
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("this ran in the program's own process")

    return refuse


def main() -> None:
    del sys.argv[0]
    if sys.argv[0] == "--mixed":
        del sys.argv[0]
    else:
        _bind()
    sys.modules["faiss"] = faiss_proxy
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


def _bind() -> None:
    for found in vars(faiss).values():
        if isinstance(found, type) and issubclass(found, faiss.Index | faiss.IndexBinary):
            for name in _WORK:
                if name in vars(found):
                    setattr(found, name, _refusing(vars(found)[name]))


if __name__ == "__main__":
    main()

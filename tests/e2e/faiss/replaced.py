"""Run a program that imports faiss with `faiss_proxy` in its place.

``python replaced.py [--mixed] [--without-gpus] PROGRAM ARGUMENTS``. FAISS itself, in this process, is made
unable to train, add or search, so what the program finds comes from the server; unless it is a mixed program,
which has parts that stay here. Without GPUs, it has none of the names that only a FAISS for GPUs has.
"""

from __future__ import annotations

import functools
import runpy
import sys
from pathlib import Path
from typing import Any, NoReturn

import faiss

import faiss_proxy

_OF_GPUS = ("bfKnn", "bfKnn_tiling", "INDICES_32_BIT", "INDICES_64_BIT", "INDICES_CPU", "INDICES_IVF")
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
    if sys.argv[0] == "--without-gpus":
        del sys.argv[0]
        _forget_gpus()
    sys.modules["faiss"] = faiss_proxy
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


def _bind() -> None:
    for found in vars(faiss).values():
        if isinstance(found, type) and issubclass(found, faiss.Index | faiss.IndexBinary):
            for name in _WORK:
                if name in vars(found):
                    setattr(found, name, _refusing(vars(found)[name]))


def _forget_gpus() -> None:
    faiss.get_num_gpus = lambda: 0
    for name in list(vars(faiss)):
        if ("gpu" in name.lower() or name in _OF_GPUS) and name != "get_num_gpus":
            delattr(faiss, name)


if __name__ == "__main__":
    main()

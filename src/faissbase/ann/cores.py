"""How many cores this process may use, as its scheduler, its container and ``OMP_NUM_THREADS`` say."""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cores(group: Path = _GROUP, groups: Path = _GROUPS) -> int:
    """The cores that this process is scheduled on, or fewer where its container's quota is less.

    More threads than a quota has cores are stopped together for the rest of each period.

    **Source**: ``cpu.max`` of Linux control groups, version 2 (docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        path = next(line[3:] for line in group.read_text().splitlines() if line.startswith("0::"))
        quota, period = (groups / path.lstrip("/") / "cpu.max").read_text().split()
        return affinity if quota == "max" else max(1, min(affinity, math.ceil(int(quota) / int(period))))
    except (OSError, StopIteration, ValueError, ZeroDivisionError):
        return affinity  # no control groups, or of another version


def threads() -> int:
    """OpenMP threads for many queries at once: `cores`, or fewer where ``OMP_NUM_THREADS`` asks for fewer.

    Ray sets it for a worker to the processors that the worker has.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores(), int(wanted)) if wanted.isdecimal() and int(wanted) else cores()

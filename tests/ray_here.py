"""A Ray cluster of one node in this process: tests that run tasks share one a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_STORE_BYTES = 80 << 20


@contextmanager
def ray_cluster(n_cpus: int = 2) -> Iterator[str]:
    """Its address. What joins a cluster from here joins this one, not one that another test has started."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local",
        num_cpus=n_cpus,
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        log_to_driver=False,
    )
    try:
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()

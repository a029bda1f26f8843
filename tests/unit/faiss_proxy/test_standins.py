"""Classes that only the server's FAISS has: made here of what the server tells of them."""

from __future__ import annotations

from typing import Any

import faiss
import pytest

from faiss_proxy import classes, standins, values
from faiss_proxy.connection import RemoteError

# Of what faiss-gpu 1.15.1 tells.
TOLD = {
    "GpuResourcesProvider": {"bases": [], "fields": [], "methods": ["getResources"], "doc": ""},
    "StandardGpuResources": {
        "bases": ["GpuResourcesProvider"],
        "fields": [],
        "methods": ["getMemoryInfo", "setTempMemory"],
        "doc": "Owns streams and memory.",
    },
    "GpuIndex": {"bases": ["Index"], "fields": [], "methods": ["getDevice", "add", "search"], "doc": ""},
    "GpuIndexFlat": {"bases": ["GpuIndex"], "fields": [], "methods": ["getNumVecs"], "doc": ""},
    "GpuIndexIVF": {"bases": ["GpuIndex", "IndexIVFInterface"], "fields": [], "methods": [], "doc": ""},
    "GpuIndexBinaryFlat": {"bases": ["IndexBinary"], "fields": [], "methods": ["add"], "doc": ""},
    "GpuClonerOptions": {"bases": [], "fields": ["useFloat16", "verbose"], "methods": [], "doc": ""},
    "GpuParameterSpace": {"bases": ["ParameterSpace"], "fields": [], "methods": ["initialize"], "doc": ""},
}


class _Server:
    """As much of a connection as is asked for classes."""

    url = "http://there"

    def facts(self) -> dict[str, Any]:
        return {"faiss": "told"}

    def gpus(self) -> dict[str, Any]:
        return {"classes": TOLD}


def _local(name: str) -> Any:
    return standins.local(_Server(), name)  # type: ignore[arg-type]


def test_a_stand_in_is_of_faisss_bases_and_always_the_same() -> None:
    flat = _local("GpuIndexFlat")
    assert flat is _local("GpuIndexFlat")
    assert flat.__mro__[1:3] == (_local("GpuIndex"), faiss.Index)
    assert issubclass(_local("GpuIndexIVF"), faiss.IndexIVFInterface)
    assert _local("StandardGpuResources").__doc__ == "Owns streams and memory."
    assert _local("IndexFlatL2") is faiss.IndexFlatL2


def test_remote_classes_of_stand_ins_have_what_the_server_has() -> None:
    flat = classes.proxy(_local("GpuIndexFlat"))
    assert issubclass(flat, classes.proxy(faiss.Index))
    assert issubclass(flat, classes.proxy(_local("GpuIndex")))
    assert not issubclass(classes.proxy(_local("GpuIndexBinaryFlat")), classes.proxy(faiss.Index))
    assert {"getNumVecs", "search", "ntotal"} <= set(dir(flat))
    assert not hasattr(flat, "getListLength")
    assert "useFloat16" in dir(classes.proxy(_local("GpuClonerOptions")))


def test_without_a_server_nothing_is_made_of_them() -> None:
    for made in (_local("GpuIndexFlat"), classes.proxy(_local("GpuClonerOptions"))):
        with pytest.raises(RemoteError, match="of a server's FAISS, and no server is chosen"):
            made()


def test_a_parameter_space_for_gpus_travels_by_value_under_its_name() -> None:
    space = values.recording(_local("GpuParameterSpace"))()
    assert isinstance(space, faiss.ParameterSpace)
    made = values.made_of(space)
    assert made is not None
    assert made[0] == "GpuParameterSpace"


def test_what_is_on_a_gpu_is_known_by_its_class() -> None:
    def off(name: str) -> str | None:
        made = classes.proxy(_local(name))
        return standins.off(made.__new__(made))

    assert off("GpuIndexFlat") == "index_gpu_to_cpu"
    assert off("GpuIndexBinaryFlat") == "index_binary_gpu_to_cpu"
    assert off("IndexFlatL2") is None
    assert off("GpuClonerOptions") is None

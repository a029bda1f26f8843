"""``faiss.swigfaiss``, whose classes are those of ``faiss_proxy``."""

from __future__ import annotations

from typing import Any

import faiss


def __getattr__(name: str) -> Any:
    import faiss_proxy

    found = getattr(faiss.swigfaiss, name)
    return getattr(faiss_proxy, name) if isinstance(found, type) or name == "cvar" else found

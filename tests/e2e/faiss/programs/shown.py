"""What the programs print of arrays: enough to tell any difference, in one line."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def digest(array: Any) -> str:
    """Form and bytes of an array in a few letters."""
    array = np.ascontiguousarray(array)
    return f"{array.dtype.str}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:24]}"


def _shown(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return digest(value)
    if isinstance(value, np.generic):
        return [value.dtype.str, value.tobytes().hex()]
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(_shown, value)]
    return value if isinstance(value, int | str | None) else repr(value)


def show(**what: Any) -> None:
    """Print each, floats and arrays to their last bit."""
    print(json.dumps(_shown(what)), flush=True)

"""For whom and under what conditions an answer was given: only the same may see it again.

Knows names and digests: no vectors, no storage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from faissbase.errors import InvalidInputError

_DIGEST_BYTES = 20


@dataclass(frozen=True, slots=True)
class Scope:
    """What an answer depends on beside the prompt. Two look-ups share answers only where all of it is equal.

    Attributes
    ----------
    tenant : str, optional
        Whose answers these are.
    model : str, optional
    system_prompt : str, optional
        Also the earlier turns of a conversation, where they shape the answer.
    parameters : mapping, optional
        Temperature, seed, response format and the like: JSON. ``1`` and ``1.0`` are the same.
    tools : sequence, optional
        The tools that the model may call: JSON.
    """

    tenant: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    parameters: Mapping[str, Any] | None = None
    tools: Sequence[Any] | None = None

    def digest(self, embedder: str, *, is_stream: bool = False) -> str:
        """A name for this scope under one embedder; streamed answers have a scope of their own.

        Raises
        ------
        InvalidInputError
            A part is not JSON, so that it cannot be compared.
        """
        parts = [self.tenant, self.model, self.system_prompt, self.parameters, self.tools]
        try:
            plain = _plain([*parts, embedder, is_stream])
            text = json.dumps(plain, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"a scope must be JSON, so that it can be compared: {error}") from error
        return _hashed(text)


def key_of(scope_digest: str, prompt: str) -> str:
    """The id of the entry that answers exactly this prompt in this scope."""
    return f"{scope_digest}-{_hashed(prompt)}"


def check_prompt(prompt: Any) -> str:
    """``prompt``, a text that can be stored."""
    if not isinstance(prompt, str):
        raise InvalidInputError(f"a prompt is a str, got {type(prompt).__name__}")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"the prompt is not valid Unicode: {error}") from error
    return prompt


def _hashed(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()


def _plain(value: Any) -> Any:
    """The same with equal numbers equal: JSON would tell 1 from 1.0."""
    if isinstance(value, Mapping):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise TypeError(f"the key {wrong!r} is no string")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value

"""Asks a language model for JSON: an OpenAI-compatible server, or any function of messages.

Knows HTTP by way of `embedding.endpoint` and the shape of chat requests; not what is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from faissbase.embedding import Endpoint
from faissbase.errors import FaissbaseError, InvalidInputError, UnavailableError
from faissbase.memory.replies import BadReply, object_in, shown

Message: TypeAlias = dict[str, str]
Schema: TypeAlias = Mapping[str, Any]

_REMINDER = "Reply with one JSON object as described, and with nothing else."


@runtime_checkable
class Chat(Protocol):
    """What the writing phases ask."""

    def complete_json(self, messages: Sequence[Message], schema: Schema) -> dict[str, Any]:
        """The JSON object replied to ``messages``; the caller checks that it is as ``schema`` says.

        Raises
        ------
        BadReply
            What came back is no JSON object.
        UnavailableError, AccessError, InvalidInputError
            Nothing came back: try later, with another key, or another request.
        """
        ...


ChatSource: TypeAlias = "Chat | Callable[[list[Message]], str]"


class ChatModel:
    """A model behind ``POST {base_url}/chat/completions``: OpenAI, Ollama, vLLM and what speaks like them.

    The server is asked for JSON by a schema, by its JSON mode, or in plain words: the first of these that it
    takes. Safe to share between threads.

    Parameters
    ----------
    model : str
        What the server calls it.
    base_url, api_key, timeout_s, retries, sleep
        See `faissbase.embedding.Endpoint`.
    parameters : mapping, optional
        More fields of each request, ``{"temperature": 0}`` for instance, where the model takes them.

    **Source**: the OpenAI API reference, "Create chat completion".
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 3,
        parameters: Mapping[str, Any] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise InvalidInputError(f"a model's name is wanted, got {model!r}")
        self.name = model
        self._fields = {**(parameters or {}), "model": model}
        self._endpoint = Endpoint(base_url, api_key, timeout_s=timeout_s, retries=retries, sleep=sleep)
        self._mode = 0  # the first of _MODES that the server has taken

    def complete(self, messages: Sequence[Message]) -> str:
        """The text replied to ``messages``; raises as `Chat.complete_json` does."""
        return self._ask(messages, {})

    def complete_json(self, messages: Sequence[Message], schema: Schema) -> dict[str, Any]:
        """See `Chat.complete_json`. What came back without any JSON is asked for once more."""
        return _object_of(lambda asked: self._ask_in_modes(asked, schema), messages, schema)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _ask_in_modes(self, messages: Sequence[Message], schema: Schema) -> str:
        mode = self._mode
        while True:
            try:
                found = self._ask(messages, _MODES[mode](schema))
            except InvalidInputError:
                # Servers refuse a mode that they do not know in too many words to tell it from other faults.
                mode += 1
                if mode == len(_MODES):
                    raise
            else:
                self._mode = mode
                return found

    def _ask(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> str:
        body = {**self._fields, **fields, "messages": list(messages)}
        return _content_of(self._endpoint.post("chat/completions", body), self.name)


def _content_of(answer: Any, name: str) -> str:
    try:
        content = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise BadReply(f"the server of {name!r} answered no chat completion: {shown(answer)}") from error
    if not isinstance(content, str):
        raise BadReply(f"the reply of {name!r} has no text: {shown(answer)}")
    return content


def _by_schema(schema: Schema) -> dict[str, Any]:
    described = {"name": "reply", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _by_json_mode(_: Schema) -> dict[str, Any]:
    return {"response_format": {"type": "json_object"}}


def _by_words(_: Schema) -> dict[str, Any]:
    return {}


_MODES: tuple[Callable[[Schema], dict[str, Any]], ...] = (_by_schema, _by_json_mode, _by_words)


def _object_of(
    ask: Callable[[Sequence[Message]], object], messages: Sequence[Message], schema: Schema
) -> dict[str, Any]:
    names = tuple(schema.get("properties", ()))
    try:
        return object_in(ask(messages), names)
    except BadReply as error:
        if error.partial is not None:  # it had grown too long, and would do so again
            raise
    # Within the last message: not every model bears two messages of one role in a row.
    last = {**messages[-1], "content": f"{messages[-1]['content']}\n\n{_REMINDER}"} if messages else None
    return object_in(ask([*messages[:-1], last] if last else messages), names)


class FunctionModel:
    """A function ``list[{"role", "content"}] -> str`` in the place of a `ChatModel`."""

    def __init__(self, function: Callable[[list[Message]], str]) -> None:
        self._function = function
        self.name = str(getattr(function, "__name__", type(function).__name__))

    def complete_json(self, messages: Sequence[Message], schema: Schema) -> dict[str, Any]:
        """See `Chat.complete_json`; whatever else the function raises becomes an `UnavailableError`."""
        return _object_of(self._ask, messages, schema)

    def _ask(self, messages: Sequence[Message]) -> object:
        try:
            return self._function([dict(message) for message in messages])
        except FaissbaseError:
            raise
        except Exception as error:  # somebody else's code, over somebody's network: it may raise anything
            raise UnavailableError(f"the model {self.name!r} failed: {error!r}") from error


def as_chat_model(source: ChatSource) -> Chat:
    """``source`` as what the writing phases ask: a `ChatModel`, a like object, or a function of messages.

    >>> as_chat_model(lambda messages: '{"n": 1}').complete_json([], {})
    {'n': 1}
    """
    if isinstance(source, Chat):
        return source
    if callable(source):
        return FunctionModel(source)
    wanted = "a ChatModel, or a function of messages that returns a text"
    raise InvalidInputError(f"a model is {wanted}, got {source!r}")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: as much of an object as there was, and what was wrong, if anything."""

    content: dict[str, Any]
    problem: str | None = None


def reply_of(model: Chat, messages: Sequence[Message], schema: Schema) -> Reply:
    """The reply to ``messages``, whatever happens: a failure is told, not raised."""
    try:
        content = model.complete_json(messages, schema)
    except BadReply as error:
        return Reply(error.partial if isinstance(error.partial, dict) else {}, str(error))
    except Exception as error:  # noqa: BLE001  # a `Chat` of somebody else, over somebody's network
        return Reply({}, f"{type(error).__name__}: {error}")
    if not isinstance(content, dict):
        return Reply({}, f"a JSON object was wanted of the model, got {shown(content)}")
    return Reply(content)


def schema_of(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object with all of ``properties`` and no others, as OpenAI's strict mode wants it."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }

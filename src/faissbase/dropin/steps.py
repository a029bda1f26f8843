"""Calls as a journal keeps them: their objects told by the way to them from the index that has a name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import faiss

from faissbase.dropin import allowed, filling, frames, trials, values
from faissbase.dropin.graphs import Held, Step

# The outcome is told by the index alone.
_WHOLE = ("replace_invlists",)


def numbers(tree: Any) -> Iterable[int]:
    """The objects that a request names, wherever in it."""
    if isinstance(tree, list):
        for each in tree:
            yield from numbers(each)
    elif isinstance(tree, dict):
        for tag, content in tree.items():
            if tag == "object":
                yield content
            else:
                yield from numbers(content)


def as_steps(body: dict[str, Any], held: dict[int, Held], root: Held) -> dict[str, Any] | None:
    """A request with its objects told by the way to them from ``root``; None where there is none."""
    if body.get("name") in _WHOLE or (body["op"] == "set" and isinstance(body["value"], dict)):
        return None
    ways = {number: each.steps_from(root) for number, each in held.items()}
    if any(way is None for way in ways.values()):
        return None
    if root.graph.root().is_rebuilt and not all(_leads_to(root, ways[n], each) for n, each in held.items()):
        return None

    def told(tree: Any) -> Any:
        if isinstance(tree, list):
            return [told(each) for each in tree]
        if isinstance(tree, dict):
            return {tag: ways[it] if tag == "object" else told(it) for tag, it in tree.items()}
        return tree

    kept: dict[str, Any] = {"op": body["op"], "name": str(body.get("name", ""))}
    kept |= {key: told(body[key]) for key in ("args", "kwargs", "value") if key in body}
    return kept | ({"target": ways[body["target"]]} if "target" in body else {})


def _leads_to(root: Held, way: list[Step] | None, held: Held) -> bool:
    """Whether a way leads to an object still, and not to what has taken its place."""
    return int(walked(root.thing, [list(each) for each in way or ()]).this) == int(held.thing.this)


def redo(root: Held, body: Any, arrays: list[frames.Array]) -> None:
    """Do a call of a journal again, which FAISS has not refused then."""

    def special(tag: str, content: Any) -> Any:
        if tag == "object":
            return walked(root.thing, content)
        if tag == "value":
            return values.build(content, decoded)
        return filling.output(*content)

    def decoded(tree: Any) -> Any:
        return frames.decode(tree, arrays, special)

    args, kwargs = decoded(body.get("args", [])), decoded(body.get("kwargs", {"dict": []}))
    name = body["name"]
    if body["op"] == "set":
        allowed.set_field(walked(root.thing, body["target"]), name, decoded(body["value"]))
    elif body["op"] == "call":
        thing = walked(root.thing, body["target"])
        trials.done(thing, name, allowed.method_of(thing, name), args, kwargs)
    elif body["op"] == "value":
        getattr(decoded(body["value"]), name)(*args, **kwargs)
    elif body["op"] == "function":
        getattr(faiss, name)(*args, **kwargs)


def walked(thing: Any, steps: list[Any]) -> Any:
    for kind, name, *args in steps:
        before = thing
        if kind == "get":
            thing = allowed.field_of(thing, name)
        elif kind == "call":
            thing = allowed.method_of(thing, name)(*args)
        else:
            thing = getattr(faiss, name)(thing)
        thing.__dict__["_part_of"] = before  # what it lies in must not go before it
    return thing

"""Whether objects of one graph have nothing in common that a call would change twice, or go round in.

Indexes may share what says in which list a vector is: one coarse quantizer, and the indexes over it are
merged, or become the shards of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss

from faissbase.dropin.parts import holding, parts
from faissbase.dropin.stacking import is_read_only

# What is given to them need not be of another graph.
_NEAR = frozenset(
    ("merge_from", "merge_into", "copy_subset_to", "add_shard", "add_replica", "addIndex", "add_sub_index")
)


def are_apart(name: str, things: Sequence[Any]) -> bool:
    """Whether a method may be called with these; ``name``: of the method, or the function."""
    if name not in _NEAR:
        return False
    wholes = [{int(each.this): each for each in parts(thing)} for thing in things]
    owned = [{place for each in holding(thing) for place in _places(each)} for thing in things]
    if any(is_read_only(each) for whole in wholes for each in whole.values()):
        return False
    pairs = [(one, other) for one in range(len(things)) for other in range(one)]
    return all(
        owned[one].isdisjoint(owned[other] | wholes[other].keys())
        and owned[other].isdisjoint(wholes[one].keys())
        and all(_is_ready(wholes[one][place]) for place in wholes[one].keys() & wholes[other].keys())
        for one, other in pairs
    )


def _places(index: Any) -> list[int]:
    """Where an index lies, and its inverted lists."""
    lists = [index.invlists] if isinstance(index, faiss.IndexIVF | faiss.IndexBinaryIVF) else []
    return [int(each.this) for each in (index, *lists)]


def _is_ready(index: Any) -> bool:
    """Whether nobody will train it: several would at once."""
    return bool(index.is_trained and index.ntotal)

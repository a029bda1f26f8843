"""Inverted lists that are made of others, which they read where those are: side by side, in a row, a part.

FAISS's constructors of stacks want an array of pointers; a caller gives the lists themselves. Nothing can be
written into what is made here: FAISS says so, or ends the process, for a thread of its own throws.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import faiss

from faissbase.dropin.parts import parts
from faissbase.dropin.refusals import Refused

_STACKS = (faiss.HStackInvertedLists, faiss.VStackInvertedLists)
READ_ONLY = (
    *_STACKS,
    faiss.SliceInvertedLists,
    faiss.MaskedInvertedLists,
    faiss.StopWordsInvertedLists,
)
# In these FAISS's own threads throw.
ENDING = frozenset(("add", "add_with_ids", "add_core", "remove_ids", "merge_from", "merge_into"))
_MOST = 256  # lists that one look-up may lead through
# By where they lie: how many lists there are in all, and whether their codes lie one after the other.
_made: dict[int, tuple[int, bool]] = {}


def made(the_class: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An object of ``the_class``; of inverted lists that are made of others, with what they lead to counted.

    Raises
    ------
    Refused
        They would lead FAISS outside of arrays, or from one to the next for ever.
    """
    if the_class not in READ_ONLY:
        return the_class(*args, **kwargs)
    is_stack = the_class in _STACKS and len(args) == 2 and isinstance(args[1], tuple)
    of = [each for each in (args[1] if is_stack else args) if isinstance(each, faiss.InvertedLists)]
    found = [_facts(each) for each in of]
    n, is_plain = 1 + sum(each for each, _ in found), all(plain for _, plain in found)
    if n > _MOST:
        raise Refused(
            f"{the_class.__name__}: these are {n:,} lists within each other, at most {_MOST} are taken"
        )
    if is_stack and not is_plain:
        raise Refused(f"{the_class.__name__} wants ArrayInvertedLists, or parts of such, on a server")
    lists = _stacked(the_class, *args) if is_stack else the_class(*args, **kwargs)
    place = int(lists.this)
    _made[place] = n, is_plain
    weakref.finalize(lists, _made.pop, place, None).atexit = False
    return lists


def _stacked(the_class: Any, n: Any, lists: tuple[Any, ...]) -> Any:
    """A stack of the first ``n`` of these."""
    if not all(isinstance(each, faiss.InvertedLists) for each in lists):
        raise Refused(f"{the_class.__name__} is made of inverted lists")
    if isinstance(n, int) and n > len(lists):
        raise Refused(f"{the_class.__name__} of {n} lists: there are {len(lists)}")
    vector = faiss.InvertedListsPtrVector()
    for each in lists:
        vector.push_back(each)
    return the_class(n, vector.data())


def _facts(lists: Any) -> tuple[int, bool]:
    lists = faiss.downcast_InvertedLists(lists)
    if isinstance(lists, READ_ONLY):
        return _made.get(int(lists.this), (_MOST, False))
    return 1, type(lists) is faiss.ArrayInvertedLists


def is_plain(lists: Any) -> bool:
    """Whether lists are made of such alone whose codes lie one after the other."""
    return _facts(lists)[1]


def is_read_only(index: Any) -> bool:
    """Whether an index holds what is written elsewhere."""
    if isinstance(index, faiss.IndexIVF | faiss.IndexBinaryIVF):
        index = index.invlists
    is_lists = isinstance(index, faiss.InvertedLists)
    return is_lists and isinstance(faiss.downcast_InvertedLists(index), READ_ONLY)


def check_written(name: str, things: Iterable[Any]) -> None:
    """Refuse to write into lists that are made of others: it ends FAISS's process."""
    for thing in things:
        for inner in parts(thing):
            if is_read_only(inner):
                raise Refused(
                    f"{name}: the inverted lists of this {type(inner).__name__} are made of others, and "
                    "writing into them ends FAISS's process: write into the others"
                )

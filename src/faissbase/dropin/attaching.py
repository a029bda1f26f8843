"""Parts of an index that are given another: what takes their place must fit, and outlives the index.

FAISS keeps a pointer to the new part, and looks no further. Here nothing is attached that would lead it out
of its arrays, and nothing of what it owns is freed while somebody may have it.
"""

from __future__ import annotations

from typing import Any

import faiss

from faissbase.dropin.parts import downcast, parts
from faissbase.dropin.refusals import Refused
from faissbase.dropin.stacking import is_plain

# The field that says whether FAISS frees a part with the index.
_OWNED_BY = {
    "quantizer": "own_fields",
    "index": "own_fields",
    "base_index": "own_fields",
    "refine_index": "own_refine_index",
    "storage": "own_fields",
    "invlists": "own_invlists",
}
PASSING = ("cp", "clustering_index")  # of no consequence but for a training, and in no file
_IVF = (faiss.IndexIVF, faiss.IndexBinaryIVF)
_BY_PRODUCT = 2  # tables that only a MultiIndexQuantizer has
COPIED = frozenset(("cp", "pq", "sq", "refine_pq"))  # what they are set to stays apart
_QUANTIZED = ("pq", "sq", "refine_pq")


def is_part(thing: Any, name: str, value: Any) -> bool:
    """Whether a field is a part that can be given another, or settings that travel by value."""
    if name == "clustering_index":
        return isinstance(thing, _IVF) and (value is None or _is_index(thing, value))
    if name in _QUANTIZED:
        return isinstance(value, faiss.Quantizer)
    if name == "quantizer" and not isinstance(thing, _IVF):
        return False
    return (name in _OWNED_BY and _is_index(thing, value)) or (
        name == "cp" and isinstance(value, faiss.ClusteringParameters)
    )


def copy_into(thing: Any, name: str, value: Any) -> None:
    """Set a field to a copy of what has its very sizes; `Refused` where it has others."""
    if name != "cp":
        _check_alike(thing, name, value)
    setattr(thing, name, value)


def attach(thing: Any, name: str, value: Any) -> list[Any]:
    """Set a part; what has to be kept for as long as ``thing`` is there.

    Raises
    ------
    Refused
        It would lead FAISS outside of its arrays.
    """
    if name != "clustering_index":
        _check_part(thing, name, downcast(value))
        kept = released(thing, name)
        setattr(thing, name, value)
        return kept
    if value is not None:
        _check_fits(thing, name, value, same=("d",))
    setattr(thing, name, value)
    return []


def replace_invlists(index: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """``index.replace_invlists``; what has to be kept for as long as the index is there."""
    lists: Any = args[0] if args else kwargs.get("il", ())
    if lists is not None and not isinstance(lists, faiss.InvertedLists):
        index.replace_invlists(*args, **kwargs)  # FAISS says what it wants
    lists = None if lists is None else faiss.downcast_InvertedLists(lists)
    if lists is None or not is_plain(lists) or isinstance(index, faiss.IndexIVFFastScan):
        raise Refused(
            f"{_kind(index)}.replace_invlists takes ArrayInvertedLists, or what is made of such, in an index "
            f"without FastScan, on a server, got {_kind(lists)}: fetch the index with .to_local()"
        )
    if int(lists.this) == int(index.invlists.this):
        return []
    if index.direct_map.type != faiss.DirectMap.NoMap:
        raise Refused("replace_invlists: the direct map says where ids lie: set_direct_map_type(NoMap) first")
    for size in ("nlist", "code_size"):
        if getattr(lists, size) != getattr(index, size):
            raise Refused(f"lists with {size}={getattr(lists, size)}, and {getattr(index, size)} is wanted")
    kept = released(index, "invlists")
    index.replace_invlists(lists, False)
    return kept


def released(thing: Any, name: str) -> list[Any]:
    """What FAISS would free with ``thing``, taken from it; freed when nobody has what is given any more."""
    owned = _OWNED_BY[name]
    if not getattr(thing, owned):
        return []
    found = [getattr(thing, name)]
    if isinstance(thing, faiss.IndexPreTransform):
        found += [thing.chain.at(i) for i in range(thing.chain.size())]
    setattr(thing, owned, False)
    return [_Orphan(each) for each in found]


class _Orphan:
    """What FAISS has made and does not free any more: freed with this.

    Not by SWIG's ``this.own(True)``, which counts its module down when the object goes: at nought, all
    classes of FAISS's are lost.
    """

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __del__(self) -> None:
        type(self._thing).__swig_destroy__(self._thing)


def owned_field(name: str) -> str | None:
    """The field that says who frees a part."""
    return _OWNED_BY.get(name)


def _check_part(thing: Any, name: str, value: Any) -> None:
    if any(int(each.this) == int(thing.this) for each in parts(value)):
        raise Refused(f"{_kind(thing)}.{name}: an index cannot be given to itself")
    if name == "quantizer":
        _check_fits(thing, name, value, same=("d",))
        if getattr(thing, "use_precomputed_table", 0) == _BY_PRODUCT:
            raise Refused(f"{_kind(thing)}.quantizer made its tables, and cannot be replaced on a server")
        wanted = (thing.nlist,) if thing.is_trained else (0, thing.nlist)
        if value.ntotal not in wanted or (thing.is_trained and not value.is_trained):
            raise Refused(
                f"{_kind(thing)}.quantizer holds its {thing.nlist} lists, got {value.ntotal} vectors"
            )
        return
    _check_fits(
        thing, name, value, same=("d", "ntotal", "is_trained", "metric_type"), of=getattr(thing, name)
    )
    if name == "storage" and type(value) is not type(faiss.downcast_index(thing.storage)):
        raise Refused(
            f"{_kind(thing)}.storage is another class than {_kind(value)}: fetch it with .to_local()"
        )


def _check_fits(thing: Any, name: str, value: Any, *, same: tuple[str, ...], of: Any = None) -> None:
    model = thing if of is None else of
    for field in same:
        if getattr(value, field) != getattr(model, field):
            raise Refused(
                f"{_kind(thing)}.{name} wants {field}={getattr(model, field)}, got {getattr(value, field)}"
            )


def _check_alike(thing: Any, name: str, value: Any) -> None:
    """Refuse a quantizer of other sizes than the one there: codes and tables have those."""
    before = getattr(thing, name)
    vectors, numbers = (
        (("trained",), ("d", "qtype", "code_size"))
        if isinstance(before, faiss.ScalarQuantizer)
        else (("centroids",), ("d", "M", "nbits", "code_size"))
    )
    is_alike = type(value) is type(before) and all(
        getattr(value, each) == getattr(before, each) for each in numbers
    )
    sizes = [getattr(each, field).size() for field in vectors for each in (before, value)]
    if not is_alike or (sizes[0] and sizes[0] != sizes[1]):
        raise Refused(f"{_kind(thing)}.{name} cannot be another quantizer than of its own sizes")


def _is_index(thing: Any, value: Any) -> bool:
    """Whether it is an index of the kind, of floats or of bits, that a part of ``thing`` is."""
    kind = faiss.IndexBinary if isinstance(thing, faiss.IndexBinary) else faiss.Index
    return isinstance(value, kind)


def _kind(thing: Any) -> str:
    return type(thing).__name__

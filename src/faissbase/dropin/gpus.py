"""What a FAISS for GPUs has beside the rest: what of it may be asked, and what clients without it are told.

An index on a GPU is an index like any other, but for two things. FAISS ends the process where two threads use
one GPU's resources at a time, so calls that lead to a GPU run one after the other (`graphs.GPU`); and freeing
is such a call, so what nobody holds any more is freed by a thread that waits for its turn.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any

import faiss
import numpy as np

from faissbase.dropin.graphs import GPU
from faissbase.dropin.parts import parts
from faissbase.dropin.refusals import Refused


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _named(*names: str) -> tuple[Any, ...]:
    """The classes of those names, as far as this FAISS has them."""
    return tuple(getattr(faiss, name) for name in names if hasattr(faiss, name))


_RESOURCES = _named("StandardGpuResources")
_INDEXES = _named("GpuIndex", "GpuIndexBinaryFlat")
SETTINGS = _named("GpuClonerOptions", "GpuIndexConfig")  # numbers alone, each as harmless as FAISS makes it
ON_GPU = _RESOURCES + _INDEXES
MADE = _RESOURCES + SETTINGS
_TOLD = MADE + _INDEXES + _named("GpuParameterSpace")
_BASES = _named("GpuResourcesProvider")
_DEVICE_AT = {"knn_gpu": 7, "pairwise_distance_gpu": 5}
CONSTANTS = ("INDICES_", "DistanceDataType_", "IndicesDataType_")
# Methods without a wrapper of FAISS's, whose arguments are numbers.
METHODS = _words(
    """
    setTempMemory noTempMemory setPinnedMemory getMemoryInfo setLogMemoryAllocations
    setDefaultNullStreamAllDevices syncDefaultStreamCurrentDevice supportsBFloat16
    supportsBFloat16CurrentDevice getDevice getNumVecs getNumLists getListLength setMinPagingSize
    getMinPagingSize updateQuantizer reserveMemory reclaimMemory setPrecomputedCodes getPrecomputedCodes
    getNumSubQuantizers getBitsPerCode getCentroidsPerSubQuantizer
    """
)
READING = frozenset(name for name in METHODS if name.startswith(("get", "supports")))
TO_GPU = _words(
    """
    index_cpu_to_gpu index_cpu_to_gpu_multiple_py index_cpu_to_all_gpus index_cpu_to_gpus_list
    index_binary_cpu_to_gpu
    """
)
TO_CPU = frozenset(("index_gpu_to_cpu", "index_binary_gpu_to_cpu"))
_ASKED = frozenset(("knn_gpu", "pairwise_distance_gpu", "isGpuIndex", "isGpuIndexImplemented"))
MOVING = TO_GPU | TO_CPU
FUNCTIONS = MOVING | _ASKED if _RESOURCES else frozenset[str]()  # some of them any FAISS has, to no end
_SET_ASIDE = frozenset(("setTempMemory", "setPinnedMemory"))
_FLOAT_BYTES, _ID_BYTES = 4, 8
_USUAL_TEMPORARY_BYTES = 1536 << 20  # what FAISS sets aside itself where a GPU has 12 GB or more
_TEMPORARY_PART = 8

_unused: queue.SimpleQueue[Any] = queue.SimpleQueue()


# ---- what there is -------------------------------------------------------------------------------


def told() -> dict[str, Any]:
    """The classes, functions and constants that clients may use of a FAISS for GPUs; none without one."""
    classes = {name: found for name, found in vars(faiss).items() if _is_told(found)}
    return {
        "classes": {name: _told_class(found) for name, found in classes.items()},
        "functions": {name: getattr(faiss, name).__doc__ or "" for name in sorted(FUNCTIONS)},
        "constants": {
            name: value
            for name, value in vars(faiss).items()
            if _RESOURCES and name.startswith(CONSTANTS) and type(value) is int
        },
    }


def _is_told(found: Any) -> bool:
    if not isinstance(found, type) or issubclass(found, faiss.Cloner):
        return False
    return issubclass(found, _TOLD) or found in _BASES


def _told_class(found: type) -> dict[str, Any]:
    own = {name: it for name, it in vars(found).items() if not name.startswith("__") and name != "thisown"}
    fields = [name for name, it in own.items() if isinstance(it, property)]
    return {
        "bases": [base.__name__ for base in found.__bases__ if base is not object],
        "fields": fields,
        "methods": [name for name, it in own.items() if callable(it)],
        "doc": found.__doc__ or "",
    }


def is_on(thing: Any) -> bool:
    """Whether an object is on a GPU, or stands for one."""
    return isinstance(thing, ON_GPU)


# ---- what is done --------------------------------------------------------------------------------


class Owner:
    """Frees what is on a GPU when it goes itself: in its turn, and not in the middle of another call."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        thing.this.disown()
        _begin_freeing()

    def __del__(self) -> None:
        _unused.put(self.thing)


@cache
def _begin_freeing() -> None:
    threading.Thread(target=_free_unused, daemon=True).start()


def _free_unused() -> None:
    while True:
        thing = _unused.get()
        with GPU:
            type(thing).__swig_destroy__(thing)
        del thing


class Gpus:
    """The GPUs of one tenant, who may take ``most_bytes`` of their memory (0: as much as there is).

    What FAISS takes is known afterwards only: before a call it is reckoned by what the call brings.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._resources: weakref.WeakSet[Owner] = weakref.WeakSet()

    def owned(self, thing: Any) -> Owner:
        """What has to be kept for as long as a new object on a GPU is there.

        Where there is a limit, resources set aside a part of that for what is temporary.
        """
        owner = Owner(thing)
        if isinstance(thing, _RESOURCES):
            self._resources.add(owner)
            if self._most_bytes:
                thing.setTempMemory(min(_USUAL_TEMPORARY_BYTES, self._most_bytes // _TEMPORARY_PART))
        return owner

    def moved(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
        """What a function of FAISS's for GPUs gives, and what has to be kept with it.

        Resources that FAISS would make on the way are made here, so that their memory is counted.
        """
        with GPU:
            if name == "index_cpu_to_all_gpus":
                return self._to_all(*args, **kwargs)
            if name == "index_cpu_to_gpus_list":
                return self._to_several(*args, **kwargs)
            return getattr(faiss, name)(*args, **kwargs), ()

    def kmeans(self, d: int, k: int, options: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
        """A ``faiss.Kmeans``, on GPUs where ``options`` ask for them, and what is kept with it.

        Where there is a limit, its resources are made here, so that their memory is counted.

        **Source**: ``Kmeans.__init__`` and ``set_index`` of FAISS: True, 1 and -1 are all GPUs.
        """
        gpu = options.get("gpu", False)
        n_gpus = faiss.get_num_gpus() if gpu in (True, -1) else gpu
        is_counted = bool(self._most_bytes and n_gpus and _RESOURCES)
        if not is_counted or "progressive_dim_steps" in options:
            return faiss.Kmeans(d, k, **options), ()
        self.check_room("Kmeans", None, (), is_new=True)
        made = faiss.Kmeans(d, k, **{name: value for name, value in options.items() if name != "gpu"})
        made.index, kept = self._to_all(made.index, ngpu=n_gpus)
        return made, kept

    def _to_all(self, index: Any, co: Any = None, ngpu: int = -1) -> tuple[Any, tuple[Any, ...]]:
        return self._to_several(index, co, None, ngpu)

    def _to_several(
        self, index: Any, co: Any = None, gpus: Sequence[int] | None = None, ngpu: int = -1
    ) -> tuple[Any, tuple[Any, ...]]:
        if gpus is None:
            gpus = range(faiss.get_num_gpus() if ngpu == -1 else ngpu)
        resources = [faiss.StandardGpuResources() for _ in gpus]
        owners = tuple(map(self.owned, resources))
        return faiss.index_cpu_to_gpu_multiple_py(resources, index, co, gpus), (*resources, *owners)

    def check_room(self, name: str, thing: Any, args: tuple[Any, ...], *, is_new: bool) -> None:
        """Refuse a call that would take more than is left.

        ``is_new``: the call makes something, which takes some in any case.
        """
        if not self._most_bytes:
            return
        wanted = sum(map(_size, args)) + _asked_for(name, thing, args)
        left = max(0, self._most_bytes - self._n_bytes())
        if wanted > left or (is_new and not left):
            more = f"{wanted:,} bytes" if wanted else "some"
            raise Refused(
                f"{name} wants {more} of the GPU's memory, and {left:,} bytes are left of the "
                f"{self._most_bytes:,} that this tenant may take"
            )

    def _n_bytes(self) -> int:
        """How many bytes are taken; one's turn is waited for."""
        with GPU:
            every = [kind for each in list(self._resources) for kind in each.thing.getMemoryInfo().values()]
            return sum(size for kinds in every for _, size in kinds.values())


def shares(moved_index: Any, index: Any) -> bool:
    """Whether an index that was moved still leads to a part of the one that it came from."""
    if not all(isinstance(each, faiss.Index | faiss.IndexBinary) for each in (moved_index, index)):
        return False
    places = {int(part.this) for part in parts(index)}
    return any(int(part.this) in places for part in parts(moved_index))


def check_lists(thing: Any, lists: Any) -> None:
    """Refuse numbers of lists that there are not: on a GPU they would be read all the same."""
    if is_on(thing) and np.size(lists) and not (np.min(lists) >= -1 and np.max(lists) < thing.nlist):
        raise Refused(f"{type(thing).__name__}: there are lists 0 to {thing.nlist - 1}")


def check_device(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a GPU that there is not: searches without an index would end the process."""
    at = _DEVICE_AT.get(name)
    if at is None:
        return
    device = (*args[at : at + 1], kwargs.get("device", -1))[0]
    n_gpus = faiss.get_num_gpus()
    if type(device) is int and not (n_gpus and -1 <= device < n_gpus):
        raise Refused(f"{name}: there is no GPU {device} where there are {n_gpus}")


def _asked_for(name: str, thing: Any, args: tuple[Any, ...]) -> int:
    """Bytes by a number alone: of memory to set aside, or of vectors to make room for."""
    number = args[0] if args and type(args[0]) is int else 0
    if name == "reserveMemory":
        return number * (_FLOAT_BYTES * int(thing.d) + _ID_BYTES)
    return number if name in _SET_ASIDE else 0


def _size(argument: Any) -> int:
    if isinstance(argument, faiss.Index | faiss.IndexBinary):
        width = argument.code_size if isinstance(argument, faiss.IndexBinary) else 4 * argument.d
        return 0 if is_on(argument) else int(argument.ntotal) * int(width)
    return int(getattr(argument, "nbytes", 0))

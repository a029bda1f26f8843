"""Does what a client asks of FAISS: finds the objects, locks them, calls, writes down what has changed.

Knows sessions, names and FAISS; not how a request comes here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faissbase.dropin import (
    allowed,
    apart,
    attaching,
    bounds,
    filling,
    frames,
    gpus,
    pointing,
    stacking,
    trials,
    values,
)
from faissbase.dropin.allowed import Refused
from faissbase.dropin.counters import counted
from faissbase.dropin.faults import Gone, fault
from faissbase.dropin.gathering import Searches
from faissbase.dropin.graphs import GPU, Graph, Held, Session, Sessions, Step, locked
from faissbase.dropin.named import Named
from faissbase.dropin.names import Names, NoRoom, check_there
from faissbase.dropin.parts import parts
from faissbase.dropin.places import Pointer, memory_of, read_field
from faissbase.dropin.reading import Reader, written
from faissbase.dropin.sizes import size_of
from faissbase.dropin.steps import as_steps, numbers, redo
from faissbase.errors import AccessError, FaissbaseError

_CHANGING_FUNCTIONS = frozenset(("merge_into", "set_invlist_range", "copy_array_to_vector"))
# FAISS's own clones of these use what their model has, and free it a second time.
_SHARING = (
    faiss.IndexIVFSpectralHash,
    faiss.IndexIVFProductResidualQuantizerFastScan,
    faiss.IndexIVFProductLocalSearchQuantizerFastScan,
)
_SPACE_METHODS = frozenset(("set_index_parameter", "set_index_parameters", "initialize"))
_READ_OPS = frozenset(
    ("hello", "gpus", "get", "fetch", "memory", "open", "list", "touch", "end", "count", "find", "stats")
)
_UNCHANGED = object()
_GROWING = ("add", "merge_", "copy_subset_to", "replace_invlists", "set_invlist_range")
_RUN = uuid.uuid4().hex[:16]
_MOST_SESSION = 64  # letters of its name
_MADE_OF_PLAIN = (int, str, float, bool)


@dataclass(frozen=True, slots=True)
class Rights:
    """What the caller's key is good for. ``indexes``: names, where it is good for those alone.

    A session is the key's: another key that has learnt its name finds nothing in it.
    """

    tenant: str
    key: str
    may_write: bool
    indexes: frozenset[str] | None = None
    saved: str | None = None  # the name that the server has found free for this call
    room_bytes: int | None = None  # by which named indexes may grow

    @classmethod
    def of(cls, head: dict[str, Any]) -> Rights:
        """What the server says of the caller."""
        indexes = None if head["indexes"] is None else frozenset(head["indexes"])
        room_bytes = head.get("room_bytes")
        return cls(head["tenant"], head["key"], head["may_write"], indexes, head["saved"], room_bytes)

    def check(self, op: str, name: str) -> None:
        if not _only_reads(op, name) and not self.may_write:
            raise AccessError(f"this key may not {op} {name}: it wants the scope 'write'")
        is_new = op in ("make", "read", "save", "delete") or (op == "function" and name in allowed.NEW_BY)
        if self.indexes is not None and is_new:
            raise AccessError(f"this key is good for some indexes alone, so it may not {op}")

    def check_name(self, name: str) -> None:
        if self.indexes is not None and name not in self.indexes:
            raise AccessError(f"this key is not good for the index {name!r}")


def _only_reads(op: str, name: str) -> bool:
    """Whether a call changes nothing, so that it may be done by any key, and twice."""
    if op == "function":
        return name in allowed.FUNCTIONS - _CHANGING_FUNCTIONS - allowed.NEW_BY
    return op in _READ_OPS or (op == "call" and name in allowed.READING)


@dataclass(slots=True)
class _Call:
    """A request that has been read: what it is of, and the objects that take part."""

    op: str
    name: str
    body: dict[str, Any]
    arrays: list[frames.Array]
    session: Session
    held: dict[int, Held]
    outputs: list[frames.Array]
    version: str = ""

    def special(self, tag: str, content: Any) -> Any:
        """What stands in a request for an object, for one by value, for an array to be filled."""
        if tag == "object":
            return self.held[content].thing
        if tag == "value":
            return values.build(content, self.decoded)
        if tag == "output":
            self.outputs.append(filling.output(*content))
            return self.outputs[-1]
        if tag == "place":
            return filling.Place(self.arrays[int(content["array"])])
        raise frames.FrameError(f"no such thing as {tag!r}")

    def decoded(self, tree: Any) -> Any:
        return frames.decode(tree, self.arrays, self.special)

    def target(self) -> Held:
        return self.held[self.body["target"]]

    def things(self, *, but: Held | None = None) -> Iterable[Any]:
        """All that takes part, and what it must not outlive."""
        for each in self.held.values():
            if each is not but:
                yield from (each.thing, *each.keeps)

    def given(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = (
            self.decoded(self.body.get("args", [])),
            self.decoded(self.body.get("kwargs", {"dict": []})),
        )
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise frames.FrameError("args must be a list and kwargs a dict")
        return tuple(args), kwargs


class Calls:
    """All that is alive of one tenant. ``folder`` is where named indexes are."""

    def __init__(self, folder: Path, lease_s: float, reader: Reader, gpu_bytes: int = 0) -> None:
        self.sessions = Sessions(lease_s)
        self.names = Names(folder, redo)
        self._folder = folder
        self._reader = reader
        self._gpus = gpus.Gpus(gpu_bytes)
        self._ops: dict[str, Callable[[_Call, Rights], Any]] = {
            "hello": self._hello,
            "gpus": lambda call, _: gpus.told(),
            "make": self._make,
            "call": self._method,
            "get": self._get,
            "set": self._set,
            "function": self._function,
            "value": self._value,
            "fetch": self._fetch,
            "memory": self._memory,
            "copy": self._copy,
            "read": self._read,
            "save": self._save,
            "open": self._open,
            "list": lambda call, rights: self._listed(rights),
            "delete": self._delete,
            "stats": lambda call, _: counted(call.name, is_reset=call.given()[0] == (True,)),
            "count": self._count,
            "find": self._find,
            "touch": lambda call, _: {
                "n_held": len(call.session),
                "n_held_by_tenant": self.sessions.n_held(),
            },
            "end": self._end,
        }

    def answer(self, body: Any, arrays: list[frames.Array], rights: Rights) -> tuple[Any, list[frames.Array]]:
        """The body and the arrays of the answer: what was found, or the error that FAISS has raised."""
        try:
            op, session_name = _checked(body)
            name = str(body.get("name", ""))
            session = self.sessions.find(f"{rights.key} {session_name}")
            session.drop(body.get("drop", ()))
            rights.check(op, name)
            run = partial(self._run, op, body, arrays, session, rights)
            call_id = body.get("call")
            if call_id is None or _only_reads(op, name):  # its answer may be large, and is kept for nobody
                return run()
            found: tuple[Any, list[frames.Array]] = session.once(str(call_id), run)
            return found
        except Exception as error:  # noqa: BLE001  # it is the answer
            return fault(error), []

    def _run(
        self, op: str, body: Any, arrays: list[frames.Array], session: Session, rights: Rights
    ) -> tuple[Any, list[frames.Array]]:
        try:
            wanted = set(numbers(body.get("args"))) | set(numbers(body.get("kwargs")))
            wanted |= set(numbers(body.get("value"))) | ({body["target"]} if "target" in body else set())
            held = {number: _found(session, number) for number in wanted}
            call = _Call(op, str(body.get("name", "")), body, arrays, session, held, [])
            found: list[frames.Array] = []
            result = self._ops[op](call, rights)
            outputs = {id(array): n for n, array in enumerate(call.outputs)}

            def special(value: Any) -> Any:
                if id(value) in outputs:
                    return {"output": outputs[id(value)]}
                if isinstance(value, Pointer):
                    return {"pointer": value.kind}
                if isinstance(value, Held):
                    return {"object": [session.hold(value), type(value.thing).__name__]}
                return None

            if result is _UNCHANGED:
                return {"is_unchanged": True}, []
            tree = frames.encode(result, found, special)
            filled = [np.ascontiguousarray(array) for array in call.outputs]
            version = {"version": call.version} if "known" in body else {}
            return {"result": tree, **version}, [*filled, *found]
        except KeyError as error:
            if error.args == (op,):
                return fault(Refused(f"the server knows no {op!r}")), []
            return fault(error), []
        except Exception as error:  # noqa: BLE001  # it is the answer
            return fault(error), []

    # ---- objects ---------------------------------------------------------------------------------

    def _hello(self, call: _Call, rights: Rights) -> Any:
        return {
            "tenant": rights.tenant,
            "faiss": faiss.__version__,
            "lease_s": self.sessions.lease_s,
            "n_gpus": faiss.get_num_gpus(),
            "options": faiss.get_compile_options(),
        }

    def _make(self, call: _Call, rights: Rights) -> Any:
        the_class = allowed.made_class(call.name)
        if issubclass(the_class, gpus.ON_GPU):
            self._gpus.check_room(call.name, None, (), is_new=True)
        with self._changed(call, is_noted=False) as graphs:
            args, kwargs = call.given()
            bounds.check_made(call.name, args)
            args = filling.placed(call.name, bounds.without_none(call.name, args))
            held = Held(stacking.made(the_class, args, kwargs), keeps=tuple(call.things()))
            alone = {each.graph.root() for each in call.held.values() if isinstance(each.thing, gpus.MADE)}
            for graph in graphs:
                if graph not in alone:
                    held.graph.join(graph)
            if gpus.is_on(held.thing):
                self._own(held, call.name)
        return held

    def _own(self, held: Held, name: str) -> None:
        """Take charge of what is on a GPU now; `Refused` where it has taken more than there may be."""
        held.graph.root().is_on_gpu = True
        held.keeps = (self._gpus.owned(held.thing), *held.keeps)
        self._gpus.check_room(name, held.thing, (), is_new=True)

    def _method(self, call: _Call, rights: Rights) -> Any:
        target = call.target()

        def run() -> Any:
            args, kwargs = call.given()
            method = allowed.method_of(target.thing, call.name)
            if call.name in allowed.ATTACHING:
                args = bounds.without_none(call.name, args)
            bounds.check_call(target.thing, call.name, args, kwargs, target.graph.root().version)
            _check_apart(call, target)
            if target.graph.root().is_on_gpu and call.name not in allowed.READING:
                self._gpus.check_room(call.name, target.thing, (*args, *kwargs.values()), is_new=False)
            plain = not kwargs and all(type(each) in _MADE_OF_PLAIN for each in args)
            if call.name == "search":
                return _searched(target, method, args, kwargs)
            result = trials.done(target.thing, call.name, method, args, kwargs)
            return _part(target, ("call", call.name, *args) if plain else None, result)

        if call.name in allowed.READING:
            with self._unchanged(call) as graphs:
                call.version = f"{_RUN}-{'-'.join(str(graph.version) for graph in graphs)}"
                return _UNCHANGED if call.body.get("known") == call.version else run()
        with self._changed(call) as graphs:
            if any(graph.named for graph in graphs):
                _check_room(call, rights)
            if call.name == "replace_invlists":
                return self._replaced(call, target)
            _check_written(call, graphs)
            result = run()
            for graph in graphs[1:] if call.name not in allowed.MOVING else ():
                graphs[0].join(graph)
            if call.name in allowed.PARTS_BY:
                target.graph.root().kept += call.things(but=target)
            return result

    def _get(self, call: _Call, rights: Rights) -> Any:
        target = call.target()
        with self._unchanged(call):
            found = read_field(target.thing, call.name, allowed.field_of)
            if call.name in allowed.OWNED:
                found = target.graph.root().told.get((int(target.thing.this), call.name), found)
            return _part(target, ("get", call.name), found)

    def _set(self, call: _Call, rights: Rights) -> Any:
        with self._changed(call, is_noted=call.name not in attaching.PASSING, is_synced=False):
            target, value = call.target(), call.decoded(call.body["value"])
            if attaching.is_part(target.thing, call.name, value):
                allowed.field_of(target.thing, call.name)
                if call.name in attaching.COPIED:
                    attaching.copy_into(target.thing, call.name, value)
                    return
                if target.graph.root().named:
                    _check_room(call, rights)
                with _rebuilt(call, target, attaching.owned_field(call.name)) as kept:
                    kept += attaching.attach(target.thing, call.name, value)
                return
            allowed.set_field(target.thing, call.name, value, is_alone=target.is_alone)
            if call.name in allowed.OWNED:
                target.graph.root().told[int(target.thing.this), call.name] = value

    def _replaced(self, call: _Call, target: Held) -> None:
        """Give an index other inverted lists. Who owns them is told as asked for, and is nobody."""
        args, kwargs = call.given()
        allowed.method_of(target.thing, call.name)
        _check_writable(target, args)
        with _rebuilt(call, target, "own_invlists") as kept:
            kept += attaching.replace_invlists(target.thing, *args, **kwargs)
        owner = (args[1:] or [kwargs.get("own", False)])[0]
        target.graph.root().told[int(target.thing.this), "own_invlists"] = bool(owner)

    def _function(self, call: _Call, rights: Rights) -> Any:
        if call.name == "Kmeans":
            return self._trained(*call.given()[0])
        if call.name not in allowed.FUNCTIONS:
            raise Refused(
                f"faiss.{call.name} runs in this process, and the index is on the server: "
                "fetch it with .to_local()"
            )
        if call.name in _CHANGING_FUNCTIONS:
            with self._changed(call) as graphs:
                if any(graph.named for graph in graphs):
                    _check_room(call, rights)
                args, kwargs = call.given()
                args = bounds.without_none(call.name, args)
                _check_apart(call)
                _check_written(call, graphs)
                if call.name == "copy_array_to_vector":
                    filling.check_filled(next(iter(call.held.values()), None), args[0])
                return getattr(faiss, call.name)(*args, **kwargs)
        if call.name in gpus.MOVING:
            return self._moved(call)
        with self._unchanged(call):
            args, kwargs = call.given()
            bounds.check_made(call.name, args)
            bounds.check_function(call.name, args, kwargs)
            if call.name in gpus.FUNCTIONS:
                args = bounds.without_none(call.name, args)
                gpus.check_device(call.name, args, kwargs)
                self._gpus.check_room(call.name, None, (*args, *kwargs.values()), is_new=False)
            result = _applied(call.name, args, kwargs)
            if call.name in allowed.NEW_BY or not call.held:
                return Held(result) if _is_object(result) else result
            return _part(next(iter(call.held.values())), ("function", call.name), result)

    def _trained(
        self, d: int, k: int, options: dict[str, Any], x: Any, weights: Any, first: Any
    ) -> tuple[Any, ...]:
        """Centroids, objectives and statistics of a k-means as `faiss.Kmeans` does it."""
        with GPU if options.get("gpu") else nullcontext():
            clustering, kept = self._gpus.kmeans(d, k, options)
            clustering.train(x, weights, first)
            clustering.index = None  # freed while nobody else is on a GPU
            del kept
        return clustering.centroids, clustering.obj, clustering.iteration_stats

    def _moved(self, call: _Call) -> Any:
        """A copy of an index on a GPU, or of one on a GPU in memory."""
        with self._changed(call, is_noted=False):
            args, kwargs = call.given()
            args, is_new = bounds.without_none(call.name, args), call.name in gpus.TO_GPU
            if is_new:
                self._gpus.check_room(call.name, None, (*args, *kwargs.values()), is_new=True)
            result, keeps = self._gpus.moved(call.name, args, kwargs)
            held = Held(result, keeps=keeps)
            if is_new:
                for each in call.held.values():
                    is_shared = gpus.shares(result, each.thing)
                    if is_shared:
                        each.graph.root().join(held.graph)
                    if is_shared or isinstance(each.thing, gpus.MADE):
                        held.keeps += (each.thing, *each.keeps)
                self._own(held, call.name)
        return held

    def _value(self, call: _Call, rights: Rights) -> Any:
        """A method of an object that travels by value, given one that is here."""
        if call.name not in _SPACE_METHODS:
            raise Refused(f"{call.name} cannot be run on the server with an index that is there")
        with self._changed(call, is_synced=False):
            args, kwargs = call.given()
            bounds.check_parameters(args)
            value = call.decoded(call.body["value"])
            result = getattr(value, call.name)(*args, **kwargs)
            return values.ranges(value) if call.name == "initialize" else result

    def _read(self, call: _Call, rights: Rights) -> Any:
        (data, kind), _ = call.given()
        flat = np.ascontiguousarray(data, np.uint8).reshape(-1)
        return Held(self._reader.read(flat, str(kind), self._folder))

    def _fetch(self, call: _Call, rights: Rights) -> Any:
        with self._unchanged(call):
            return written(call.target().thing, self._folder)

    def _memory(self, call: _Call, rights: Rights) -> Any:
        with self._unchanged(call):
            args, _ = call.given()
            return memory_of(call.target().thing, call.name, args, call.body.get("n_bytes"))

    def _copy(self, call: _Call, rights: Rights) -> Any:
        """What FAISS's ``copy.copy`` makes: an index read from what it is written as."""
        with self._unchanged(call):
            return Held(faiss.deserialize_index(faiss.serialize_index(call.target().thing)))

    # ---- names -----------------------------------------------------------------------------------

    def _save(self, call: _Call, rights: Rights) -> Any:
        held = call.target()
        if call.name != rights.saved:
            raise Refused("a call that gives an index a name must be short")
        if not isinstance(held.thing, faiss.Index | faiss.IndexBinary):
            raise Refused(f"a {type(held.thing).__name__} can have no name, an index can")
        if held.graph.root().is_on_gpu:
            raise Refused(
                f"a {type(held.thing).__name__} is on a GPU, and in no file: save what index_gpu_to_cpu gives"
            )
        with locked([held], alone=True):
            self.names.save(call.name, held, rights.room_bytes)

    def _open(self, call: _Call, rights: Rights) -> Any:
        rights.check_name(call.name)
        return self.names.open(call.name)

    def _listed(self, rights: Rights) -> Any:
        every = self.names.facts()
        return [each for each in every if rights.indexes is None or each["name"] in rights.indexes]

    def _delete(self, call: _Call, rights: Rights) -> Any:
        rights.check_name(call.name)
        self.names.delete(call.name)

    def _count(self, call: _Call, rights: Rights) -> Any:
        held = self._open(call, rights)
        with locked([held], alone=False):
            return [held.thing.ntotal]

    def _find(self, call: _Call, rights: Rights) -> Any:
        """A search in a named index by somebody who holds nothing."""
        held = self._open(call, rights)
        (x, k), _ = call.given()
        with locked([held], alone=False):
            bounds.check_call(held.thing, "search", (x, k), {}, held.graph.root().version)
            return list(held.thing.search(x, k))

    def _end(self, call: _Call, rights: Rights) -> Any:
        self.sessions.end(f"{rights.key} {call.body['session']}")

    # ---- locks and journals ----------------------------------------------------------------------

    def _unchanged(self, call: _Call) -> Any:
        return _Locked(call, alone=False)

    def _changed(self, call: _Call, *, is_noted: bool = True, is_synced: bool = True) -> Any:
        return _Locked(call, alone=True, names=self.names if is_noted else None, is_synced=is_synced)


class _Locked:
    """Holds the locks of a call; at the end writes to the journals what it has changed."""

    def __init__(
        self, call: _Call, *, alone: bool, names: Names | None = None, is_synced: bool = True
    ) -> None:
        self._call, self._names, self._is_synced = call, names, is_synced
        self._graphs: list[Graph] = []
        self._is_alone = alone
        self._locks = locked(call.held.values(), alone=alone)
        self._named: list[Named] = []
        self._before: list[int] = []

    def __enter__(self) -> list[Graph]:
        graphs = self._graphs = self._locks.__enter__()
        try:
            self._named = [named for graph in graphs for named in graph.named.values()]
            for named in self._named:
                check_there(named)
            self._before = [named.held.thing.ntotal for named in self._named]
        except BaseException:
            self._locks.__exit__(None, None, None)
            raise
        return graphs

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if self._is_alone:
                for graph in self._graphs:
                    graph.root().change()
            if self._names is not None:
                for named, before in zip(self._named, self._before, strict=True):
                    if error is None or named.held.thing.ntotal != before:
                        self._note(named, is_whole=error is None)
        finally:
            self._locks.__exit__(None, None, None)

    def _note(self, named: Named, *, is_whole: bool) -> None:
        assert self._names is not None
        # Training again may lead elsewhere, and takes long.
        is_kept = is_whole and not self._call.name.startswith("train")
        body = as_steps(self._call.body, self._call.held, named.held) if is_kept else None
        try:
            if body is None:
                named.checkpoint()
            else:
                named.note(body, self._call.arrays, is_synced=self._is_synced)
        except FaissbaseError:
            self._names.give_up(named)
            raise


@contextmanager
def _rebuilt(call: _Call, target: Held, owned: str | None) -> Iterator[list[Any]]:
    """While a part of ``target`` takes the place of another: what is put into the list is kept with them."""
    root = target.graph.root()
    told = (int(target.thing.this), owned) if owned is not None else None
    if told is not None:
        root.told.setdefault((told[0], str(owned)), getattr(target.thing, str(owned)))
    yield root.kept
    root.kept += call.things(but=target)
    root.is_rebuilt, target.searches = True, None
    for each in call.held.values():
        root.join(each.graph)


def _applied(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a function of FAISS's gives; a clone that shared memory with its model is made by a file."""
    if (
        name == "clone_index"
        and len(args) == 1
        and any(isinstance(each, _SHARING) for each in parts(args[0]))
    ):
        return faiss.deserialize_index(faiss.serialize_index(args[0]))
    return pointing.FUNCTIONS.get(name, getattr(faiss, name))(*args, **kwargs)


def _check_room(call: _Call, rights: Rights) -> None:
    """Refuse to let a named index grow beyond what its tenant may hold; what makes it smaller goes on."""
    if rights.room_bytes is None or not (call.op == "set" or call.name.startswith(_GROWING)):
        return
    n_bytes = sum(array.nbytes for array in call.arrays) + sum(size_of(each.thing) for each in _givers(call))
    if call.name == "replace_invlists":
        n_bytes -= size_of(getattr(call.target().thing, "invlists", None))
    if n_bytes > rights.room_bytes:
        raise NoRoom(
            f"this tenant may hold {max(0, rights.room_bytes):,} bytes more, and {call.name} brings "
            f"{n_bytes:,} to a named index"
        )


def _givers(call: _Call) -> list[Held]:
    """The objects whose vectors a call brings to another; that one itself, too, where it is told by name."""
    if call.name == "copy_subset_to":
        return [call.target()]
    args, more = (list(numbers(call.body.get(each))) for each in ("args", "kwargs"))
    if call.op == "function":
        args = args[1:]
    return [call.held[number] for number in (*args, *more, *numbers(call.body.get("value")))]


def _searched(target: Held, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a search gives, run by itself or together with others that wait."""
    if target.searches is None:
        target.searches = Searches(target.thing, faiss.omp_get_max_threads())
    asked = target.searches.few(args, kwargs)
    return method(*args, **kwargs) if asked is None else target.searches.search(*asked)


def _checked(body: dict[str, Any]) -> tuple[str, str]:
    """What is to be done, and in which session.

    Raises
    ------
    FrameError
        A part of the request is missing, or not of its kind.
    """
    op, session, drop = body.get("op"), body.get("session"), body.get("drop", [])
    if not (type(op) is str and type(session) is str and len(session) <= _MOST_SESSION):
        raise frames.FrameError(f"a call says what op it is and of which session, as texts, got {op!r:.80}")
    if type(body.get("name", "")) is not str:
        raise frames.FrameError(f"the name must be a text, got {body['name']!r:.80}")
    if type(drop) is not list or not all(type(each) is int for each in drop):
        raise frames.FrameError("drop must be a list of numbers of objects")
    if type(body.get("target", 0)) is not int:
        raise frames.FrameError(f"the target must be the number of an object, got {body['target']!r:.80}")
    return op, session


def _check_apart(call: _Call, *targets: Held) -> None:
    """Refuse to make an object a part of itself: FAISS would go round for ever, or lose what it merges."""
    if call.name in allowed.ATTACHING:
        others = [call.held[each] for each in numbers([call.body.get("args"), call.body.get("kwargs")])]
        graphs = [each.graph.root() for each in (*targets, *dict.fromkeys(others))]
        twice = len(others) > len(set(others))
        is_near = any(graph in graphs[:at] for at, graph in enumerate(graphs))
        things = [each.thing for each in (*targets, *dict.fromkeys(others))]
        if twice or (is_near and not apart.are_apart(call.name, things)):
            raise Refused(f"{call.name}: an index cannot be given to itself, or twice to the same index")


def _check_written(call: _Call, graphs: list[Graph]) -> None:
    """Refuse to write into inverted lists that are made of others."""
    things = [each.thing for each in call.held.values()]
    is_near = any(graph.is_rebuilt for graph in graphs) or isinstance(things[0], faiss.InvertedLists)
    if call.name in stacking.ENDING and is_near:
        stacking.check_written(call.name, things)


def _check_writable(target: Held, args: tuple[Any, ...]) -> None:
    """Refuse to give an index that has a name lists that FAISS writes into no file."""
    named = [each.held.thing for each in target.graph.root().named.values()]
    is_named = any(int(each.this) == int(target.thing.this) for thing in named for each in parts(thing))
    if is_named and args and stacking.is_read_only(args[0]):
        raise Refused(f"FAISS writes no {type(args[0]).__name__} into a file, and this index has a name")


def _found(session: Session, number: Any) -> Held:
    try:
        return session.find(number)
    except LookupError:
        raise Gone from None


def _is_object(value: Any) -> bool:
    return hasattr(value, "this") and type(value).__module__.startswith("faiss")


def _part(parent: Held, step: Step | None, result: Any) -> Any:
    """What a call has given; an object of FAISS's as a part of the one it came from."""
    if type(result).__name__ == "SwigPyObject":
        raise Refused(
            "this gives a place in the server's memory: fetch the index with .to_local(), or its arrays with "
            "faiss.vector_to_array"
        )
    if not _is_object(result):
        return result
    return Held(result, parent.graph, parent, step, (parent.thing, *parent.keeps))

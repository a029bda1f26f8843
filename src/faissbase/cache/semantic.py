"""The semantic cache as its users see it: answers served again to prompts that mean the same.

Composes: `matching` decides what serves, `shelf` keeps it, `flights` and `streams` compute once for all who
ask together.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar, overload

import numpy as np

from faissbase.cache import calibration
from faissbase.cache.asking import Asking
from faissbase.cache.calibration import Calibration
from faissbase.cache.counters import Counters, Counting
from faissbase.cache.decorator import Cached
from faissbase.cache.entries import Entries, Entry, Selection
from faissbase.cache.guards import disagreement
from faissbase.cache.labelled import Pair, checked_pairs, scores_of
from faissbase.cache.limits import Eviction, Limits
from faissbase.cache.matching import CacheHit, Explanation, Guard, Matching, Verifier
from faissbase.cache.opening import open_collection, open_database
from faissbase.cache.scope import Scope, check_prompt, key_of
from faissbase.cache.shelf import Clock, Order, Shelf, check_ttl
from faissbase.cache.values import JsonValues, ObjectValues, Values
from faissbase.embedding import EmbedderSource, HashedEmbedder, as_embedder
from faissbase.embedding.awaiting import awaited_in_this_loop
from faissbase.errors import InvalidInputError, NotReadyError
from faissbase.types import Collection

DEFAULT_THRESHOLD = 0.9
_COLLECTION = "semantic-cache"
_REPORTS_KEPT = 10_000

F = TypeVar("F", bound=Callable[..., Any])


class SemanticCache:
    """Answers by prompt: the same text first, then one that means the same. Thread-safe, and for coroutines.

    Parameters
    ----------
    embedder : optional
        What `faissbase.embedding.as_embedder` takes; `HashedEmbedder`, which knows words but no meaning,
        where none is given. Its name is stored with the entries and compared on reopening.
    path : path, optional
        A folder that keeps the cache; processes may share it. Responses are JSON there. Without it the cache
        is in memory, and responses are any objects.
    collection : Collection, optional
        An empty collection to use instead, or one that a cache has used before: of a folder or of a server,
        with metric ``"cosine"``. Responses are JSON there. It is not closed with the cache.
    threshold : float, optional
        Similarity from which on an answer is served. Where it is not given, what `calibrate` has stored,
        or 0.9, which is a guess.
    ttl_s : float, optional
        Seconds that an answer is good; for ever without it.
    max_entries, max_bytes : int, optional
        How much is kept. Bytes are those of responses, prompts and vectors.
    eviction : {"lru", "lfu"}
        Who makes room: the entry used longest ago, or the one used least.
    scope : Scope, optional
        What every call takes unless it says otherwise.
    guard : callable, optional
        ``guard(prompt, stored_prompt)`` says why they must not share an answer, or None. `disagreement`
        looks at numbers, negation, operators, names and word order; None does without.
    verifier : callable, optional
        ``verifier(prompt, hit)`` has the last word on a similar hit, True or False; where it
        fails, it is a miss. It and the embedder may be asynchronous: `acheck` and its like await them in the
        caller's event loop, other calls in a loop of their own.
    clock : callable
        The time in seconds; ``time.time``.

    Examples
    --------
    >>> cache = SemanticCache()
    >>> cache.get_or_compute("capital of France?", lambda: "Paris")
    'Paris'
    >>> cache.check("capital of France?").response, cache.check("boiling point of water?")
    ('Paris', None)
    >>> cache.close()
    """

    def __init__(  # noqa: PLR0913  # what a cache can be told, all by name
        self,
        embedder: EmbedderSource | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        collection: Collection | None = None,
        threshold: float | None = None,
        ttl_s: float | None = None,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        eviction: Eviction = "lru",
        scope: Scope | None = None,
        guard: Guard | None = disagreement,
        verifier: Verifier | None = None,
        clock: Clock = time.time,
    ) -> None:
        _check_parts(scope, guard, verifier)
        self.scope = scope or Scope()
        self._ttl_s = check_ttl(ttl_s)
        limits = Limits(max_entries, max_bytes, eviction)
        if threshold is not None:
            _check_threshold(threshold)
        self._embedder = HashedEmbedder() if embedder is None else as_embedder(embedder)
        self._counting = Counting()
        self._reported: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._database: Any = None
        self._is_closed = False
        entries = self._opened(path, collection)
        self._shelf = Shelf(entries, limits, self._counting, clock)
        self._matching = Matching(
            entries,
            self._embedder,
            self._first_threshold(entries, threshold),
            guard,
            verifier,
            lambda prompt, key: (prompt, key) in self._reported,
        )
        self._asking = Asking(self._shelf, self._matching, self._counting, clock)
        self._clock = clock

    def _opened(self, path: str | os.PathLike[str] | None, collection: Collection | None) -> Entries:
        if path is not None and collection is not None:
            raise InvalidInputError("a cache takes a path or a collection, not both")
        if collection is not None:
            if collection.metric != "cosine":
                raise InvalidInputError(
                    f"a cache needs a collection with metric 'cosine', {collection.name!r} has "
                    f"{collection.metric!r}"
                )
            if collection.dimension != self._embedder.dimension:
                raise InvalidInputError(
                    f"the embedder {self._embedder.name!r} makes vectors of d={self._embedder.dimension}, "
                    f"the collection {collection.name!r} has d={collection.dimension}"
                )
            return Entries(collection, JsonValues(), self._embedder)
        dimension = self._embedder.dimension
        self._database = open_database(path, "SemanticCache")
        own = open_collection(self._database, _COLLECTION, dimension, "cosine", "auto")
        values: Values = ObjectValues() if path is None else JsonValues()
        try:
            return Entries(own, values, self._embedder)
        except BaseException:
            self._database.close()
            raise

    @staticmethod
    def _first_threshold(entries: Entries, given: float | None) -> float:
        if given is not None:
            return float(given)
        return float(entries.settings().get("threshold", DEFAULT_THRESHOLD))

    def __enter__(self) -> SemanticCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many entries there are, expired ones that were not removed yet among them."""
        return len(self._shelf.entries)

    @property
    def threshold(self) -> float:
        """Similarity from which on an answer is served."""
        return self._matching.threshold

    @property
    def counters(self) -> Counters:
        """What has happened since the cache was opened, by this object."""
        return self._counting.read()

    # ---- looking up and storing -------------------------------------------------------------------

    def check(self, prompt: str, *, scope: Scope | None = None) -> CacheHit | None:
        """The stored answer that serves a prompt, or None."""
        return self._asking.check(self._order(prompt, scope))

    def store(
        self,
        prompt: str,
        response: Any,
        *,
        scope: Scope | None = None,
        tags: Iterable[str] = (),
        ttl_s: float | None = None,
        seconds: float = 0.0,
    ) -> bool:
        """Keep an answer, in the place of an earlier one to the same text in the same scope.

        Parameters
        ----------
        tags : iterable of str
            By which `invalidate` finds it.
        ttl_s : float, optional
            How long it is good; otherwise the cache's own ``ttl_s``.
        seconds : float
            What computing it took, which hits will save.

        Returns
        -------
        bool
            False where it alone is larger than ``max_bytes``, and was not kept.
        """
        order = self._order(prompt, scope, tags, ttl_s)
        return self._shelf.put(order, response, self._matching.embed(prompt), seconds)

    def get_or_compute(
        self,
        prompt: str,
        fn: Callable[..., Any],
        *,
        scope: Scope | None = None,
        tags: Iterable[str] = (),
        ttl_s: float | None = None,
        keep_if: Callable[[Any], bool] | None = None,
    ) -> Any:
        """The stored answer, or what ``fn`` returns, which is stored.

        ``fn`` is called without arguments or, where it requires one, with the prompt; once for all threads
        and coroutines that ask for the same prompt meanwhile. What it raises reaches exactly those, and is
        not cached. An answer that cannot be kept (no JSON, storage out of reach, ``keep_if`` says no) is
        returned all the same, and counted.
        """
        return self._asking.get_or_compute(self._order(prompt, scope, tags, ttl_s, keep_if), fn)

    def stream(
        self,
        prompt: str,
        fn: Callable[..., Iterable[Any]],
        *,
        scope: Scope | None = None,
        tags: Iterable[str] = (),
        ttl_s: float | None = None,
        keep_if: Callable[[list[Any]], bool] | None = None,
    ) -> Iterator[Any]:
        """The chunks of a streamed answer, as they come from ``fn``, or replayed one by one.

        What has come to its end is stored; a stream that breaks, or that all readers leave, is not, nor one
        of whose list of chunks ``keep_if`` says no. Those who ask meanwhile read along, from the first chunk.
        Streamed answers are entries of their own: `check` finds those of `store` and `get_or_compute`.
        """
        return self._asking.stream(self._order(prompt, scope, tags, ttl_s, keep_if, is_stream=True), fn)

    # ---- the same, awaited ------------------------------------------------------------------------

    async def acheck(self, prompt: str, *, scope: Scope | None = None) -> CacheHit | None:
        """`check`, for coroutines."""
        with awaited_in_this_loop():
            return await asyncio.to_thread(self.check, prompt, scope=scope)

    async def astore(
        self,
        prompt: str,
        response: Any,
        *,
        scope: Scope | None = None,
        tags: Iterable[str] = (),
        ttl_s: float | None = None,
        seconds: float = 0.0,
    ) -> bool:
        """`store`, for coroutines."""
        order = self._order(prompt, scope, tags, ttl_s)
        with awaited_in_this_loop():
            return await asyncio.to_thread(
                lambda: self._shelf.put(order, response, self._matching.embed(prompt), seconds)
            )

    async def aget_or_compute(
        self,
        prompt: str,
        fn: Callable[..., Any],
        *,
        scope: Scope | None = None,
        tags: Iterable[str] = (),
        ttl_s: float | None = None,
        keep_if: Callable[[Any], bool] | None = None,
    ) -> Any:
        """`get_or_compute`, where ``fn`` may be a coroutine function.

        A caller that is cancelled leaves; the computation goes on as long as others wait for it.
        """
        return await self._asking.aget_or_compute(self._order(prompt, scope, tags, ttl_s, keep_if), fn)

    async def astream(
        self,
        prompt: str,
        fn: Callable[..., Any],
        *,
        scope: Scope | None = None,
        tags: Iterable[str] = (),
        ttl_s: float | None = None,
        keep_if: Callable[[list[Any]], bool] | None = None,
    ) -> AsyncIterator[Any]:
        """`stream`, where ``fn`` gives, or a coroutine that returns, an asynchronous iterator."""
        order = self._order(prompt, scope, tags, ttl_s, keep_if, is_stream=True)
        return await self._asking.astream(order, fn)

    @overload
    def cached(self, fn: F) -> F: ...
    @overload
    def cached(self, **terms: Any) -> Callable[[F], F]: ...
    def cached(self, fn: Callable[..., Any] | None = None, **terms: Any) -> Any:
        """A decorator: the function's answers by its first argument, which is the prompt.

        Functions, coroutine functions, generators and asynchronous generators keep their kind. The other
        arguments and the function's own name are part of the scope. Keywords are those of `get_or_compute`,
        and ``prompt``, a function of the arguments that gives the prompt.
        """
        return Cached(self, **terms)(fn) if fn is not None else Cached(self, **terms)

    # ---- removing ---------------------------------------------------------------------------------

    def invalidate(
        self,
        prompt: str | None = None,
        *,
        tags: str | Iterable[str] = (),
        tenant: str | None = None,
        model: str | None = None,
        scope: Scope | None = None,
    ) -> int:
        """Remove the entries that match all that is given (any of the tags), and return how many.

        ``prompt`` is the one entry of that text in the scope. What is being computed meanwhile goes to those
        who wait for it, and is not stored.
        """
        self._check_open()
        names = _tags(tags)
        if prompt is None and not names and tenant is None and model is None and scope is None:
            raise InvalidInputError(
                "invalidate() needs a prompt, tags, a tenant, a model or a scope: clear() removes everything"
            )
        if prompt is not None and (names or tenant is not None or model is not None):
            raise InvalidInputError("a prompt names one entry: give a scope with it, and nothing else")
        selections = [Selection(tenant=tenant, model=model, tags=names)]
        if prompt is not None or scope is not None:
            digests = [self._digest(scope, is_stream) for is_stream in (False, True)]
            keys = [None if prompt is None else key_of(digest, check_prompt(prompt)) for digest in digests]
            selections = [
                replace(selections[0], scope=digest, key=key)
                for digest, key in zip(digests, keys, strict=True)
            ]
        return sum(self._asking.remove(selection) for selection in selections)

    def clear(self) -> None:
        """Remove every entry of every scope."""
        self._check_open()
        self._asking.clear()

    def purge(self) -> int:
        """Remove what has expired, and return how many entries there were. Stores do it now and then."""
        self._check_open()
        return self._shelf.purge()

    def close(self) -> None:
        """Let go of files and memory; again is no error."""
        if self._is_closed:
            return
        self._is_closed = True
        self._shelf.close()
        if self._database is not None:
            self._database.close()

    # ---- how well it works ------------------------------------------------------------------------

    def explain(self, prompt: str, *, scope: Scope | None = None, is_stream: bool = False) -> Explanation:
        """Look a prompt up and tell why it hits or not. Counts nothing, and uses nothing up."""
        order = self._order(prompt, scope, is_stream=is_stream)
        found = self._matching.find(order.facts.scope, prompt, self._clock(), is_full=True)
        outcome = "miss" if found.hit is None else found.hit.kind
        return Explanation(prompt, outcome, found.reason, self.threshold, list(found.candidates), found.hit)

    def calibrate(
        self,
        pairs: Iterable[Pair],
        max_false_hits: float = 0.01,
        *,
        confidence: float = 0.95,
        groups: Iterable[Any] | None = None,
    ) -> Calibration:
        """Set the threshold from labelled pairs, so that of different prompts so few are served wrongly.

        Parameters
        ----------
        pairs : iterable of (str, str, bool)
            Two prompts, and whether one answer serves both.
        max_false_hits : float
            Largest share of the different pairs that may be served, on pairs never seen as well.
        confidence : float
            Probability that this holds.
        groups : iterable, optional
            A label a pair: pairs with the same label share prompts, and count as fewer.

        Returns
        -------
        Calibration
            The threshold, which is stored with the cache, and what is known of it.
        """
        self._check_open()
        checked = checked_pairs(pairs)
        is_same = [same for _, _, same in checked]
        scores = scores_of(checked, self._embedder, self._matching.guard)
        labels = None if groups is None else list(groups)
        found = calibration.calibrate(
            scores, is_same, max_false_hits=max_false_hits, confidence=confidence, groups=labels
        )
        self._shelf.entries.keep_setting("threshold", found.threshold)
        self._matching.threshold = found.threshold
        return found

    def report_false_hit(self, hit: CacheHit) -> None:
        """A hit was wrong: count it, and do not serve that entry to that prompt again.

        The entry stays for the prompts it is right for. Kept in memory, the last 10,000 of them.
        """
        self._check_open()
        self._counting.add(false_hits=1)
        if hit.kind == "similar":
            self._reported[hit.prompt, hit.key] = None
            while len(self._reported) > _REPORTS_KEPT:
                self._reported.popitem(last=False)
        else:
            self._asking.remove(Selection(key=hit.key))

    # ---- what a call means ------------------------------------------------------------------------

    def _digest(self, scope: Scope | None, is_stream: bool) -> str:
        return self._whole(scope).digest(self._embedder.name, is_stream=is_stream)

    def _whole(self, scope: Scope | None) -> Scope:
        """The scope of a call: what it leaves open is the cache's own."""
        if scope is None:
            return self.scope
        _check_scope(scope)
        told = {name: getattr(scope, name) for name in Scope.__dataclass_fields__}
        return replace(self.scope, **{name: value for name, value in told.items() if value is not None})

    def _order(
        self,
        prompt: str,
        scope: Scope | None,
        tags: str | Iterable[str] = (),
        ttl_s: float | None = None,
        keep_if: Callable[[Any], bool] | None = None,
        *,
        is_stream: bool = False,
    ) -> Order:
        self._check_open()
        whole = self._whole(scope)
        digest = whole.digest(self._embedder.name, is_stream=is_stream)
        text = check_prompt(prompt)
        facts = Entry(
            key_of(digest, text), digest, text, "", 0.0, None, _tags(tags), whole.tenant, whole.model
        )
        return Order(facts, self._ttl_s if ttl_s is None else check_ttl(ttl_s), keep_if)

    def _check_open(self) -> None:
        if self._is_closed:
            raise NotReadyError("the SemanticCache is closed: make a new one")


def _tags(tags: str | Iterable[str]) -> tuple[str, ...]:
    if not isinstance(tags, Iterable):
        raise InvalidInputError(f"tags are a string or several of them, got {tags!r}")
    names = (tags,) if isinstance(tags, str) else tuple(tags)
    for name in names:
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"a tag is a string of at least one character, got {name!r}")
    return names


def _check_parts(scope: Scope | None, guard: Guard | None, verifier: Verifier | None) -> None:
    if scope is not None:
        _check_scope(scope)
    for name, part in (("guard", guard), ("verifier", verifier)):
        if part is not None and not callable(part):
            raise InvalidInputError(f"a {name} is a function, got {part!r}")
    if inspect.iscoroutinefunction(guard):
        raise InvalidInputError(f"a guard is a plain function, {guard!r} is asynchronous: verifier= takes it")


def _check_scope(scope: Scope) -> None:
    if not isinstance(scope, Scope):
        raise InvalidInputError(f"a scope is a faissbase.cache.Scope, got {type(scope).__name__}")


def _check_threshold(threshold: float) -> None:
    is_number = isinstance(threshold, int | float | np.floating) and not isinstance(threshold, bool)
    if not is_number or not -1 <= threshold <= 2:
        raise InvalidInputError(
            f"threshold must be a cosine from -1 to 1 (above 1: exact matches only), got {threshold!r}"
        )

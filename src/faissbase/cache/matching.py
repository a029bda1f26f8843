"""Which stored answer serves a prompt, and why: the same path for `check` and for `explain`.

Exact match first, then the nearest entries of the scope; similarity alone does not suffice.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from faissbase.cache.entries import Entries, Entry
from faissbase.cache.scope import key_of
from faissbase.embedding import Embedder
from faissbase.embedding.awaiting import settled
from faissbase.embedding.embedder import embedded
from faissbase.types import Float32

Guard: TypeAlias = Callable[[str, str], "str | None"]
Kind: TypeAlias = Literal["exact", "similar"]

# Far more are looked at only where all of the first are near enough and none of them may be served.
_CANDIDATES = (8, 128)
_MOST_VERIFIED = 8  # a look-up: it is often a model, and each question costs
_log = logging.getLogger("faissbase.cache")


@dataclass(frozen=True, slots=True)
class CacheHit:
    """A stored answer that serves a prompt. The ``response`` may be None: a cached None is a hit.

    Attributes
    ----------
    response : object
        What was stored; of a streamed answer, the list of its chunks.
    kind : {"exact", "similar"}
    score : float
        Cosine of the two prompts, 1 where they are the same text.
    prompt, stored_prompt : str
        What was asked, and what the answer was given to.
    key : str
        The entry's id in the collection.
    stored_at, expires_at : float
        By the cache's clock; ``expires_at`` is None for an entry without a time limit.
    tags : tuple of str
    seconds : float
        What computing the answer had taken.
    size_bytes : int
        What the entry counts for ``max_bytes``.
    """

    response: Any
    kind: Kind
    score: float
    prompt: str
    stored_prompt: str
    key: str
    stored_at: float
    expires_at: float | None
    tags: tuple[str, ...]
    seconds: float
    size_bytes: int


Verifier: TypeAlias = Callable[[str, CacheHit], bool | Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry that was looked at: its prompt, its score, and why it was not served (None: it was)."""

    prompt: str
    score: float
    refused: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a prompt hits or not. Prints readably."""

    prompt: str
    outcome: Literal["exact", "similar", "miss"]
    reason: str
    threshold: float
    candidates: list[Candidate]
    hit: CacheHit | None

    def __str__(self) -> str:
        lines = [f"{self.outcome}: {self.reason}"]
        for each in self.candidates:
            lines.append(f"  {each.score:.4f}  {each.prompt[:70]!r}: {each.refused or 'served'}")
        return "\n".join(lines)


@dataclass(slots=True)
class Found:
    """What a look-up has found, and what it has learnt on the way."""

    hit: CacheHit | None = None
    reason: str = "nothing is stored in this scope"
    candidates: list[Candidate] = field(default_factory=list)
    vector: Float32 | None = None
    doubts: dict[str, str] = field(default_factory=dict)  # what the verifier had against entries, by key


@dataclass(slots=True)
class Matching:
    """How prompts are matched. ``refused`` tells whether an entry was reported wrong for a prompt."""

    entries: Entries
    embedder: Embedder
    threshold: float
    guard: Guard | None
    verifier: Verifier | None
    refused: Callable[[str, str], bool]

    def exact(self, scope: str, prompt: str, now: float) -> CacheHit | None:
        """The answer to this very text."""
        entry = self.entries.find(key_of(scope, prompt))
        if entry is None or entry.prompt != prompt or not entry.is_alive(now):
            return None
        return self._hit(entry, prompt, "exact", 1.0)

    def find(self, scope: str, prompt: str, now: float, *, is_full: bool = False) -> Found:
        """The answer that serves, or why there is none; ``is_full`` tells also of those too far away."""
        hit = self.exact(scope, prompt, now)
        if hit is not None:
            return Found(hit, "the same text is stored")
        found = Found(vector=self.embed(prompt))
        self._look_among_the_nearest(found, scope, prompt, now, is_full)
        return found

    def embed(self, prompt: str) -> Float32:
        """Its vector, or `UnavailableError` where the embedder fails in a way of its own."""
        vector: Float32 = embedded(self.embedder, [prompt])[0]
        return vector

    def _look_among_the_nearest(
        self, found: Found, scope: str, prompt: str, now: float, is_full: bool
    ) -> None:
        assert found.vector is not None
        # Where the last of the first few is too far away, all that are near enough are among them, whosever
        # they are: the search of all is the fastest, and those of other scopes are passed over here.
        mine = {"scope": scope, "$not": {"expires_at": {"$lte": now}}}
        for k, where in zip(_CANDIDATES, (None, mine), strict=True):
            nearest = self.entries.nearest(found.vector, k, where)
            found.candidates.clear()
            for hit in nearest:
                score = min(1.0, float(hit.score))
                if score < self.threshold and found.candidates and not is_full:
                    return
                if hit.metadata.get("scope") != scope:
                    continue
                entry = Entry.of_hit(hit)
                refused = self._refused(found, entry, score, prompt, now)
                found.candidates.append(Candidate(entry.prompt, score, refused))
                if found.hit is not None:
                    found.reason = f"similarity {score:.4f} reaches the threshold {self.threshold:.4f}"
                    return
                found.reason = refused if len(found.candidates) == 1 and refused else found.reason
            is_settled = len(nearest) < k or nearest[-1].score < self.threshold
            if is_settled and (found.candidates or not is_full):
                return

    def _refused(self, found: Found, entry: Entry, score: float, prompt: str, now: float) -> str | None:
        """Why this entry must not be served; None where it is, and is ``found.hit`` now."""
        reason = self._disagreement(entry, score, prompt, now)
        if reason is not None:
            return reason
        hit = self._hit(entry, prompt, "similar", score)
        if hit is None:
            return "removed meanwhile"
        reason = self._doubt(found, prompt, hit)
        if reason is None:
            found.hit = hit
        return reason

    def _disagreement(self, entry: Entry, score: float, prompt: str, now: float) -> str | None:
        if score < self.threshold:
            return f"similarity {score:.4f} is below the threshold {self.threshold:.4f}"
        if not entry.is_alive(now):
            return f"expired {now - (entry.expires_at or now):.0f} s ago"
        if self.refused(prompt, entry.key):
            return "reported as a false hit"
        return self.guard(prompt, entry.prompt) if self.guard is not None else None

    def _doubt(self, found: Found, prompt: str, hit: CacheHit) -> str | None:
        """What the verifier has against it, asked once. One that fails, or gives no bool, is against it."""
        if self.verifier is None:
            return None
        if hit.key in found.doubts:
            return found.doubts[hit.key]
        if len(found.doubts) >= _MOST_VERIFIED:
            return f"the verifier was asked {_MOST_VERIFIED} times already"
        doubt = self._verified(self.verifier, prompt, hit)
        if doubt is not None:
            found.doubts[hit.key] = doubt
        return doubt

    @staticmethod
    def _verified(verifier: Verifier, prompt: str, hit: CacheHit) -> str | None:
        try:
            verdict = settled(verifier(prompt, hit))
        except Exception as error:  # noqa: BLE001  # other people's code, often a model far away: a miss
            _log.warning("the verifier failed, which counts as a miss: %r", error)
            return f"the verifier failed: {error!r}"
        if not isinstance(verdict, bool | np.bool_):
            return f"the verifier answered {type(verdict).__name__}, not bool"
        return None if verdict else "the verifier refused it"

    def _hit(self, entry: Entry, prompt: str, kind: Kind, score: float) -> CacheHit | None:
        try:
            response = self.entries.decode(entry)
        except KeyError:
            return None
        return CacheHit(
            response,
            kind,
            score,
            prompt,
            entry.prompt,
            entry.key,
            entry.stored_at,
            entry.expires_at,
            entry.tags,
            entry.seconds,
            entry.size_bytes,
        )

"""What is ranked and what comes of it: turns of a conversation, the conditions on them, ranked turns."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone

from faissbase.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said, or one fact noted.

    Attributes
    ----------
    session
        Turns of one session are neighbours in the order in which they are added. None: it stands alone.
    occurred_at
        When it was said; a time without zone is UTC. None: nobody knows, and no condition on time matches.
    kind
        Free to choose: "turn", "semantic", "bubble".
    """

    id: str
    text: str
    speaker: str = ""
    session: str | None = None
    occurred_at: datetime | None = None
    kind: str = "turn"


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions that all have to hold; None asks nothing. ``until`` itself is left out.

    Attributes
    ----------
    among
        Ids that may come back, for conditions that are known elsewhere.
    """

    speakers: Collection[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    kinds: Collection[str] | None = None
    among: Collection[str] | None = None

    def __post_init__(self) -> None:
        for name in ("speakers", "kinds", "among"):
            if isinstance(getattr(self, name), str):
                raise InvalidInputError(f"{name} takes a list of strings, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Ranked:
    """One turn of the answer.

    Attributes
    ----------
    score
        0 to 1, larger is better; comparable within one answer only.
    parts
        What ``words``, ``vectors``, ``neighbours`` and ``session`` gave; multiplied by ``factor`` (speaker,
        questions and times that make a turn less likely), and with ``renewal`` added where a turn was
        brought before an older one that it may replace, they are the score.
    """

    id: str
    score: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each sign counts, the words of the turn itself being 1.

    Each default is a round number in the middle of a wide range that does equally well; see
    ``benchmarks/results/dialogue.md``.

    Attributes
    ----------
    vectors
        Nearness of the turn's vector.
    before, after
        The share of a neighbour's score that a turn takes: an answer follows its question.
    session
        Whether the words of the question come together in the session.
    other_speaker
        What is left of a score where the question names somebody else.
    asking
        How much a turn loses that only asks.
    outside
        What is left of a score outside the period that the question names.
    newest
        How much the oldest turn loses where the newest is wanted.
    successors
        How many later turns may come before the best one, where a question asks how things are.
    """

    vectors: float = 0.7
    before: float = 0.5
    after: float = 0.2
    session: float = 0.6
    other_speaker: float = 0.85
    asking: float = 0.3
    outside: float = 0.7
    newest: float = 0.3
    successors: int = 2

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not 0 <= value < math.inf:
                raise InvalidInputError(f"{one.name} must be 0 or more, got {value!r}")

    @property
    def largest(self) -> float:
        """The sum of the parts that a turn has at most."""
        return (1 + self.vectors) * (1 + self.before + self.after) + self.session


def seconds_of(moment: datetime | None) -> float:
    """Seconds since 1970; NaN for None, which no comparison matches."""
    if moment is None:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()

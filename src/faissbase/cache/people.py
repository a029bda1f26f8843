"""Who is meant, told by pronouns: "she told him", "my name". Knows words, in lower case, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from faissbase.cache.vocabulary import AUXILIARIES
from faissbase.cache.words import stem

_SPEAKER, _LISTENER, _MAN, _WOMAN = "I", "you", "he", "she"
_PRONOUNS = {
    _SPEAKER: "i me my mine myself",
    _LISTENER: "you your yours yourself",
    _MAN: "he him his himself",
    _WOMAN: "she her hers herself",
}
_PERSONS = {word: person for person, words in _PRONOUNS.items() for word in words.split()}
_SUBJECTS = frozenset({"i", "you"})
_ANYBODY = ({(_SPEAKER, _LISTENER)}, {(_LISTENER, _SPEAKER)})
_IS = frozenset({"am", "are", "was", "were"})
_HELPING = frozenset(AUXILIARIES.split())

Exchanged = list[tuple[str, str]]


def other_people(a: Sequence[str], b: Sequence[str]) -> str | None:
    """Why two prompts are about other people, or None.

    "How can I ..." and "How can you ..." ask the same: both mean anybody. What is told apart is he and she, a
    sentence in which people have changed places, "my name" and "your name", "am I" and "are you".
    """
    one, other = (
        {_PERSONS[token] for token in side if token in _PERSONS} & {_MAN, _WOMAN} for side in (a, b)
    )
    if len(one) == len(other) == 1 and one != other:
        return f"{one.pop()} | {other.pop()}"
    exchanged = _exchanged(a, b)
    if not any(word in _PERSONS for word, _ in exchanged) or _mean_anybody(exchanged):
        return None
    return " | ".join(" ".join(side) for side in zip(*exchanged, strict=True))


def _exchanged(a: Sequence[str], b: Sequence[str]) -> Exchanged:
    """What differs within one and the same sentence: pronouns, and the verbs that follow them."""
    if len(a) != len(b):
        return []
    pairs = [both for both in zip(a, b, strict=True) if stem(both[0]) != stem(both[1])]
    return pairs if all(_is_pronoun(*both) or _HELPING.issuperset(both) for both in pairs) else []


def _is_pronoun(one: str, other: str) -> bool:
    return one in _PERSONS and other in _PERSONS


def _mean_anybody(exchanged: Exchanged) -> bool:
    pronouns = [both for both in exchanged if _is_pronoun(*both)]
    persons = {(_PERSONS[one], _PERSONS[other]) for one, other in pronouns}
    is_asked = any(_SUBJECTS.issuperset(both) for both in pronouns)
    return persons in _ANYBODY and is_asked and not any(_IS.issuperset(both) for both in exchanged)

"""What similarity cannot see: numbers, negation, names, order and other words that must agree. Pure text.

Two prompts that differ in one of them lie close together in any embedding and need different answers. Every
guard is symmetric, has nothing against a prompt and itself, and never raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from faissbase.cache.vocabulary import ANTONYMS, OPPOSING_PREFIXES
from faissbase.cache.words import Word, Words, stem, words_of

_STRICT_KINDS = frozenset({"why", "who", "when", "where", "amount"})
_OPPOSITES = frozenset(
    pair for pair in (frozenset(stem(word) for word in pair) for pair in ANTONYMS) if len(pair) == 2
)
_NEAR_LENGTH = 5


def disagreement(a: str, b: str) -> str | None:
    """Why two prompts must not share an answer, or None where no guard objects.

    The word before the colon is one of `REASONS`; what follows is for people.

    Examples
    --------
    >>> disagreement("How do I boil 2 eggs?", "How do I boil 3 eggs?")
    'numbers: 2 | 3'
    >>> disagreement("How do I boil an egg?", "How can I boil eggs?") is None
    True
    """
    if a == b:
        return None
    return next(disagreements(a, b), None)


def disagreements(a: str, b: str) -> Iterator[str]:
    """Every reason, the cheapest to find first."""
    first, second = words_of(a), words_of(b)
    for name, guard in _GUARDS.items():
        found = guard(first, second)
        if found is not None:
            yield f"{name}: {found}"


def _numbers(a: Words, b: Words) -> str | None:
    if sorted(a.numbers) == sorted(b.numbers):
        return None
    return _sides(a.numbers, b.numbers)


def _negation(a: Words, b: Words) -> str | None:
    if a.negations % 2 == b.negations % 2:
        return None
    return f"{a.negations} | {b.negations}"


def _question(a: Words, b: Words) -> str | None:
    if a.kind == b.kind or not a.kind or not b.kind or _STRICT_KINDS.isdisjoint((a.kind, b.kind)):
        return None
    return f"{a.kind} | {b.kind}"


def _opposites(a: Words, b: Words) -> str | None:
    only_a, only_b = _only(a, b)
    for one in only_a:
        for other in only_b:
            if frozenset((one, other)) in _OPPOSITES or _is_negated(one, other) or _is_negated(other, one):
                return f"{one} | {other}"
    return None


def _names(a: Words, b: Words) -> str | None:
    names = {word.stem for word in (*a.content, *b.content) if word.is_name}
    only_a, only_b = _only(a, b)
    missing_a, missing_b = [s for s in only_a if s in names], [s for s in only_b if s in names]
    return _sides(missing_a, missing_b) if missing_a or missing_b else None


def _roles(a: Words, b: Words) -> str | None:
    """The same word once after "from" and once after "to"."""
    roles = {word.stem: word.role for word in a.content if word.role}
    moved = [word for word in b.content if word.role and roles.get(word.stem, word.role) != word.role]
    return _sides([roles[word.stem] for word in moved], [word.role for word in moved]) if moved else None


def _order(a: Words, b: Words) -> str | None:
    """The words that both have, in another order; lists may be permuted, adverbs may move."""
    if list(a.numbers) != list(b.numbers) and sorted(a.numbers) == sorted(b.numbers) and len(a.numbers) > 1:
        return _sides(a.numbers, b.numbers)
    common = _common(a, b)
    first, second = _ordered(a.content, common), _ordered(b.content, common)
    if first == second:
        return None
    moved = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    if _is_genitive(moved, a, b) or _is_genitive(moved, b, a):
        return None
    return _sides([one for one, _ in moved], [other for _, other in moved])


def _replacement(a: Words, b: Words) -> str | None:
    """The same sentence, one word exchanged."""
    if len(a.tokens) != len(b.tokens):
        return None
    differing = [pair for pair in zip(a.tokens, b.tokens, strict=True) if pair[0] != pair[1]]
    only_a, only_b = _only(a, b)
    if len(differing) == 1 and len(only_a) == len(only_b) == 1:
        return _sides(only_a, only_b)
    return None


_GUARDS: dict[str, Callable[[Words, Words], str | None]] = {
    "numbers": _numbers,
    "negation": _negation,
    "question": _question,
    "opposites": _opposites,
    "names": _names,
    "roles": _roles,
    "replacement": _replacement,
    "order": _order,
}
#: What `disagreement` may name.
REASONS = tuple(_GUARDS)


def _sides(a: Sequence[str], b: Sequence[str]) -> str:
    return f"{' '.join(a[:5])} | {' '.join(b[:5])}"


def _only(a: Words, b: Words) -> tuple[list[str], list[str]]:
    """Stems that the other has neither so nor nearly so."""
    stems_a, stems_b = ({word.stem: word for word in words.content} for words in (a, b))
    only_a = [word for stem, word in stems_a.items() if stem not in stems_b]
    only_b = [word for stem, word in stems_b.items() if stem not in stems_a]
    near = [(one, other) for one in only_a for other in only_b if _is_near(one, other)]
    near_a, near_b = {one.stem for one, _ in near}, {other.stem for _, other in near}
    return (
        [word.stem for word in only_a if word.stem not in near_a],
        [word.stem for word in only_b if word.stem not in near_b],
    )


def _is_near(one: Word, other: Word) -> bool:
    """Whether two words are spellings or forms of one; names never are."""
    a, b = one.stem, other.stem
    if one.is_name or other.is_name or min(len(a), len(b)) < _NEAR_LENGTH or frozenset((a, b)) in _OPPOSITES:
        return False
    if _is_negated(a, b) or _is_negated(b, a):
        return False
    return (a[:5] == b[:5] and abs(len(a) - len(b)) <= 4) or _is_one_edit(a, b)


def _is_one_edit(a: str, b: str) -> bool:
    if abs(len(a) - len(b)) > 1:
        return False
    same = zip(a, b, strict=False)
    start = next((place for place, (one, other) in enumerate(same) if one != other), min(len(a), len(b)))
    rest_a, rest_b = a[start:], b[start:]
    return rest_a[1:] == rest_b[1:] or rest_a == rest_b[1:] or rest_a[1:] == rest_b


def _is_negated(one: str, other: str) -> bool:
    return any(prefix + one == other for prefix in OPPOSING_PREFIXES)


def _common(a: Words, b: Words) -> set[str]:
    count_a, count_b = (Counter(word.stem for word in words.content) for words in (a, b))
    loose = {word.stem for word in (*a.content, *b.content) if word.is_loose}
    return {stem for stem, count in count_a.items() if count_b[stem] == count and stem not in loose}


def _ordered(content: Sequence[Word], common: set[str]) -> list[str]:
    """The stems in order, the members of a list ("a, b and c") sorted."""
    lists: list[list[list[str]]] = []
    for word in content:
        if lists and word.link == "next":
            lists[-1][-1].append(word.stem)
        elif lists and word.link == "joined":
            lists[-1].append([word.stem])
        else:
            lists.append([[word.stem]])
    return [stem for members in lists for member in sorted(members) for stem in member if stem in common]


def _is_genitive(moved: Sequence[tuple[str, str]], a: Words, b: Words) -> bool:
    """Whether "the X village" has become "the village of X"."""
    if len(moved) != 2:
        return False
    first, second = moved[0]
    return _link_between(a, first, second) == "next" and _link_between(b, second, first) == "of"


def _link_between(words: Words, before: str, after: str) -> str:
    for one, other in zip(words.content, words.content[1:], strict=False):
        if (one.stem, other.stem) == (before, after):
            return other.link
    return ""

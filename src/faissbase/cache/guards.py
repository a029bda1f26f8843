"""What similarity cannot see: numbers, negation, names, order and other words that must agree. Pure text.

Two prompts that differ in one of them lie close together in any embedding and need different answers. Every
guard is symmetric, has nothing against a prompt and itself, and never raises. The words it knows are English;
in other languages it sees numbers, names, exchanged words and order, and costs hits where order is free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, permutations, product

from faissbase.cache.people import other_people
from faissbase.cache.times import other_time
from faissbase.cache.vocabulary import ANTONYMS, MEASURES, OPPOSING_PREFIXES, SIGNS
from faissbase.cache.words import Word, Words, stem, words_of

_SIGNED = frozenset(SIGNS.values())
_STRICT_KINDS = frozenset({"why", "who", "when", "where", "amount"})
_OPPOSITES: dict[str, set[str]] = {}
for _pair in ANTONYMS:
    for _one, _other in permutations({stem(word) for word in _pair}, 2):
        _OPPOSITES.setdefault(_one, set()).add(_other)
_OPPOSED_ROLES: dict[str, set[str]] = {
    "from": {"to", "into"}, "to": {"from"}, "into": {"from"}, "before": {"after"}, "after": {"before"},
    "over": {"under"}, "under": {"over"},
}  # fmt: skip
_ALLOWING = frozenset({"can", "may", "should", "must"})
_TIMES = frozenset({"time", "year", "date", "day"})
_MEASURED = {name: frozenset(words.split()) for name, words in {
    "price": "much expensive", "cost": "much expensive", "height": "tall high", "age": "old", "speed": "fast",
    "distance": "far", "weight": "heavy much", "depth": "deep", "length": "long", "population": "many",
}.items()}  # fmt: skip
_DOES_AND_IS_DONE = {frozenset({""}), frozenset({"by"})}
_NEAR_LENGTH = 5
_SENTENCE = 2
# Words of a frame that make another question of the same sentence.
_EXCHANGED = frozenset(
    map(frozenset, (("and", "or"), ("all", "some"), ("every", "some"), ("can", "must"), ("may", "must"),
                    ("http", "https"), ("in", "out"), ("get", "give"), ("everyone", "someone"),
                    ("everyone", "anyone"), ("everybody", "somebody"), ("everybody", "anybody"),
                    ("our", "their")))
)  # fmt: skip
_AGREEING = tuple(
    map(frozenset, (("a", "an"), ("is", "are"), ("was", "were"), ("do", "does"), ("has", "have")))
)


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
    pair = _Pair(words_of(a), words_of(b))
    for name, guard in _GUARDS.items():
        found = guard(pair)
        if found is not None:
            yield f"{name}: {found}"


class _Pair:
    """Two prompts, and the words that the other has neither so nor nearly so."""

    def __init__(self, a: Words, b: Words) -> None:
        self.a, self.b = a, b
        only_a, only_b = _missing(a, b), _missing(b, a)
        #: Stems of ``b`` that are forms or spellings of one of ``a``.
        self.near = {two.stem: one.stem for one in only_a for two in only_b if _is_near(one, two)}
        forms = set(self.near.values())
        self.only_a = [word for word in only_a if word.stem not in forms]
        self.only_b = [word for word in only_b if word.stem not in self.near]

    def stems(self, words: Sequence[Word]) -> list[str]:
        """Stems of either prompt, those that are near each other as one."""
        return [self.near.get(word.stem, word.stem) for word in words]


def _numbers(pair: _Pair) -> str | None:
    a, b = ([word.stem for word in words.content if word.is_number] for words in (pair.a, pair.b))
    if sorted(a) != sorted(b):
        return _sides(a, b)
    if units := _units(pair):
        return units
    counted = pair.a.counted, pair.b.counted
    for one, other in (counted, counted[::-1]):
        bare = [number for number in one.keys() - other.keys() if one[number] in _SIGNED]
        if bare:  # 5 % and 5
            return _sides(
                *([f"{number} {side.get(number, '')}".strip() for number in bare] for side in counted)
            )
    known = {word.low for word in pair.a.content} & {word.low for word in pair.b.content} | MEASURES.keys()
    changed = [
        number
        for number in counted[0].keys() & counted[1].keys()
        if counted[0][number] != counted[1][number] and {counted[0][number], counted[1][number]} <= known
    ]
    return (
        _sides(*([f"{number} {side[number]}" for number in changed] for side in counted)) if changed else None
    )


def _units(pair: _Pair) -> str | None:
    """Megabits and megabytes: the same letters, and others of them capitals."""
    for one, other in product(sorted(pair.a.units - pair.b.units), sorted(pair.b.units - pair.a.units)):
        if one.lower() == other.lower():
            return f"{one} | {other}"
    return None


def _negation(pair: _Pair) -> str | None:
    a, b = pair.a.negations, pair.b.negations
    if a % 2 != b % 2:
        return f"{a} | {b}"
    denied = _denied(pair.a), _denied(pair.b)
    for both in sorted(denied[0].keys() & denied[1].keys()):
        if denied[0][both] != denied[1][both]:
            return " | ".join(f"not {side[both]}" for side in denied)
    return None


def _denied(words: Words) -> dict[tuple[str, str], str]:
    """Of two words of which one is denied ("x and not y"), which one."""
    return {
        (one.stem, two.stem): two.stem if two.is_negated else one.stem
        for one, two in pairwise(words.content)
        if two.is_coordinated and one.is_negated != two.is_negated
    }


def _operators(pair: _Pair) -> str | None:
    """Signs that compare or calculate, emoji where both have some; "and" for "or" and such."""
    a, b = pair.a.operators, pair.b.operators
    if a != b:
        return _sides(a, b)
    a, b = pair.a.intervals, pair.b.intervals
    if a and b and a != b:
        return _sides(a, b)
    a, b = pair.a.symbols, pair.b.symbols
    if a and b and a != b:
        return _sides(a, b)
    tokens = pair.a.tokens, pair.b.tokens
    if len(tokens[0]) != len(tokens[1]):
        return None
    differing = [both for both in zip(*tokens, strict=True) if both[0] != both[1]]
    if differing and all(frozenset(both) in _EXCHANGED for both in differing):
        return " | ".join(differing[0])
    return None


def _question(pair: _Pair) -> str | None:
    a, b = pair.a.kind, pair.b.kind
    if {a, b} == {"how", "whether"} and _is_allowed(*sorted((pair.a.tokens, pair.b.tokens), key=len)):
        return f"{a} | {b}"
    if a == b or not a or not b or _STRICT_KINDS.isdisjoint((a, b)):
        return None
    if {a, b} == {"when", "what"} and any(_asks_when(side.tokens) for side in (pair.a, pair.b)):
        return None
    if {a, b} == {"amount", "what"} and _measures(pair.a.tokens) & _measures(pair.b.tokens):
        return None
    return f"{a} | {b}"


def _is_allowed(one: Sequence[str], other: Sequence[str]) -> bool:
    """ "Can I ..." and "How do I ..." of the same."""
    return one[0] in _ALLOWING and one[1:2] == ("i",) and other[0] == "how" and other[2:] == one[1:]


def _asks_when(tokens: Sequence[str]) -> bool:
    return any(one in ("what", "which") and two in _TIMES for one, two in pairwise(tokens))


def _measures(tokens: Sequence[str]) -> set[str]:
    """What is to be measured: "how tall", "what is the height"."""
    asked = {two for one, two in pairwise(tokens) if one == "how"}
    named = {one for one in tokens if one in _MEASURED}
    return named | {name for name, words in _MEASURED.items() if not words.isdisjoint(asked)}


def _opposites(pair: _Pair) -> str | None:
    a, b = ({stem(token) for token in words.tokens} for words in (pair.a, pair.b))
    only_a, only_b = a - b, b - a
    for one in sorted(only_a):
        for other in _OPPOSITES.get(one, ()):
            if other in only_b:
                return f"{one} | {other}"
    for both, side in ((_both(pair.a.tokens) - b, b), (_both(pair.b.tokens) - a, a)):
        for one in sorted(both):
            if side & _OPPOSITES[one]:  # "pros and cons" | "pros"
                return f"{one} and {min(side & _OPPOSITES[one])} | {min(side & _OPPOSITES[one])}"
    negated = [
        (one.stem, two.stem) for one in pair.only_a for two in pair.only_b if _is_opposite(one.stem, two.stem)
    ]
    return " | ".join(negated[0]) if negated else None


def _both(tokens: Sequence[str]) -> set[str]:
    """Words that are joined to their opposite: "pros and cons"."""
    joined = [
        (stem(one), stem(other))
        for one, between, other in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if between == "and"
    ]
    return {one for both in joined if both[1] in _OPPOSITES.get(both[0], ()) for one in both}


def _names(pair: _Pair) -> str | None:
    a, b = ([word.stem for word in only if word.is_name] for only in (pair.only_a, pair.only_b))
    return _sides(a, b) if a or b else None


def _people(pair: _Pair) -> str | None:
    return other_people(pair.a.tokens, pair.b.tokens)


def _time(pair: _Pair) -> str | None:
    return other_time(pair.a.tokens, pair.b.tokens)


def _roles(pair: _Pair) -> str | None:
    """A word once after "from" and once after "to", or a name once after "by" and once not."""
    roles_a, roles_b = _roles_of(pair.a), _roles_of(pair.b)
    for word, one in roles_a.items():
        other = roles_b.get(word, one)
        for role in sorted(other - one):
            if opposed := (one - other) & _OPPOSED_ROLES.get(role, set()):
                return f"{' '.join(sorted(opposed))} {word} | {role} {word}"
    done = {word.stem for word in (*pair.a.content, *pair.b.content) if word.is_name}
    joined = {word.stem for word in (*pair.a.content, *pair.b.content) if word.link == "joined"}
    for word in sorted((done - joined) & roles_a.keys() & roles_b.keys()):
        if {frozenset(roles_a[word]), frozenset(roles_b[word])} == _DOES_AND_IS_DONE:
            return f"{' '.join(roles_a[word])} {word} | {' '.join(roles_b[word])} {word}"
    return None


def _roles_of(words: Words) -> dict[str, set[str]]:
    roles: dict[str, set[str]] = {}
    for word in words.content:
        roles.setdefault(word.stem, set()).add(word.role)
    return roles


def _order(pair: _Pair) -> str | None:
    """The words that both have, in another order; lists may be permuted, adverbs and dates may move."""
    counts = [Counter(pair.stems(words.content)) for words in (pair.a, pair.b)]
    more, fewer = _more(*counts), _more(*reversed(counts))
    if more and fewer:
        return _sides(more, fewer)
    fixed = _fixed(pair, counts)
    plain, numbers = (
        [_in_order(pair, side.content, fixed, kind) for side in (pair.a, pair.b)] for kind in (False, True)
    )
    if plain[0] == plain[1] and numbers[0] == numbers[1]:
        return None
    kinds = (False, True) if len(numbers[0]) > 1 else (False,)
    a, b = (_in_order(pair, _ordered(side.content), fixed, *kinds) for side in (pair.a, pair.b))
    moved = [both for both in zip(a, b, strict=True) if both[0] != both[1]]
    return _sides([one for one, _ in moved], [other for _, other in moved]) if moved else None


def _more(count: Counter[str], other: Counter[str]) -> list[str]:
    """What both say, and one of them more often."""
    return [stem for stem, n in count.items() if n > other[stem] > 0]


def _in_order(pair: _Pair, words: Sequence[Word], fixed: set[str], *is_number: bool) -> list[str]:
    return [
        stem for stem in pair.stems([word for word in words if word.is_number in is_number]) if stem in fixed
    ]


def _replacement(pair: _Pair) -> str | None:
    """The same sentence, one word exchanged."""
    a, b = pair.a.tokens, pair.b.tokens
    if len(a) != len(b) or len(a) < _SENTENCE or not len(pair.only_a) == len(pair.only_b) == 1:
        return None
    n_differing = sum(one != other and {one, other} not in _AGREEING for one, other in zip(a, b, strict=True))
    return f"{pair.only_a[0].stem} | {pair.only_b[0].stem}" if n_differing == 1 else None


_GUARDS: dict[str, Callable[[_Pair], str | None]] = {
    "numbers": _numbers,
    "negation": _negation,
    "operators": _operators,
    "question": _question,
    "opposites": _opposites,
    "names": _names,
    "people": _people,
    "time": _time,
    "roles": _roles,
    "replacement": _replacement,
    "order": _order,
}
#: What `disagreement` may name.
REASONS = tuple(_GUARDS)


def _sides(a: Sequence[str], b: Sequence[str]) -> str:
    return f"{' '.join(a[:5])} | {' '.join(b[:5])}"


def _missing(a: Words, b: Words) -> list[Word]:
    """Words of ``a`` whose stem ``b`` lacks."""
    there = {word.stem for word in b.content}
    return [word for word in a.content if word.stem not in there and not word.is_number]


def _is_near(one: Word, other: Word) -> bool:
    """Whether two words are spellings or forms of one."""
    a, b = sorted((one.stem, other.stem), key=len)
    if one.is_name or other.is_name:
        return b == a + "n"  # India, Indian
    if a[0] != b[0] or len(a) < _NEAR_LENGTH or _is_opposite(a, b):
        return False
    return (a[:5] == b[:5] and len(b) - len(a) <= 4) or _is_one_edit(a, b)


def _is_opposite(a: str, b: str) -> bool:
    return b in _OPPOSITES.get(a, ()) or _is_negated(a, b) or _is_negated(b, a)


def _is_one_edit(a: str, b: str) -> bool:
    if abs(len(a) - len(b)) > 1:
        return False
    same = zip(a, b, strict=False)
    start = next((place for place, (one, other) in enumerate(same) if one != other), min(len(a), len(b)))
    rest_a, rest_b = a[start:], b[start:]
    return rest_a[1:] == rest_b[1:] or rest_a == rest_b[1:] or rest_a[1:] == rest_b


def _is_negated(one: str, other: str) -> bool:
    return other.endswith(one) and other[: -len(one)] in OPPOSING_PREFIXES


def _fixed(pair: _Pair, counts: Sequence[Counter[str]]) -> set[str]:
    """Stems that both say equally often, and whose place matters."""
    loose = {word.stem for word in (*pair.a.content, *pair.b.content) if word.is_loose}
    return {stem for stem, count in counts[0].items() if counts[1][stem] == count and stem not in loose}


def _ordered(content: Sequence[Word]) -> list[Word]:
    """The words in an order that phrasing does not change: lists ("a, b and c") sorted, "x of y" as "y x"."""
    lists: list[list[list[Word]]] = []
    for word in content:
        if lists and word.link == "next":
            lists[-1][-1].append(word)
        elif lists and word.link == "joined":
            lists[-1].append([word])
        else:
            lists.append([[word]])
    for place in range(len(lists) - 1, 0, -1):
        if lists[place][0][0].link == "of":
            lists[place - 1][-1][:0] = _flat(lists.pop(place))
    for place, (one, two) in enumerate(pairwise(lists)):
        if (one[0][0].role, two[0][0].role) == ("to", "from"):  # to London from Paris
            lists[place], lists[place + 1] = two, one
    return [word for members in lists for word in _flat(members)]


def _flat(members: Sequence[Sequence[Word]]) -> list[Word]:
    return [word for member in sorted(members, key=_key) for word in member]


def _key(member: Sequence[Word]) -> list[str]:
    return [word.stem for word in member]

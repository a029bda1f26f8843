"""A prompt as the words that guards compare: what is asked, about what, with which numbers.

English first. In a language that it does not know every word is one that says what is asked; names and
numbers are still seen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from faissbase.cache.vocabulary import (
    ALSO_NAMES,
    AMOUNTS,
    AUXILIARIES,
    BINDERS,
    DETERMINERS,
    FIRM,
    FRAME,
    IRREGULAR,
    LOOSE,
    MEASURES,
    MONTHS,
    NEGATORS,
    NUMBERS,
    PHRASES,
    ROLES,
    ROMAN,
    SCALES,
    SIGNS,
    SYNONYMS,
)

_TOKEN = re.compile(
    r"(?P<number>(?:(?<!\S)-)?\d+(?:[.,:/]\d+)*)(?:st|nd|rd|th)?"  # 1,000  3.11  10:30  2nd
    r"|(?P<initials>[^\W\d_](?:\.[^\W\d_])+\b\.?)"  # U.S.
    r"|(?P<word>[^\W_]\w*(?:['._][^\W_]\w*)*[+#]*)"  # don't  node.js  snake_case  C++
    r"|(?P<sign>[$€£₹%])"
    r"|(?P<end>[.!?:\n]+)"
    r"|(?P<comma>[,;&/])"
)
_OPERATOR = re.compile(
    r"(?P<option>(?<![^\s`'\"(])--?[A-Za-z][\w-]*(?:=\S+)?)"  # ls -l, --hard
    r"|(?P<compares>===?|<=>|[<>!=]=|<>|[-=]>|<-|<<|>>|[<>=≤≥≠])"
    r"|(?P<logic>&&|\|\||(?<![\w!?.])!(?=[\w(]))"
    r"|(?<=[\w)\]])(?P<gap>[ \t]*)"
    r"(?P<counts>\*\*|//|[-+*/^|\N{MULTIPLICATION SIGN}÷·\N{MINUS SIGN}])(?P=gap)(?=[(\[]*\w)"
)
# (0, 5] and [0, 5); calls f(x, y) and indices a[i, j] are none.
_INTERVAL = re.compile(r"(?<!\w)([(\[])\s*([-\w.]+)\s*[,;]\s*([-\w.]+)\s*([)\]])")
#: Units of which a capital makes another one, as they are written by those who mind.
_CASED_WORDS = "mL ML mW MW mV MV mA MA mHz MHz mJ MJ mPa MPa Mb MB Kb KB Gb GB Tb TB mg Mg"
_CASED_UNITS = frozenset(_CASED_WORDS.split())
# A number or a variable: what dashes and slashes of prose do not stand beside.
_ATOM = r"(?:\d[\d.]*|(?<!\w)[^\W\d_]\d*)"
_BEFORE, _AFTER = re.compile(rf"{_ATOM}[)\]]*$"), re.compile(rf"[ \t(\[]*{_ATOM}(?!\w)")
_LEFT, _RIGHT = re.compile(r"(\w+)[\s)\]]*$"), re.compile(r"[\s(\[]*(\w+)")
_OF_PROSE = frozenset({"-", "/", "\N{MINUS SIGN}"})
_ALSO_WORDS = frozenset({"a", "A", "I"})
_SPELLED = {"===": "=", "==": "=", "<>": "!=", "≠": "!=", "≤": "<=", "≥": ">=", "·": "*", "÷": "/",
            "\N{MULTIPLICATION SIGN}": "*", "\N{MINUS SIGN}": "-"}  # fmt: skip
_PHRASE = re.compile(
    "|".join(rf"\b{re.escape(phrase)}\b" for phrase in sorted(PHRASES, key=len, reverse=True)), re.IGNORECASE
)
# What no phrase, no operator and no interval is without: looking for it first takes a tenth of the time.
_PHRASE_CORES = tuple(one for one in PHRASES if not any(two in one for two in PHRASES if two != one))
_OPERATOR_SIGN = re.compile(r"[-<>=!&|+*/^≤≥≠·÷\N{MULTIPLICATION SIGN}\N{MINUS SIGN}]")
_OPENING = re.compile(r"[(\[]")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{2,3})+(?:\.\d+)?")
_LAST_ZERO = re.compile(r"\d+\.\d*[1-9]\d*0")
_POSSESSIVE = re.compile(r"'(?:s|re|ve|ll|d|m)?$")
_COORDINATORS = frozenset({"and", "or", "but", ","})
_JOINERS = frozenset({"and", "or", "vs", "versus", ",", "&", "/"})
_TYPOGRAPHIC = "\N{RIGHT SINGLE QUOTATION MARK}"
_TENS = frozenset(range(20, 100, 10))
_ONES = frozenset(range(1, 10))
_HALVES = frozenset({"am", "pm"})
_UNITS = {"one": 1.0, "first": 1.0, "second": 2.0}
_IDENTIFIER = re.compile(r"[\d_+#]|\.\w")
_VOWELS = frozenset("aeiouy")
_CACHED_LENGTH = 2_000
_LONG = 4
_TITLE_CASE = 0.8


@dataclass(frozen=True, slots=True)
class Word:
    """A word that says what is asked.

    Attributes
    ----------
    low, stem : str
        As it was written, in lower case; and one form for its inflections and synonyms.
    is_number : bool
    is_name : bool
        Capitalised within a sentence, an acronym, or an identifier of code.
    is_loose : bool
        An adverb or a month: where it stands changes little.
    role : str
        The preposition before it ("from", "by"), or "".
    link : str
        How it follows the word before it: "next" to it, "joined" by "and" or a comma, "of" it, or "apart".
    is_negated, is_coordinated : bool
        "not" or the like stands right before it; "and", "or", "but" or a comma does.
    """

    low: str
    stem: str
    is_number: bool
    is_name: bool
    is_loose: bool
    role: str
    link: str
    is_negated: bool
    is_coordinated: bool


@dataclass(frozen=True, slots=True)
class Words:
    """What guards know of a prompt.

    Attributes
    ----------
    content : tuple[Word, ...]
        In order; words of the frame ("how", "do", "the") left out. Numbers and months have one
        spelling: "1,000", "1k" and "thousand" are "1000".
    negations : int
    kind : str
        What is asked for: "why", "who", "when", "where", "amount", "how", "whether", "what", or "".
    tokens : tuple[str, ...]
        All words, in lower case.
    operators : tuple[str, ...]
        Signs that compare ("x<=5"), negate ("!x") or calculate ("2-x"), with what is beside them; options
        ("--hard") as they are.
    intervals : tuple[str, ...]
        "(0,5]", "[a,b]", in order.
    units : frozenset[str]
        Those that are another unit with another capital: "mL", "MB".
    symbols : tuple[str, ...]
        Emoji and the like, sorted.
    """

    content: tuple[Word, ...]
    negations: int
    kind: str
    tokens: tuple[str, ...]
    operators: tuple[str, ...]
    intervals: tuple[str, ...]
    units: frozenset[str]
    symbols: tuple[str, ...]

    @property
    def counted(self) -> dict[str, str]:
        """Numbers and what they count: a currency before, or the word right behind, units in one spelling."""
        found: dict[str, str] = {}
        for one, two in zip(self.content, self.content[1:], strict=False):
            if two.link != "next" or one.is_number == two.is_number:
                continue
            number, word = (one, two) if one.is_number else (two, one)
            if one.is_number or word.low in SIGNS.values():
                found[number.stem] = MEASURES.get(word.low, word.low)
        return found


def words_of(text: str) -> Words:
    """The words of a prompt; those of short prompts are remembered."""
    return _remembered(text) if len(text) <= _CACHED_LENGTH else _parsed(text)


@lru_cache(maxsize=4096)
def _remembered(text: str) -> Words:
    return _parsed(text)


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """One form for a word, its inflections and its plain synonyms.

    Examples
    --------
    >>> stem("studies") == stem("studying") == stem("study")
    True
    """
    bare = _bare(IRREGULAR.get(word, word))
    return _HEADS.get(bare, bare)


def _bare(word: str) -> str:
    if len(word) > 4 and word.endswith("ly"):
        word = word[:-2]
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and word[-2] not in "sui":
        word = word[:-1]
    for ending in ("ing", "ed"):
        rest = word[: -len(ending)]
        if word.endswith(ending) and len(rest) >= 3 and not _VOWELS.isdisjoint(rest):
            word = rest[:-1] if rest[-1] == rest[-2] and rest[-1] not in "lsz" else rest
            break
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 2 and word.endswith("y") else word


_HEADS = {_bare(word): _bare(head) for word, head in SYNONYMS.items()}


@dataclass(slots=True)
class _Token:
    text: str
    low: str
    kind: str
    starts_sentence: bool


def _parsed(text: str) -> Words:
    text = text if text.isascii() else unicodedata.normalize("NFKC", text)
    tokens = list(_tokens(text))
    lows = tuple(token.low for token in tokens if token.kind not in ("end", "comma"))
    return Words(
        content=_content(tokens, _numbers(tokens)),
        negations=_negations(lows),
        kind=_kind(lows),
        tokens=lows,
        operators=tuple(_operators(text)) if _OPERATOR_SIGN.search(text) else (),
        intervals=_intervals(text) if _OPENING.search(text) else (),
        units=frozenset(token.text for token in tokens if token.text in _CASED_UNITS),
        symbols=() if text.isascii() else tuple(sorted(filter(_is_symbol, text))),
    )


def _intervals(text: str) -> tuple[str, ...]:
    return tuple(f"{a}{b},{c}{d}" for a, b, c, d in _INTERVAL.findall(text))


def _is_symbol(letter: str) -> bool:
    return letter > "\x7f" and (unicodedata.category(letter) == "So" or letter == "\N{MUSIC SHARP SIGN}")


def _operators(text: str) -> Iterator[str]:
    for found in _OPERATOR.finditer(text):
        sign = found[str(found.lastgroup)]
        if found["option"]:
            yield sign
        elif sign not in _OF_PROSE or _is_calculation(text, found):
            left = _LEFT.search(text, max(0, found.start() - 40), found.start())
            right = _RIGHT.match(text, found.end())
            operands = ["" if each is None else each[1].lower() for each in (left, right)]
            yield _SPELLED.get(sign, sign).join(operands)


def _is_calculation(text: str, found: re.Match[str]) -> bool:
    """Whether a dash or a slash stands beside a number or a variable, or close between two variables."""
    start, end = found.span()
    if not found["gap"] and (text[start - 1].isdigit() or text[end].isdigit()):
        return False  # 2024-05-03, F-16, 24/7
    beside = [_BEFORE.search(text, max(0, start - 40), start), _AFTER.match(text, end)]
    if not found["gap"]:
        return all(beside)
    return any(one is not None and one[0].strip(" \t()[]") not in _ALSO_WORDS for one in beside)


def _tokens(text: str) -> Iterator[_Token]:
    text = text.replace(_TYPOGRAPHIC, "'")
    if _may_have_phrases(text):
        text = _PHRASE.sub(lambda found: PHRASES[found[0].lower()], text)
    is_start = True
    for found in _TOKEN.finditer(text):
        kind, token = str(found.lastgroup), found[0]
        yield _Token(token, _low(kind, token), kind, is_start)
        is_start = kind == "end"


def _may_have_phrases(text: str) -> bool:
    low = text.lower()
    return not text.isascii() or any(core in low for core in _PHRASE_CORES)


def _low(kind: str, token: str) -> str:
    low = token.lower()
    if kind == "word" and "'" in low:
        return _POSSESSIVE.sub("", low) or low
    if kind == "initials":
        low = low.replace(".", "")
    if low == "us" and token[0] == "U":
        return "usa"
    return SIGNS.get(low, low)


def _numbers(tokens: Sequence[_Token]) -> dict[int, str]:
    """The numbers in one spelling, by the place of the token that ends each; "" where one goes on."""
    found: dict[int, float | str] = {}
    for place, token in enumerate(tokens):
        value, before = _value(token), found.get(place - 1)
        if _is_version(tokens, place):
            value = token.low
        ones = _UNITS.get(token.low, value)
        if isinstance(before, float) and token.low in SCALES:
            found[place - 1], value = "", before * SCALES[token.low]
        elif isinstance(before, float) and before in _TENS and isinstance(ones, float) and ones in _ONES:
            found[place - 1], value = "", before + ones
        elif before and token.low in _HALVES and tokens[place - 1].kind == "number":
            found[place - 1], value = "", f"{_shown(before)}{token.low}"
        if value is not None:
            found[place] = value
    return {place: _shown(value) for place, value in found.items()}


def _is_version(tokens: Sequence[_Token], place: int) -> bool:
    """Whether a last zero counts: "Python 3.10" is not "Python 3.1", but 2.50 kg are 2.5 kg."""
    if _LAST_ZERO.fullmatch(tokens[place].low) is None or place == 0:
        return False
    before = tokens[place - 1]
    behind = tokens[place + 1].low if place + 1 < len(tokens) else ""
    return (
        before.kind == "word"
        and before.low not in FRAME
        and behind not in MEASURES
        and behind not in SCALES
        and behind not in _HALVES
    )


def _shown(number: float | str) -> str:
    return number if isinstance(number, str) else f"{number:.12g}"


def _value(token: _Token) -> float | str | None:
    if token.text in MONTHS and not (token.starts_sentence and token.low in FRAME):
        return token.low[:3]
    if token.kind != "number":
        found = NUMBERS.get(token.low)
        found = ROMAN.get(token.text, found)
        return None if found is None else float(found)
    digits = re.match(r"-?[\d.,:/]*\d", token.low)
    text = digits[0] if digits else token.low
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    try:
        return float(text)
    except ValueError:
        return text


def _content(tokens: Sequence[_Token], numbers: dict[int, str]) -> tuple[Word, ...]:
    is_title = _is_title_case([token for token in tokens if token.kind == "word"])
    places = [
        place
        for place, token in enumerate(tokens)
        if numbers.get(place, _says_something(token, is_title) or _is_metre(tokens, place))
    ]
    words: list[Word] = []
    after = 0
    for place in places:
        between = [token.low for token in tokens[after:place]]
        is_counted = not between and bool(words) and words[-1].is_number
        words.append(_word(tokens[place], numbers.get(place), is_title, between, is_counted))
        after = place + 1
    return tuple(words)


def _is_metre(tokens: Sequence[_Token], place: int) -> bool:
    """Whether an "m" is a unit, not what is left of "I'm"."""
    return tokens[place].low == "m" and place > 0 and tokens[place - 1].kind == "number"


def _says_something(token: _Token, is_title: bool) -> bool:
    if token.low in FRAME:
        return token.low in ALSO_NAMES and _is_name(token, is_title)
    return token.kind not in ("end", "comma") and not _is_negation(token.low)


def _word(
    token: _Token, number: str | None, is_title: bool, between: Sequence[str], is_counted: bool
) -> Word:
    role = next((low for low in reversed(between) if low in ROLES), "")
    before = (role, _link(between), any(map(_is_negation, between)), not _COORDINATORS.isdisjoint(between))
    if number:
        return Word(token.low, number, True, False, token.text in MONTHS, *before)
    is_name = _is_name(token, is_title)
    is_loose = not is_name and (token.low in LOOSE or (token.low.endswith("ly") and token.low not in FIRM))
    one_spelling = MEASURES.get(token.low, token.low) if is_counted else token.low
    return Word(token.low, stem(one_spelling), False, is_name, is_loose, *before)


def _link(between: Sequence[str]) -> str:
    if not between:
        return "next"
    rest = [low for low in between if low not in DETERMINERS]
    if not rest:
        return "apart"
    if all(low in _JOINERS for low in rest):
        return "joined"
    return "of" if len(rest) == 1 and rest[0] in BINDERS else "apart"


def _is_title_case(tokens: Sequence[_Token]) -> bool:
    """Whether capitals are the style of the whole prompt, and so tell nothing."""
    inner = [token.text for token in tokens if not token.starts_sentence and len(token.text) >= _LONG]
    return len(inner) >= 4 and sum(text[0].isupper() for text in inner) > _TITLE_CASE * len(inner)


def _is_name(token: _Token, is_title: bool) -> bool:
    text, inner = token.text, token.text[1:]
    if _IDENTIFIER.search(inner):
        return True
    lower = text.lower()
    if is_title or text == lower:
        return False
    return inner != lower[1:] or not token.starts_sentence


def _negations(lows: Sequence[str]) -> int:
    """How many there are; "neither x nor y" denies once."""
    n_denied_twice = min(lows.count("neither"), lows.count("nor"))
    return sum(map(_is_negation, lows)) - n_denied_twice


def _is_negation(low: str) -> bool:
    return low in NEGATORS or low.endswith("n't")


_ASKED = {
    "why": "why", "who": "who", "whom": "who", "whose": "who", "when": "when", "where": "where", "how": "how",
    "what": "what", "which": "what", "whats": "what",
}  # fmt: skip
_AMOUNTS = frozenset(AMOUNTS.split())
_REASONS = frozenset({"reason", "cause", "importance"})
_WAYS = frozenset({"way", "step", "method", "trick", "tip"})
_AUXILIARIES = frozenset(AUXILIARIES.split())


def _kind(lows: Sequence[str]) -> str:
    asked = next(((place, _ASKED[low]) for place, low in enumerate(lows) if low in _ASKED), None)
    if lows and lows[0] in _AUXILIARIES:
        return "whether"
    if asked is None:
        return ""
    place, kind = asked
    following = lows[place + 1 : place + 2]
    if kind == "how" and following and following[0] in _AMOUNTS:
        return "amount"
    if kind == "what" and any(low.rstrip("s") in _REASONS for low in lows[place + 1 : place + 6]):
        return "why"
    if kind == "what" and any(low.rstrip("s") in _WAYS for low in lows[place + 1 : place + 6]):
        return "how"
    return kind

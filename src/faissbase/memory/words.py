"""Words of a text as a search wants them: without case, endings and words that carry no meaning.

Endings, irregular forms and empty words are those of English. Words of other languages that use spaces are
kept, with an ending off here and there; Chinese, Japanese and Korean are cut into pairs of signs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile("['\u2019]s\\b")
_ENDS = ".!?\u3002\uff01\uff1f"
_SENTENCE = re.compile(rf"[^{_ENDS}]*[{_ENDS}]+|[^{_ENDS}]+$")
_ASKS = re.compile("[?\uff1f]")
_SIGNS = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+")

_EMPTY_WORDS = """
    a an and are as at be but by for from had has have he her him his i if in into is it its me my no
    not of on or our s she so t that the their them then there these they this to was we were will with
    you your do does did what when where which who whom whose why how would could should can am been
    being about just than too very m re ve d ll don"""
EMPTY = frozenset(_EMPTY_WORDS.split())
"""Words that say how a sentence is built and not what it is about; question words among them."""

_IRREGULAR = """
    go went gone, buy bought, bring brought, take took taken, get got gotten, give gave given, make made,
    do done, see saw seen, say said, tell told, think thought, feel felt, find found, know knew known,
    come came, run ran, begin began begun, write wrote written, speak spoke spoken, break broke broken,
    choose chose chosen, drive drove driven, eat ate eaten, fall fell fallen, fly flew flown, sell sold,
    forget forgot forgotten, grow grew grown, hear heard, hold held, keep kept, leave left, lose lost,
    meet met, pay paid, ride rode ridden, rise rose risen, send sent, sing sang sung, sit sat, sleep slept,
    spend spent, stand stood, swim swam swum, teach taught, throw threw thrown, wear wore worn, win won,
    understand understood, catch caught, build built, draw drew drawn, drink drank drunk, feed fed, bend bent,
    fight fought, hang hung, hide hid hidden, lead led, lend lent, light lit, mean meant, seek sought,
    shake shook shaken, shoot shot, show shown, sink sank sunk, steal stole stolen, stick stuck,
    strike struck, swear swore sworn, sweep swept,
    tear tore torn, wake woke woken, bite bit bitten, blow blew blown,
    become became, bind bound, bleed bled, breed bred, deal dealt, dig dug, freeze froze frozen,
    forgive forgave forgiven, shine shone, slide slid, spin spun, weep wept,
    child children kid kids, man men, woman women, person people, foot feet, tooth teeth, mouse mice,
    wife wives, life lives, knife knives, leaf leaves, good better best, bad worse worst,
    mother mom mum mommy mummy, father dad daddy"""

_STEMS = {form: base for group in _IRREGULAR.split(",") for base, *forms in [group.split()] for form in forms}
_ENDINGS = (("ies", "y"), ("sses", "ss"), ("ing", ""), ("edly", ""), ("ed", ""), ("es", ""), ("ly", ""))


def words_of(text: str) -> list[str]:
    """Stems of the words of ``text`` in order, words without meaning left out.

    >>> words_of("What did Ana's children buy?")
    ['ana', 'child', 'buy']
    """
    plain = _POSSESSIVE.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return [stem_of(word) for word in _cut(plain) if word not in EMPTY]


def asking_share(text: str) -> float:
    """The share of the sentences of ``text`` that are questions.

    >>> asking_share("I moved to Porto. And you?")
    0.5
    """
    sentences = [sentence for sentence in _SENTENCE.findall(text) if sentence.strip()]
    return sum(bool(_ASKS.search(s)) for s in sentences) / len(sentences) if sentences else 0.0


@lru_cache(maxsize=65_536)
def stem_of(word: str) -> str:
    """What the forms of one English word have in common; not always a word itself.

    >>> stem_of("running"), stem_of("ran"), stem_of("hobbies"), stem_of("hobby")
    ('run', 'run', 'hobbi', 'hobbi')
    """
    base = _STEMS.get(word, word)
    if len(base) <= 3 or not base.isascii():
        return base
    return _evened(_without_ending(base))


def _without_ending(word: str) -> str:
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + instead
    return word[:-1] if word[-1] == "s" and word[-2] not in "su" else word


def _evened(stem: str) -> str:
    # "stopp" and "stop", "hope" and "hop(ing)", "hobby" and "hobbi(es)" meet here.
    if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "ls":
        stem = stem[:-1]
    if len(stem) > 3 and stem[-1] == "e":
        stem = stem[:-1]
    if len(stem) > 3 and stem[-1] == "y":
        stem = stem[:-1] + "i"
    return stem


def _cut(text: str) -> Iterator[str]:
    for word in _WORD.findall(text):
        if len(word) == 1 or not _SIGNS.fullmatch(word):
            yield word
        else:
            yield from (word[start : start + 2] for start in range(len(word) - 1))

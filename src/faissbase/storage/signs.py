"""Scripts that are written without spaces, for the text index: each of their signs is a word to it.

Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese. A search for several signs is one for those that
follow each other, so that a word is found wherever it stands. Knows text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from unicodedata import normalize

_LETTERS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
)
_SIGN = re.compile(f"[{_LETTERS}]")
# A run of signs, with the vowels and tones of Thai and its like that are no letters; or a run of the rest.
_RUN = re.compile(rf"(?P<signs>[{_LETTERS}]+)|\w(?:(?![{_LETTERS}])[\w\u0300-\u036f])*")
_WORD = re.compile(r"\w[\w\u0300-\u036f]*")  # an accent that stands for itself is within the word


def spaced(text: str) -> str:
    """``text`` with each sign apart from its neighbours, for an index that knows words between spaces.

    Letters are put together with their accents, and Korean's parts of signs, where they came apart.

    >>> spaced("FAISS\u3092\u4f7f\u3046")
    'FAISS \u3092  \u4f7f  \u3046 '
    """
    return text if text.isascii() else _SIGN.sub(r" \g<0> ", normalize("NFC", text))


def plain_words(text: str) -> list[str]:
    """Words between spaces or punctuation, accents that stand for themselves among them.

    >>> plain_words("cafe\u0301, 3.14") == ["cafe\u0301", "3", "14"]
    True
    """
    return _WORD.findall(text)


def sought(text: str) -> Iterator[str]:
    """What to look for: words, single signs, and each two signs that follow each other with a space between.

    >>> list(sought("new \u5411\u91cf\u6570"))
    ['new', '\u5411 \u91cf', '\u91cf \u6570']
    """
    for found in _RUN.finditer(normalize("NFC", text)):
        letters = [sign for sign in found["signs"] or "" if sign.isalnum()]
        if not found["signs"]:
            yield found[0]
        elif len(letters) == 1:
            yield letters[0]
        else:
            yield from map(" ".join, pairwise(letters))

"""Labelled pairs of questions, read from a folder that the caller has: nothing of them is kept here.

A file is tab-separated with a header line: two texts and 1 or 0 for the same meaning.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import MiniLM

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of prompts: stored and asked.

    Attributes
    ----------
    texts : list[tuple[str, str]]
    is_same : bool[n]
    groups : list[str]
        Pairs that are linked by shared texts, directly or not, have one label.
    similarity : float[n]
        Cosine of the two embeddings.
    """

    texts: list[tuple[str, str]]
    is_same: Flags
    groups: list[str]
    similarity: Floats

    def halves(self, seed: int) -> tuple[Flags, Flags]:
        """Two halves that share no text."""
        names = sorted(set(self.groups))
        random.Random(seed).shuffle(names)
        first = set(names[: len(names) // 2])
        is_first = np.array([group in first for group in self.groups])
        return is_first, ~is_first


def read(path: Path, model: MiniLM) -> Pairs:
    """The pairs of a file with their similarity."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    texts = [(a, b) for a, b, _ in rows]
    is_same = np.array([label == "1" for _, _, label in rows])
    return Pairs(texts, is_same, components(texts), similarities(texts, model))


def similarities(texts: Sequence[tuple[str, str]], model: MiniLM) -> Floats:
    """The cosine of each pair."""
    a, b = (model.embed([pair[side] for pair in texts]) for side in (0, 1))
    return np.asarray(np.einsum("ij,ij->i", a, b), dtype=np.float64)


def components(texts: Sequence[tuple[str, str]]) -> list[str]:
    """For each pair the name of its component: the graph whose edges are the pairs."""
    parent: dict[str, str] = {}
    for a, b in texts:
        parent[_root(parent, a)] = _root(parent, b)
    return [_root(parent, a) for a, _ in texts]


def _root(parent: dict[str, str], text: str) -> str:
    while parent.setdefault(text, text) != text:
        parent[text] = parent[parent[text]]
        text = parent[text]
    return text


def in_hindsight(
    scores: Floats, is_same: Flags, budget: float, *, of_all: bool = False
) -> tuple[float, float]:
    """The best hit rate with false hits within the budget, and its threshold; both seen in these very pairs.

    False hits are counted among the different pairs, or ``of_all`` among all pairs.
    """
    different = np.sort(scores[~is_same])[::-1]
    allowed = int(budget * (len(scores) if of_all else len(different)))
    threshold = different[allowed]
    return float(np.mean(scores[is_same] > threshold)), float(threshold)

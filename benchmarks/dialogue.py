"""Turns of long conversations found for a question: ``python -m benchmarks.dialogue --data FOLDER``.

BM25 alone, vectors alone, plain rank fusion and `faissbase.memory.ranking` over the same turns and the same
MiniLM vectors, no language model; what each ingredient gives; weights chosen on all conversations but one
and scored on that one; facts that change; the time of a search.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import contradictions, machine, report
from benchmarks.dialogue_data import CATEGORIES, Dialogue, load, said
from benchmarks.embeddings import MiniLM
from benchmarks.figures import Figure, Spread, at_least, at_most, spread
from benchmarks.timing import seconds
from faissbase.memory.bm25 import BM25
from faissbase.memory.ranked import Turn, Weights
from faissbase.memory.ranking import NEAREST, TurnIndex
from faissbase.memory.words import words_of

Ranking = Callable[[Dialogue], list[list[int]]]
"""For each question the places of turns, best first."""

_MEASURES = ("turn recall@5", "turn recall@10", "turn recall@20", "sessions (any)@5", "sessions (all)@5")
_R10, _ANY5 = 1, 3
_GRID = {"vectors": (0.5, 0.7, 1.0), "before": (0.3, 0.5, 0.7), "session": (0.3, 0.6, 0.9)}
_ABLATIONS = {
    "neighbours": Weights(before=0.0, after=0.0),
    "the session": Weights(session=0.0),
    "the speaker who is meant": Weights(other_speaker=1.0),
    "less for who asks": Weights(asking=0.0),
    "dates in the question": Weights(outside=1.0),
    "the newest where it is asked for": Weights(newest=0.0),
    "later turns first, in the present": Weights(successors=0),
}
_DEPTH = 100
_SIZES = (10_000, 100_000)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = {"date": now, "seed": options.seed, **machine.facts(options.cache)}
    embedder = MiniLM(options.cache)
    dialogues = load(options.data, embedder)
    figures: list[Figure] = []
    for part in (compared, by_category, ablated, left_out):
        figures += _shown(part(dialogues))
    figures += _shown(changed(embedder, options.seed))
    figures += _shown(timed(dialogues, options.queries))
    report.write(figures, facts, options.out, "Turns of a conversation found for a question")
    return any(figure.target is not None and not figure.target.is_met for figure in figures)


def compared(dialogues: Sequence[Dialogue]) -> list[Figure]:
    """Every measure of every way to rank."""
    figures = []
    for name, ranking in _rankings().items():
        tables = [measured(dialogue, ranking(dialogue)) for dialogue in dialogues]
        targets = {_R10: 74.0, _ANY5: 94.0} if name == "ours" else {}
        for place, measure in enumerate(_MEASURES):
            target = targets.get(place)
            figures.append(_figure("retrieval", f"{name}: {measure}", [t[:, place] for t in tables], target))
    return figures


def by_category(dialogues: Sequence[Dialogue]) -> list[Figure]:
    """Turn recall@10 by kind of question, ours and rank fusion."""
    figures = []
    for name in ("rank fusion", "ours"):
        ranking = _rankings()[name]
        tables = [measured(dialogue, ranking(dialogue))[:, _R10] for dialogue in dialogues]
        for category, words in CATEGORIES.items():
            kinds = [np.array([q.category for q in dialogue.questions]) for dialogue in dialogues]
            picked = [t[kind == category] for t, kind in zip(tables, kinds, strict=True)]
            figures.append(_figure("by category", f"{name}, {words}: turn recall@10", picked))
    return figures


def ablated(dialogues: Sequence[Dialogue]) -> list[Figure]:
    """Turn recall@10 and sessions without one ingredient each, and with recency in every question."""
    arms: dict[str, Ranking] = {"everything": ours}
    for name, weights in _ABLATIONS.items():
        arms[f"without {name}"] = partial(ours, weights=weights)
    arms["without vectors"] = partial(ours, nearest=0)
    arms["recency 0.3 in every question"] = partial(ours, recency=0.3)
    figures = []
    for name, ranking in arms.items():
        tables = [measured(dialogue, ranking(dialogue)) for dialogue in dialogues]
        for place in (_R10, _ANY5):
            figures.append(
                _figure("ingredients", f"{name}: {_MEASURES[place]}", [t[:, place] for t in tables])
            )
    return figures


def left_out(dialogues: Sequence[Dialogue]) -> list[Figure]:
    """For each conversation the score of the weights that were best on the others."""
    choices = [
        Weights(vectors=vectors, before=before, session=session)
        for vectors, before, session in itertools.product(*_GRID.values())
    ]
    tables = [[measured(one, ours(one, weights=weights)) for one in dialogues] for weights in choices]
    figures = []
    unseen: list[NDArray[np.float64]] = []
    for place, dialogue in enumerate(dialogues):
        others = [np.concatenate(t[:place] + t[place + 1 :])[:, _R10].mean() for t in tables]
        best = int(np.argmax(others))
        unseen.append(tables[best][place])
        note = ", ".join(f"{name} {getattr(choices[best], name):g}" for name in _GRID)
        name = f"conversation {place + 1} ({len(dialogue.turns)} turns), chosen on the others"
        figures.append(
            replace(_figure("leave one out", f"{name}: turn recall@10", [unseen[-1][:, _R10]]), note=note)
        )
    for measure in (_R10, _ANY5):
        name = f"all, each with weights chosen on the others: {_MEASURES[measure]}"
        figures.append(_figure("leave one out", name, [table[:, measure] for table in unseen]))
    every = [float(np.concatenate(t)[:, _R10].mean()) * 100 for t in tables]
    name = f"turn recall@10 of all {len(choices)} choices of weights"
    figures.append(Figure("leave one out", "LoCoMo", name, "%", spread(every)))
    return figures


def changed(embedder: MiniLM, seed: int) -> list[Figure]:
    """How often the newer of two contradicting facts comes first, within the first ten."""
    newest_first: dict[bool, list[float]] = {True: [], False: []}
    for one in contradictions.conversations(seed):
        cosines = (
            embedder.embed([change.question for change in one.changes])
            @ embedder.embed([said(turn) for turn in one.turns]).T
        )
        index = _index(one.turns)
        for change, row in zip(one.changes, cosines, strict=True):
            hits = index.search(change.question, 10, nearest=_nearest(one.turns, row), asker="user")
            ids = [hit.id for hit in hits]
            first = next((id for id in ids if id in (change.old, change.new)), None)
            newest_first[change.in_other_words].append(float(first == change.new))
    both = newest_first[True] + newest_first[False]
    rows = {"all": both, "in the same words": newest_first[False], "in other words": newest_first[True]}
    return [
        replace(
            _figure(
                "contradictions", f"newest first, {name}", [np.array(values)], 95.0 if name == "all" else None
            ),
            data=f"rule-made, {len(values)} changes",
        )
        for name, values in rows.items()
    ]


def timed(dialogues: Sequence[Dialogue], n_queries: int) -> list[Figure]:
    """The time of a search, without embedding and without the search for the nearest vectors."""
    said = [turn for dialogue in dialogues for turn in dialogue.turns]
    asked = [question.text for dialogue in dialogues for question in dialogue.questions]
    step = max(1, len(asked) // n_queries)
    return [figure for size in _SIZES for figure in _timed_at(size, said, asked[::step])]


def _timed_at(size: int, said: Sequence[Turn], asked: Sequence[str]) -> list[Figure]:
    turns = [_copy(said[n % len(said)], n, n // len(said)) for n in range(size)]
    index = TurnIndex()
    adding = seconds(partial(index.add, turns))
    rng = np.random.default_rng(size)
    elapsed, worked = [], []
    for text in asked:
        places = rng.choice(size, NEAREST, replace=False).tolist()
        near = {f"{place}": float(cosine) for place, cosine in zip(places, rng.random(NEAREST), strict=True)}
        before = time.thread_time()
        elapsed.append(1_000 * seconds(partial(index.search, text, 10, nearest=near)))
        worked.append(1_000 * (time.thread_time() - before))
    target = at_most(5, statistics.median(worked)) if size == _SIZES[0] else None
    data, note = f"{size:,} turns", "of this thread, so that what else runs on the machine does not count"
    return [
        Figure("time", data, "one search", "ms", spread(elapsed, "quartiles")),
        Figure(
            "time", data, "one search, processor time", "ms", spread(worked, "quartiles"), target, note=note
        ),
        Figure("time", data, "adding one turn", "ms", spread([1_000 * adding / size])),
    ]


def _copy(turn: Turn, number: int, round: int) -> Turn:
    return replace(turn, id=f"{number}", session=f"{round} {turn.session}")


def measured(dialogue: Dialogue, ranked: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """``float64[questions, 5]``: the measures of each question, 0 to 1."""
    rows = []
    for question, order in zip(dialogue.questions, ranked, strict=True):
        evidence = set(question.evidence)
        sessions = list(dict.fromkeys(dialogue.turns[place].session for place in order))[:5]
        wanted = {dialogue.turns[place].session for place in evidence}
        recalls = [len(evidence & set(order[:k])) / len(evidence) for k in (5, 10, 20)]
        rows.append([*recalls, float(bool(wanted & set(sessions))), float(wanted <= set(sessions))])
    return np.array(rows)


def ours(
    dialogue: Dialogue,
    *,
    weights: Weights | None = None,
    nearest: int = NEAREST,
    recency: float | None = None,
) -> list[list[int]]:
    """As `TurnIndex` ranks, given the ``nearest`` vectors."""
    index = _index(dialogue.turns, weights)
    places = {turn.id: place for place, turn in enumerate(dialogue.turns)}
    ranked = []
    for question, row in zip(dialogue.questions, dialogue.similarities(), strict=True):
        near = _nearest(dialogue.turns, row, nearest)
        hits = index.search(question.text, _DEPTH, nearest=near, recency=recency)
        ranked.append([places[hit.id] for hit in hits])
    return ranked


def _rankings() -> dict[str, Ranking]:
    return {
        "BM25, bare words": lambda dialogue: _ordered(_bm25(dialogue, lambda text: text.lower().split())),
        "BM25, our words": lambda dialogue: _ordered(_bm25(dialogue, words_of)),
        "vectors": lambda dialogue: _ordered(dialogue.similarities()),
        "rank fusion": lambda dialogue: _ordered(
            _reciprocal(_bm25(dialogue, words_of)) + _reciprocal(dialogue.similarities())
        ),
        "ours": ours,
    }


def _bm25(dialogue: Dialogue, cut: Callable[[str], list[str]]) -> NDArray[np.float64]:
    index = BM25(k1=1.2, b=0.75)
    for slot, turn in enumerate(dialogue.turns):
        index.add(slot, cut(said(turn)))
    return np.stack([index.scores(cut(q.text), len(dialogue.turns)) for q in dialogue.questions])


def _reciprocal(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Reciprocal ranks with the constant of Cormack, Clarke and Büttcher (2009)."""
    ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    fused: NDArray[np.float64] = 1.0 / (61 + ranks)
    return fused


def _ordered(scores: NDArray[np.floating]) -> list[list[int]]:
    order: list[list[int]] = np.argsort(-scores, axis=1, kind="stable").tolist()
    return order


def _index(turns: Sequence[Turn], weights: Weights | None = None) -> TurnIndex:
    index = TurnIndex(weights)
    index.add(turns)
    return index


def _nearest(turns: Sequence[Turn], row: NDArray[np.float32], n: int = NEAREST) -> dict[str, float]:
    return {turns[place].id: float(row[place]) for place in np.argsort(-row, kind="stable")[:n]}


def _figure(
    part: str, name: str, values: Sequence[NDArray[np.float64]], least: float | None = None
) -> Figure:
    """The mean over all questions in per cent, its range that of the conversations."""
    overall = 100 * float(np.concatenate(list(values)).mean())
    each = [100 * float(one.mean()) for one in values if len(one)]
    target = None if least is None else at_least(least, overall)
    return Figure(
        part, "LoCoMo", name, "%", Spread(overall, min(each), max(each), len(each), "min to max"), target
    )


def _shown(figures: list[Figure]) -> list[Figure]:
    print(report.table(figures), end="\n\n", flush=True)
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dialogue", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with LoCoMo conversations as *.json")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "faissbase-embeddings",
        help="folder for vectors",
    )
    parser.add_argument("--queries", type=int, default=200, help="searches that are timed")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dialogue.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())

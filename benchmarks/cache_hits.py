"""How many repeated questions a semantic cache recognises, and how many others it takes for them.

``python -m benchmarks.cache_hits --data FOLDER``, where the folder holds ``quora_pairs.tsv`` and
``paws_wiki_pairs.tsv``. A pair is a stored prompt and an asked one; it is a *hit* where the cache would serve
the stored answer. *Hits* are the share of the pairs of the same meaning that are served, *false hits* the
share of the pairs of different meaning; *wrong among hits* is the share of what is served that should not be.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import hard_negatives, machine, report
from benchmarks.embeddings import MiniLM
from benchmarks.figures import Figure, Range, Target, at_least, at_most, spread
from benchmarks.question_pairs import Flags, Floats, Pairs, in_hindsight, read, similarities
from faissbase.cache.calibration import Calibration, binomial_bounds, calibrate
from faissbase.cache.guards import REASONS, disagreement, disagreements
from faissbase.cache.words import words_of

_BUDGETS = (0.01, 0.02)
_STATIC = 0.95
_SIMPLE = frozenset({"numbers", "negation", "names"})
_OURS = "all guards"
_CONFIDENCE = 0.95
_PER_KIND = 300
_TIMED = 2_000


@dataclass(frozen=True, slots=True)
class _Run:
    quora: Pairs
    paws: Pairs
    model: MiniLM
    splits: int
    seed: int


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    model = MiniLM(options.tmp)
    quora, paws = (read(options.data / f"{name}_pairs.tsv", model) for name in ("quora", "paws_wiki"))
    run = _Run(quora, paws, model, options.splits, options.seed)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = {"date": now, "seed": options.seed, "model": MiniLM.name, **machine.facts(options.tmp)}
    figures: list[Figure] = []
    for part in (_hindsight(run), _unseen(run), _paws(run), _ablation(run), _rule_made(run), _speed(run)):
        found = list(part)
        print(f"\n{report.table(found)}", flush=True)
        figures += found
        report.write(figures, facts, options.out, "Hits of the semantic cache")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_hits", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the labelled pairs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cache-hits.json"))
    parser.add_argument("--tmp", type=Path, default=Path(tempfile.gettempdir()), help="keeps the embeddings")
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    return parser


# ---- what is compared ----------------------------------------------------------------------------


def _arms(pairs: Pairs) -> dict[str, Floats]:
    others = frozenset(REASONS) - _SIMPLE
    return {
        "similarity alone": pairs.similarity,
        "guards on numbers, negation, names": _guarded(pairs, others),
        _OURS: _guarded(pairs, frozenset()),
    }


def _guarded(pairs: Pairs, left_out: frozenset[str]) -> Floats:
    """The similarity, and minus infinity where a guard refuses that is not left out."""
    is_refused = np.array([not reasons <= left_out for reasons in _reasons(pairs)])
    return np.where(is_refused, -np.inf, pairs.similarity)


def _reasons(pairs: Pairs) -> list[frozenset[str]]:
    return [_reasons_of(a, b) for a, b in pairs.texts]


@cache
def _reasons_of(a: str, b: str) -> frozenset[str]:
    return frozenset(reason.split(":")[0] for reason in disagreements(a, b))


def _figure(
    part: str, data: str, name: str, shares: Sequence[float], target: Target | None = None, note: str = ""
) -> Figure:
    kind: Range = "quartiles" if len(shares) > 2 else "min to max"
    return Figure(part, data, name, "%", spread([100 * share for share in shares], kind), target, note=note)


# ---- Quora ---------------------------------------------------------------------------------------


def _hindsight(run: _Run) -> Iterator[Figure]:
    """The best threshold for these very pairs: what is possible, and what no cache can know beforehand."""
    part, pairs = "Quora, the best threshold in hindsight", run.quora
    for name, scores in _arms(pairs).items():
        is_ours = name == _OURS
        for budget in _BUDGETS:
            hits, threshold = in_hindsight(scores, pairs.is_same, budget)
            target = at_least(30, 100 * hits) if is_ours and budget == _BUDGETS[0] else None
            wrong = _wrong(scores > threshold, pairs.is_same)
            note = f"threshold {threshold:.4f}, {wrong:.1%} of the hits wrong"
            yield _figure(part, "Quora", f"{name}: hits at ≤ {budget:.0%} false hits", [hits], target, note)
            hits, _ = in_hindsight(scores, pairs.is_same, budget, of_all=True)
            yield _figure(
                part, "Quora", f"{name}: hits at ≤ {budget:.0%} of all pairs wrongly served", [hits]
            )
    for threshold in (0.9, _STATIC, 0.97):
        served = pairs.similarity >= threshold
        yield from _rates(part, "Quora", f"static {threshold}", served, pairs.is_same)


def _wrong(served: Flags, is_same: Flags) -> float:
    return float(np.mean(~is_same[served])) if served.any() else 0.0


def _rates(part: str, data: str, name: str, served: Flags, is_same: Flags) -> Iterator[Figure]:
    yield _figure(part, data, f"{name}: hits", [float(np.mean(served[is_same]))])
    yield _figure(part, data, f"{name}: false hits", [float(np.mean(served[~is_same]))])


def _unseen(run: _Run) -> Iterator[Figure]:
    """Calibrated on one half of the questions, measured on the other, over many halves."""
    part = "Quora, calibrated on one half of the questions, measured on the other"
    for name, scores in _arms(run.quora).items():
        for budget in _BUDGETS:
            label = f"{name}, budget {budget:.0%}"
            yield from _split(run, run.quora, scores, part, "Quora", label, budget)


def _split(
    run: _Run, pairs: Pairs, scores: Floats, part: str, data: str, name: str, budget: float
) -> Iterator[Figure]:
    results = [_one_split(pairs, scores, budget, run.seed + number) for number in range(run.splits)]
    hits, false, wrong = zip(*results, strict=True)
    kept = float(np.mean([share <= budget for share in false]))
    beyond = float(np.mean([_is_beyond(share, int(np.sum(~pairs.is_same)) // 2, budget) for share in false]))
    mean = float(np.mean(false))
    yield _figure(part, data, f"{name}: hits", hits)
    yield _figure(
        part, data, f"{name}: false hits", false, at_most(100 * budget, 100 * float(np.median(false)))
    )
    yield _figure(part, data, f"{name}: wrong among hits", wrong)
    yield _figure(
        part, data, f"{name}: unseen halves within the budget", [kept], note=f"on average {mean:.2%}"
    )
    note = "the unseen half is a sample too: its lower 95 % bound lies above the budget"
    yield _figure(part, data, f"{name}: unseen halves beyond it by more than chance", [beyond], note=note)


def _is_beyond(share: float, n: int, budget: float) -> bool:
    low, _ = binomial_bounds(share * n, n, _CONFIDENCE)
    return low > budget


def _one_split(pairs: Pairs, scores: Floats, budget: float, seed: int) -> tuple[float, float, float]:
    known, unseen = pairs.halves(seed)
    found = _calibrated(pairs, scores, known, budget)
    served, is_same = scores[unseen] >= found.threshold, pairs.is_same[unseen]
    return float(np.mean(served[is_same])), float(np.mean(served[~is_same])), _wrong(served, is_same)


def _calibrated(pairs: Pairs, scores: Floats, known: Flags, budget: float) -> Calibration:
    groups = [group for group, is_known in zip(pairs.groups, known, strict=True) if is_known]
    return calibrate(
        scores[known],
        pairs.is_same[known],
        max_false_hits=budget,
        confidence=_CONFIDENCE,
        groups=groups,
    )


# ---- PAWS ----------------------------------------------------------------------------------------


def _paws(run: _Run) -> Iterator[Figure]:
    """Nearly the same words: thresholds of Quora, and thresholds of its own."""
    part, pairs = "PAWS-Wiki", run.paws
    yield from _rates(part, "PAWS", f"static {_STATIC}", pairs.similarity >= _STATIC, pairs.is_same)
    everything = np.ones(len(run.quora.texts), bool)
    quora = _arms(run.quora)
    for name, scores in _arms(pairs).items():
        for budget in _BUDGETS:
            threshold = _calibrated(run.quora, quora[name], everything, budget).threshold
            label = f"{name}, calibrated on Quora at {budget:.0%} ({threshold:.3f})"
            served, wrong = _rates(part, "PAWS", label, scores >= threshold, pairs.is_same)
            if name == _OURS and budget == _BUDGETS[0]:
                served = replace(served, target=at_least(40, served.spread.median))
                wrong = replace(wrong, target=at_most(2, wrong.spread.median))
            yield from (served, wrong)
        hits, threshold = in_hindsight(scores, pairs.is_same, 0.02)
        target = at_least(40, 100 * hits) if name == _OURS else None
        label = f"{name}: hits at ≤ 2% false hits, in hindsight ({threshold:.3f})"
        yield _figure(part, "PAWS", label, [hits], target)
        label = f"{name}, calibrated on one half at 2%"
        yield from _split(run, pairs, scores, part, "PAWS", label, 0.02)
    guarded = _guarded(pairs, frozenset()) > -np.inf
    yield from _rates(part, "PAWS", "all guards, no threshold", guarded, pairs.is_same)


# ---- one guard less, rules, time -----------------------------------------------------------------


def _ablation(run: _Run) -> Iterator[Figure]:
    """What is lost without one guard."""
    for reason in ("", *REASONS):
        left_out = frozenset({reason})
        name = f"without {reason}" if reason else "all guards"
        for budget in _BUDGETS:
            hits, _ = in_hindsight(_guarded(run.quora, left_out), run.quora.is_same, budget)
            yield _figure("one guard less", "Quora", f"{name}: hits at ≤ {budget:.0%} false hits", [hits])
        served = _guarded(run.paws, left_out) > -np.inf
        yield from _rates("one guard less", "PAWS", f"{name}, no threshold", served, run.paws.is_same)


def _rule_made(run: _Run) -> Iterator[Figure]:
    """Quora's questions changed by rule: how many changed ones get the unchanged one's answer."""
    questions = [text for pair in run.quora.texts for text in pair]
    for kind, texts in hard_negatives.made(questions, _PER_KIND, run.seed).items():
        if not texts:
            continue
        similarity = similarities(texts, run.model)
        accepted = np.array([disagreement(a, b) is None for a, b in texts])
        data, part = f"{len(texts)} pairs", "changed by rule"
        yield _figure(part, data, f"{kind}: static {_STATIC} serves", [float(np.mean(similarity >= _STATIC))])
        yield _figure(part, data, f"{kind}: guards alone let pass", [float(np.mean(accepted))])
        share = float(np.mean(accepted & (similarity >= _STATIC)))
        yield _figure(part, data, f"{kind}: guards and {_STATIC} serve", [share], at_most(2, 100 * share))


def _speed(run: _Run) -> Iterator[Figure]:
    """One look at one pair: both prompts known, and the asked one new."""
    pairs = run.quora.texts[:_TIMED]
    for name, forget in (("both prompts seen before", False), ("neither seen before", True)):
        taken = []
        for a, b in pairs:
            words_of(a), words_of(b)
            if forget:
                words_of.__globals__["_remembered"].cache_clear()
            start = time.perf_counter()
            disagreement(a, b)
            taken.append(1e6 * (time.perf_counter() - start))
        times = spread(taken, "quartiles")
        yield Figure("time", "Quora", f"disagreement, {name}", "us", times, at_most(200, times.median))


if __name__ == "__main__":
    sys.exit(main())

"""Figures as a table for people (terminal, Markdown) and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

HEADER = ("data", "figure", "median", "range", "unit", "recall@10", "target", "")


def number(value: float) -> str:
    """Three digits that matter, thousands marked."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def cells(figure: Figure) -> tuple[str, ...]:
    """A figure as the cells of one line."""
    spread, target = figure.spread, figure.target
    span = f"{number(spread.low)} - {number(spread.high)}" if spread.n > 1 else ""
    return (
        figure.data,
        figure.name,
        number(spread.median),
        span,
        figure.unit,
        "" if figure.recall is None else f"{figure.recall:.4f}",
        target.text if target else "",
        "" if target is None else "pass" if target.is_met else "MISS",
    )


def table(figures: Iterable[Figure]) -> str:
    """One part's lines for the terminal."""
    rows = [HEADER, *(cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def parts_of(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """Figures by part, in order."""
    parts: dict[str, list[Figure]] = {}
    for figure in figures:
        parts.setdefault(figure.part, []).append(figure)
    return parts


def markdown(figures: Sequence[Figure], facts: dict[str, Any], title: str) -> str:
    """The whole report."""
    lines = [f"# {title}", "", *_facts_lines(facts), ""]
    lines += ["## targets", "", *_table_lines([figure for figure in figures if figure.target]), ""]
    for part, members in parts_of(figures).items():
        lines += [f"## {part}", "", *_table_lines(members)]
        notes = list(dict.fromkeys(f"{figure.name}: {figure.note}" for figure in members if figure.note))
        lines += ["", *(f"* {note}" for note in notes), ""]
    return "\n".join(lines)


def _table_lines(figures: Iterable[Figure]) -> list[str]:
    return [_line(HEADER), _line(["---"] * len(HEADER)), *(_line(cells(figure)) for figure in figures)]


def _line(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


def _facts_lines(facts: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return [
        f"{facts['date']}, seed {facts['seed']}. {facts['cpu']}, {facts['cores']} cores, "
        f"{facts['memory_gib']} GiB, {facts['filesystem']}, Linux {facts['kernel']}, "
        f"load before {facts['load_average_before'][0]}.",
        f"Python {facts['python']}, SQLite {facts['sqlite']}, {versions}.",
        *(f"Left out: {name} ({reason})." for name, reason in facts.get("skipped", {}).items()),
    ]


def as_json(figures: Sequence[Figure], facts: dict[str, Any]) -> str:
    return json.dumps({"facts": facts, "figures": [asdict(figure) for figure in figures]}, indent=1)


def write(
    figures: Sequence[Figure], facts: dict[str, Any], out: Path, title: str = "Embedded benchmarks"
) -> None:
    """Write ``out`` (JSON) and its Markdown neighbour."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(as_json(figures, facts) + "\n")
    out.with_suffix(".md").write_text(markdown(figures, facts, title))

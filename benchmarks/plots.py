"""Plots of the approximate benchmark as PNG, from the JSON that it wrote: ``python -m benchmarks.plots``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Point = dict[str, Any]

_OURS = "faissbase"
_OURS_COLOR = "#d62728"
_COLORS = ("#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#ff7f0e", "#7f7f7f")
_MORE_COLORS = ("#000000", "#8fbc8f", "#4169e1")
_LOWEST_RECALL = 0.8
_SHARE_TICKS = (0.0001, 0.001, 0.01, 0.1, 1.0)


def draw(source: Path, folder: Path) -> list[Path]:
    """Write one file for each data set and kind of plot that ``source`` has points of."""
    curves: list[Point] = json.loads(source.read_text())["facts"].get("curves", [])
    written = []
    for part, plot in _PLOTS.items():
        for data in dict.fromkeys(point["data"] for point in curves if point["part"] == part):
            points = [point for point in curves if (point["part"], point["data"]) == (part, data)]
            path = folder / f"{source.stem}-{part}-{_slug(data)}.png"
            _figure(plot, data, points, path)
            written.append(path)
    return written


def _slug(data: str) -> str:
    letters = "".join(letter if letter.isalnum() else "-" for letter in data.lower())
    return "-".join(part for part in letters.split("-") if part)


def _figure(plot: Callable[[Any, list[Point]], None], data: str, points: list[Point], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 5.5), layout="constrained")
    plot(axes, points)
    axes.set_title(data, fontsize=10)
    axes.grid(True, which="major", alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _by_system(points: list[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point["system"], []).append(point)
    return found


def _style(systems: Sequence[str], system: str, kind: str) -> dict[str, Any]:
    if system == _OURS:
        return {"color": _OURS_COLOR, "linewidth": 2.5, "zorder": 5}
    others = [one for one in systems if one != _OURS]
    colors = _COLORS + _MORE_COLORS
    color = colors[others.index(system) % len(colors)]
    return {"color": color, "linestyle": "--" if kind == "library" else "-", "linewidth": 1.3}


def _frontier(points: list[Point]) -> list[Point]:
    """The settings that no other one beats in both recall and speed, by recall."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (-one["recall"], -one["per_s"])):
        if not kept or point["per_s"] > kept[-1]["per_s"]:
            kept.append(point)
    return kept[::-1]


def _search(axes: Any, points: list[Point]) -> None:
    groups = _by_system(points)
    for system, members in groups.items():
        best = [point for point in _frontier(members) if point["recall"] >= _LOWEST_RECALL]
        style = _style(list(groups), system, members[0]["kind"])
        recalls, per_s = [point["recall"] for point in best], [point["per_s"] for point in best]
        axes.plot(recalls, per_s, marker="o", markersize=3, label=system, **style)
    axes.set(xlabel="recall@10", ylabel="queries/s, one thread", yscale="log")
    _legend(axes, "dashed: library, no ids or metadata")


def _legend(axes: Any, title: str) -> None:
    axes.legend(fontsize=8, title=title, title_fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def _filtered(axes: Any, points: list[Point]) -> None:
    """Hollow where recall@10 stayed below 0.95."""
    groups = _by_system(points)
    for system, members in groups.items():
        ordered = sorted(members, key=lambda point: point["share"])
        shares, times_ms = [p["share"] for p in ordered], [1e3 / p["per_s"] for p in ordered]
        style = _style(list(groups), system, members[0]["kind"])
        axes.plot(shares, times_ms, label=system, **style)
        for point, taken_ms in zip(ordered, times_ms, strict=True):
            face = style["color"] if point["recall"] >= 0.95 else "white"
            axes.plot(point["share"], taken_ms, "o", mec=style["color"], mfc=face, ms=5, zorder=6)
    axes.set(
        xlabel="share of records that match", ylabel="ms a query, one thread", xscale="log", yscale="log"
    )
    axes.set_xticks(_SHARE_TICKS, [f"{100 * share:g} %" for share in _SHARE_TICKS])
    _legend(axes, "hollow: recall@10 below 0.95")


def _live(axes: Any, points: list[Point]) -> None:
    """Two bars for each system; the writer's speed is written beside its name."""
    names = [f"{point['system']}\n{point['writes_per_s']:,.0f} writes/s" for point in points]
    places = range(len(points))
    slowest = min(point["busy_per_s"] for point in points)
    axes.barh([place - 0.2 for place in places], [p["quiet_per_s"] for p in points], 0.4, color="#bbbbbb")
    colors = [_OURS_COLOR if point["system"] == _OURS else _COLORS[0] for point in points]
    axes.barh([place + 0.2 for place in places], [p["busy_per_s"] for p in points], 0.4, color=colors)
    axes.set_yticks(list(places), names, fontsize=8)
    axes.set(xlabel="queries/s of one reader: alone (grey), beside one writer (coloured)", xscale="log")
    axes.set_xlim(left=slowest / 2)
    axes.invert_yaxis()


_PLOTS: dict[str, Callable[[Any, list[Point]], None]] = {
    "search": _search,
    "filtered": _filtered,
    "live": _live,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw again from results that are there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("source", type=Path, nargs="?", default=Path("benchmarks/results/ann.json"))
    options = parser.parse_args(arguments)
    for path in draw(options.source, options.source.parent):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

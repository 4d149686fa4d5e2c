"""The picture of `bench/real.py`: what each method learns against what it forgets, a panel for each scenario.

A line is the trade of a rival over all its rates and shares: the best that it learns while it forgets no more than x.
Its dots are what has been measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

Json = dict[str, Any]
Points = list[tuple[float, float]]
"""What is forgotten and what is learned."""

WIDEST, MARGIN = 10.0, 10.9
"""Points of mAP50 up to which the axis goes, and the place for what forgets more."""
TOLERANCE = 1.0
"""As in `bench/real.py`."""
BEFORE, OURS, NO_GAP, NULL, BOUND = (
    "release 1",
    "DiReDi",
    "DiReDi, no student gap",
    "null arm",
    "together (no privacy)",
)
_TEAL, _GREY = "#00796b", "#757575"
_NAMES = {NULL: "null arm: without the site's images"}
_POINTS: Mapping[str, Json] = {
    BEFORE: {"marker": "o", "s": 36, "color": "white", "edgecolor": "black", "zorder": 5},
    NULL: {"marker": "x", "s": 36, "color": "black", "zorder": 5},
    NO_GAP: {"marker": "*", "s": 190, "color": "white", "edgecolor": _TEAL, "linewidth": 1.5, "zorder": 7},
    OURS: {"marker": "*", "s": 260, "color": _TEAL, "edgecolor": "white", "linewidth": 0.8, "zorder": 8},
}
# Colours of Okabe and Ito, which the colour-blind can tell apart; broken where a method lacks the shipped images.
_LINES: Mapping[str, tuple[str, Any, str]] = {
    "fine-tuning with presumed images": ("#0072b2", "-", "o"),
    "fine-tuning at the site": ("#0072b2", (0, (3, 1.5)), "o"),
    "fine-tuning of the head with presumed images": ("#d55e00", "-", "s"),
    "fine-tuning of the head at the site": ("#d55e00", (0, (3, 1.5)), "s"),
    "two heads (DuET)": ("#cc79a7", "-", "^"),
    "FedAvg, 5 rounds": ("#e69f00", "-", "D"),
    "FedAvg, backbone (UltraFlwr)": ("#e69f00", (0, (1, 1)), "D"),
    "FedAvg, neck (UltraFlwr)": ("#e69f00", (0, (4, 1, 1, 1)), "D"),
    "FedAvg, head (UltraFlwr)": ("#e69f00", (0, (3, 1.5)), "D"),
    "Ultralytics, refine": ("#56b4e9", "-", "v"),
    "task arithmetic, one RD": ("#000000", "-", "P"),
    "DiReDi, the paper's form": (_TEAL, (0, (1, 1)), "p"),
    BOUND: ("#9e9e9e", "-", "h"),
}
_OTHER = ("#000000", (0, (1, 2)), ".")


@dataclass
class Trade:
    """What one scenario has measured.

    Attributes:
        learned: The table that the height of a point is from.
        own: One point for each method without a rate.
        rivals: Those of each other method.
    """

    learned: str = ""
    own: dict[str, tuple[float, float]] = field(default_factory=dict)
    rivals: dict[str, Points] = field(default_factory=dict)


def trades_of(rows: Sequence[Json]) -> dict[str, Trade]:
    """The measured points of each scenario that has release 1 and ours, from the rows of the results."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        if "mAP50" in row:
            scenario, _, table = row["table"].rpartition(": ")
            found.setdefault(scenario, {}).setdefault(table, {})[row["form"]] = row["mAP50"]["mean"]
    trades = {}
    for scenario, tables in found.items():
        presumed = tables["presumed"]
        if not {BEFORE, OURS} <= set(presumed):
            continue
        learned = "new classes at the site" if "new classes at the site" in tables else "old classes at the site"
        trade = trades[scenario] = Trade(learned)
        for form, height in tables[learned].items():
            point, name = (presumed[BEFORE] - presumed[form], height), form.rpartition(", rate ")[0] or form
            if name in _POINTS:
                trade.own[name] = point
            else:
                trade.rivals.setdefault(name, []).append(point)
    return trades


def draw_trades(rows: Sequence[Json], title: str = "") -> Figure:
    """Draw a panel for each scenario; who calls saves and closes the figure."""
    trades = trades_of(rows)
    across = max(min(len(trades), 3), 1)
    down = max(-(-len(trades) // across), 1)
    named = [name for name in _LINES if any(name in trade.rivals for trade in trades.values())]
    named += sorted({name for trade in trades.values() for name in trade.rivals} - set(named))
    columns = across
    legend = 0.25 * -(-(len(named) + len(_POINTS) + 1) // columns)
    size = (4.6 * across, 3.6 * down + legend)
    figure, axes = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat[len(trades) :]:
        axis.remove()
    handles: dict[str, Any] = {}
    for axis, (scenario, trade) in zip(axes.flat, trades.items(), strict=False):
        _panel(axis, scenario, trade, named, handles)
    order = [name for name in (*reversed(list(_POINTS)), *named) if name in handles]
    order += [name for name in handles if name not in order]
    labels = [_NAMES.get(name, name) for name in order]
    figure.legend([handles[name] for name in order], labels, loc="outside lower center", ncols=columns, frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def _panel(axis: Any, scenario: str, trade: Trade, named: Sequence[str], handles: dict[str, Any]) -> None:  # noqa: ANN401
    start = trade.own[BEFORE]
    for name in named:
        colour, dashes, marker = _LINES.get(name, _OTHER)
        if name not in trade.rivals:
            continue
        measured = [(max(x, 0.0), y) for x, y in trade.rivals[name]]
        steps = _steps([*measured, (0.0, start[1])])
        axis.step(*zip(*steps, strict=True), where="post", color=colour, linestyle=dashes, linewidth=1.6, zorder=3)
        for points, alpha in ((steps[:-1], 1.0), ([one for one in measured if one[0] <= WIDEST], 0.35)):
            axis.scatter([x for x, _ in points], [y for _, y in points], 14, colour, marker, alpha=alpha, linewidth=0)
        beyond = [y for x, y in measured if x > WIDEST]
        if beyond:
            axis.scatter([MARGIN], [max(beyond)], 22, colour, marker, linewidth=0)
        handles[name] = Line2D([], [], color=colour, linestyle=dashes, marker=marker, markersize=4)
    for name, look in _POINTS.items():
        if name in trade.own:
            x, y = trade.own[name]
            handles[name] = axis.scatter([max(x, 0.0) if x <= WIDEST else MARGIN], [y], **look)
    _frame(axis, scenario, trade, handles)


def _steps(points: Points) -> Points:
    """The best that forgets no more than x, where it rises, from 0 to `WIDEST`."""
    found: Points = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if x <= WIDEST and (not found or y > found[-1][1]):
            found.append((x, y))
    return [*found, (WIDEST, found[-1][1])]


def _frame(axis: Any, scenario: str, trade: Trade, handles: dict[str, Any]) -> None:  # noqa: ANN401
    forgotten, height = trade.own[OURS]
    low, high = axis.get_ylim()
    low, high = min(low, height), high + 0.08 * (high - low)
    allowed = max(forgotten, TOLERANCE)
    better = axis.fill_between([-0.5, allowed], height, high, color=_TEAL, alpha=0.13, linewidth=0, zorder=1)
    handles[f"a rival here would be better than {OURS}"] = better
    axis.axvspan(WIDEST + 0.3, WIDEST + 1.5, color="#eeeeee", zorder=0)
    axis.set_xlim(-0.5, WIDEST + 1.5)
    axis.set_ylim(low, high)
    axis.set_xticks([0, 2, 4, 6, 8, 10, MARGIN], ["0", "2", "4", "6", "8", "10", ">10"])
    axis.set_xlabel("forgotten on the manufacturer's images, points of mAP50")
    axis.set_ylabel(f"mAP50 of {trade.learned}")
    axis.set_title(scenario, loc="left", fontsize=10)
    axis.grid(axis="y", color="#e0e0e0", linewidth=0.6, zorder=0)
    axis.set_axisbelow(True)

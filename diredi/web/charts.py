"""Charts as inline SVG without a style of their own: colours come from the style sheet, so light and dark both work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from markupsafe import Markup

_LEFT: Final = 64
_BOTTOM: Final = 26
_TOP: Final = 10
_TICKS: Final = 4
MOST_SERIES: Final = 6
"""There are colours for so many series, `series-0` to `series-5`; what is beyond shares the last one."""


def bars(
    columns: Sequence[tuple[str, Mapping[str, float]]],
    label: str,
    series: Sequence[str],
    text: Callable[[float], str] = str,
    width: int = 1040,
    height: int = 240,
) -> Markup:
    """Draw stacked bars.

    Args:
        columns: Name of each bar, and its value in each series.
        label: What the chart shows, for who cannot see it.
        series: The names of the series, lowest first.
        text: Turns a value into text.
        width: In units of the drawing, which is scaled to its place.
        height: In the same units.
    """
    top = _top(max((sum(values.values()) for _, values in columns), default=0.0))
    parts = [_open(width, height, label), *_grid(top, text, width, height)]
    space = (width - _LEFT - 8) / max(1, len(columns))
    every = max(1, round(64 / space))
    for index, (name, values) in enumerate(columns):
        x, y = _LEFT + space * index + 0.12 * space, float(height - _BOTTOM)
        parts.append(Markup("<g><title>{}: {}</title>").format(name, text(sum(values.values()))))
        for number, one in enumerate(series):
            size = (height - _BOTTOM - _TOP) * values.get(one, 0.0) / top
            if size > 0:
                y -= size
                parts.append(
                    Markup('<rect class="series-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                        min(number, MOST_SERIES - 1), x, y, min(0.76 * space, 48), max(size, 1.0)
                    )
                )
        parts.append(Markup("</g>"))
        if index % every == 0:
            parts.append(_tick(x + min(0.76 * space, 48) / 2, height - 8, name, "middle"))
    return Markup("").join([*parts, Markup("</svg>")])


def lines(
    columns: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    label: str,
    text: Callable[[float], str] = str,
    width: int = 1040,
    height: int = 240,
) -> Markup:
    """Draw a line for each series over common columns.

    Args:
        columns: What is written below each place, such as a time.
        series: Name to a value for each column; None leaves a hole.
        label: What the chart shows, for who cannot see it.
        text: Turns a value into text.
        width: In units of the drawing, which is scaled to its place.
        height: In the same units.
    """
    top = _top(max((value for values in series.values() for value in values if value is not None), default=0.0))
    parts = [_open(width, height, label), *_grid(top, text, width, height)]
    space = (width - _LEFT - 16) / max(1, len(columns) - 1)
    every = max(1, round(64 / space)) if space else 1
    for index, name in enumerate(columns):
        if index % every == 0:
            parts.append(_tick(_LEFT + space * index, height - 8, name, "middle"))
    for number, (name, values) in enumerate(series.items()):
        path, pen_is_down = [], False
        for index, value in enumerate(values):
            if value is None:
                pen_is_down = False
                continue
            x, y = _LEFT + space * index, height - _BOTTOM - (height - _BOTTOM - _TOP) * value / top
            path.append(f"{'L' if pen_is_down else 'M'}{x:.1f} {y:.1f}")
            pen_is_down = True
        parts.append(
            Markup('<g><title>{}</title><path class="line series-{}" d="{}"/></g>').format(
                name, min(number, MOST_SERIES - 1), " ".join(path)
            )
        )
    return Markup("").join([*parts, Markup("</svg>")])


def _top(value: float) -> float:
    """Return the top of the scale: the value, or the next one of which a quarter is a round number."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 2, 4, 8, 10) if unit * step >= value)


def _open(width: int, height: int, label: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, label)


def _grid(top: float, text: Callable[[float], str], width: int, height: int) -> list[Markup]:
    parts = []
    for number in range(_TICKS + 1):
        y = height - _BOTTOM - (height - _BOTTOM - _TOP) * number / _TICKS
        parts.append(
            Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(_LEFT, y, width - 8, y)
        )
        parts.append(_tick(_LEFT - 8, y + 4, text(top * number / _TICKS), "end"))
    return parts


def _tick(x: float, y: float, name: str, anchor: str) -> Markup:
    return Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, name)

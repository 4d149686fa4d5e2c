"""Plots as inline SVG; their colours come from the page's style sheet, so that light and dark both work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LABEL_WIDTH = 132
ROW = 30


@dataclass(frozen=True)
class Change:
    """One row of a plot of before and after; values are from 0 to 1."""

    name: str
    before: float
    after: float
    is_new: bool = False
    is_total: bool = False


@dataclass(frozen=True)
class Volume:
    """One bar of a plot of bytes; `kind` is a style: "kept", "sent" or "reference"."""

    name: str
    count: int
    text: str
    kind: str
    note: str = ""


@dataclass(frozen=True)
class Stretch:
    """One bar of a timeline, in seconds."""

    name: str
    start: float
    seconds: float
    text: str
    kind: str
    is_part: bool = False


def changes(rows: Sequence[Change], label: str, width: int = 520) -> str:
    """Draw a line for each row from the old release's value to the new one's."""
    left, right = LABEL_WIDTH, width - 54
    scale = right - left
    height = ROW * len(rows) + 34
    parts = [_open(width, height, label)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + scale * tick
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="6" x2="{x:.1f}" y2="{height - 24}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{100 * tick:.0f}</text>')
    for index, row in enumerate(rows):
        parts += _dumbbell(row, 6 + ROW * index + ROW / 2, left, scale, width)
    return "".join([*parts, "</svg>"])


def _dumbbell(row: Change, y: float, left: float, scale: float, width: int) -> list[str]:
    x1, x2 = left + scale * row.before, left + scale * row.after
    style = "new" if row.is_new else "after"
    weight = " total" if row.is_total else ""
    gain = 100 * (row.after - row.before)
    direction = "down" if is_loss(gain) else "up"
    title = f"{row.name}: {100 * row.before:.1f} before, {100 * row.after:.1f} after"
    return [
        f"<g><title>{escape(title)}</title>",
        f'<text class="name{weight}" x="{left - 14}" y="{y + 4:.1f}" text-anchor="end">'
        f"{escape(_short(row.name))}</text>",
        f'<line class="link {style}" x1="{x1:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y:.1f}"/>',
        f'<circle class="dot before" cx="{x1:.1f}" cy="{y:.1f}" r="5"/>',
        f'<circle class="dot {style}" cx="{x2:.1f}" cy="{y:.1f}" r="6"/>',
        f'<text class="gain {direction}{weight}" x="{width - 2}" y="{y + 4:.1f}" text-anchor="end">'
        f"{signed(gain)}</text></g>",
    ]


def volumes(rows: Sequence[Volume], label: str, width: int = 1040) -> str:
    """Draw bars of bytes on one linear scale, so that their lengths may be compared."""
    left, right = 330, width - 90
    top = max((row.count for row in rows), default=1) or 1
    parts = [_open(width, ROW * len(rows) + 8, label)]
    for index, row in enumerate(rows):
        y = 4 + ROW * index
        length = max((right - left) * row.count / top, 2)
        note = f'<tspan class="note">  {escape(row.note)}</tspan>' if row.note else ""
        parts.append(
            f"<g><title>{escape(row.name)}: {row.count:,} bytes</title>"
            f'<text class="name" x="{left - 14}" y="{y + 19}" text-anchor="end">{escape(row.name)}{note}</text>'
            f'<rect class="bar {row.kind}" x="{left}" y="{y + 6}" width="{length:.1f}" height="18" rx="3"/>'
            f'<text class="gain" x="{left + length + 8:.1f}" y="{y + 19}">{escape(row.text)}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def timeline(rows: Sequence[Stretch], label: str, width: int = 1040) -> str:
    """Draw a bar for each step at its place on the clock."""
    left, right = 250, width - 90
    end = max((row.start + row.seconds for row in rows), default=1.0) or 1.0
    height = 26 * len(rows) + 34
    parts = [_open(width, height, label)]
    step = _tick_step(end)
    for tick in range(int(end / step) + 1):
        x = left + (right - left) * tick * step / end
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{height - 26}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{_clock(tick * step)}</text>'
        )
    for index, row in enumerate(rows):
        y = 4 + 26 * index
        part, inset = (" part", 4) if row.is_part else ("", 0)
        x = left + (right - left) * row.start / end
        length = max((right - left) * row.seconds / end, 2)
        parts.append(
            f"<g><title>{escape(row.name)}: {escape(row.text)}</title>"
            f'<text class="name{part}" x="{left - 14}" y="{y + 17}" text-anchor="end">{escape(row.name)}</text>'
            f'<rect class="bar {row.kind}{part}" x="{x:.1f}" y="{y + 5 + inset}" width="{length:.1f}" '
            f'height="{16 - 2 * inset}" rx="3"/>'
            f'<text class="gain" x="{x + length + 8:.1f}" y="{y + 17}">{escape(row.text)}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def is_loss(points: float) -> bool:
    """Return whether a change is worth a warning: a loss of more than one point."""
    return round(points, 1) < -1


def signed(points: float) -> str:
    """Return a number of points with its sign: a real minus sign, and never "-0.0"."""
    text = f"{abs(points):.1f}"
    sign = "" if text == "0.0" else "+" if points > 0 else "\N{MINUS SIGN}"
    return sign + text


def _open(width: int, height: float, label: str) -> str:
    return f'<svg class="chart" viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(label)}">'


def _short(name: str, limit: int = 16) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _tick_step(end: float) -> int:
    return next((step for step in (5, 10, 15, 30, 60, 120, 300, 600, 1800) if end / step <= 10), 3600)


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"

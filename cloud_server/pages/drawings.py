"""Drawings of the console as inline SVG. Colours come from the style sheet, so light and dark both work."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from markupsafe import Markup

_WIDTH: Final = 1040
_COLOURS: Final = (0, 2, 4, 5, 3)
"""Series of the style sheet that mark nothing else."""
_CHARACTER: Final = 7.5
"""Width of a letter in a drawing."""


def timeline(events: Sequence[tuple[int, datetime, bool]], now: datetime, label: str) -> Markup:
    """Draw which release ran when, as one bar, with a mark where an installation failed.

    Args:
        events: Release, moment and whether it was installed, oldest first.
        now: The end of the bar.
        label: What is drawn, for who cannot see it.
    """
    if not events:
        return Markup("")
    begin = events[0][1]
    length = max((now - begin).total_seconds(), 1.0)

    def place(moment: datetime) -> float:
        return _WIDTH * min(max((moment - begin).total_seconds() / length, 0.0), 1.0)

    parts = [Markup('<svg class="chart" viewBox="0 0 {} 64" role="img" aria-label="{}">').format(_WIDTH, label)]
    installed = [(release, moment) for release, moment, is_good in events if is_good]
    for number, (release, moment) in enumerate(installed):
        end = installed[number + 1][1] if number + 1 < len(installed) else now
        x, width = place(moment), max(place(end) - place(moment), 1.0)
        parts.append(
            Markup(
                "<g><title>release {} from {:%Y-%m-%d %H:%M} UTC</title>"
                '<rect class="series-{}" x="{:.1f}" y="8" width="{:.1f}" height="26" rx="3"/>'
            ).format(release, moment, _COLOURS[release % len(_COLOURS)], x, max(width - 2, 1.0))
        )
        if width > _CHARACTER * (len(str(release)) + 2):
            parts.append(Markup('<text class="on-bar" x="{:.1f}" y="26">{}</text>').format(x + 8, release))
        parts.append(Markup("</g>"))
    for release, moment, is_good in events:
        if not is_good:
            parts.append(
                Markup(
                    "<g><title>release {} failed at {:%Y-%m-%d %H:%M} UTC</title>"
                    '<circle class="failed" cx="{:.1f}" cy="21" r="6"/></g>'
                ).format(release, moment, min(max(place(moment), 7.0), _WIDTH - 7.0))
            )
    for moment, anchor in ((begin, "start"), (now, "end")):
        parts.append(
            Markup('<text class="tick" x="{}" y="54" text-anchor="{}">{:%Y-%m-%d %H:%M}</text>').format(
                0 if anchor == "start" else _WIDTH, anchor, moment
            )
        )
    return Markup("").join([*parts, Markup("</svg>")])

"""Drawings of the console as inline SVG. Colours come from the style sheet, so light and dark both work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from markupsafe import Markup

_WIDTH: Final = 1040
_COLOURS: Final = (0, 2, 4, 5, 3)
"""Series of the style sheet that mark nothing else."""
_CHARACTER: Final = 7.5
"""Width of a letter in a drawing."""
_LONGEST_NAME: Final = 14


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


@dataclass(frozen=True)
class Column:
    """One release in the drawing of where models come from.

    Attributes:
        version: The release.
        scope: Whom it is for.
        status: Who may have it.
        tutor: The id of its tutor.
        student: The id of its student.
        base_tutor: The id of the tutor that its cycle began with; empty for the first.
        base_student: The same for the student.
        gaps: The sites whose gaps are in it.
    """

    version: int
    scope: str
    status: str
    tutor: str
    student: str
    base_tutor: str = ""
    base_student: str = ""
    gaps: tuple[str, ...] = ()


_SITES_Y: Final = 44
_ROWS: Final = {"tutor": 128, "student": 208, "release": 288}
_COLUMN: Final = 116
_LEFT: Final = 84
_MOST_GAPS: Final = 3


def lineage(columns: Sequence[Column], teacher: str, label: str) -> Markup:
    """Draw what releases are made of: sites' gaps become a tutor, that and the students before it a student.

    Args:
        columns: Releases, oldest first.
        teacher: The id of the teacher of the first tutor; empty where there is none.
        label: What is drawn, for who cannot see it.
    """
    width = _LEFT + _COLUMN * len(columns) + 20
    parts = [
        Markup('<svg class="lineage" viewBox="0 0 {} 330" width="{}" role="group" aria-label="{}">').format(
            width, width, label
        )
    ]
    for name, y in {"gaps": _SITES_Y, **_ROWS}.items():
        parts.append(Markup('<text class="row" x="0" y="{}">{}</text>').format(y + 4, name))
    places: dict[str, float] = {}
    nodes = list[Markup]()
    for number, column in enumerate(columns):
        x = _LEFT + _COLUMN * number + 40.0
        tutor, student = f"tutor {column.tutor}", f"student {column.student}"
        is_new_tutor, is_new_student = tutor not in places, student not in places
        if is_new_tutor and column.base_tutor:
            parts.append(_link(places.get(f"tutor {column.base_tutor}", x - _COLUMN / 2), "tutor", x, "tutor"))
        if is_new_student and column.base_student:
            parts.append(_link(places.get(f"student {column.base_student}", x - _COLUMN / 2), "student", x, "student"))
        places.setdefault(tutor, x)
        places.setdefault(student, x)
        parts.append(_link(places[tutor], "tutor", places[student], "student"))
        parts.append(_link(places[student], "student", x, "release"))
        if is_new_tutor:
            parts += _gaps(column, x)
            nodes.append(_model(column.tutor, "tutor", x))
        if is_new_student:
            nodes.append(_model(column.student, "student", x))
        nodes.append(
            Markup(
                '<a href="/fleet?release={}"><g><title>release {} for {}: {}</title>'
                '<rect class="release {}" x="{:.1f}" y="{}" width="48" height="28" rx="8"/>'
                '<text class="number" x="{:.1f}" y="{}" text-anchor="middle">{}</text></g></a>'
            ).format(
                column.version, column.version, column.scope, column.status, column.status, x - 24,
                _ROWS["release"] - 14, x, _ROWS["release"] + 5, column.version,
            )
        )  # fmt: skip
    if teacher and columns:
        x = _LEFT + 40.0
        parts.append(Markup('<path class="link" d="M{0} {1}V{2}"/>').format(x, _SITES_Y, _ROWS["tutor"]))
        nodes.append(
            Markup(
                '<a href="/models/{0}"><g><title>teacher {0}</title><circle class="teacher" cx="{1}" cy="{2}" r="10"/>'
                '<text class="id" x="{1}" y="{3}" text-anchor="middle">teacher</text></g></a>'
            ).format(teacher, x, _SITES_Y, _SITES_Y - 16)
        )
    return Markup("").join([*parts, *nodes, Markup("</svg>")])


def _gaps(column: Column, x: float) -> list[Markup]:
    more = len(column.gaps) - _MOST_GAPS
    shown = [*column.gaps[:_MOST_GAPS], *([f"{more} more"] if more > 0 else [])]
    parts = []
    for number, site in enumerate(shown):
        place = x + 26 * (number - (len(shown) - 1) / 2)
        parts.append(
            Markup(
                '<path class="link gap" d="M{0:.1f} {1}C{0:.1f} {2} {3:.1f} {2} {3:.1f} {4}"/>'
                '<g><title>gap of {5}</title><circle class="gap" cx="{0:.1f}" cy="{1}" r="7"/>'
            ).format(place, _SITES_Y, (_SITES_Y + _ROWS["tutor"]) / 2, x, _ROWS["tutor"], site)
        )
        if len(shown) == 1:
            name = site if len(site) <= _LONGEST_NAME else f"{site[: _LONGEST_NAME - 1]}…"
            parts.append(
                Markup('<text class="id" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                    place, _SITES_Y - 14, name
                )
            )
        parts.append(Markup("</g>"))
    return parts


def _link(x: float, row: str, to_x: float, to_row: str) -> Markup:
    y, to_y = _ROWS[row], _ROWS[to_row]
    if y == to_y:
        return Markup('<path class="link along" d="M{:.1f} {}H{:.1f}"/>').format(x, y, to_x)
    middle = (y + to_y) / 2
    return Markup('<path class="link" d="M{0:.1f} {1}C{0:.1f} {2} {3:.1f} {2} {3:.1f} {4}"/>').format(
        x, y, middle, to_x, to_y
    )


def _model(model: str, row: str, x: float) -> Markup:
    digits = model.removeprefix("sha256:")[:8]
    return Markup(
        '<a href="/models/{0}"><g><title>{1} {0}</title><circle class="{1}" cx="{2:.1f}" cy="{3}" r="10"/>'
        '<text class="id" x="{2:.1f}" y="{4}" text-anchor="middle">{5}</text></g></a>'
    ).format(model, row, x, _ROWS[row], _ROWS[row] + 26, digits)

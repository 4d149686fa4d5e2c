"""What templates may do with values: sizes, times, shares and charts, as people read them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from markupsafe import Markup

from diredi.text import ago_text, bytes_text, percent
from diredi.web import charts


def when(moment: datetime | None) -> Markup:
    """Return a moment as HTML. It does not change with the clock, so a page that follows events stays as it is."""
    if moment is None:
        return Markup("never")
    moment = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), f"{moment:%Y-%m-%d %H:%M} UTC")


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "ago": ago_text,
    "bar_chart": charts.bars,
    "bytes": bytes_text,
    "line_chart": charts.lines,
    "percent": percent,
    "when": when,
}

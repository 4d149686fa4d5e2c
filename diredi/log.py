"""Structured logs: one event a line, coloured for people on a terminal and as JSON elsewhere."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger

from diredi.text import printable


def configure(service: str, level: str = "INFO", as_json: bool | None = None) -> None:
    """Configure the logs of this process; call it once, at the start.

    Args:
        service: Name of the program, which every line carries.
        level: The lowest level that is written: DEBUG, INFO, WARNING or ERROR.
        as_json: Whether to write JSON; None writes JSON unless standard error is a terminal.
    """
    as_json = not sys.stderr.isatty() if as_json is None else as_json
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *([] if as_json else [_make_printable]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(service=service)


def _make_printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A terminal would obey what a stranger's text tells it; JSON has escapes for it."""
    return {key: printable(value, keep="\n\t") if isinstance(value, str) else value for key, value in event.items()}

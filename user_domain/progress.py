"""Progress on its way to the cloud: the newest only, not too often, and nothing in it but step names and figures."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from diredi.errors import DirediError, WrongState
from diredi.progress import Progress

STEP = re.compile(r"[a-z][a-z0-9-]{0,31}")
_FIGURE = re.compile(r"[-+]?\d{1,9}([./]\d{1,9})?%?")
_JOB_WORDS = """
    after and batch batches before begin boxes box bytes candidate class class_scores classes coreset data detection
    distilling done epoch epochs evaluating fgd gap held-out image images lambda loss map map50 map50-95 measuring mib
    models of on presumed reading seconds step steps student teacher the training tutor tutor-1 tutor-2
"""
_WORDS = frozenset(_JOB_WORDS.split())


def sanitize(step: str, fraction: float, message: str) -> Progress:
    """Whatever is neither a known word nor a figure is left out, so that no name or path can travel in a message."""
    words = [word for word in message.split()[:16] if _is_allowed(word.strip(",;:()"))]
    return Progress(step if STEP.fullmatch(step) else "work", min(1.0, max(0.0, fraction)), " ".join(words))


def _is_allowed(word: str) -> bool:
    parts = word.lower().split("=", 1)
    return all(part in _WORDS or _FIGURE.fullmatch(part) for part in parts)


class ProgressReporter:
    """Sends in the background, so that neither the work nor its end waits for a slow cloud."""

    def __init__(self, send: Callable[[Progress], Awaitable[None]], every_s: float) -> None:
        self._send = send
        self._every_s = every_s
        self._newest: Progress | None = None
        self._fresh = asyncio.Event()
        self._new_step = asyncio.Event()
        self._sent_step = ""
        self._closed = False

    def close(self) -> None:
        """Nothing more is told: the cloud is about to hear the result."""
        self._closed = True

    def update(self, step: str, fraction: float, message: str = "") -> None:
        """Replaces what has not been sent yet; a new step is told at once."""
        self._newest = sanitize(step, fraction, message)
        self._fresh.set()
        if self._newest.step != self._sent_step:
            self._new_step.set()

    async def run(self) -> None:
        """For ever, or until the cloud says that the task is no longer wanted (raises WrongState)."""
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            self._new_step.clear()
            assert self._newest is not None
            self._sent_step = self._newest.step
            try:
                if not self._closed:
                    await self._send(self._newest)
            except WrongState:
                if not self._closed:
                    raise
            except DirediError as error:  # progress is a courtesy: the work meets the same error where it matters
                structlog.get_logger().debug("progress_not_told", error=str(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._new_step.wait(), self._every_s)

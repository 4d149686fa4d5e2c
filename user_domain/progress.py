"""Reports progress to the cloud: only the newest, not too often, and nothing but step names and numbers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from diredi.errors import DirediError, WrongState
from diredi.progress import Progress

STEP = re.compile(r"[a-z][a-z0-9-]{0,31}")
_NUMBER = re.compile(r"[-+]?\d{1,9}([./]\d{1,9})?%?")
_JOB_WORDS = """
    about after and batch batches before begin boxes box bytes candidate class class_scores classes coreset data
    detection distilling done epoch epochs evaluating fgd gap held-out here image images lambda loss map map50
    map50-95 measuring mib min models of on oracle presumed probe reading s seconds step steps student take teacher the
    training trainings tutor tutor-1 tutor-2 will
"""
_WORDS = frozenset(_JOB_WORDS.split())


def sanitize(step: str, fraction: float, message: str) -> Progress:
    """Return progress with nothing but known words and numbers in its message, so that no name leaves the site."""
    words = [word for word in message.split()[:16] if _is_allowed(word.strip(",;:()"))]
    return Progress(step if STEP.fullmatch(step) else "work", min(1.0, max(0.0, fraction)), " ".join(words))


def _is_allowed(word: str) -> bool:
    parts = word.lower().split("=", 1)
    return all(part in _WORDS or _NUMBER.fullmatch(part) for part in parts)


class LatestProgress:
    """What is done at this site now, for its own people: the steps of the work under way and how far each is."""

    def __init__(self) -> None:
        """Begin with no work under way."""
        self.cycle_id = ""
        self.kind = ""
        self.steps: list[Progress] = []

    def begin(self, cycle_id: str, kind: str) -> None:
        """Take note that work for a cycle begins."""
        self.cycle_id, self.kind, self.steps = cycle_id, kind, []

    def update(self, progress: Progress) -> None:
        """Take newer progress; a step that another one follows counts as done."""
        if self.steps and self.steps[-1].step == progress.step:
            self.steps[-1] = progress
        else:
            self.steps = [*(replace(step, fraction=1.0) for step in self.steps), progress]

    def end(self) -> None:
        """Take note that the work has ended."""
        self.cycle_id, self.kind, self.steps = "", "", []


class ProgressReporter:
    """Send progress in the background, so that the task does not wait for a slow cloud."""

    def __init__(
        self, send: Callable[[Progress], Awaitable[None]], every_s: float, latest: LatestProgress | None = None
    ) -> None:
        """Make a reporter.

        Args:
            send: Sends one report to the cloud.
            every_s: The shortest time between two reports of one step, in seconds.
            latest: Takes every report at once, for the site's own people.
        """
        self._send, self._latest = send, latest or LatestProgress()
        self._every_s = every_s
        self._newest: Progress | None = None
        self._fresh = asyncio.Event()
        self._new_step = asyncio.Event()
        self._sent_step = ""
        self._closed = False

    def close(self) -> None:
        """Send nothing more, because the result is about to be submitted."""
        self._closed = True

    def update(self, step: str, fraction: float, message: str = "") -> None:
        """Take newer progress, which replaces what was not sent yet; a new step is sent at once."""
        self._newest = sanitize(step, fraction, message)
        self._latest.update(self._newest)
        self._fresh.set()
        if self._newest.step != self._sent_step:
            self._new_step.set()

    async def run(self) -> None:
        """Send progress for ever. Raises WrongState once the cloud no longer wants the task."""
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
            except DirediError as error:  # the task meets the same error where it matters
                structlog.get_logger().debug("progress_report_failed", error=str(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._new_step.wait(), self._every_s)

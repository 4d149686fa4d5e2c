"""The updater's table of states: which comes after which, what a restart does, what is installed. No I/O here.

    IDLE ─► DOWNLOADING ─► VERIFYING ─► WARMING ─► SWAPPING ─► REPORTING ─► IDLE
                 └────────────┴────────────┴───────────┴─────► FAILED ────► IDLE

A state is stored before it is acted on, and acting on it twice does no harm. `installed` changes in the same write that
leaves SWAPPING, so a node that dies at any point starts with the release that last proved itself on a live frame.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from diredi.labels import LabelSpace


class State(StrEnum):
    IDLE = "IDLE"
    DOWNLOADING = "DOWNLOADING"
    VERIFYING = "VERIFYING"
    WARMING = "WARMING"
    SWAPPING = "SWAPPING"
    REPORTING = "REPORTING"
    FAILED = "FAILED"


NEXT: Mapping[State, frozenset[State]] = {
    State.IDLE: frozenset({State.DOWNLOADING}),
    State.DOWNLOADING: frozenset({State.VERIFYING, State.FAILED, State.IDLE}),
    State.VERIFYING: frozenset({State.WARMING, State.FAILED, State.IDLE}),
    State.WARMING: frozenset({State.SWAPPING, State.FAILED, State.IDLE}),
    State.SWAPPING: frozenset({State.REPORTING, State.FAILED}),
    State.REPORTING: frozenset({State.IDLE}),
    State.FAILED: frozenset({State.IDLE}),
}

IN_PROGRESS = (State.DOWNLOADING, State.VERIFYING, State.WARMING, State.SWAPPING)
CANCELLABLE = frozenset({State.DOWNLOADING, State.VERIFYING, State.WARMING})
MAX_STARTS = 3
"""How often a release may be loaded and not come to run; one that takes the process with it is given up after that."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


RELEASE_FILE = re.compile(r"release-([1-9]\d{0,8})-([0-9a-f]{12})\.onnx")
"""Names that `InstallableRelease.file_name` gives: version, and the beginning of the digest."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InstallableRelease(_Value):
    """A release as the cloud announced it."""

    version: int = Field(ge=1)
    digest: Digest
    bytes: int = Field(ge=1)
    labels: LabelSpace
    image_size: int = Field(ge=32, le=2048)

    @property
    def file_name(self) -> str:
        return f"release-{self.version}-{self.digest.removeprefix('sha256:')[:12]}.onnx"


class Failure(_Value):
    """The installation that failed last."""

    version: int
    digest: Digest
    reason: str
    lasting: bool
    """The release itself is wrong, so the same bytes will fail again."""
    times: int = 1


class UpdateRecord(_Value):
    """What the updater knows; stored before each step."""

    state: State = State.IDLE
    target: InstallableRelease | None = None
    installed: InstallableRelease | None = None
    previous: InstallableRelease | None = None
    starts: int = 0
    failure: Failure | None = None

    def begin(self, target: InstallableRelease) -> UpdateRecord:
        """A failure of another release is history."""
        failure = self.failure if self.failure and _same(self.failure, target) else None
        return self._to(State.DOWNLOADING, target=target, starts=0, failure=failure)

    def advance(self, state: State) -> UpdateRecord:
        starts = self.starts + 1 if state is State.VERIFYING else self.starts
        return self._to(state, starts=starts)

    def resume(self) -> UpdateRecord:
        """After a restart in the middle: from the download on, whose finished part is not fetched again."""
        return self.model_copy(update={"state": State.DOWNLOADING}) if self.state in IN_PROGRESS else self

    def finish_swap(self) -> UpdateRecord:
        assert self.target is not None
        previous = self.previous if _is(self.installed, self.target) else self.installed
        return self._to(State.REPORTING, installed=self.target, previous=previous, failure=None)

    def fail(self, reason: str, *, lasting: bool) -> UpdateRecord:
        assert self.target is not None
        before = self.failure
        times = before.times + 1 if before and _same(before, self.target) else 1
        failure = Failure(
            version=self.target.version, digest=self.target.digest, reason=reason, lasting=lasting, times=times
        )
        return self._to(State.FAILED, failure=failure)

    def finish(self) -> UpdateRecord:
        return self._to(State.IDLE, target=None, starts=0)

    @property
    def has_crashed_too_often(self) -> bool:
        return self.starts > MAX_STARTS

    def should_install(self, offered: InstallableRelease) -> bool:
        """Any release other than the one that runs, in whichever direction, unless it can only fail again."""
        if _is(self.installed, offered):
            return False
        return not (self.failure and self.failure.lasting and _same(self.failure, offered))

    def wait_before(self, offered: InstallableRelease, first_s: float) -> float:
        """Seconds after the last failure of `offered` before it is worth another try; 0 where it never failed."""
        if self.failure is None or not _same(self.failure, offered):
            return 0.0
        return float(min(first_s * 2 ** (self.failure.times - 1), 64 * first_s))

    def _to(self, state: State, **changes: object) -> UpdateRecord:
        if state not in NEXT[self.state]:
            raise AssertionError(f"{self.state} is never followed by {state}")
        return self.model_copy(update={"state": state, **changes})


def _same(failure: Failure, release: InstallableRelease) -> bool:
    return (failure.version, failure.digest) == (release.version, release.digest)


def _is(installed: InstallableRelease | None, release: InstallableRelease) -> bool:
    return installed is not None and (installed.version, installed.digest) == (release.version, release.digest)

"""The updater's table of states and its record. There is no I/O here.

    IDLE ─► DOWNLOADING ─► VERIFYING ─► WARMING ─► SWAPPING ─► REPORTING ─► IDLE
                 └────────────┴────────────┴───────────┴─────► FAILED ────► IDLE

A state is stored before it is acted on, and acting on it twice does no harm. `installed` changes in the same write that
leaves SWAPPING, so a node that dies at any point starts with the last release that detected on a live frame.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from diredi.labels import LabelSpace


class State(StrEnum):
    """Name what the updater is doing."""

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
"""How often a release may be loaded without being installed; one that crashes the process more often is rejected."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


RELEASE_FILE = re.compile(r"release-([1-9]\d{0,8})-([0-9a-f]{12})\.onnx")
"""The names that `InstallableRelease.file_name` makes: the version and the first digits of the digest."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InstallableRelease(_Value):
    """Describe a release as the cloud announced it."""

    version: int = Field(ge=1)
    digest: Digest
    bytes: int = Field(ge=1)
    labels: LabelSpace
    image_size: int = Field(ge=32, le=2048)

    @property
    def file_name(self) -> str:
        """The name of its file in the folder of releases."""
        return f"release-{self.version}-{self.digest.removeprefix('sha256:')[:12]}.onnx"


class Failure(_Value):
    """Describe the installation that failed last."""

    version: int
    digest: Digest
    reason: str
    lasting: bool
    """Whether the release itself is wrong, so that the same bytes would fail again."""
    times: int = 1


class UpdateRecord(_Value):
    """Hold what the updater knows; it is stored before each step. The methods return the next record."""

    state: State = State.IDLE
    target: InstallableRelease | None = None
    installed: InstallableRelease | None = None
    previous: InstallableRelease | None = None
    starts: int = 0
    failure: Failure | None = None

    def begin(self, target: InstallableRelease) -> UpdateRecord:
        """Start to install a release; the failure of another one is forgotten."""
        failure = self.failure if self.failure and _is_failure_of(self.failure, target) else None
        return self._to(State.DOWNLOADING, target=target, starts=0, failure=failure)

    def advance(self, state: State) -> UpdateRecord:
        """Enter the next state of an installation."""
        starts = self.starts + 1 if state is State.VERIFYING else self.starts
        return self._to(state, starts=starts)

    def resume(self) -> UpdateRecord:
        """Go on after a restart: an installation begins again with the download, which keeps its finished part."""
        return self.model_copy(update={"state": State.DOWNLOADING}) if self.state in IN_PROGRESS else self

    def finish_swap(self) -> UpdateRecord:
        """Make the target the installed release, and the installed one the previous."""
        assert self.target is not None
        previous = self.previous if _is_release(self.installed, self.target) else self.installed
        return self._to(State.REPORTING, installed=self.target, previous=previous, failure=None)

    def fail(self, reason: str, *, lasting: bool) -> UpdateRecord:
        """Record that the installation failed.

        Args:
            reason: A sentence for the cloud.
            lasting: Whether the same release would fail again.
        """
        assert self.target is not None
        last = self.failure
        times = last.times + 1 if last and _is_failure_of(last, self.target) else 1
        failure = Failure(
            version=self.target.version, digest=self.target.digest, reason=reason, lasting=lasting, times=times
        )
        return self._to(State.FAILED, failure=failure)

    def finish(self) -> UpdateRecord:
        """End the installation, whatever became of it."""
        return self._to(State.IDLE, target=None, starts=0)

    @property
    def has_crashed_too_often(self) -> bool:
        """Whether the target was loaded more than MAX_STARTS times without being installed."""
        return self.starts > MAX_STARTS

    def should_install(self, offered: InstallableRelease) -> bool:
        """Return whether to install a release: any other than the one that runs, older or newer, that can succeed."""
        if _is_release(self.installed, offered):
            return False
        return not (self.failure and self.failure.lasting and _is_failure_of(self.failure, offered))

    def wait_before(self, offered: InstallableRelease, first_s: float) -> float:
        """Return how long to wait after the last failure of a release before it is tried again.

        Args:
            offered: The release.
            first_s: Seconds after the first failure; doubled after each further one, up to 64 times.

        Returns:
            Seconds; 0 where it never failed.
        """
        if self.failure is None or not _is_failure_of(self.failure, offered):
            return 0.0
        return float(min(first_s * 2 ** (self.failure.times - 1), 64 * first_s))

    def _to(self, state: State, **changes: object) -> UpdateRecord:
        if state not in NEXT[self.state]:
            raise AssertionError(f"{self.state} is never followed by {state}")
        return self.model_copy(update={"state": state, **changes})


def _is_failure_of(failure: Failure, release: InstallableRelease) -> bool:
    return (failure.version, failure.digest) == (release.version, release.digest)


def _is_release(installed: InstallableRelease | None, release: InstallableRelease) -> bool:
    return installed is not None and (installed.version, installed.digest) == (release.version, release.digest)

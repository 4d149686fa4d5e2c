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
    State.IDLE: frozenset({State.DOWNLOADING, State.FAILED}),
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

MAX_TRIES = 3
"""How often a release is installed that fails on frames; after that it is not tried again."""

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
    scope: str = "fleet"
    target: str = ""
    """Its path in the signed metadata; empty in records of before there were any."""
    challenge: str = ""
    """What the cloud wants to be hashed together with the file, in hex."""

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
    on_frames: bool = False
    """Whether it failed on frames, after it had been installed."""


class Newest(_Value):
    """The newest release of a scope that ever ran here."""

    version: int
    digest: Digest


class UpdateRecord(_Value):
    """Hold what the updater knows; it is stored before each step. The methods return the next record."""

    state: State = State.IDLE
    target: InstallableRelease | None = None
    installed: InstallableRelease | None = None
    previous: InstallableRelease | None = None
    starts: int = 0
    failure: Failure | None = None
    newest: dict[str, Newest] = Field(default_factory=dict)
    """By scope: versions only rise."""

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
        newest = self.newest | {self.target.scope: Newest(version=self.target.version, digest=self.target.digest)}
        failure = self.failure if self.failure and self.failure.on_frames else None
        return self._to(State.REPORTING, installed=self.target, previous=previous, failure=failure, newest=newest)

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

    def take_back(self, reason: str) -> UpdateRecord:
        """Record that the installed release fails on frames and the previous one is back; after MAX_TRIES for good.

        Args:
            reason: A sentence for the cloud.
        """
        assert self.installed is not None
        last, failed = self.failure, self.installed
        times = last.times + 1 if last and last.on_frames and _is_failure_of(last, failed) else 1
        failure = Failure(
            version=failed.version, digest=failed.digest, reason=reason, lasting=times >= MAX_TRIES, times=times,
            on_frames=True,
        )  # fmt: skip
        return self._to(State.FAILED, target=failed, installed=self.previous, previous=None, failure=failure)

    def finish(self) -> UpdateRecord:
        """End the installation, whatever became of it."""
        return self._to(State.IDLE, target=None, starts=0)

    @property
    def has_crashed_too_often(self) -> bool:
        """Whether the target was loaded more than MAX_STARTS times without being installed."""
        return self.starts > MAX_STARTS

    def should_install(self, offered: InstallableRelease) -> bool:
        """Return whether to install a release: any other than the one that runs, if it can succeed."""
        if _is_release(self.installed, offered):
            return False
        return not (self.failure and self.failure.lasting and _is_failure_of(self.failure, offered))

    def explain_refusal(self, offered: InstallableRelease) -> str:
        """Say why a release would be a step back within its scope; empty where it is none."""
        newest = self.newest.get(offered.scope)
        if newest is None and self.installed is not None and self.installed.scope == offered.scope:
            newest = Newest(version=self.installed.version, digest=self.installed.digest)
        if newest is None or offered.version > newest.version:
            return ""
        if offered.version < newest.version:
            return (
                f"release {offered.version} is older than release {newest.version} of {offered.scope}, which has run "
                "here: to go back, publish the old file as a new release"
            )
        if offered.digest != newest.digest:
            return f"release {offered.version} of {offered.scope} has run here with other bytes: publish a new release"
        return ""

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

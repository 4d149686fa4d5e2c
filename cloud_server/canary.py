"""Canaries: which devices see a release first, and what follows from what they and the site say. Pure rules.

- The first `count` devices of the site by name are canaries, those that are online before those that are not.
- Every canary installed it and the site's validation passed: released to all. One failed, or the site's figures are
  worse: rolled back, and every device is told of the release before.
- A site without devices: its validation alone decides.
- A canary that says nothing within the deadline counts as failed: what nobody has seen running is not sent to all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from cloud_server.domain import Device, Install, Outcome, Release, ReleaseStatus
from cloud_server.gate import Verdict
from cloud_server.states import State


@dataclass(frozen=True)
class Decision:
    state: State
    reason: str


def choose(devices: Iterable[Device], online: AbstractSet[str], count: int) -> tuple[str, ...]:
    """The keys of at most `count` devices. `online` holds keys."""
    return tuple(sorted((d.key for d in devices), key=lambda key: (key not in online, key))[:count])


def reports(release: Release, devices: Iterable[Device]) -> dict[str, Install | None]:
    """The last word of each canary about this release; None from one that has said nothing."""
    by_key = {device.key: device for device in devices}
    return {key: _last(by_key[key], release.version) if key in by_key else None for key in release.canaries}


def decide(installs: Mapping[str, Install | None], verdict: Verdict | None) -> Decision | None:
    """What a cycle in CANARY becomes; None while it must wait. `verdict` is None until the site has validated."""
    for name, install in installs.items():
        if install is not None and install.outcome is Outcome.FAILED:
            return Decision(
                State.ROLLED_BACK, f"canary {name} could not install it: {install.reason or 'no reason given'}"
            )
    if verdict is None:
        return None
    if not verdict.passed:
        return Decision(State.ROLLED_BACK, verdict.reason)
    if any(install is None for install in installs.values()):
        return None
    seen = f"installed on {', '.join(installs)}" if installs else "the site has no device"
    return Decision(State.RELEASED, f"{seen}; {verdict.reason}")


def silent(installs: Mapping[str, Install | None]) -> list[str]:
    return [name for name, install in installs.items() if install is None]


def release_for(device: str, releases: Sequence[Release]) -> Release | None:
    """The newest release that the device of this key may run. `releases` in any order."""
    allowed = [
        release
        for release in releases
        if release.status is ReleaseStatus.RELEASED
        or (release.status is ReleaseStatus.CANARY and device in release.canaries)
    ]
    return max(allowed, key=lambda release: release.version, default=None)


def _last(device: Device, version: int) -> Install | None:
    return next((i for i in reversed(device.installs) if i.release_version == version), None)

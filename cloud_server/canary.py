"""Canaries: which devices see a release first, and what follows from what they and the site say. Pure rules.

- The first `count` devices of each of the cycle's sites by name are canaries, those that are online before those that
  are not.
- Every canary installed it and every site's validation passed: released to all. One failed, or the figures of a site
  are worse: rolled back, and every device is told of the release before.
- Sites without devices: their validation alone decides.
- A canary that says nothing within the deadline counts as failed: what nobody has seen running is not sent to all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from cloud_server.entities import Device, Install, Outcome, Release, ReleaseStatus
from cloud_server.gate import Verdict
from cloud_server.states import State


@dataclass(frozen=True)
class Decision:
    state: State
    reason: str


def choose_canaries(devices: Iterable[Device], online: AbstractSet[str], count: int) -> tuple[str, ...]:
    """The keys of at most `count` devices. `online` holds keys."""
    return tuple(sorted((d.key for d in devices), key=lambda key: (key not in online, key))[:count])


def collect_reports(release: Release, devices: Iterable[Device]) -> dict[str, Install | None]:
    """The last word of each canary about this release; None from one that has said nothing."""
    by_key = {device.key: device for device in devices}
    return {key: _last_install(by_key[key], release.version) if key in by_key else None for key in release.canaries}


def decide(installs: Mapping[str, Install | None], verdicts: Mapping[str, Verdict | None]) -> Decision | None:
    """What a cycle in CANARY becomes; None while it must wait. `verdicts` by site, None until it has validated."""
    for name, install in installs.items():
        if install is not None and install.outcome is Outcome.FAILED:
            return Decision(
                State.ROLLED_BACK, f"canary {name} could not install it: {install.reason or 'no reason given'}"
            )
    said = {site: verdict.reason for site, verdict in verdicts.items() if verdict is not None}
    if len(verdicts) > 1:
        said = {site: f"{site}: {reason}" for site, reason in said.items()}
    worse = [said[site] for site, verdict in verdicts.items() if verdict is not None and not verdict.passed]
    if worse:
        return Decision(State.ROLLED_BACK, "; ".join(worse))
    if len(said) < len(verdicts) or any(install is None for install in installs.values()):
        return None
    seen = f"installed on {', '.join(installs)}" if installs else "no site of the cycle has a device"
    return Decision(State.RELEASED, "; ".join([seen, *said.values()]))


def find_silent(installs: Mapping[str, Install | None]) -> list[str]:
    return [name for name, install in installs.items() if install is None]


def select_release(device: str, releases: Sequence[Release]) -> Release | None:
    """The newest release that the device of this key may run. `releases` in any order."""
    allowed = [
        release
        for release in releases
        if release.status is ReleaseStatus.RELEASED
        or (release.status is ReleaseStatus.CANARY and device in release.canaries)
    ]
    return max(allowed, key=lambda release: release.version, default=None)


def _last_install(device: Device, version: int) -> Install | None:
    return next((i for i in reversed(device.installs) if i.release_version == version), None)

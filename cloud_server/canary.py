"""Pure rules about canaries: which devices run a release first, and what follows from their reports.

- The first devices of each site of the cycle, by name, are canaries. Those that are online come before those that are
  not. Devices that run a release of a narrower scope would not run this one and are none. Those whose site holds what
  comes are none, either.
- A release goes to all devices once every canary has installed it and every site's validation has passed.
- It is rolled back where a canary has failed or a site is worse off. Every device then returns to the release before.
- For a site without devices its validation alone decides.
- A canary that reports nothing within the deadline counts as failed, because nobody has seen the release running. One
  whose site holds the release is left out then: that is no failure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from cloud_server.entities import Device, Install, Outcome, Release, ReleaseStatus, UpdateWait
from cloud_server.gate import Verdict
from cloud_server.scopes import FLEET
from cloud_server.states import State


@dataclass(frozen=True)
class Decision:
    """What a cycle in CANARY becomes, and why."""

    state: State
    reason: str


def choose_canaries(devices: Iterable[Device], online: AbstractSet[str], count: int) -> tuple[str, ...]:
    """Choose the canaries of one site.

    Args:
        devices: The devices of the site.
        online: Keys of the devices that are connected.
        count: At most so many devices are chosen.

    Returns:
        The keys of the chosen devices.
    """
    free = (device.key for device in devices if device.update_wait is not UpdateWait.HELD)
    return tuple(sorted(free, key=lambda key: (key not in online, key))[:count])


def collect_reports(release: Release, devices: Iterable[Device]) -> dict[str, Install | None]:
    """Return the last report of each canary about a release, by the canary's key; None where there is none."""
    installs = {device.key: device.installs for device in devices}
    return {
        key: next((i for i in reversed(installs.get(key, ())) if i.release_version == release.version), None)
        for key in release.canaries
    }


def decide(installs: Mapping[str, Install | None], verdicts: Mapping[str, Verdict | None]) -> Decision | None:
    """Decide what a cycle in CANARY becomes.

    Args:
        installs: The last report of each canary; None until there is one.
        verdicts: The verdict on each site's validation; None until the site has validated.

    Returns:
        The decision; None while reports or validations are missing and none has failed.
    """
    for name, install in installs.items():
        if install is not None and install.outcome is Outcome.FAILED:
            return Decision(
                State.ROLLED_BACK, f"canary {name} could not install it: {install.reason or 'no reason given'}"
            )
    reasons = {site: verdict.reason for site, verdict in verdicts.items() if verdict is not None}
    if len(verdicts) > 1:
        reasons = {site: f"{site}: {reason}" for site, reason in reasons.items()}
    worse = [reasons[site] for site, verdict in verdicts.items() if verdict is not None and not verdict.passed]
    if worse:
        return Decision(State.ROLLED_BACK, "; ".join(worse))
    if len(reasons) < len(verdicts) or any(install is None for install in installs.values()):
        return None
    installed = f"installed on {', '.join(installs)}" if installs else "no site of the cycle has a device"
    return Decision(State.RELEASED, "; ".join([installed, *reasons.values()]))


def find_silent(installs: Mapping[str, Install | None]) -> list[str]:
    """Return the keys of the canaries that have reported nothing."""
    return [key for key, install in installs.items() if install is None]


def may_run(device: str, release: Release) -> bool:
    """Return whether a device of a release's scope may run it: a canary may before the others, then those of a step.

    Args:
        device: The device's key; empty for a site, which may read what is for any of its devices.
        release: The release.
    """
    if device in release.canaries:
        return release.status in {ReleaseStatus.RELEASED, ReleaseStatus.CANARY}
    return release.status is ReleaseStatus.RELEASED and (not device or is_reached(device, release))


def is_reached(device: str, release: Release) -> bool:
    """Return whether the rollout of a release has come to a device: other devices are the first ones each time."""
    if release.rollout is None or release.rollout.complete:
        return True
    if device.partition("/")[0] in release.rollout.early_sites:
        return True
    digest = hashlib.sha256(f"{release.version}\n{device}".encode()).digest()
    return int.from_bytes(digest[:8]) % 100 < release.rollout.percent


def under_way(releases: Iterable[Release]) -> list[Release]:
    """Return the releases whose rollout is not complete: of each scope, those after the newest that is for all."""
    found, complete = [], set[str]()
    for release in sorted(releases, key=lambda release: -release.version):
        if release.status is not ReleaseStatus.RELEASED or release.scope in complete:
            continue
        if release.rollout is None or release.rollout.complete:
            complete.add(release.scope)
        else:
            found.append(release)
    return found


def select_release(device: str, releases: Sequence[Release], scopes: Sequence[str] = (FLEET,)) -> Release | None:
    """Return the release that a device should run, or None.

    This is the newest release of the narrowest scope that has one: a release of the fleet lacks the classes of the
    device's own site, so it does not replace the site's, however new it is. A device that is a canary tests first.

    Args:
        device: The device's key.
        releases: All releases, in any order.
        scopes: The scopes that the device's site is in, the narrowest first.
    """
    allowed = [
        release for release in sorted(releases, key=lambda release: -release.version) if may_run(device, release)
    ]
    newest = [next((r for r in allowed if r.scope == scope), None) for scope in scopes]
    found = [release for release in newest if release is not None]
    return next((release for release in found if release.status is ReleaseStatus.CANARY), next(iter(found), None))

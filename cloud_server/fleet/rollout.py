"""How a release goes from its canaries to all devices of its scope: in steps, each to a larger share of the devices.

Which devices a step reaches follows from their names and the release's number, so it is the same after a restart, and
other devices are the first ones each time. A step is followed by the next one when it has lasted long enough and enough
devices run the release in good health. If too many could not install it, or detect badly with it, the rollout stops by
itself: it pauses and waits for a person (`resume` or `abort`), or it is aborted at once, as the cloud is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Final

from cloud_server import canary
from cloud_server.entities import DetectionHealth, Json, Release, ReleaseStatus, Rollout, UpdateWait
from cloud_server.fleet.detection_health import Symptom, find_symptoms
from cloud_server.rollout_rules import DetectionBounds, OnHarm, RolloutRules
from cloud_server.scopes import scopes_of
from cloud_server.store import Repository
from cloud_server.store.fleet import RunningDevice
from diredi.errors import InvalidInput, WrongState

CLOUD: Final = "cloud"


@dataclass(frozen=True)
class Health:
    """How a release does on the devices that its step has reached."""

    reached: int
    """Those that should run it, without the held ones."""
    running: int
    """Those that run it in good health."""
    failed: int
    """Those that could not install it."""
    held: int = 0
    """Those that do not because their site holds it: no failure, and nobody waits for them."""
    unhealthy: int = 0
    """Those that run it and detect badly with it."""
    symptoms: dict[Symptom, int] = field(default_factory=dict)
    """How many of them have each symptom."""
    examples: dict[Symptom, str] = field(default_factory=dict)
    """One device with each symptom, and its figures."""

    @property
    def complaint(self) -> str:
        """What is wrong with the detection of the unhealthy devices, in words."""
        said = (f"{name.value} on {count}, such as {self.examples[name]}" for name, count in self.symptoms.items())
        return f"{self.unhealthy} of {self.running + self.unhealthy} devices detect badly with it: {'; '.join(said)}"


def judge(rollout: Rollout, health: Health, rules: RolloutRules) -> tuple[Rollout, str]:
    """Return what becomes of a rollout, and why; the same one and nothing where it goes on waiting.

    Args:
        rollout: A rollout that is not complete and not paused.
        health: How the release does.
        rules: When it goes on.
    """
    run_it = health.running + health.unhealthy
    tried, reason = run_it + health.failed, ""
    if health.failed and health.failed > rules.max_failures * tried:
        reason = f"{health.failed} of {tried} devices cannot run it"
    elif health.unhealthy and health.unhealthy > rules.max_unhealthy * run_it:
        reason = health.complaint
    if reason:
        return rollout.model_copy(update={"paused": reason}), f"paused at {rollout.step_names[rollout.step]}: {reason}"
    if rollout.waited_s < rules.step_s or health.running < rules.min_success * health.reached:
        return rollout, ""
    following = rollout.model_copy(update={"step": rollout.step + 1, "waited_s": 0.0})
    return following, f"to {following.step_names[following.step]}: {health.running} of {health.reached} devices run it"


def measure(r: Repository, release: Release, bounds: DetectionBounds) -> Health:
    """Count how a release does on the devices that should run it now."""
    return measure_all(r, [release], bounds)[release.version]


def measure_all(r: Repository, wanted: Sequence[Release], bounds: DetectionBounds) -> dict[int, Health]:
    """Count how releases do on the devices that should run them now, by version. Each device is looked at once."""
    releases, groups = r.releases.all(), r.groups.by_site()
    failures = r.devices.failures_of([release.version for release in wanted])
    counts: dict[int, Counter[str]] = {release.version: Counter() for release in wanted}
    symptoms: dict[int, Counter[Symptom]] = {release.version: Counter() for release in wanted}
    examples: dict[int, dict[Symptom, str]] = {release.version: {} for release in wanted}
    for device in r.devices.running():
        release = canary.select_release(device.key, releases, scopes_of(device.site, groups.get(device.site, "")))
        if release is None or release.version not in counts:
            continue
        runs_it = device.release_version == release.version
        if device.update_wait == UpdateWait.HELD and not runs_it:
            counts[release.version]["held"] += 1
            continue
        counts[release.version]["reached"] += 1
        if (device.key, release.version) in failures:
            counts[release.version]["failed"] += 1
        elif runs_it:
            found = find_symptoms(_detection_of(device), bounds)
            counts[release.version]["unhealthy" if found else "running"] += 1
            symptoms[release.version].update(found.keys())
            for symptom, figures in found.items():
                examples[release.version].setdefault(symptom, f"{device.key} ({figures})")
    return {
        version: Health(
            count["reached"], count["running"], count["failed"], count["held"], count["unhealthy"],
            dict(symptoms[version]), examples[version],
        )
        for version, count in counts.items()
    }  # fmt: skip


def _detection_of(device: RunningDevice) -> DetectionHealth:
    if device.detection is not None:
        return DetectionHealth.model_validate(device.detection)
    # A device of before there was more counts since its start, whichever releases it has run.
    return DetectionHealth(frames=device.frames, failed_frames=device.failed_frames)


def advance_all(r: Repository, now: datetime, elapsed_s: float, rules: RolloutRules) -> list[str]:
    """Bring each rollout that is under way as far as it may go, and return what has changed, in words."""
    said = []
    going = [one for one in canary.under_way(r.releases.all()) if one.rollout and not one.rollout.paused]
    health = measure_all(r, going, rules.bounds) if going else {}
    for release in going:
        rollout = release.rollout
        assert rollout is not None
        waited = rollout.model_copy(update={"waited_s": rollout.waited_s + elapsed_s})
        after, reason = judge(waited, health[release.version], rules)
        figures = asdict(health[release.version])
        if after.paused and rules.on_harm is OnHarm.ABORT and (before := _release_before(r, release)):
            following = _abort(r, release, before, after.paused, CLOUD, now, figures)
            said.append(
                f"release {release.version}: aborted and followed by release {following.version}: {after.paused}"
            )
            continue
        r.releases.set_rollout(release.version, after, CLOUD, reason, now, figures)
        if reason:
            said.append(f"release {release.version}: {reason}")
    return said


def pause(r: Repository, version: int, reason: str, actor: str, now: datetime) -> Release:
    """Stop a rollout where it is: devices that have the release keep it, no other gets it.

    Raises:
        WrongState: The release is not in a rollout.
    """
    rollout = _find(r, version)
    paused = rollout.model_copy(update={"paused": reason or f"by {actor}"})
    return r.releases.set_rollout(version, paused, actor, f"paused: {reason or 'no reason given'}", now)


def resume(r: Repository, version: int, actor: str, now: datetime, percent: int = 0) -> Release:
    """Go on with a rollout, also with one that has paused by itself.

    Args:
        r: The repository.
        version: The release.
        actor: Who goes on.
        now: The current time.
        percent: At least to this share at once; 0: where it was.

    Raises:
        WrongState: The release is not in a rollout.
        InvalidInput: The share is above 100.
    """
    if not 0 <= percent <= 100:
        raise InvalidInput(f"{percent} % is no share of the devices: give 1 to 100")
    rollout = _find(r, version)
    groups = [step for step in rollout.steps if isinstance(step, str)]
    shares = {step for step in rollout.steps if isinstance(step, int)}
    steps: tuple[int | str, ...] = (*groups, *sorted(shares | {percent} - {0}))
    step = max(rollout.step, steps.index(percent)) if percent > rollout.percent else steps.index(_step_of(rollout))
    after = rollout.model_copy(update={"paused": "", "waited_s": 0.0, "steps": steps, "step": step})
    return r.releases.set_rollout(version, after, actor, f"goes on at {after.step_names[step]}", now)


def abort(r: Repository, version: int, reason: str, actor: str, now: datetime) -> Release:
    """Withdraw a release in its rollout. What the scope ran before becomes a new release, because versions only rise.

    Raises:
        WrongState: The release is not in a rollout, or nothing was released before it.
    """
    release = r.releases.get(version)
    _find(r, version)
    before = _release_before(r, release)
    if before is None:
        raise WrongState(f"there was no release of {release.scope} before release {version}: make a new one")
    return _abort(r, release, before, reason or "no reason given", actor, now)


def _release_before(r: Repository, release: Release) -> Release | None:
    """Return what the scope of a release ran before it; None for nothing."""
    older = (other for other in r.releases.all(release.scope) if other.version < release.version)
    return next((other for other in older if other.status is ReleaseStatus.RELEASED), None)


def _abort(
    r: Repository, release: Release, old: Release, reason: str, actor: str, now: datetime, figures: Json | None = None
) -> Release:
    rollout, said = _find(r, release.version), f"aborted: {reason}"
    stopped = rollout.model_copy(update={"paused": said})
    r.releases.set_rollout(release.version, stopped, actor, said, now, figures)
    r.releases.set_status(release.version, ReleaseStatus.WITHDRAWN, now)
    return r.releases.add(
        r.models.get(old.student_id),
        old.tutor_id,
        ReleaseStatus.RELEASED,
        (),
        old.cycle_id,
        now,
        old.scope,
        old.rollout,
    )


def _step_of(rollout: Rollout) -> int | str:
    return rollout.steps[rollout.step]


def _find(r: Repository, version: int) -> Rollout:
    release = r.releases.get(version)
    if release not in canary.under_way(r.releases.all()) or release.rollout is None:
        raise WrongState(f"release {version} is not in a rollout: `diredi rollout list` shows those that are")
    return release.rollout

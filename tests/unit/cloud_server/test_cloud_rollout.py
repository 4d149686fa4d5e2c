"""Which devices a step of a rollout reaches, when the next step comes, and when it pauses by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloud_server import canary
from cloud_server.entities import (
    DetectionHealth,
    Device,
    Install,
    Outcome,
    Release,
    ReleaseStatus,
    Rollout,
    UpdateWait,
    Vitals,
)
from cloud_server.fleet import rollout
from cloud_server.fleet.detection_health import Symptom, find_symptoms
from cloud_server.fleet.publication import list_targets
from cloud_server.fleet.rollout import Health
from cloud_server.rollout_rules import DetectionBounds, OnHarm, RolloutRules
from cloud_server.store import Repository
from cloud_server.store.database import Database, sqlite_url
from diredi.errors import InvalidInput, WrongState
from tests.unit.cloud_server.samples import NEW_STUDENT, NOON, STUDENT, TUTOR, first_release, later

RULES = RolloutRules(step_s=60, min_success=0.9, max_failures=0.1, max_unhealthy=0.1)
BAD = Health(
    20, 8, 0, unhealthy=2, symptoms={Symptom.CONFIDENCE: 2},
    examples={Symptom.CONFIDENCE: "a/b (0.40, and 0.71 before)"},
)  # fmt: skip
IN_STEPS = Rollout(steps=(10, 50, 100))
SECOND = Release(
    version=2, student_id="s", tutor_id="t", status=ReleaseStatus.RELEASED, canaries=("a/first",), rollout=IN_STEPS,
    created=NOON,
)  # fmt: skip


def test_a_step_reaches_its_share_of_the_devices_and_the_next_one_those_and_more() -> None:
    devices = [f"site-{n % 7}/cam-{n}" for n in range(2000)]
    reached = {
        step: {d for d in devices if canary.may_run(d, SECOND.model_copy(update={"rollout": at(step)}))}
        for step in range(3)
    }
    assert 140 < len(reached[0]) < 260
    assert 900 < len(reached[1]) < 1100
    assert reached[0] < reached[1] < reached[2] == set(devices)
    third = SECOND.model_copy(update={"version": 3})
    again = {d for d in devices if canary.may_run(d, third)}
    assert len(again & reached[0]) < 60, "not the same devices are the first ones each time"
    assert canary.may_run("a/first", SECOND), "who was a canary keeps it"
    assert canary.may_run("", SECOND), "a site reads what is for any of its devices"


def at(step: int) -> Rollout:
    return IN_STEPS.model_copy(update={"step": step})


@pytest.mark.parametrize(
    ("waited_s", "health", "percent", "paused"),
    [
        (59, Health(10, 10, 0), 10, ""),
        (60, Health(10, 9, 0), 50, ""),
        (60, Health(10, 8, 0), 10, ""),
        (60, Health(0, 0, 0), 50, ""),
        (0, Health(10, 2, 1), 10, "1 of 3 devices cannot run it"),
        (0, Health(20, 9, 1), 10, ""),
        (999, Health(20, 0, 20), 10, "20 of 20 devices cannot run it"),
        (0, Health(20, 19, 0, unhealthy=1), 10, ""),
        (60, Health(20, 17, 0, unhealthy=1), 10, ""),
        (999, BAD, 10, "2 of 10 devices detect badly with it: confidence on 2, such as a/b (0.40, and 0.71 before)"),
    ],
)
def test_a_step_ends_by_time_and_success_and_failures_pause_it(
    waited_s: float, health: Health, percent: int, paused: str
) -> None:
    after, _ = rollout.judge(IN_STEPS.model_copy(update={"waited_s": waited_s}), health, RULES)
    assert (after.percent, after.paused) == (percent, paused)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(sqlite_url(tmp_path / "cloud.sqlite"))
    database.transact(begin, writes=True)
    yield database
    database.close()


def begin(r: Repository) -> None:
    """Release 2 in a rollout on 40 devices, all of which run release 1."""
    first_release(r)
    for number in range(40):
        r.devices.record_contact(f"cam-{number}", "site-1", NOON, Vitals(release_version=1, frames=1000))
    r.models.add(NEW_STUDENT)
    r.releases.add(NEW_STUDENT, TUTOR.id, ReleaseStatus.CANARY, (), "", NOON, rollout=IN_STEPS)
    r.releases.set_status(2, ReleaseStatus.RELEASED, NOON)


def wanted(r: Repository) -> Counter[int]:
    releases = r.releases.all()
    found = (canary.select_release(device.key, releases) for device in r.devices.of_site())
    return Counter(release.version for release in found if release is not None)


def run(
    r: Repository,
    failed_frames: int = 0,
    outcome: Outcome = Outcome.INSTALLED,
    detection: DetectionHealth | None = None,
) -> None:
    """Let all devices that should run release 2 do so."""
    releases = r.releases.all()
    for device in r.devices.of_site():
        release = canary.select_release(device.key, releases)
        if release is not None and release.version == 2:
            version = 2 if outcome is Outcome.INSTALLED else 1
            vitals = Vitals(release_version=version, frames=1000, failed_frames=failed_frames, detection=detection)
            r.devices.record_install(device.key, Install(release_version=2, outcome=outcome, at=NOON))
            r.devices.record_contact(device.name, device.site, NOON, vitals)


def test_a_healthy_release_reaches_all_and_both_are_signed_meanwhile(database: Database) -> None:
    def act(r: Repository) -> None:
        before = wanted(r)
        assert 0 < before[2] < before[1]
        releases = [(release, r.models.get(release.student_id)) for release in r.releases.all()]
        assert {target.claims.version for target in list_targets(releases, {}, {})} == {1, 2}
        assert rollout.advance_all(r, later(1), 61, RULES) == [], "no device runs it yet"
        for percent in (50, 100):
            run(r)
            (said,) = rollout.advance_all(r, later(2), 61, RULES)
            assert f"to {percent} %" in said
        assert wanted(r) == {2: 40}
        assert rollout.advance_all(r, later(3), 61, RULES) == []
        with pytest.raises(WrongState, match="not in a rollout"):
            rollout.pause(r, 2, "", "operator/alice", later(4))

    database.transact(act, writes=True)


@pytest.mark.parametrize(
    ("ill", "complaint"),
    [
        ({"outcome": Outcome.FAILED}, "cannot run it"),
        ({"failed_frames": 11}, "(11 of 1000 frames)"),
        ({"detection": DetectionHealth(frames=200, dropped_frames=3)}, "dropped frames on"),
        ({"detection": DetectionHealth(compared_boxes=60, differing_boxes=40)}, "(40 of 60 boxes differ)"),
    ],
)
def test_a_release_that_does_harm_pauses_and_aborted_it_is_followed_by_the_old_one_under_a_higher_number(
    database: Database, ill: dict[str, Any], complaint: str
) -> None:
    def act(r: Repository) -> None:
        run(r, **ill)
        (said,) = rollout.advance_all(r, later(1), 1, RULES)
        assert complaint in said
        assert rollout.advance_all(r, later(2), 1000, RULES) == [], "it waits for a person"
        with pytest.raises(InvalidInput):
            rollout.resume(r, 2, "operator/alice", later(3), 101)
        following = rollout.abort(r, 2, "flickers", "operator/alice", later(3))
        assert (following.version, following.student_id) == (3, STUDENT.id)
        assert wanted(r) == {3: 40}
        reasons = [entry.values.get("reason", "") for entry in r.log.all() if entry.subject.startswith("rollout/2/")]
        assert reasons[-1] == "aborted: flickers"
        assert r.log.compare({entry.subject: entry for entry in r.log.all()}) == []

    database.transact(act, writes=True)


def test_a_release_that_devices_detect_badly_with_is_aborted_by_itself_and_the_figures_are_logged(
    database: Database,
) -> None:
    unsure = DetectionHealth(frames=500, boxes=900, confidence=0.42, boxes_before=2000, confidence_before=0.71)

    def act(r: Repository) -> None:
        run(r, detection=unsure)
        (said,) = rollout.advance_all(r, later(1), 1, replace(RULES, on_harm=OnHarm.ABORT))
        assert "aborted and followed by release 3" in said and "(0.42, and 0.71 before)" in said
        assert wanted(r) == {3: 40}
        (entry,) = r.log.about("rollout/2/")
        figures = entry.values["figures"]
        assert figures["unhealthy"] == figures["symptoms"]["confidence"] == figures["reached"] > 0
        assert entry.values["actor"] == "cloud"
        assert r.log.compare({entry.subject: entry for entry in r.log.all()}) == []

    database.transact(act, writes=True)


def test_what_a_device_says_of_the_release_before_is_not_held_against_the_one_that_it_installs(
    database: Database,
) -> None:
    def act(r: Repository) -> None:
        failing = DetectionHealth(frames=500, failed_frames=400)
        for device in r.devices.of_site():
            vitals = Vitals(release_version=1, frames=1000, detection=failing)
            r.devices.record_contact(device.name, device.site, NOON, vitals)
            r.devices.record_install(device.key, Install(release_version=2, outcome=Outcome.INSTALLED, at=NOON))
        assert rollout.measure(r, r.releases.get(2), RULES.bounds).unhealthy == 0

    database.transact(act, writes=True)


@pytest.mark.parametrize(
    ("health", "symptoms"),
    [
        (DetectionHealth(frames=1000, failed_frames=10, dropped_frames=10), set()),
        (DetectionHealth(frames=20, failed_frames=1), set()),
        (DetectionHealth(frames=20, failed_frames=2), {Symptom.FAILED_FRAMES}),
        (DetectionHealth(frames=1000, failed_frames=11, dropped_frames=11), {*list(Symptom)[:2]}),
        (DetectionHealth(boxes=49, confidence=0.1, boxes_before=2000, confidence_before=0.9), set()),
        (DetectionHealth(boxes=50, confidence=0.1, boxes_before=49, confidence_before=0.9), set()),
        (DetectionHealth(boxes=50, confidence=0.7, boxes_before=50, confidence_before=0.8), set()),
        (DetectionHealth(boxes=50, confidence=0.6, boxes_before=50, confidence_before=0.8), {Symptom.CONFIDENCE}),
        (DetectionHealth(boxes=50, confidence=0.9, boxes_before=50, confidence_before=0.2), set()),
        (DetectionHealth(compared_boxes=49, differing_boxes=49), set()),
        (DetectionHealth(compared_boxes=50, differing_boxes=25), set()),
        (DetectionHealth(compared_boxes=50, differing_boxes=26), {Symptom.AGREEMENT}),
    ],
)
def test_a_device_is_unhealthy_outside_of_each_bound_and_few_frames_or_boxes_say_nothing(
    health: DetectionHealth, symptoms: set[Symptom]
) -> None:
    assert set(find_symptoms(health, DetectionBounds())) == symptoms


def test_a_rollout_goes_on_after_a_restart_where_it_was(database: Database, tmp_path: Path) -> None:
    def act(r: Repository) -> None:
        rollout.pause(r, 2, "on holiday", "operator/alice", later(1))

    database.transact(act, writes=True)
    again = Database(sqlite_url(tmp_path / "cloud.sqlite"))

    def go_on(r: Repository) -> None:
        assert rollout.advance_all(r, later(2), 999, RULES) == []
        (release,) = canary.under_way(r.releases.all())
        assert release.rollout is not None
        assert (release.rollout.percent, release.rollout.paused) == (10, "on holiday")
        rollout.resume(r, 2, "operator/alice", later(3), 30)
        assert r.releases.get(2).rollout == Rollout(steps=(10, 30, 50, 100), step=1)
        assert r.log.compare({entry.subject: entry for entry in r.log.all()}) == []

    again.transact(go_on, writes=True)
    again.close()


def test_groups_come_first_and_keep_the_release_when_shares_follow() -> None:
    rollout_ = Rollout(
        steps=("group:pilot", "group:north", 50, 100),
        rings={"group:pilot": ("a",), "group:north": ("b", "c")},
    )
    devices = [f"{site}/cam-{n}" for site in "abcdef" for n in range(20)]

    def reached(step: int) -> set[str]:
        now = rollout_.model_copy(update={"step": step})
        return {key for key in devices if canary.is_reached(key, SECOND.model_copy(update={"rollout": now}))}

    assert {key[0] for key in reached(0)} == {"a"} and len(reached(0)) == 20
    assert {key[0] for key in reached(1)} == {"a", "b", "c"} and len(reached(1)) == 60
    assert reached(1) < reached(2) < reached(3) == set(devices)
    assert rollout_.step_names == ["group:pilot", "group:north", "50 %", "100 %"] and not rollout_.complete
    after, reason = rollout.judge(rollout_.model_copy(update={"waited_s": 60.0}), Health(20, 19, 0), RULES)
    assert (after.step, after.percent, reason) == (1, 0, "to group:north: 19 of 20 devices run it")


def test_a_rollout_in_groups_goes_on_at_a_share(database: Database) -> None:
    def act(r: Repository) -> None:
        groups = Rollout(steps=("group:pilot", 10, 100), rings={"group:pilot": ("a",)})
        r.releases.set_rollout(2, groups, "cloud", "in groups", later(1))
        rollout.pause(r, 2, "", "operator/alice", later(2))
        assert rollout.resume(r, 2, "operator/alice", later(3)).rollout == groups
        resumed = rollout.resume(r, 2, "operator/alice", later(4), 40).rollout
        assert resumed is not None
        assert (resumed.steps, resumed.step, resumed.percent) == (("group:pilot", 10, 40, 100), 2, 40)

    database.transact(act, writes=True)


def test_devices_whose_site_holds_a_release_are_no_failure_and_nobody_waits_for_them(database: Database) -> None:
    def act(r: Repository) -> None:
        run(r)
        releases = r.releases.all()
        reached = [
            device for device in r.devices.of_site()
            if (wanted := canary.select_release(device.key, releases)) and wanted.version == 2
        ]  # fmt: skip
        for device in reached[1:]:
            held = Vitals(release_version=1, update_wait=UpdateWait.HELD)
            r.devices.record_contact(device.name, device.site, NOON, held)
        assert rollout.measure(r, r.releases.get(2), RULES.bounds) == Health(1, 1, 0, held=len(reached) - 1)
        (said,) = rollout.advance_all(r, later(2), 61, RULES)
        assert "to 50 %: 1 of 1 devices run it" in said

    database.transact(act, writes=True)


def test_a_device_whose_site_holds_what_comes_is_no_canary() -> None:
    held = Device(name="a", site="s", last_seen=NOON, update_wait=UpdateWait.HELD)
    free = Device(name="b", site="s", last_seen=NOON)
    assert canary.choose_canaries([held, free], {"s/a"}, 1) == ("s/b",)

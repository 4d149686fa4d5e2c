from __future__ import annotations

import pytest

from cloud_server import canary
from cloud_server.entities import Device, Install, Outcome, Release, ReleaseStatus
from cloud_server.gate import Verdict
from cloud_server.states import State
from tests.unit.cloud_server.samples import NOON, STUDENT, TUTOR

GOOD, BAD = Verdict(True, "better"), Verdict(False, "worse than before")
INSTALLED = Install(release_version=2, outcome=Outcome.INSTALLED, at=NOON)
FAILED = Install(release_version=2, outcome=Outcome.FAILED, reason="cannot be opened", at=NOON)


def device(name: str, *installs: Install) -> Device:
    return Device(name=name, site="site-1", last_seen=NOON, installs=installs)


def release(version: int, status: ReleaseStatus, canaries: tuple[str, ...] = ()) -> Release:
    return Release(
        version=version, student_id=STUDENT.id, tutor_id=TUTOR.id, status=status, canaries=canaries, created=NOON
    )


def test_devices_that_are_online_are_canaries_first() -> None:
    devices = [device("cam-1"), device("cam-2"), device("cam-3")]
    assert canary.choose_canaries(devices, {"site-1/cam-3", "site-1/cam-2"}, 1) == ("site-1/cam-2",)
    assert canary.choose_canaries(devices, {"site-1/cam-3"}, 2) == ("site-1/cam-3", "site-1/cam-1")
    assert canary.choose_canaries([], set(), 1) == ()


@pytest.mark.parametrize(
    ("install", "verdict", "state"),
    [
        (None, None, None),
        (None, GOOD, None),
        (INSTALLED, None, None),
        (INSTALLED, GOOD, State.RELEASED),
        (INSTALLED, BAD, State.ROLLED_BACK),
        (None, BAD, State.ROLLED_BACK),
        (FAILED, None, State.ROLLED_BACK),
        (FAILED, GOOD, State.ROLLED_BACK),
    ],
)
def test_a_release_goes_to_all_only_when_canary_and_site_both_say_yes(
    install: Install | None, verdict: Verdict | None, state: State | None
) -> None:
    decision = canary.decide({"cam-1": install}, {"site-1": verdict})
    assert (None if decision is None else decision.state) is state


def test_without_devices_the_validation_of_the_site_decides() -> None:
    assert canary.decide({}, {"site-1": None}) is None
    decision = canary.decide({}, {"site-1": GOOD})
    assert decision is not None
    assert decision.state is State.RELEASED
    assert "no site of the cycle has a device" in decision.reason


def test_every_site_of_the_cycle_has_to_say_yes() -> None:
    both = {"cam-1": INSTALLED}
    assert canary.decide(both, {"site-1": GOOD, "site-2": None}) is None
    released = canary.decide(both, {"site-1": GOOD, "site-2": GOOD})
    assert released == canary.Decision(State.RELEASED, "installed on cam-1; site-1: better; site-2: better")
    worse = canary.decide(both, {"site-1": None, "site-2": BAD})
    assert worse == canary.Decision(State.ROLLED_BACK, "site-2: worse than before")


def test_a_canary_is_asked_about_this_release_only() -> None:
    older = Install(release_version=1, outcome=Outcome.FAILED, at=NOON)
    installs = canary.collect_reports(
        release(2, ReleaseStatus.CANARY, ("site-1/cam-1", "gone")), [device("cam-1", older)]
    )
    assert installs == {"site-1/cam-1": None, "gone": None}
    assert canary.find_silent(installs) == ["site-1/cam-1", "gone"]


def test_a_canary_sees_the_release_first_and_the_one_before_when_it_is_withdrawn() -> None:
    first, second = release(1, ReleaseStatus.RELEASED), release(2, ReleaseStatus.CANARY, ("site-1/cam-1",))
    assert canary.select_release("site-1/cam-1", [first, second]) == second
    assert canary.select_release("site-1/cam-2", [first, second]) == first
    assert canary.select_release("site-2/cam-1", [first, second]) == first
    withdrawn = release(2, ReleaseStatus.WITHDRAWN, ("site-1/cam-1",))
    assert canary.select_release("site-1/cam-1", [first, withdrawn]) == first
    assert canary.select_release("site-1/cam-1", []) is None

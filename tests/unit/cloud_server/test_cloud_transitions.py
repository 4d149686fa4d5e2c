"""The rules of a cycle, on a real database, without network or training."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud_server.cycles import transitions
from cloud_server.entities import Cycle, Install, Outcome, Progress, ReleaseStatus, Vitals
from cloud_server.states import State
from cloud_server.store import Repository
from cloud_server.store.database import Database, sqlite_url
from cloud_server.tasks import TaskKind
from diredi.errors import InvalidInput, NotFound, WrongState
from diredi.labels import LabelSpace
from tests.unit.cloud_server.samples import (
    GROWN,
    NEW_STUDENT,
    NEW_TUTOR,
    NOON,
    STUDENT,
    digest,
    first_release,
    later,
    manifest,
    metrics,
)

SITE, OTHER = "site-1", "site-2"
PEM = "certificate"
BEGUN = Progress(step="begin", fraction=0)


@pytest.fixture
def run(tmp_path: Path):
    """Runs a command in a transaction of its own."""
    database = Database(sqlite_url(tmp_path / "cloud.sqlite"))
    database.transact(first_release, writes=True)
    yield lambda work: database.transact(work, writes=True)
    database.close()


def started(r: Repository, request_id: str = "r1") -> Cycle:
    return transitions.start_cycle(r, [SITE], request_id, {}, "operator/a", NOON)


def extracting(r: Repository) -> Cycle:
    cycle = started(r)
    transitions.offer(r, cycle.id, SITE, NOON, auto_approve=True)
    return transitions.report_progress(r, cycle.id, SITE, BEGUN, NOON)


def in_canary(r: Repository, canaries: tuple[str, ...] = ("site-1/cam-1",)) -> Cycle:
    """As the cloud's own steps would leave it."""
    cycle = extracting(r)
    r.devices.record_contact("cam-1", "site-1", NOON, Vitals(release_version=1))
    transitions.propose_classes(r, cycle.id, SITE, ["forklift"], NOON)
    transitions.accept_gap(r, SITE, manifest(cycle.id), PEM, NOON)
    r.models.add(NEW_TUTOR)
    r.models.add(NEW_STUDENT)
    r.cycles.move(cycle.id, State.APPLIED, NOON, "cloud", "", updated_tutor_id=NEW_TUTOR.id)
    r.cycles.move(cycle.id, State.GATED, NOON, "cloud", "")
    r.cycles.move(cycle.id, State.REDISTILLED, NOON, "cloud", "", updated_student_id=NEW_STUDENT.id)
    release = r.releases.add(NEW_STUDENT, NEW_TUTOR.id, ReleaseStatus.CANARY, canaries, cycle.id, NOON)
    return r.cycles.move(cycle.id, State.CANARY, NOON, "cloud", "", release_version=release.version)


def installs(r: Repository, outcome: Outcome, cycle: Cycle) -> Cycle:
    r.devices.record_install("site-1/cam-1", Install(release_version=cycle.release_version, outcome=outcome, at=NOON))
    return transitions.decide_canary(r, cycle.id, "device/site-1/cam-1", NOON)


def test_a_cycle_of_an_unknown_site_is_not_started(run) -> None:
    with pytest.raises(NotFound, match="site-9"):
        run(lambda r: transitions.start_cycle(r, ["site-9"], "r1", {}, "operator/a", NOON))


def test_a_site_that_takes_no_part_in_a_cycle_is_not_found_in_it(run) -> None:
    cycle = run(started)
    with pytest.raises(NotFound, match=f"site-2.*{cycle.id}"):
        run(lambda r: transitions.approve(r, cycle.id, OTHER, NOON))
    with pytest.raises(NotFound, match=f"site-2.*{cycle.id}"):
        run(lambda r: r.cycles.move_part(cycle.id, OTHER, State.OFFERED, NOON, "site/site-2", ""))


def test_a_request_id_of_other_sites_is_refused(run) -> None:
    run(started)
    with pytest.raises(InvalidInput, match="r1"):
        run(lambda r: transitions.start_cycle(r, [OTHER], "r1", {}, "operator/a", NOON))
    with pytest.raises(InvalidInput, match="request id"):
        run(lambda r: started(r, ""))


def test_an_offer_without_the_sites_yes_waits_for_it(run) -> None:
    cycle = run(started)
    assert run(lambda r: transitions.offer(r, cycle.id, SITE, NOON, auto_approve=False)).approved is False
    with pytest.raises(WrongState, match="not approved"):
        run(lambda r: transitions.report_progress(r, cycle.id, SITE, BEGUN, NOON))
    with pytest.raises(WrongState, match="not approved"):
        run(lambda r: transitions.propose_classes(r, cycle.id, SITE, ["forklift"], NOON))
    approved = run(lambda r: transitions.approve(r, cycle.id, SITE, later(9)))
    assert (approved.state, approved.approved) == (State.OFFERED, True)
    assert run(lambda r: transitions.approve(r, cycle.id, SITE, later(10))) == approved
    assert run(lambda r: transitions.report_progress(r, cycle.id, SITE, BEGUN, NOON)).state is State.EXTRACTING


def test_a_site_that_changes_its_policy_to_auto_approves_what_waits(run) -> None:
    cycle = run(started)
    run(lambda r: transitions.offer(r, cycle.id, SITE, NOON, auto_approve=False))
    assert run(lambda r: transitions.offer(r, cycle.id, SITE, NOON, auto_approve=True)).approved


def test_a_declined_cycle_stays_declined(run) -> None:
    cycle = run(started)
    declined = run(lambda r: transitions.decline(r, cycle.id, SITE, "inventory week", NOON))
    assert declined.history[-1].reason == "inventory week"
    assert run(lambda r: transitions.decline(r, cycle.id, SITE, "again", NOON)) == declined
    with pytest.raises(WrongState):
        run(lambda r: transitions.approve(r, cycle.id, SITE, NOON))
    with pytest.raises(WrongState):
        run(lambda r: transitions.report_progress(r, cycle.id, SITE, BEGUN, NOON))


def test_after_the_upload_it_is_too_late_to_decline(run) -> None:
    cycle = run(extracting)
    run(lambda r: transitions.propose_classes(r, cycle.id, SITE, ["forklift"], NOON))
    run(lambda r: transitions.accept_gap(r, SITE, manifest(cycle.id), PEM, NOON))
    with pytest.raises(WrongState, match="before"):
        run(lambda r: transitions.decline(r, cycle.id, SITE, "", NOON))
    with pytest.raises(WrongState, match="progress"):
        run(lambda r: transitions.report_progress(r, cycle.id, SITE, BEGUN, NOON))


def test_a_gap_replayed_is_accepted_and_changes_nothing(run) -> None:
    cycle = run(extracting)
    run(lambda r: transitions.propose_classes(r, cycle.id, SITE, ["forklift"], NOON))
    first = run(lambda r: transitions.accept_gap(r, SITE, manifest(cycle.id), PEM, NOON))
    assert run(lambda r: transitions.accept_gap(r, SITE, manifest(cycle.id), PEM, later(60))) == first


def test_a_gap_for_another_base_is_refused(run) -> None:
    cycle = run(extracting)
    run(lambda r: transitions.propose_classes(r, cycle.id, SITE, ["forklift"], NOON))
    with pytest.raises(WrongState, match="base"):
        run(lambda r: transitions.accept_gap(r, SITE, manifest(cycle.id, base_id=STUDENT.id), PEM, NOON))


@pytest.mark.parametrize("names", [("car", "person", "crane"), ("person", "car", "forklift"), ("car",)])
def test_a_gap_with_classes_that_the_cloud_did_not_number_is_refused(run, names: tuple[str, ...]) -> None:
    cycle = run(extracting)
    run(lambda r: transitions.propose_classes(r, cycle.id, SITE, ["forklift"], NOON))
    with pytest.raises(InvalidInput, match="propose"):
        run(lambda r: transitions.accept_gap(r, SITE, manifest(cycle.id, LabelSpace(names=names)), PEM, NOON))


def test_ids_of_a_cycle_that_failed_stay_reserved(run) -> None:
    cycle = run(extracting)
    assert run(lambda r: transitions.propose_classes(r, cycle.id, SITE, ["forklift"], NOON)).names == GROWN.names
    run(lambda r: transitions.fail_task(r, cycle.id, TaskKind.EXTRACT, SITE, "no room", NOON))
    second = run(lambda r: started(r, "r2"))
    run(lambda r: transitions.offer(r, second.id, SITE, NOON, auto_approve=True))
    labels = run(lambda r: transitions.propose_classes(r, second.id, SITE, ["crane", "forklift"], NOON))
    assert labels.names == (*GROWN.names, "crane")


@pytest.mark.parametrize("order", ["install first", "validation first"])
def test_release_to_all_needs_the_canary_and_the_site_in_any_order(run, order: str) -> None:
    cycle = run(in_canary)

    def validate(r: Repository) -> Cycle:
        return transitions.accept_validation(r, cycle.id, SITE, metrics(0.7, car=0.8, forklift=0.6), NOON)

    def install(r: Repository) -> Cycle:
        return installs(r, Outcome.INSTALLED, cycle)

    first, last = (install, validate) if order == "install first" else (validate, install)
    assert run(first).state is State.CANARY
    ended = run(last)
    assert ended.state is State.RELEASED
    assert ended.history[-1].metrics["new_classes_ap50"] == {"forklift": 0.6}
    assert run(lambda r: r.releases.current()).version == 2


def test_a_validation_that_is_worse_takes_the_release_back(run) -> None:
    cycle = run(in_canary)
    ended = run(lambda r: transitions.accept_validation(r, cycle.id, SITE, metrics(0.3), NOON))
    assert ended.state is State.ROLLED_BACK
    assert run(lambda r: r.releases.get(2)).status is ReleaseStatus.WITHDRAWN
    current, first = run(lambda r: (r.releases.current(), r.releases.get(1)))
    assert (current.version, current.student_id) == (3, first.student_id), "its canary may run it, and cannot go back"


def test_a_canary_that_cannot_install_takes_the_release_back(run) -> None:
    cycle = run(in_canary)
    assert run(lambda r: installs(r, Outcome.FAILED, cycle)).state is State.ROLLED_BACK
    assert run(lambda r: r.releases.current()).version == 1, "nobody runs another one"


def test_a_site_that_cannot_validate_takes_the_release_back(run) -> None:
    cycle = run(in_canary)
    ended = run(lambda r: transitions.fail_task(r, cycle.id, TaskKind.VALIDATE, SITE, "no pictures", NOON))
    assert ended.state is State.ROLLED_BACK
    assert "no pictures" in ended.history[-1].reason


def test_a_validation_replayed_changes_nothing_and_another_one_is_refused(run) -> None:
    cycle = run(in_canary)
    good = metrics(0.7, forklift=0.6)
    first = run(lambda r: transitions.accept_validation(r, cycle.id, SITE, good, NOON))
    assert run(lambda r: transitions.accept_validation(r, cycle.id, SITE, good, NOON)) == first
    with pytest.raises(WrongState, match="validation"):
        run(lambda r: transitions.accept_validation(r, cycle.id, SITE, metrics(0.9), NOON))


def test_a_release_that_would_undo_a_newer_one_is_taken_back(run) -> None:
    cycle = run(lambda r: in_canary(r, canaries=()))

    def another_site_was_first(r: Repository) -> None:
        other = NEW_STUDENT.model_copy(update={"id": digest("9")})
        r.models.add(other)
        r.releases.add(other, NEW_TUTOR.id, ReleaseStatus.RELEASED, (), "c2", NOON)

    run(another_site_was_first)
    ended = run(lambda r: transitions.accept_validation(r, cycle.id, SITE, metrics(0.9), NOON))
    assert ended.state is State.ROLLED_BACK
    assert "release 3 came first" in ended.history[-1].reason


def test_a_task_that_is_over_cannot_fail_any_more(run) -> None:
    cycle = run(extracting)
    failed = run(lambda r: transitions.fail_task(r, cycle.id, TaskKind.EXTRACT, SITE, "no room", NOON))
    assert failed.state is State.FAILED
    assert run(lambda r: transitions.fail_task(r, cycle.id, TaskKind.EXTRACT, SITE, "again", NOON)) == failed


def both_extracting(r: Repository) -> Cycle:
    cycle = transitions.start_cycle(r, [SITE, OTHER], "r1", {}, "operator/a", NOON)
    for site in (SITE, OTHER):
        transitions.offer(r, cycle.id, site, NOON, auto_approve=True)
        cycle = transitions.report_progress(r, cycle.id, site, BEGUN, NOON)
    return cycle


def test_new_classes_of_two_sites_in_one_cycle_get_ids_of_their_own(run) -> None:
    cycle = run(both_extracting)
    first = run(lambda r: transitions.propose_classes(r, cycle.id, SITE, ["forklift", "crane"], NOON))
    second = run(lambda r: transitions.propose_classes(r, cycle.id, OTHER, ["crane", "ladder"], NOON))
    assert first.names == (*GROWN.names, "crane")
    assert second.names == (*GROWN.names, "crane", "ladder")


def test_a_manifest_that_is_signed_anew_says_the_same(run) -> None:
    cycle = run(extracting)
    run(lambda r: transitions.propose_classes(r, cycle.id, SITE, ["forklift"], NOON))
    signed = manifest(cycle.id).model_copy(update={"signature": "01"})
    first = run(lambda r: transitions.accept_gap(r, SITE, signed, PEM, NOON))
    again = signed.model_copy(update={"signature": "02"})
    assert run(lambda r: transitions.accept_gap(r, SITE, again, "another", later(60))) == first
    assert (first.part(SITE).gap, first.part(SITE).certificate) == (signed, PEM)


def test_what_one_site_says_is_on_record_as_its_own(run) -> None:
    cycle = run(both_extracting)
    half = Progress(step="tutor-2", fraction=0.5)
    run(lambda r: transitions.report_progress(r, cycle.id, OTHER, half, later(9)))
    dropped = run(lambda r: transitions.fail_task(r, cycle.id, TaskKind.EXTRACT, SITE, "no room", later(10)))
    assert dropped.part(OTHER).progress == half
    assert (dropped.part(OTHER).progressed_at, dropped.part(SITE).progressed_at) == (later(9), later(10))
    assert dropped.part(SITE).dropped_because == "the site could not do extract: no room"
    assert (dropped.history[-1].actor, dropped.history[-1].state) == ("site/site-1", State.EXTRACTING)
    assert (dropped.approved, dropped.ended) == (True, False)

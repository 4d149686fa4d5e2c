"""Whom a release is for: which scope a cycle has, who is in it, and which release a device runs."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from itertools import permutations
from pathlib import Path

import pytest

from cloud_server import canary, scopes
from cloud_server.cycles import rebase, transitions
from cloud_server.entities import Cycle, ModelKind, Release, ReleaseStatus, Vitals
from cloud_server.scopes import FLEET
from cloud_server.states import State
from cloud_server.store import Repository
from cloud_server.store.database import Database, sqlite_url
from diredi.errors import InvalidInput, NotFound, Refused, WrongState
from diredi.labels import LabelSpace
from diredi.trust.identity import Identity, Role
from tests.unit.cloud_server.samples import (
    LABELS,
    NOON,
    STUDENT,
    TUTOR,
    digest,
    first_release,
    later,
    metrics,
    model,
)

ONE, TWO = "site-1", "site-2"
GROUPS = {ONE: "north", TWO: "north"}
ALICE = Identity(Role.OPERATOR, "alice")
SITE_1, SITE_2 = Identity(Role.SITE, ONE), Identity(Role.SITE, TWO)
CAMERA_2 = Identity(Role.DEVICE, "cam-1", TWO)


@pytest.fixture
def run(tmp_path: Path):
    """Runs a command in a transaction of its own."""
    database = Database(sqlite_url(tmp_path / "cloud.sqlite"))
    database.transact(first_release, writes=True)
    yield lambda work: database.transact(work, writes=True)
    database.close()


def release(version: int, scope: str, status: ReleaseStatus = ReleaseStatus.RELEASED, *canaries: str) -> Release:
    return Release(
        version=version, student_id=STUDENT.id, tutor_id=TUTOR.id, status=status, canaries=canaries, scope=scope,
        created=NOON,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "sites", "scope"),
    [
        ("", [ONE], FLEET),
        ("fleet", [ONE, "site-3"], FLEET),
        ("site", [ONE], "site:site-1"),
        ("site:site-1", [ONE], "site:site-1"),
        ("group:north", [TWO], "group:north"),
    ],
)
def test_a_scope_is_that_of_the_one_site_of_a_group_or_the_fleet(wanted: str, sites: list[str], scope: str) -> None:
    assert scopes.resolve_scope(wanted, sites, GROUPS) == scope


@pytest.mark.parametrize(
    ("wanted", "sites", "error"),
    [
        ("site", [ONE, TWO], InvalidInput),
        ("site:site-2", [ONE], InvalidInput),
        ("group:", [ONE], InvalidInput),
        ("group:south", [ONE], InvalidInput),
        ("Fleet", [ONE], InvalidInput),
        ("group:north", [ONE, "site-3"], Refused),
    ],
)
def test_a_scope_in_which_not_every_site_is_is_refused(wanted: str, sites: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        scopes.resolve_scope(wanted, sites, GROUPS)


def test_everybody_sees_the_scopes_that_his_certificate_is_in() -> None:
    assert scopes.visible_scopes(ALICE, GROUPS) is None
    assert scopes.visible_scopes(SITE_1, GROUPS) == ("site:site-1", "group:north", "fleet")
    assert scopes.visible_scopes(CAMERA_2, {}) == ("site:site-2", "fleet")
    assert scopes.visible_scopes(Identity(Role.CLOUD, "cloud"), GROUPS) == ("fleet",)


def test_a_cycle_starts_from_the_narrowest_scope_that_it_is_in() -> None:
    assert scopes.wider_scopes("site:site-1", "north") == ("site:site-1", "group:north", "fleet")
    assert scopes.wider_scopes("group:north", "") == ("group:north", "fleet")
    assert scopes.wider_scopes(FLEET, "north") == ("fleet",)


def test_a_device_runs_the_newest_release_of_the_narrowest_scope() -> None:
    mine = scopes.scopes_of(ONE, "north")
    releases = [
        release(1, FLEET), release(2, "site:site-1"), release(3, "group:north"), release(4, "site:site-1"),
        release(5, "site:site-2"), release(6, FLEET), release(7, "group:south"),
        release(8, "site:site-1", ReleaseStatus.WITHDRAWN),
    ]  # fmt: skip

    def selected(*wanted: int, of: tuple[str, ...] = mine) -> int:
        found = canary.select_release("site-1/cam-1", [r for r in releases if r.version in wanted], of)
        return 0 if found is None else found.version

    assert selected(*range(1, 9)) == 4
    assert selected(1, 3, 6, 8) == 3
    assert selected(1, 5, 6, 7) == 6
    assert selected(5, 7) == 0
    assert selected(*range(1, 9), of=(FLEET,)) == 6


def test_a_canary_tests_its_release_also_where_it_would_run_another() -> None:
    releases = [release(1, FLEET), release(2, "site:site-1"), release(3, FLEET, ReleaseStatus.CANARY, "site-1/cam-1")]
    mine = scopes.scopes_of(ONE, "")
    assert canary.select_release("site-1/cam-1", releases, mine) == releases[2]
    assert canary.select_release("site-1/cam-2", releases, mine) == releases[1]
    passed_by = [*releases, release(4, FLEET)]
    assert canary.select_release("site-1/cam-1", passed_by, mine) == releases[1]


def released(r: Repository, site: str, scope: str, request_id: str, labels: LabelSpace, *ids: str) -> Cycle:
    """A cycle with a release, as its steps would leave it; the ids are of its tutor and its student."""
    cycle = transitions.start_cycle(r, [site], request_id, {}, "operator/a", NOON, scope)
    tutor, student = model(ids[0], labels=labels), model(ids[1], ModelKind.STUDENT, labels)
    for made in (tutor, student):
        r.models.add(made.model_copy(update={"cycle_id": cycle.id}))
    for state in (State.OFFERED, State.EXTRACTING, State.UPLOADED, State.APPLIED, State.GATED, State.REDISTILLED):
        r.cycles.move(cycle.id, state, NOON, "cloud", "")
    new = r.releases.add(student, tutor.id, ReleaseStatus.RELEASED, (), cycle.id, NOON, cycle.scope)
    r.cycles.change_part(cycle.id, site, NOON, after=metrics(0.7, crane=0.6).model_dump(mode="json"))
    ids_made = {"updated_tutor_id": tutor.id, "updated_student_id": student.id, "release_version": new.version}
    r.cycles.move(cycle.id, State.CANARY, NOON, "cloud", "", **ids_made)
    return r.cycles.move(cycle.id, State.RELEASED, NOON, "cloud", "")


def test_class_names_of_a_scope_continue_those_of_its_base_and_are_no_one_elses(run) -> None:
    def names_in(scope: str, base: LabelSpace, *names: str) -> tuple[str, ...]:
        return run(lambda r: r.classes.propose(scope, base, names, "c1", NOON)).names

    assert names_in("site:site-1", LABELS, "crane") == (*LABELS.names, "crane")
    assert names_in(FLEET, LABELS, "truck") == (*LABELS.names, "truck")
    assert names_in("site:site-2", LABELS, "bus") == (*LABELS.names, "bus")
    assert names_in("site:site-1", LABELS, "lift", "crane", "car") == (*LABELS.names, "crane", "lift")
    # The base has learned one of them, and then stands on a fleet that knows another class at that id.
    assert names_in("site:site-1", LABELS.expand(["crane"]), "lift") == (*LABELS.names, "crane", "lift")
    assert names_in("site:site-1", LABELS.expand(["truck"]), "crane") == (*LABELS.names, "truck", "crane", "lift")
    known = run(lambda r: r.classes.labels())
    assert known is not None
    assert known.names == (*LABELS.names, "truck")
    with pytest.raises(InvalidInput, match="'Crane' may be 'crane'"):
        names_in("site:site-1", LABELS, "Crane")


def test_a_name_that_a_scope_gave_before_the_fleet_had_another_spelling_of_it_is_decided_on_again(run) -> None:
    def propose(base: LabelSpace, distinct: tuple[str, ...], *names: str) -> tuple[str, ...]:
        return run(lambda r: r.classes.propose("site:site-1", base, names, "c1", NOON, distinct)).names

    assert propose(LABELS, (), "crane") == (*LABELS.names, "crane")
    base = LABELS.expand(["Cranes"])
    with pytest.raises(InvalidInput, match="'crane' may be 'Cranes'"):
        propose(base, (), "crane")
    assert propose(base, (), "Cranes", "lift") == (*base.names, "crane", "lift")
    assert propose(base, ("crane",), "crane") == (*base.names, "crane", "lift")


def test_the_next_cycle_of_a_scope_starts_from_its_own_newest_release(run) -> None:
    own = run(lambda r: released(r, ONE, "site", "own", LABELS.expand(["crane"]), "1", "2"))
    fleet = run(lambda r: released(r, TWO, "fleet", "fleet", LABELS.expand(["truck"]), "3", "4"))

    def bases(site: str, scope: str) -> tuple[str, str]:
        cycle = run(lambda r: transitions.start_cycle(r, [site], f"{site} {scope}", {}, "operator/a", NOON, scope))
        run(lambda r: transitions.decline(r, cycle.id, site, "", NOON))
        return cycle.base_tutor_id, cycle.base_student_id

    assert bases(ONE, "site") == (own.updated_tutor_id, own.updated_student_id)
    assert bases(ONE, "fleet") == (fleet.updated_tutor_id, fleet.updated_student_id)
    assert bases(TWO, "site") == (fleet.updated_tutor_id, fleet.updated_student_id)


def test_a_release_of_another_scope_does_not_supersede_a_cycle(run) -> None:
    waiting = run(lambda r: transitions.start_cycle(r, [TWO], "r", {}, "operator/a", NOON))
    run(lambda r: released(r, ONE, "site", "own", LABELS.expand(["crane"]), "1", "2"))
    assert run(lambda r: transitions.explain_superseded(r, waiting)) == ""


def test_devices_with_a_release_of_a_narrower_scope_are_no_canaries_of_a_wider_one(run) -> None:
    for site in (ONE, TWO):
        run(lambda r, site=site: r.devices.record_contact("cam-1", site, NOON, Vitals(release_version=1)))
    own = run(lambda r: released(r, ONE, "site", "own", LABELS.expand(["crane"]), "1", "2"))
    fleet = run(lambda r: transitions.start_cycle(r, [ONE, TWO], "r", {}, "operator/a", NOON))

    def testers(cycle: Cycle, site: str) -> list[str]:
        return [device.key for device in run(lambda r: transitions.list_testers(r, cycle, site))]

    assert testers(fleet, ONE) == []
    assert testers(fleet, TWO) == ["site-2/cam-1"]
    assert testers(own, ONE) == ["site-1/cam-1"]


def test_what_is_outside_of_a_scope_is_not_found_there(run) -> None:
    own = run(lambda r: released(r, ONE, "site", "own", LABELS.expand(["crane"]), "1", "2"))

    def see(actor: Identity):
        def look(r: Repository) -> tuple[list[str], list[str]]:
            seen = r.visible_to(actor)
            return [m.id for m in r.models.all(visible=seen)], [c.id for c in r.cycles.recent(visible=seen)]

        return run(look)

    assert [len(seen) for seen in see(ALICE)] == [len(seen) for seen in see(SITE_1)] == [4, 1]
    for outside in (SITE_2, CAMERA_2):
        models, cycles = see(outside)
        assert (sorted(models), cycles) == ([TUTOR.id, STUDENT.id], [])
        for get in (
            lambda r, seen: r.models.get(own.updated_tutor_id, seen),
            lambda r, seen: r.models.get("1" * 8, seen),
            lambda r, seen: r.cycles.get(own.id, seen),
            lambda r, seen: r.releases.get(own.release_version, seen),
        ):
            with pytest.raises(NotFound):
                run(lambda r, get=get, outside=outside: get(r, r.visible_to(outside)))
    assert run(lambda r: r.models.get(own.updated_tutor_id)).scope == "site:site-1"
    assert run(lambda r: r.models.get(TUTOR.id)).scope == FLEET


def test_a_model_that_two_scopes_have_made_is_seen_by_both(run) -> None:
    """The same bytes are one model, and who has made them first must not hide them from the other."""
    labels = LABELS.expand(["crane"])
    run(lambda r: released(r, ONE, "site", "own", labels, "1", "2"))
    run(lambda r: released(r, TWO, "site", "own too", labels, "1", "2"))
    for actor in (SITE_1, SITE_2):
        assert run(lambda r, actor=actor: len(r.models.all(visible=r.visible_to(actor)))) == 4
    assert run(lambda r: len(r.models.all(visible=(FLEET,)))) == 2
    assert run(lambda r: r.models.get(digest("1"))).labels == labels


def test_a_site_that_joins_a_group_sees_what_the_group_has_learned_until_it_leaves(run) -> None:
    run(lambda r: r.groups.set("north", [ONE]))
    learned = run(lambda r: released(r, ONE, "group:north", "r", LABELS.expand(["crane"]), "1", "2"))
    with pytest.raises(NotFound):
        run(lambda r: r.cycles.get(learned.id, r.visible_to(SITE_2)))
    run(lambda r: r.groups.set("north", [ONE, TWO]))
    assert run(lambda r: r.cycles.get(learned.id, r.visible_to(SITE_2))).scope == "group:north"
    run(lambda r: r.groups.set("north", [ONE]))
    with pytest.raises(NotFound):
        run(lambda r: r.cycles.get(learned.id, r.visible_to(SITE_2)))
    assert run(lambda r: r.groups.by_site()) == {ONE: "north"}


def start_due(r: Repository, now: datetime) -> list[Cycle]:
    """What the cloud does by itself after each change."""
    started = [rebase.start_due_rebase(r, now, scope) for scope in rebase.find_due_rebases(r)]
    return [cycle for cycle in started if cycle is not None]


CRANE, TRUCK = LABELS.expand(["crane"]), LABELS.expand(["truck"])


def own_and_newer_fleet(r: Repository) -> tuple[Cycle, Cycle]:
    """A site has learned twice for itself, and then the fleet has a newer release."""
    released(r, ONE, "site", "own", CRANE, "1", "2")
    own = released(r, ONE, "site", "own again", CRANE, "3", "4")
    return own, released(r, TWO, "fleet", "fleet", TRUCK, "5", "6")


def test_a_newer_fleet_release_is_a_reason_to_rebase_all_that_a_site_has_learned(run) -> None:
    own, fleet = run(own_and_newer_fleet)
    (cycle,) = run(lambda r: start_due(r, NOON))
    assert (cycle.scope, cycle.rebases, cycle.state) == ("site:site-1", own.release_version, State.UPLOADED)
    assert (cycle.base_tutor_id, cycle.base_student_id) == (fleet.updated_tutor_id, fleet.updated_student_id)
    assert cycle.recipe["lam"] is None
    (part,) = cycle.parts
    assert (part.site, part.approved, part.gap, part.before) == (ONE, True, None, own.part(ONE).after)
    tutors, students = run(lambda r: rebase.find_lineages(r, cycle))
    assert [m.id for m in (tutors.learned, tutors.origin, tutors.target)] == [digest("3"), TUTOR.id, digest("5")]
    assert [m.id for m in (students.learned, students.origin, students.target)] == [
        digest("4"),
        STUDENT.id,
        digest("6"),
    ]


def test_a_rebase_is_started_once_by_itself_and_again_only_when_asked(run) -> None:
    run(own_and_newer_fleet)
    (first,) = run(lambda r: start_due(r, NOON))
    with pytest.raises(WrongState, match="under way"):
        run(lambda r: rebase.start_rebase(r, "site:site-1", "again", "operator/a", NOON))
    assert first.id in run(lambda r: rebase.explain_stale(r, "site:site-1"))
    run(lambda r: r.cycles.move(first.id, State.REJECTED, NOON, "cloud", "mAP50 fell"))
    assert run(lambda r: start_due(r, later(1))) == []
    assert "REJECTED" in run(lambda r: rebase.explain_stale(r, "site:site-1"))
    second = run(lambda r: rebase.start_rebase(r, "site:site-1", "again", "operator/a", later(2)))
    assert run(lambda r: rebase.start_rebase(r, "site:site-1", "again", "operator/a", later(3))) == second
    with pytest.raises(InvalidInput, match="request id"):
        run(lambda r: rebase.start_rebase(r, "site:site-1", "own", "operator/a", NOON))


def test_a_rebase_waits_for_a_cycle_of_its_site_and_is_of_no_use_after_a_newer_release(run) -> None:
    own, _ = run(own_and_newer_fleet)
    busy = run(lambda r: transitions.start_cycle(r, [ONE], "busy", {}, "operator/a", NOON, "site"))
    assert busy.base_tutor_id == own.updated_tutor_id  # what the site's devices run, not the fleet's
    assert run(lambda r: start_due(r, NOON)) == []
    assert run(lambda r: rebase.explain_stale(r, "site:site-1")) == "is not on release 4 yet"
    run(lambda r: transitions.decline(r, busy.id, ONE, "", NOON))
    (cycle,) = run(lambda r: start_due(r, NOON))
    assert run(lambda r: transitions.explain_superseded(r, cycle)) == ""
    run(lambda r: released(r, TWO, "fleet", "fleet again", TRUCK, "7", "8"))
    assert "newer release" in run(lambda r: transitions.explain_superseded(r, cycle))


def test_what_stands_on_the_newest_release_is_not_rebased(run) -> None:
    run(lambda r: released(r, TWO, "fleet", "fleet", TRUCK, "5", "6"))
    run(lambda r: released(r, ONE, "site", "own", TRUCK.expand(["crane"]), "1", "2"))
    assert run(lambda r: start_due(r, NOON)) == []
    assert run(lambda r: rebase.explain_stale(r, "site:site-1")) == ""
    for scope, error in (("site:site-1", WrongState), ("site:site-2", NotFound), (FLEET, InvalidInput)):
        with pytest.raises(error):
            run(lambda r, scope=scope: rebase.start_rebase(r, scope, "r", "operator/a", NOON))


def test_a_group_is_rebased_on_the_fleet_and_its_site_then_on_the_group(run) -> None:
    run(lambda r: r.groups.set("north", [ONE, TWO]))
    run(lambda r: released(r, TWO, "group:north", "group", CRANE, "1", "2"))
    run(lambda r: released(r, ONE, "site", "own", CRANE.expand(["lift"]), "3", "4"))
    run(lambda r: released(r, TWO, "fleet", "fleet", TRUCK, "5", "6"))
    assert [cycle.scope for cycle in run(lambda r: start_due(r, NOON))] == ["group:north"]
    assert run(lambda r: rebase.explain_stale(r, "site:site-1")) == ""  # it stands on the group's
    run(lambda r: r.groups.set("north", [TWO]))
    assert (
        run(lambda r: rebase.explain_stale(r, "site:site-1")) == "is not on release 4 yet"
    )  # its next wider is the fleet


class Fleet:
    """Cycles that end as their steps would let them, and what each model has learned, and how often."""

    def __init__(self, r: Repository) -> None:
        self.r = r
        self.learned: dict[str, Counter[str]] = {TUTOR.id: Counter(LABELS.names), STUDENT.id: Counter(LABELS.names)}
        r.sites.record_contact("site-3", NOON)

    def start(self, site: str, scope: str) -> Cycle:
        return transitions.start_cycle(self.r, [site], f"{site} {scope}", {}, "operator/a", NOON, scope)

    def release(self, cycle: Cycle, *names: str) -> Cycle:
        """End a cycle whose site teaches some classes, or a rebase, which teaches none."""
        r, made = self.r, []
        lineages = rebase.find_lineages(r, cycle) if cycle.rebases else (None, None)
        for kind, base, lineage in zip(
            (ModelKind.TUTOR, ModelKind.STUDENT), (cycle.base_tutor_id, cycle.base_student_id), lineages, strict=True
        ):
            gap = Counter(names)
            labels = r.models.get(base).labels.expand(names)
            if lineage is not None:
                gap = self.learned[lineage.learned.id].copy()
                gap.subtract(self.learned[lineage.origin.id])
                labels = labels.expand(lineage.learned.labels.names)
            digest = f"sha256:{len(self.learned):064x}"
            self.learned[digest] = self.learned[base] + gap
            new = model("1", kind, labels).model_copy(update={"id": digest, "cycle_id": cycle.id})
            made.append(r.models.add(new))
        tutor, student = made
        new = r.releases.add(student, tutor.id, ReleaseStatus.CANARY, (), cycle.id, NOON, cycle.scope)
        at_site = () if cycle.rebases else (State.OFFERED, State.EXTRACTING, State.UPLOADED)
        for state in (*at_site, State.APPLIED, State.GATED, State.REDISTILLED):
            r.cycles.move(cycle.id, state, NOON, "cloud", "")
        for part in cycle.parts:
            r.cycles.change_part(cycle.id, part.site, NOON, after=metrics(0.7).model_dump(mode="json"))
        ids = {"updated_tutor_id": tutor.id, "updated_student_id": student.id, "release_version": new.version}
        waiting = r.cycles.move(cycle.id, State.CANARY, NOON, "cloud", "", **ids)
        conflict = transitions.explain_superseded(r, waiting)
        state = State.ROLLED_BACK if conflict else State.RELEASED
        return transitions.end_canary(r, waiting, canary.Decision(state, conflict), "cloud", NOON, {})

    def rebase_all(self) -> list[str]:
        """Let the cloud do what it does by itself, until it has nothing to do; return the scopes of its rebases."""
        done = []
        while cycles := start_due(self.r, NOON):
            done += [cycle.scope for cycle in cycles]
            assert [str(self.release(cycle).state) for cycle in cycles] == ["RELEASED"] * len(cycles)
        return done

    def knows(self, site: str) -> dict[str, int]:
        """What the devices of a site have learned beside the first classes, and how often."""
        release = self.r.releases.current(scopes.scopes_of(site, self.r.groups.of_site(site)))
        assert release is not None
        assert set(self.r.models.get(release.student_id).labels.names) == set(self.learned[release.student_id])
        return dict(self.learned[release.student_id] - Counter(LABELS.names))


LEARN = {"site": (ONE, "crane"), "group:north": (TWO, "lift"), "fleet": ("site-3", "truck")}


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("order", list(permutations(LEARN)))
def test_in_whatever_order_scopes_learn_no_device_loses_a_class_for_good(run, order, at_once: bool) -> None:
    def learn(r: Repository) -> None:
        fleet, cycles = Fleet(r), {}
        r.groups.set("north", [ONE, TWO])
        if at_once:
            cycles = {scope: fleet.start(LEARN[scope][0], scope) for scope in order}
        for number, scope in enumerate(order):
            site, name = LEARN[scope]
            ended = fleet.release(cycles.get(scope) or fleet.start(site, scope), name)
            assert ended.state is State.RELEASED, ended.history[-1].reason
            assert fleet.knows(site)[name] == 1
            for earlier in order[:number]:  # whoever has taught his own scope has what he taught
                assert fleet.knows(LEARN[earlier][0])[LEARN[earlier][1]] == 1
        assert len(fleet.rebase_all()) <= 3
        assert fleet.knows("site-3") == {"truck": 1}
        assert fleet.knows(TWO) == {"truck": 1, "lift": 1}
        assert fleet.knows(ONE) == {"truck": 1, "lift": 1, "crane": 1}
        assert rebase.list_stale(r, None) == []

    run(learn)


def test_a_release_that_a_wider_one_has_overtaken_says_so(run) -> None:
    def learn(r: Repository) -> None:
        fleet = Fleet(r)
        own = fleet.start(ONE, "site")
        fleet.release(fleet.start(TWO, "fleet"), "truck")
        ended = fleet.release(own, "crane")
        assert ended.history[-1].reason.endswith("release 3 is not on release 2 yet")
        (stale,) = rebase.list_stale(r, scopes.visible_scopes(SITE_1, {}))
        assert (stale.release.version, stale.lacks) == (3, "is not on release 2 yet")
        assert rebase.list_stale(r, scopes.visible_scopes(SITE_2, {})) == []
        (cycle,) = start_due(r, NOON)
        r.cycles.move(cycle.id, State.REJECTED, NOON, "cloud", "mAP50 fell")
        (stale,) = rebase.list_stale(r, None)
        assert "diredi cycle rebase --scope site:site-1" in stale.lacks

    run(learn)


def test_a_second_release_of_one_scope_still_supersedes_what_began_before_the_first(run) -> None:
    def learn(r: Repository) -> None:
        fleet = Fleet(r)
        r.groups.set("north", [ONE, TWO])
        cycles = [fleet.start(site, "group:north") for site in (ONE, TWO)]
        assert fleet.release(cycles[0], "crane").state is State.RELEASED
        late = fleet.release(cycles[1], "lift")
        assert (late.state, fleet.knows(TWO)) == (State.ROLLED_BACK, {"crane": 1})

    run(learn)


def test_a_site_that_leaves_its_group_keeps_what_its_own_release_has_of_it(run) -> None:
    def learn(r: Repository) -> None:
        fleet = Fleet(r)
        r.groups.set("north", [ONE, TWO])
        fleet.release(fleet.start(TWO, "group:north"), "lift")
        fleet.release(fleet.start(ONE, "site"), "crane")
        r.groups.set("north", [TWO])
        assert fleet.rebase_all() == []
        assert fleet.knows(ONE) == {"lift": 1, "crane": 1}
        fleet.release(fleet.start("site-3", "fleet"), "truck")
        assert fleet.rebase_all() == ["group:north", "site:site-1"]
        assert fleet.knows(ONE) == {"truck": 1, "lift": 1, "crane": 1}

    run(learn)


def test_a_site_that_joins_a_group_waits_until_the_group_has_what_the_site_stands_on(run) -> None:
    def learn(r: Repository) -> None:
        fleet = Fleet(r)
        r.groups.set("north", [TWO])
        fleet.release(fleet.start(TWO, "group:north"), "lift")
        fleet.release(fleet.start("site-3", "fleet"), "truck")
        fleet.release(fleet.start(ONE, "site"), "crane")
        r.groups.set("north", [ONE, TWO])
        assert fleet.rebase_all() == ["group:north", "site:site-1"]
        assert fleet.knows(ONE) == {"truck": 1, "lift": 1, "crane": 1}

    run(learn)

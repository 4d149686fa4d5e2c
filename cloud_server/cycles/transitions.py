"""The rules of a cycle: what may be asked of it in which state, and what is recorded then.

Each function runs within one transaction (`r`), decides by what is stored, and records what follows. None uses the
network, the clock or files: the current time and the caller are arguments. What a site reports moves its own part of
the cycle, and the whole cycle where that follows (`states.joint_state`).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from cloud_server import canary, gate
from cloud_server.cycles import rebase
from cloud_server.entities import (
    EXTERNAL,
    Cycle,
    Device,
    ExternalValidation,
    GapManifest,
    Install,
    Json,
    Outcome,
    Part,
    Progress,
    ReleaseStatus,
)
from cloud_server.quotas import Quotas, check_metrics_names
from cloud_server.scopes import FLEET, resolve_scope, scopes_of, wider_scopes
from cloud_server.states import BEFORE_UPLOAD, State
from cloud_server.store import Repository
from cloud_server.tasks import TaskKind
from diredi.errors import InvalidInput, WrongState
from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace

CLOUD: Final = "cloud"
"""The actor of the cloud's own transitions."""
MAX_SITES: Final = 100
_MAX_REQUEST_ID: Final = 128
_MAX_REASON: Final = 500


def start_cycle(
    r: Repository,
    sites: Sequence[str],
    request_id: str,
    recipe: Json,
    actor: str,
    now: datetime,
    wanted_scope: str = FLEET,
) -> Cycle:
    """Add a cycle; the same request id gives the same cycle.

    Args:
        r: The repository.
        sites: The sites to learn from.
        request_id: Made up by the caller, 1 to 128 characters.
        recipe: The whole recipe, validated.
        actor: The caller.
        now: The current time.
        wanted_scope: Whom the release is for: "fleet", "site" or "group:NAME".

    Raises:
        InvalidInput: The request id, the list of sites or the scope is not usable, or the id was used for others.
        NotFound: A site has never called.
        Refused: A site is not in the group.
        WrongState: A site has an unfinished cycle, or there is no release yet.
    """
    check_request_id(request_id)
    if not 0 < len(sites) <= MAX_SITES or len(set(sites)) != len(sites):
        raise InvalidInput(f"a cycle takes 1 to {MAX_SITES} sites, each once: name the sites to learn from")
    groups = r.groups.by_site()
    scope = resolve_scope(wanted_scope, sites, groups)
    known = r.cycles.find_by_request(request_id)
    if known is not None:
        if set(known.sites) != set(sites) or known.scope != scope:
            used_for = f"{', '.join(known.sites)} with scope {known.scope}"
            raise InvalidInput(f"request id {request_id!r} was used for {used_for}: make up a new one")
        return known
    for site in sites:
        r.sites.get(site)
        if running := r.cycles.unfinished(site):
            first = running[0]
            raise WrongState(f"site {site!r} has cycle {first.id} under way ({first.state}): wait until it ends")
    release = r.releases.current(wider_scopes(scope, groups.get(sites[0], "")))
    if release is None:
        raise WrongState("there is no release yet, the cloud is still making the first one: try again in a minute")
    cycle = Cycle(
        id=uuid.uuid4().hex[:12], request_id=request_id, state=State.REQUESTED, scope=scope, recipe=recipe,
        base_tutor_id=release.tutor_id, base_student_id=release.student_id, progressed_at=now, created=now,
        parts=tuple(Part(site=site, progressed_at=now) for site in sites),
    )  # fmt: skip
    for_whom = "" if scope == FLEET else f" for {scope}"
    return r.cycles.add(cycle, actor, f"an update was asked for{for_whom}, from release {release.version}")


def check_request_id(request_id: str) -> None:
    """Raises InvalidInput where a request id is empty or too long."""
    if not 0 < len(request_id) <= _MAX_REQUEST_ID:
        raise InvalidInput(f"a request id has 1 to {_MAX_REQUEST_ID} characters: make one up for each new request")


def offer(
    r: Repository, cycle_id: str, site: str, now: datetime, *, auto_approve: bool, publish_style: bool = False
) -> Cycle:
    """Record that a site gets the task, and its policies; the task is sent afterwards.

    A second offer only updates the policies.

    Args:
        r: The repository.
        cycle_id: The cycle.
        site: The site that gets the task.
        now: The current time.
        auto_approve: Whether the site approves without asking a person.
        publish_style: Whether the site's manifest may have a style.
    """
    cycle = r.cycles.get(cycle_id)
    part = cycle.part(site)
    if part.state in {State.OFFERED, State.EXTRACTING} and part.publishes_style != publish_style:
        cycle = r.cycles.change_part(cycle_id, site, now, publishes_style=publish_style)
    if part.state is State.REQUESTED:
        reason = "offered; the site approves by itself" if auto_approve else "offered; waits for the site's approval"
        return r.cycles.move_part(
            cycle_id, site, State.OFFERED, now, f"site/{site}", reason,
            approved=auto_approve, publishes_style=publish_style,
        )  # fmt: skip
    if part.state is State.OFFERED and auto_approve and not part.approved:
        return approve(r, cycle_id, site, now, "the site approves by itself")
    return cycle


def approve(r: Repository, cycle_id: str, site: str, now: datetime, reason: str = "approved") -> Cycle:
    """Record a site's yes. A second yes changes nothing.

    Raises:
        WrongState: The site is past approval.
    """
    cycle = r.cycles.get(cycle_id)
    part = cycle.part(site)
    if part.approved and part.active and not cycle.ended:
        return cycle
    if part.state not in {State.REQUESTED, State.OFFERED}:
        raise WrongState(
            f"cycle {cycle_id} is {_describe_state(cycle, site)}: only one REQUESTED or OFFERED can be approved"
        )
    return r.cycles.move_part(cycle_id, site, State.OFFERED, now, f"site/{site}", reason, approved=True)


def decline(r: Repository, cycle_id: str, site: str, reason: str, now: datetime) -> Cycle:
    """Record a site's no. A second no changes nothing.

    Raises:
        WrongState: The site's gap has been uploaded.
    """
    cycle = r.cycles.get(cycle_id)
    part = cycle.part(site)
    if part.state is State.DECLINED:
        return cycle
    if part.state not in BEFORE_UPLOAD:
        state = _describe_state(cycle, site)
        raise WrongState(f"cycle {cycle_id} is {state}: a site can decline only before its gap is uploaded")
    return drop_site(r, cycle_id, site, State.DECLINED, reason[:_MAX_REASON] or "no reason given", f"site/{site}", now)


def drop_site(r: Repository, cycle_id: str, site: str, state: State, reason: str, actor: str, now: datetime) -> Cycle:
    """Take a site out of a cycle. The cycle goes on with the others, or ends where none is left.

    Args:
        r: The repository.
        cycle_id: The cycle.
        site: The site that drops out.
        state: DECLINED or FAILED.
        reason: Why, for the record.
        actor: The site itself, or the cloud.
        now: The current time.
    """
    recorded_reason = reason if actor == f"site/{site}" else f"{site} drops out: {reason}"
    return r.cycles.move_part(cycle_id, site, state, now, actor, recorded_reason, dropped_because=reason)


def report_progress(r: Repository, cycle_id: str, site: str, progress: Progress, now: datetime) -> Cycle:
    """Record how far a site is; the first report says that it has begun.

    Raises:
        WrongState: The site has not approved the cycle, or is not extracting.
    """
    cycle = r.cycles.get(cycle_id)
    part = cycle.part(site)
    if part.state is State.OFFERED and part.approved:
        r.cycles.move_part(cycle_id, site, State.EXTRACTING, now, f"site/{site}", "the site has begun")
    elif part.state is not State.EXTRACTING:
        raise WrongState(
            f"cycle {cycle_id} is {_describe_state(cycle, site)}, it takes no progress from its site: drop the task"
        )
    return r.cycles.record_progress(cycle_id, progress, now, site)


def propose_classes(
    r: Repository,
    cycle_id: str,
    site: str,
    names: Sequence[str],
    now: datetime,
    distinct: Collection[str] = (),
    quotas: Quotas | None = None,
) -> LabelSpace:
    """Give ids to class names and return the whole label space of the cycle's scope.

    Known names keep their ids. New ones get the next ids, which hold for all sites of the scope whatever becomes of the
    cycle. Other scopes do not learn of them.

    Raises:
        WrongState: The site has not approved the cycle, or its gap has been uploaded.
        InvalidInput: A new name may mean a known class, or another new one, and is not in `distinct`.
        NoRoom: The new names are too many for the cycle, the site or the label space.
    """
    cycle = r.cycles.get(cycle_id)
    part = cycle.part(site)
    if part.state not in BEFORE_UPLOAD or not part.approved:
        state = _describe_state(cycle, site)
        raise WrongState(f"cycle {cycle_id} is {state}: only an approved one may propose, before its upload")
    r.cycles.change_part(cycle_id, site, now)
    base = r.models.get(cycle.base_tutor_id).labels
    known = r.classes.labels_of(cycle.scope, base) or base
    new = len(set(names) - set(known.names))
    if new:
        (quotas or Quotas()).check_classes(
            site,
            in_cycle=new + r.classes.count_proposed(site, cycle_id),
            of_site=new + r.classes.count_proposed(site),
            in_all=new + len(known),
        )
    return r.classes.propose(cycle.scope, base, names, cycle_id, now, distinct, site)


def check_manifest(r: Repository, site: str, manifest: GapManifest) -> bool:
    """Check a manifest against the cycle, and return whether it has been accepted before.

    Raises:
        WrongState: The site is not extracting, or the gap has another base than the cycle.
        InvalidInput: The manifest is for another scope, has unknown classes, or a style that was not announced.
    """
    cycle = r.cycles.get(manifest.cycle_id)
    part = cycle.part(site)
    if part.gap is not None and part.gap.equals_unsigned(manifest):
        return True
    if part.state is not State.EXTRACTING:
        raise WrongState(
            f"cycle {cycle.id} is {_describe_state(cycle, site)}: it takes a gap only while it is EXTRACTING"
        )
    if manifest.scope not in {"", cycle.scope}:
        raise InvalidInput(f"the gap is for {manifest.scope[:80]}, the cycle is for {cycle.scope}: send none to it")
    if manifest.style is not None and not part.publishes_style:
        raise InvalidInput("the manifest has a style, but the site's policy says that it publishes none: leave it out")
    _check_base("tutor gap", manifest.tutor_gap.base_id, cycle.base_tutor_id)
    if manifest.student_gap is not None:
        _check_base("student gap", manifest.student_gap.base_id, cycle.base_student_id)
    base = r.models.get(cycle.base_tutor_id).labels
    known = r.classes.labels_of(cycle.scope, base)
    if known is None or not known.extends(manifest.labels) or not manifest.labels.extends(base):
        raise InvalidInput(
            f"the gap's classes ({', '.join(manifest.labels.names)}) are not those that the cloud gave ids to: "
            "propose the classes first and extract with the labels that come back"
        )
    for metrics in manifest.all_metrics:
        check_metrics_names(metrics.per_class, known.names, "the manifest")
    return False


def accept_gap(r: Repository, site: str, manifest: GapManifest, certificate: str, now: datetime) -> Cycle:
    """Record a gap that has been verified: the site is UPLOADED, and with the last site the cycle is.

    Raises:
        WrongState: As `check_manifest`.
        InvalidInput: As `check_manifest`.
    """
    if check_manifest(r, site, manifest):
        return r.cycles.get(manifest.cycle_id)
    metrics = {"before": manifest.student_before.model_dump(mode="json"), "bytes": manifest.tutor_gap.blob.bytes}
    reason = f"gap of {manifest.tutor_gap.blob.bytes} bytes received and verified"
    return r.cycles.move_part(
        manifest.cycle_id, site, State.UPLOADED, now, f"site/{site}", reason, metrics,
        gap=manifest.model_dump(mode="json"), certificate=certificate,
    )  # fmt: skip


def accept_validation(r: Repository, cycle_id: str, site: str, after: DetectionMetrics, now: datetime) -> Cycle:
    """Record how the candidate does on a site's held-out images, and decide the cycle where nothing else is missing.

    Raises:
        WrongState: The cycle waits for no validation of this site.
        InvalidInput: The metrics are of classes that nobody has an id for.
    """
    cycle = r.cycles.get(cycle_id)
    part = cycle.part(site)
    if part.after == after:
        return cycle
    if cycle.state is not State.CANARY or not part.active or part.after is not None:
        raise WrongState(
            f"cycle {cycle_id} is {_describe_state(cycle, site)} and waits for no validation: drop the task"
        )
    base = r.models.get(cycle.base_tutor_id).labels
    check_metrics_names(after.per_class, (r.classes.labels_of(cycle.scope, base) or base).names, "the validation")
    r.cycles.change_part(cycle_id, site, now, after=after.model_dump(mode="json"))
    return decide_canary(r, cycle_id, f"site/{site}", now)


def choose_external(r: Repository, cycle: Cycle, online: Collection[str], count: int) -> list[str]:
    """Return sites of a cycle's scope that take no part in it and allow to be asked about its candidate.

    Which ones follows from the cycle's id, so that it is not the same ones each time.

    Args:
        r: The repository.
        cycle: The cycle.
        online: The names of the sites that are connected.
        count: At most so many are chosen.
    """
    if cycle.rebases:
        return []  # it carries over what its own sites have learned, and nobody else has that
    groups = r.groups.by_site()
    free = [
        site.name
        for site in r.sites.all()
        if site.validates_external
        and site.name in online
        and site.name not in cycle.sites
        and cycle.scope in scopes_of(site.name, groups.get(site.name, ""))
    ]
    return sorted(free, key=lambda name: hashlib.sha256(f"{cycle.id}\n{name}".encode()).digest())[:count]


def accept_external(
    r: Repository, cycle_id: str, site: str, before: DetectionMetrics, after: DetectionMetrics, now: datetime
) -> Cycle:
    """Record what a site that takes no part says of the candidate, and decide the cycle where nothing else is missing.

    Raises:
        WrongState: The cycle does not wait for this site.
        InvalidInput: The metrics are of classes that nobody has an id for.
    """
    cycle = r.cycles.get(cycle_id)
    asked, said = cycle.external.get(site), ExternalValidation(before=before, after=after)
    if asked == said:
        return cycle
    if asked is None or not asked.is_open or cycle.state is not State.CANARY:
        raise WrongState(f"cycle {cycle_id} waits for no validation of site {site}: drop the task")
    base = r.models.get(cycle.base_tutor_id).labels
    known = (r.classes.labels_of(cycle.scope, base) or base).names
    for metrics in (before, after):
        check_metrics_names(metrics.per_class, known, "the validation")
    r.cycles.record_external(cycle_id, site, said, now)
    return decide_canary(r, cycle_id, f"site/{site}", now)


def give_up_external(r: Repository, cycle_id: str, sites: Collection[str], why: str, now: datetime) -> Cycle:
    """Wait no longer for sites that take no part: without an answer of theirs, the others decide."""
    for site in sites:
        r.cycles.record_external(cycle_id, site, ExternalValidation(failed=why[:_MAX_REASON]), now)
    return decide_canary(r, cycle_id, CLOUD, now)


def decide_canary(r: Repository, cycle_id: str, actor: str, now: datetime, without: Collection[str] = ()) -> Cycle:
    """Release to all, roll back, or wait, as the stored reports and validations say. It may be called at any time.

    Args:
        r: The repository.
        cycle_id: The cycle.
        actor: Who has reported something.
        now: The current time.
        without: The keys of canaries that are not waited for.
    """
    cycle = r.cycles.get(cycle_id)
    if cycle.state is not State.CANARY:
        return cycle
    base, student = r.models.get(cycle.base_student_id).labels, r.models.get(cycle.updated_student_id).labels
    verdicts = {part.site: _judge_part(cycle, part, base, student) for part in cycle.active_parts}
    reports = {key: report for key, report in collect_canary_reports(r, cycle).items() if key not in without}
    decision, external = canary.decide(reports, verdicts), None
    if decision is not None and decision.state is State.RELEASED and cycle.external:
        if any(asked.is_open for asked in cycle.external.values()):
            return cycle
        external = _judge_external(cycle)
        state = State.RELEASED if external.passed else State.ROLLED_BACK
        decision = canary.Decision(state, f"{decision.reason}; {external.reason}")
    if decision is None:
        return cycle
    if decision.state is State.RELEASED and (conflict := explain_superseded(r, cycle)):
        decision = canary.Decision(State.ROLLED_BACK, conflict)
    metrics = {site: verdict.metrics for site, verdict in verdicts.items() if verdict is not None}
    # Several sites' figures are recorded by site, those of a single site as they are.
    recorded = {"sites": metrics} if len(verdicts) > 1 else next(iter(metrics.values()), {})
    if external is not None:
        recorded = recorded | {EXTERNAL: external.metrics}
    return end_canary(r, cycle, decision, actor, now, recorded)


def list_testers(r: Repository, cycle: Cycle, site: str) -> list[Device]:
    """Return the devices of a site that would run a cycle's release: none where they have one of a narrower scope."""
    scopes = scopes_of(site, r.groups.of_site(site))
    narrower = scopes[: scopes.index(cycle.scope)]
    return [] if r.releases.current(narrower) else r.devices.of_site(site)


def collect_canary_reports(r: Repository, cycle: Cycle) -> dict[str, Install | None]:
    """Return the last report of each canary about the cycle's release; None where there is none."""
    devices = [device for part in cycle.active_parts for device in r.devices.of_site(part.site)]
    return canary.collect_reports(r.releases.get(cycle.release_version), devices)


def end_canary(
    r: Repository, cycle: Cycle, decision: canary.Decision, actor: str, now: datetime, metrics: Json
) -> Cycle:
    """Change the release's status and the cycle's state together.

    Versions only rise on a device. So where a canary may run a release that is withdrawn, what the scope ran before
    becomes a new release.

    Args:
        r: The repository.
        cycle: A cycle in CANARY.
        decision: RELEASED or ROLLED_BACK, and why.
        actor: Who brought the decision about.
        now: The current time.
        metrics: What decided it, for the record.
    """
    released = decision.state is State.RELEASED
    status = ReleaseStatus.RELEASED if released else ReleaseStatus.WITHDRAWN
    r.releases.set_status(cycle.release_version, status, now)
    reason = decision.reason
    if not released:
        _republish_previous(r, cycle, now)
    if released and (lacks := rebase.explain_stale(r, cycle.scope)):
        reason = f"{reason}; release {cycle.release_version} {lacks}"
    return r.cycles.move(cycle.id, decision.state, now, actor, reason, metrics)


def _republish_previous(r: Repository, cycle: Cycle, now: datetime) -> None:
    may_run = [i for i in collect_canary_reports(r, cycle).values() if i is None or i.outcome is Outcome.INSTALLED]
    previous = r.releases.current((cycle.scope,))
    if may_run and previous is not None:
        student = r.models.get(previous.student_id)
        status, came_from = ReleaseStatus.RELEASED, previous.cycle_id
        r.releases.add(student, previous.tutor_id, status, (), came_from, now, cycle.scope, previous.rollout)


def _judge_part(cycle: Cycle, part: Part, base: LabelSpace, student: LabelSpace) -> gate.Verdict | None:
    if part.after is not None and part.before is not None:
        max_harm = float(cycle.recipe.get("max_harm", 0.0))
        return gate.check_rebase(part.before, part.after, student.new_since(base), max_harm)
    if part.after is None or part.gap is None:
        return None
    return gate.check_site(part.gap.student_before, part.after, part.gap.labels.new_since(base))


def _judge_external(cycle: Cycle) -> gate.Verdict:
    said = {
        site: (answer.before, answer.after)
        for site, answer in cycle.external.items()
        if answer.before is not None and answer.after is not None
    }
    return gate.check_external(said, float(cycle.recipe.get("max_harm", 0.0)))


def explain_superseded(r: Repository, cycle: Cycle) -> str:
    """Say why a cycle's result would undo another one's; empty where its scope has no release newer than its base.

    A newer release of a wider scope is no reason: what the cycle has learned is released, and then rebased on it.
    """
    if cycle.rebases:
        return rebase.explain_superseded(r, cycle)
    current = r.releases.current((cycle.scope,))
    if current is None or current.student_id == cycle.base_student_id:
        return ""
    return f"release {current.version} came first and stands on other knowledge: start the cycle again"


def fail_task(r: Repository, cycle_id: str, kind: TaskKind, site: str, reason: str, now: datetime) -> Cycle:
    """Record that a site cannot do a task. A task that is over changes nothing.

    A site that cannot extract drops out. One that cannot validate ends the cycle, and the release is taken back. One
    that takes no part is no longer waited for.
    """
    cycle = r.cycles.get(cycle_id)
    if kind is TaskKind.VALIDATE_EXTERNAL:
        asked = cycle.external.get(site)
        is_awaited = asked is not None and asked.is_open and cycle.state is State.CANARY
        return give_up_external(r, cycle_id, [site], reason or "no reason given", now) if is_awaited else cycle
    part, actor = cycle.part(site), f"site/{site}"
    failure = f"the site could not do {kind}: {reason[:_MAX_REASON] or 'no reason given'}"
    if kind is TaskKind.EXTRACT and part.state in BEFORE_UPLOAD:
        return drop_site(r, cycle_id, site, State.FAILED, failure, actor, now)
    if kind is TaskKind.VALIDATE and cycle.state is State.CANARY and part.active and part.after is None:
        return end_canary(r, cycle, canary.Decision(State.ROLLED_BACK, failure), actor, now, {})
    return cycle


def _check_base(what: str, base_id: str, wanted: str) -> None:
    if base_id != wanted:
        raise WrongState(f"the {what} is for base {base_id or '(none)'}, the cycle's is {wanted}: extract it again")


def _describe_state(cycle: Cycle, site: str) -> str:
    """Say in which state the cycle is for that site."""
    part = cycle.part(site)
    if part.state is State.OFFERED and not part.approved:
        return "not approved yet"
    return str(part.state if not part.active or cycle.state in BEFORE_UPLOAD else cycle.state)

"""What may be asked of a cycle: each function is one transaction, decides on what is stored and records before it acts.

No network, no clock, no files: `now` and who asks are arguments, so the rules read and test as rules.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from cloud_server import canary, gate, tasks
from cloud_server.domain import Cycle, GapManifest, Json, Progress, ReleaseStatus
from cloud_server.states import BEFORE_UPLOAD, State
from cloud_server.store.repository import Repository
from diredi.errors import InvalidInput, WrongState
from diredi.evaluation.figures import Figures
from diredi.labels import LabelSpace

CLOUD = "cloud"
_MAX_REQUEST_ID = 128
_MAX_REASON = 500


def start(r: Repository, site: str, request_id: str, recipe: Json, actor: str, now: datetime) -> Cycle:
    """The same `request_id` gives the same cycle. `recipe` is whole and validated."""
    if not 0 < len(request_id) <= _MAX_REQUEST_ID:
        raise InvalidInput(f"a request id has 1 to {_MAX_REQUEST_ID} characters: make one up for each new request")
    known = r.cycles.by_request(request_id)
    if known is not None:
        if known.site != site:
            raise InvalidInput(f"request id {request_id!r} was used for site {known.site!r}: make up a new one")
        return known
    r.sites.get(site)
    running = r.cycles.under_way(site)
    if running:
        raise WrongState(f"site {site!r} has cycle {running[0].id} under way ({running[0].state}): wait until it ends")
    release = r.releases.current()
    if release is None:
        raise WrongState("there is no release yet, the cloud is still making the first one: try again in a minute")
    cycle = Cycle(
        id=uuid.uuid4().hex[:12], site=site, request_id=request_id, state=State.REQUESTED, recipe=recipe,
        base_tutor_id=release.tutor_id, base_student_id=release.student_id, progressed_at=now, created=now,
    )  # fmt: skip
    return r.cycles.add(cycle, actor, "an update was asked for")


def offer(r: Repository, cycle_id: str, auto_approve: bool, now: datetime) -> Cycle:
    """The site takes the task: recorded before the task is sent. Nothing happens the second time."""
    cycle = r.cycles.get(cycle_id)
    if cycle.state is State.REQUESTED:
        reason = "offered; the site approves by itself" if auto_approve else "offered; waits for the site's approval"
        return r.cycles.move(cycle_id, State.OFFERED, now, f"site/{cycle.site}", reason, approved=auto_approve)
    if cycle.state is State.OFFERED and auto_approve and not cycle.approved:
        return approve(r, cycle_id, f"site/{cycle.site}", now, "the site approves by itself")
    return cycle


def approve(r: Repository, cycle_id: str, actor: str, now: datetime, reason: str = "approved") -> Cycle:
    """The site's yes; a second yes changes nothing. Raises WrongState when the cycle is past approval."""
    cycle = r.cycles.get(cycle_id)
    if cycle.approved and not cycle.ended:
        return cycle
    if cycle.state not in {State.REQUESTED, State.OFFERED}:
        raise WrongState(f"cycle {cycle_id} is {cycle.state}: only one that is REQUESTED or OFFERED can be approved")
    return r.cycles.move(cycle_id, State.OFFERED, now, actor, reason, approved=True)


def decline(r: Repository, cycle_id: str, reason: str, actor: str, now: datetime) -> Cycle:
    """The site's no; a second no changes nothing."""
    cycle = r.cycles.get(cycle_id)
    if cycle.state is State.DECLINED:
        return cycle
    if cycle.state not in BEFORE_UPLOAD:
        raise WrongState(f"cycle {cycle_id} is {cycle.state}: it can be declined only before its gap is uploaded")
    return r.cycles.move(cycle_id, State.DECLINED, now, actor, reason[:_MAX_REASON] or "no reason given")


def report(r: Repository, cycle_id: str, progress: Progress, actor: str, now: datetime) -> Cycle:
    """The site has begun, or is so far."""
    cycle = r.cycles.get(cycle_id)
    if cycle.state is State.OFFERED and cycle.approved:
        r.cycles.move(cycle_id, State.EXTRACTING, now, actor, "the site has begun")
    elif cycle.state is not State.EXTRACTING:
        raise WrongState(f"cycle {cycle_id} is {_said(cycle)}, it takes no progress from its site: drop the task")
    return r.cycles.report(cycle_id, progress, now)


def propose_classes(r: Repository, cycle_id: str, names: Sequence[str], now: datetime) -> LabelSpace:
    """Ids for the names: known ones keep theirs, new ones get the next, for ever."""
    cycle = r.cycles.get(cycle_id)
    if cycle.state not in BEFORE_UPLOAD or not cycle.approved:
        raise WrongState(f"cycle {cycle_id} is {_said(cycle)}: only an approved one may propose, before its upload")
    r.cycles.change(cycle_id, now)
    return r.classes.grow(names, cycle_id, now)


def check_manifest(r: Repository, manifest: GapManifest) -> bool:
    """Whether this very manifest has been accepted before. Raises WrongState or InvalidInput when not."""
    cycle = r.cycles.get(manifest.cycle_id)
    if cycle.gap == manifest:
        return True
    if cycle.state is not State.EXTRACTING:
        raise WrongState(f"cycle {cycle.id} is {_said(cycle)}: it takes a gap only while it is EXTRACTING")
    _check_base("tutor gap", manifest.tutor_gap.base_id, cycle.base_tutor_id)
    if manifest.student_gap is not None:
        _check_base("student gap", manifest.student_gap.base_id, cycle.base_student_id)
    known = r.classes.labels()
    base = r.models.get(cycle.base_tutor_id).labels
    if known is None or not known.extends(manifest.labels) or not manifest.labels.extends(base):
        raise InvalidInput(
            f"the gap's classes ({', '.join(manifest.labels.names)}) are not those that the cloud gave ids to: "
            "propose the classes first and extract with the labels that come back"
        )
    return False


def accept_gap(r: Repository, manifest: GapManifest, actor: str, now: datetime) -> Cycle:
    """EXTRACTING to UPLOADED, once everything about the gap has been verified."""
    if check_manifest(r, manifest):
        return r.cycles.get(manifest.cycle_id)
    figures = {"before": manifest.student_before.model_dump(mode="json"), "bytes": manifest.tutor_gap.blob.bytes}
    said = f"gap of {manifest.tutor_gap.blob.bytes} bytes received and verified"
    gap = manifest.model_dump(mode="json")
    return r.cycles.move(manifest.cycle_id, State.UPLOADED, now, actor, said, figures, gap=gap)


def accept_validation(r: Repository, cycle_id: str, after: Figures, actor: str, now: datetime) -> Cycle:
    """The candidate on the site's held-out images; decides the cycle where the canaries have spoken too."""
    cycle = r.cycles.get(cycle_id)
    if cycle.site_after == after:
        return cycle
    if cycle.state is not State.CANARY or cycle.site_after is not None:
        raise WrongState(f"cycle {cycle_id} is {_said(cycle)} and waits for no validation: drop the task")
    r.cycles.change(cycle_id, now, site_after=after.model_dump(mode="json"))
    return decide_canary(r, cycle_id, actor, now)


def decide_canary(r: Repository, cycle_id: str, actor: str, now: datetime) -> Cycle:
    """Releases to all, rolls back, or waits: whatever follows from what is on record. May be called at any time."""
    cycle = r.cycles.get(cycle_id)
    if cycle.state is not State.CANARY:
        return cycle
    verdict = site_verdict(r, cycle)
    installs = canary.reports(r.releases.get(cycle.release_version), r.devices.of(cycle.site))
    decision = canary.decide(installs, verdict)
    if decision is None:
        return cycle
    if decision.state is State.RELEASED and (newer := superseded(r, cycle)):
        decision = canary.Decision(State.ROLLED_BACK, newer)
    return end_canary(r, cycle, decision, actor, now, verdict.figures if verdict else {})


def end_canary(
    r: Repository, cycle: Cycle, decision: canary.Decision, actor: str, now: datetime, figures: Json
) -> Cycle:
    """The release's status and the cycle's state change together."""
    released = decision.state is State.RELEASED
    r.releases.set_status(cycle.release_version, ReleaseStatus.RELEASED if released else ReleaseStatus.WITHDRAWN)
    return r.cycles.move(cycle.id, decision.state, now, actor, decision.reason, figures)


def site_verdict(r: Repository, cycle: Cycle) -> gate.Verdict | None:
    """None until the site has validated."""
    if cycle.site_after is None or cycle.gap is None:
        return None
    new = cycle.gap.labels.new_since(r.models.get(cycle.base_student_id).labels)
    return gate.at_site(cycle.gap.student_before, cycle.site_after, new)


def superseded(r: Repository, cycle: Cycle) -> str:
    """Why the cycle's result would undo another's, or nothing: its base is no longer what the fleet runs."""
    current = r.releases.current()
    if current is None or current.student_id == cycle.base_student_id:
        return ""
    return f"release {current.version} came first and stands on other knowledge: start the cycle again"


def fail_task(r: Repository, task_id: str, reason: str, actor: str, now: datetime) -> Cycle:
    """The site cannot do it: the cycle fails, or its release is taken back. A task that is over changes nothing."""
    cycle_id, kind = tasks.parsed(task_id)
    cycle = r.cycles.get(cycle_id)
    said = f"the site could not do {kind}: {reason[:_MAX_REASON] or 'no reason given'}"
    if kind is tasks.TaskKind.EXTRACT and cycle.state in BEFORE_UPLOAD:
        return r.cycles.move(cycle_id, State.FAILED, now, actor, said)
    if kind is tasks.TaskKind.VALIDATE and cycle.state is State.CANARY and cycle.site_after is None:
        return end_canary(r, cycle, canary.Decision(State.ROLLED_BACK, said), actor, now, {})
    return cycle


def _check_base(what: str, base_id: str, wanted: str) -> None:
    if base_id != wanted:
        raise WrongState(f"the {what} is for base {base_id or '(none)'}, the cycle's is {wanted}: extract it again")


def _said(cycle: Cycle) -> str:
    return "not approved yet" if cycle.state is State.OFFERED and not cycle.approved else str(cycle.state)

"""What may be asked of a cycle: each function is one transaction, decides on what is stored and records before it acts.

No network, no clock, no files: `now` and who asks are arguments, so the rules read and test as rules. What one site
says moves its own part of the cycle, and the cycle where that follows (`states.joint_state`).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

from cloud_server import canary, gate
from cloud_server.entities import Cycle, GapManifest, Install, Json, Part, Progress, ReleaseStatus
from cloud_server.states import BEFORE_UPLOAD, State
from cloud_server.store.repository import Repository
from cloud_server.tasks import TaskKind
from diredi.errors import InvalidInput, WrongState
from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace

CLOUD = "cloud"
MAX_SITES = 100
_MAX_REQUEST_ID = 128
_MAX_REASON = 500


def start_cycle(r: Repository, sites: Sequence[str], request_id: str, recipe: Json, actor: str, now: datetime) -> Cycle:
    """The same `request_id` gives the same cycle. `recipe` is whole and validated."""
    if not 0 < len(request_id) <= _MAX_REQUEST_ID:
        raise InvalidInput(f"a request id has 1 to {_MAX_REQUEST_ID} characters: make one up for each new request")
    if not 0 < len(sites) <= MAX_SITES or len(set(sites)) != len(sites):
        raise InvalidInput(f"a cycle takes 1 to {MAX_SITES} sites, each once: name the sites to learn from")
    known = r.cycles.find_by_request(request_id)
    if known is not None:
        if set(known.sites) != set(sites):
            raise InvalidInput(f"request id {request_id!r} was used for {', '.join(known.sites)}: make up a new one")
        return known
    for site in sites:
        r.sites.get(site)
        if running := r.cycles.unfinished(site):
            first = running[0]
            raise WrongState(f"site {site!r} has cycle {first.id} under way ({first.state}): wait until it ends")
    release = r.releases.current()
    if release is None:
        raise WrongState("there is no release yet, the cloud is still making the first one: try again in a minute")
    cycle = Cycle(
        id=uuid.uuid4().hex[:12], request_id=request_id, state=State.REQUESTED, recipe=recipe,
        base_tutor_id=release.tutor_id, base_student_id=release.student_id, progressed_at=now, created=now,
        parts=tuple(Part(site=site, progressed_at=now) for site in sites),
    )  # fmt: skip
    return r.cycles.add(cycle, actor, "an update was asked for")


def offer(
    r: Repository, cycle_id: str, site: str, now: datetime, *, auto_approve: bool, publish_style: bool = False
) -> Cycle:
    """The site takes the task, with its policy: recorded before the task is sent. The second time nothing happens, but
    a policy on styles that has changed since is the one that holds."""
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
    """A site's yes; a second yes changes nothing. Raises WrongState when the site is past approval."""
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
    """A site's no; a second no changes nothing."""
    cycle = r.cycles.get(cycle_id)
    part = cycle.part(site)
    if part.state is State.DECLINED:
        return cycle
    if part.state not in BEFORE_UPLOAD:
        said = _describe_state(cycle, site)
        raise WrongState(f"cycle {cycle_id} is {said}: a site can decline only before its gap is uploaded")
    return drop_site(r, cycle_id, site, State.DECLINED, reason[:_MAX_REASON] or "no reason given", f"site/{site}", now)


def drop_site(r: Repository, cycle_id: str, site: str, state: State, reason: str, actor: str, now: datetime) -> Cycle:
    """The site is out, with the reason on record; the cycle goes on with the others, or ends where none is left."""
    said = reason if actor == f"site/{site}" else f"{site} drops out: {reason}"
    return r.cycles.move_part(cycle_id, site, state, now, actor, said, dropped_because=reason)


def report_progress(r: Repository, cycle_id: str, site: str, progress: Progress, now: datetime) -> Cycle:
    """The site has begun, or is so far."""
    cycle = r.cycles.get(cycle_id)
    part = cycle.part(site)
    if part.state is State.OFFERED and part.approved:
        r.cycles.move_part(cycle_id, site, State.EXTRACTING, now, f"site/{site}", "the site has begun")
    elif part.state is not State.EXTRACTING:
        raise WrongState(
            f"cycle {cycle_id} is {_describe_state(cycle, site)}, it takes no progress from its site: drop the task"
        )
    return r.cycles.record_progress(cycle_id, progress, now, site)


def propose_classes(r: Repository, cycle_id: str, site: str, names: Sequence[str], now: datetime) -> LabelSpace:
    """Ids for the names: known ones keep theirs, new ones get the next, for ever and for all sites."""
    cycle = r.cycles.get(cycle_id)
    part = cycle.part(site)
    if part.state not in BEFORE_UPLOAD or not part.approved:
        said = _describe_state(cycle, site)
        raise WrongState(f"cycle {cycle_id} is {said}: only an approved one may propose, before its upload")
    r.cycles.change_part(cycle_id, site, now)
    return r.classes.assign_ids(names, cycle_id, now)


def check_manifest(r: Repository, site: str, manifest: GapManifest) -> bool:
    """Whether this very manifest has been accepted before. Raises WrongState or InvalidInput when not."""
    cycle = r.cycles.get(manifest.cycle_id)
    part = cycle.part(site)
    if part.gap is not None and part.gap.equals_unsigned(manifest):
        return True
    if part.state is not State.EXTRACTING:
        raise WrongState(
            f"cycle {cycle.id} is {_describe_state(cycle, site)}: it takes a gap only while it is EXTRACTING"
        )
    if manifest.style is not None and not part.publishes_style:
        raise InvalidInput("the manifest has a style, but the site's policy says that it publishes none: leave it out")
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


def accept_gap(r: Repository, site: str, manifest: GapManifest, certificate: str, now: datetime) -> Cycle:
    """The site is UPLOADED, once everything about its gap has been verified; the cycle is with the last one."""
    if check_manifest(r, site, manifest):
        return r.cycles.get(manifest.cycle_id)
    figures = {"before": manifest.student_before.model_dump(mode="json"), "bytes": manifest.tutor_gap.blob.bytes}
    said = f"gap of {manifest.tutor_gap.blob.bytes} bytes received and verified"
    return r.cycles.move_part(
        manifest.cycle_id, site, State.UPLOADED, now, f"site/{site}", said, figures,
        gap=manifest.model_dump(mode="json"), certificate=certificate,
    )  # fmt: skip


def accept_validation(r: Repository, cycle_id: str, site: str, after: DetectionMetrics, now: datetime) -> Cycle:
    """The candidate on the site's held-out images; decides the cycle where all others have spoken too."""
    cycle = r.cycles.get(cycle_id)
    part = cycle.part(site)
    if part.after == after:
        return cycle
    if cycle.state is not State.CANARY or not part.active or part.after is not None:
        raise WrongState(
            f"cycle {cycle_id} is {_describe_state(cycle, site)} and waits for no validation: drop the task"
        )
    r.cycles.change_part(cycle_id, site, now, after=after.model_dump(mode="json"))
    return decide_canary(r, cycle_id, f"site/{site}", now)


def decide_canary(r: Repository, cycle_id: str, actor: str, now: datetime) -> Cycle:
    """Releases to all, rolls back, or waits: whatever follows from what is on record. May be called at any time."""
    cycle = r.cycles.get(cycle_id)
    if cycle.state is not State.CANARY:
        return cycle
    verdicts = judge_sites(r, cycle)
    decision = canary.decide(collect_canary_reports(r, cycle), verdicts)
    if decision is None:
        return cycle
    if decision.state is State.RELEASED and (newer := explain_superseded(r, cycle)):
        decision = canary.Decision(State.ROLLED_BACK, newer)
    return end_canary(r, cycle, decision, actor, now, _summarize_verdicts(verdicts))


def _summarize_verdicts(verdicts: Mapping[str, gate.Verdict | None]) -> Json:
    """Of the one site, or by the names of several."""
    spoken = {site: verdict.figures for site, verdict in verdicts.items() if verdict is not None}
    return {"sites": spoken} if len(verdicts) > 1 else next(iter(spoken.values()), {})


def collect_canary_reports(r: Repository, cycle: Cycle) -> dict[str, Install | None]:
    """What each canary of the cycle's release has said of it."""
    devices = [device for part in cycle.active_parts for device in r.devices.of_site(part.site)]
    return canary.collect_reports(r.releases.get(cycle.release_version), devices)


def end_canary(
    r: Repository, cycle: Cycle, decision: canary.Decision, actor: str, now: datetime, figures: Json
) -> Cycle:
    """The release's status and the cycle's state change together."""
    released = decision.state is State.RELEASED
    r.releases.set_status(cycle.release_version, ReleaseStatus.RELEASED if released else ReleaseStatus.WITHDRAWN)
    return r.cycles.move(cycle.id, decision.state, now, actor, decision.reason, figures)


def judge_sites(r: Repository, cycle: Cycle) -> dict[str, gate.Verdict | None]:
    """By site; None until it has validated."""
    base = r.models.get(cycle.base_student_id).labels
    return {part.site: _judge_site(part, base) for part in cycle.active_parts}


def _judge_site(part: Part, base: LabelSpace) -> gate.Verdict | None:
    if part.after is None or part.gap is None:
        return None
    return gate.check_site(part.gap.student_before, part.after, part.gap.labels.new_since(base))


def explain_superseded(r: Repository, cycle: Cycle) -> str:
    """Why the cycle's result would undo another's, or nothing: its base is no longer what the fleet runs."""
    current = r.releases.current()
    if current is None or current.student_id == cycle.base_student_id:
        return ""
    return f"release {current.version} came first and stands on other knowledge: start the cycle again"


def fail_task(r: Repository, cycle_id: str, kind: TaskKind, site: str, reason: str, now: datetime) -> Cycle:
    """The site cannot do it: it drops out, or the release is taken back. A task that is over changes nothing."""
    cycle = r.cycles.get(cycle_id)
    part, actor = cycle.part(site), f"site/{site}"
    said = f"the site could not do {kind}: {reason[:_MAX_REASON] or 'no reason given'}"
    if kind is TaskKind.EXTRACT and part.state in BEFORE_UPLOAD:
        return drop_site(r, cycle_id, site, State.FAILED, said, actor, now)
    if kind is TaskKind.VALIDATE and cycle.state is State.CANARY and part.active and part.after is None:
        return end_canary(r, cycle, canary.Decision(State.ROLLED_BACK, said), actor, now, {})
    return cycle


def _check_base(what: str, base_id: str, wanted: str) -> None:
    if base_id != wanted:
        raise WrongState(f"the {what} is for base {base_id or '(none)'}, the cycle's is {wanted}: extract it again")


def _describe_state(cycle: Cycle, site: str) -> str:
    """How it stands for that site."""
    part = cycle.part(site)
    if part.state is State.OFFERED and not part.approved:
        return "not approved yet"
    return str(part.state if not part.active or cycle.state in BEFORE_UPLOAD else cycle.state)

"""Rebases: what a scope has learned is carried over to a newer release of the next wider scope.

A release of a site stands on the release that its first cycle has started from. Where the fleet has a newer one, the
site's devices miss what is new in it. A rebase is a cycle in which no site learns: the difference between the scope's
models and those that they stand on is transported onto the newer ones (`diredi.knowledge.transport`). It goes through
the gates, the sites' validation and the canaries as any cycle does. Where it fails, the devices keep what they run.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cloud_server.entities import Cycle, Json, Model, Part, Release
from cloud_server.scopes import FLEET, group_of, wider_scopes
from cloud_server.states import State
from cloud_server.store import Repository
from diredi.errors import InvalidInput, NotFound, WrongState
from diredi.knowledge.recipe import CycleRecipe

_CLOUD: Final = "cloud"


@dataclass(frozen=True)
class Rebase:
    """A release of a scope, and the newer release of a wider scope on which it does not stand yet."""

    own: Release
    wider: Release


@dataclass(frozen=True)
class Lineage:
    """Three models of one kind: what is transported is `learned - origin`, and it is for `target`."""

    learned: Model
    origin: Model
    target: Model


def find_rebase(r: Repository, scope: str) -> Rebase | None:
    """Return what there is to rebase in a scope; None where its release is on the newest, or it has none."""
    scopes = wider_scopes(scope, r.groups.of_site(scope.partition(":")[2]))
    own, wider = r.releases.current(scopes[:1]), r.releases.current(scopes[1:])
    if own is None or wider is None or _find_origin(r, own).base_student_id == wider.student_id:
        return None
    return Rebase(own, wider)


def find_lineages(r: Repository, cycle: Cycle) -> tuple[Lineage, Lineage]:
    """Return the tutors and the students that a rebase is made of."""
    own = r.releases.get(cycle.rebases)
    origin = _find_origin(r, own)

    def lineage(learned: str, before: str, target: str) -> Lineage:
        return Lineage(r.models.get(learned), r.models.get(before), r.models.get(target))

    return (
        lineage(own.tutor_id, origin.base_tutor_id, cycle.base_tutor_id),
        lineage(own.student_id, origin.base_student_id, cycle.base_student_id),
    )


def start_rebase(
    r: Repository, scope: str, request_id: str, actor: str, now: datetime, overrides: Json | None = None
) -> Cycle:
    """Add a cycle that rebases a scope's release; the same request id gives the same cycle.

    Args:
        r: The repository.
        scope: "site:NAME" or "group:NAME".
        request_id: Made up by the caller.
        actor: The caller.
        now: The current time.
        overrides: Options of the recipe that differ from that of the cycle whose release is rebased.

    Raises:
        InvalidInput: That is no scope of a site or a group, the request id was used for something else, or an option is
            not usable.
        NotFound: The scope has no release.
        WrongState: The release is on the newest already, or a site of it has a cycle under way.
    """
    if scope == FLEET or not scope.partition(":")[2]:
        raise InvalidInput(f"{scope[:80]!r} cannot be rebased: name site:NAME or group:NAME")
    known = r.cycles.find_by_request(request_id)
    if known is not None:
        if not known.rebases or known.scope != scope:
            raise InvalidInput(f"request id {request_id!r} was used for another cycle: make up a new one")
        return known
    if r.releases.current((scope,)) is None:
        raise NotFound(f"{scope} has no release of its own: `diredi cycle list` shows who has")
    rebase = find_rebase(r, scope)
    if rebase is None:
        raise WrongState(f"the release of {scope} stands on the newest release already: there is nothing to rebase")
    source = r.cycles.get(rebase.own.cycle_id)
    parts = _list_parts(r, source, now)
    if not parts:
        raise WrongState(f"no site that {scope} has learned from is in it any more: nobody could validate the rebase")
    for part in parts:
        if running := r.cycles.unfinished(part.site):
            first = running[0]
            raise WrongState(f"site {part.site!r} has cycle {first.id} under way ({first.state}): wait until it ends")
    # The lambda that was right on the old base need not be on the new one. There is one gap, so nothing is merged.
    kept = {name: value for name, value in source.recipe.items() if name not in {"lam", "merge", "receiver"}}
    recipe = CycleRecipe.of(kept).override(overrides or {}).model_dump(mode="json")
    cycle = Cycle(
        id=uuid.uuid4().hex[:12], request_id=request_id, state=State.UPLOADED, scope=scope,
        rebases=rebase.own.version, recipe=recipe, base_tutor_id=rebase.wider.tutor_id,
        base_student_id=rebase.wider.student_id, progressed_at=now, created=now, parts=parts,
    )  # fmt: skip
    reason = f"release {rebase.own.version} of {scope} is to be rebased on release {rebase.wider.version}"
    return r.cycles.add(cycle, actor, reason)


def find_due_rebases(r: Repository) -> list[str]:
    """Return the scopes whose release is to be rebased now, groups before sites; not those where that was tried."""
    scopes = sorted(r.releases.scopes(), key=lambda scope: (not group_of(scope), scope))
    return [scope for scope in scopes if _is_due(r, scope)]


def start_due_rebase(r: Repository, now: datetime, scope: str) -> Cycle | None:
    """Start a scope's rebase for the cloud itself; None where it is not due any more."""
    if not _is_due(r, scope):
        return None
    return start_rebase(r, scope, f"rebase {uuid.uuid4().hex}", _CLOUD, now)


def explain_stale(r: Repository, scope: str) -> str:
    """Say what a scope's release lacks and what has become of its rebase; empty where it lacks nothing."""
    rebase = None if scope == FLEET else find_rebase(r, scope)
    if rebase is None:
        return ""
    newest = next(iter(_find_tries(r, rebase)), None)
    if newest is None:
        return f"not on release {rebase.wider.version} yet"
    if not newest.ended:
        return f"is being rebased on release {rebase.wider.version} (cycle {newest.id})"
    return f"rebase on release {rebase.wider.version} is {newest.state} (cycle {newest.id})"


def explain_superseded(r: Repository, cycle: Cycle) -> str:
    """Say why a rebase is of no use any more; empty where its release and its base are still the newest."""
    rebase = find_rebase(r, cycle.scope)
    if rebase and (rebase.own.version, rebase.wider.student_id) == (cycle.rebases, cycle.base_student_id):
        return ""
    return "a newer release came first: it is rebased again where that is needed"


def _is_due(r: Repository, scope: str) -> bool:
    rebase = None if scope == FLEET else find_rebase(r, scope)
    if rebase is None or _find_tries(r, rebase):
        return False
    parts = _list_parts(r, r.cycles.get(rebase.own.cycle_id), rebase.wider.created)
    return bool(parts) and not any(r.cycles.unfinished(part.site) for part in parts)


def _find_tries(r: Repository, rebase: Rebase) -> list[Cycle]:
    """Return the cycles that have tried this rebase, newest first."""
    return [c for c in r.cycles.of_rebases(rebase.own.version) if c.base_student_id == rebase.wider.student_id]


def _list_parts(r: Repository, source: Cycle, now: datetime) -> tuple[Part, ...]:
    """Return the parts of a rebase: the sites whose figures there are, as far as they are still in the scope."""
    group = group_of(source.scope)
    return tuple(
        Part(site=part.site, state=State.UPLOADED, approved=True, before=part.after, progressed_at=now)
        for part in source.active_parts
        if part.after is not None and (not group or r.groups.of_site(part.site) == group)
    )


def _find_origin(r: Repository, release: Release) -> Cycle:
    """Return the cycle with which a scope has left the wider scope: its base is what the scope's release stands on."""
    own = {other.student_id: other for other in r.releases.all(release.scope)}
    cycle = r.cycles.get(release.cycle_id)
    while (before := own.get(cycle.base_student_id)) and before.version < release.version:
        release, cycle = before, r.cycles.get(before.cycle_id)
    return cycle

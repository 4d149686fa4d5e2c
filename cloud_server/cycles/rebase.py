"""Rebases: what a scope has learned is carried over to a newer release of the next wider scope.

A release of a site stands on the release that its first cycle has started from. Where the fleet has a newer one, the
site's devices miss what is new in it. A rebase is a cycle in which no site learns: the difference between the scope's
models and the newest ones that both came from is transported onto the wider scope's (`diredi.knowledge.transport`). It
goes through the gates, the sites' validation and the canaries as any cycle does. Where it fails, the devices keep what
they run.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cloud_server.entities import Cycle, Json, Model, Part, Release
from cloud_server.scopes import FLEET, group_of, in_scope, scopes_of, wider_scopes
from cloud_server.states import State
from cloud_server.store import Repository
from diredi.errors import InvalidInput, NotFound, WrongState
from diredi.knowledge.recipe import CycleRecipe

_CLOUD: Final = "cloud"


@dataclass(frozen=True)
class Rebase:
    """A release of a scope, and the release of the next wider scope on which it does not stand yet."""

    own: Release
    wider: Release
    origin: Release
    """The newest release that both came from."""


@dataclass(frozen=True)
class StaleRelease:
    """What the devices of a scope run, and what that lacks (`explain_stale`)."""

    release: Release
    lacks: str


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
    if own is None or wider is None:
        return None
    origin = _find_origin(r, own, wider)
    return None if origin.student_id == wider.student_id else Rebase(own, wider, origin)


def find_lineages(r: Repository, cycle: Cycle) -> tuple[Lineage, Lineage]:
    """Return the tutors and the students that a rebase is made of."""
    own = r.releases.get(cycle.rebases)
    origin = _find_origin(r, own, r.releases.find(cycle.base_tutor_id, cycle.base_student_id))

    def lineage(learned: str, before: str, target: str) -> Lineage:
        return Lineage(r.models.get(learned), r.models.get(before), r.models.get(target))

    return (
        lineage(own.tutor_id, origin.tutor_id, cycle.base_tutor_id),
        lineage(own.student_id, origin.student_id, cycle.base_student_id),
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
    """Say what a scope's release lacks and what becomes of it, or how to get it; empty where it lacks nothing."""
    rebase = None if scope == FLEET else find_rebase(r, scope)
    if rebase is None:
        return ""
    number = rebase.wider.version
    newest = next(iter(_find_tries(r, rebase)), None)
    if newest is not None and not newest.ended:
        return f"is being rebased on release {number} (cycle {newest.id})"
    if newest is not None:
        again = f"`diredi cycle rebase --scope {scope}` tries again"
        return f"is not on release {number}, its rebase is {newest.state} (cycle {newest.id}): {again}"
    if not _list_parts(r, r.cycles.get(rebase.own.cycle_id), rebase.wider.created):
        return f"is not on release {number}, and no site that {scope} has learned from is in it any more: start a cycle"
    return f"is not on release {number} yet"


def list_stale(r: Repository, visible: Collection[str] | None) -> list[StaleRelease]:
    """Return the releases that do not stand on the newest of the next wider scope.

    Args:
        r: The repository.
        visible: The scopes in which to look; None: all.
    """
    groups = r.groups.by_site()
    inhabited = {scope for site in r.sites.all() for scope in scopes_of(site.name, groups.get(site.name, ""))}
    found = []
    for scope in r.releases.scopes():
        if scope in inhabited and in_scope(scope, visible) and (lacks := explain_stale(r, scope)):
            release = r.releases.current((scope,))
            assert release is not None
            found.append(StaleRelease(release, lacks))
    return found


def explain_superseded(r: Repository, cycle: Cycle) -> str:
    """Say why a rebase is of no use any more; empty where its release and its base are still the newest."""
    rebase = find_rebase(r, cycle.scope)
    rebased = r.releases.get(cycle.rebases)
    if rebase and _is_same(rebase.own, rebased) and rebase.wider.student_id == cycle.base_student_id:
        return ""
    return "a newer release came first: it is rebased again where that is needed"


def _is_due(r: Repository, scope: str) -> bool:
    rebase = None if scope == FLEET else find_rebase(r, scope)
    if rebase is None or _find_tries(r, rebase):
        return False
    if rebase.wider.scope != FLEET and _will_be_rebased(r, rebase.wider.scope):
        return False
    parts = _list_parts(r, r.cycles.get(rebase.own.cycle_id), rebase.wider.created)
    return bool(parts) and not any(r.cycles.unfinished(part.site) for part in parts)


def _will_be_rebased(r: Repository, group: str) -> bool:
    """Return whether a group gets another release soon, for which its sites wait; not once its rebase has failed."""
    rebase = find_rebase(r, group)
    if rebase is None:
        return False
    newest = next(iter(_find_tries(r, rebase)), None)
    parts = _list_parts(r, r.cycles.get(rebase.own.cycle_id), rebase.wider.created)
    return bool(parts) if newest is None else not newest.ended


def _find_tries(r: Repository, rebase: Rebase) -> list[Cycle]:
    """Return the cycles that have tried this rebase, newest first."""
    own = [release.version for release in r.releases.all(rebase.own.scope) if _is_same(release, rebase.own)]
    return [c for c in r.cycles.of_rebases(own) if c.base_student_id == rebase.wider.student_id]


def _is_same(one: Release, other: Release) -> bool:
    """Return whether two releases are the same models: what a withdrawn one has replaced comes again as a new one."""
    return (one.tutor_id, one.student_id) == (other.tutor_id, other.student_id)


def _list_parts(r: Repository, source: Cycle, now: datetime) -> tuple[Part, ...]:
    """Return the parts of a rebase: the sites whose figures there are, as far as they are still in the scope."""
    group = group_of(source.scope)
    return tuple(
        Part(site=part.site, state=State.UPLOADED, approved=True, before=part.after, progressed_at=now)
        for part in source.active_parts
        if part.after is not None and (not group or r.groups.of_site(part.site) == group)
    )


def _find_origin(r: Repository, own: Release, wider: Release) -> Release:
    """Return the newest release that both came from: what one has learned since then, the other does not know.

    It may be older than the release that the scope has left. So a site that has left a group takes what it has of the
    group's along.
    """
    parents = r.releases.parents()
    known, waiting = set[int](), [wider.version]
    while waiting:
        version = waiting.pop()
        if version not in known:
            known.add(version)
            waiting += parents[version]
    origin = own.version
    while origin not in known and parents[origin]:
        origin = parents[origin][0]
    return r.releases.get(origin)

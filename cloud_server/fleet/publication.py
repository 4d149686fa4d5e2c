"""Which releases are published, and what is signed of each: pure rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cloud_server import canary
from cloud_server.entities import Model, Release, ReleaseStatus
from cloud_server.scopes import group_of
from cloud_server.store.log import LogEntry
from diredi.trust.release_repository import ReleaseClaims, ReleaseTarget, labels_digest, site_digest

_FIGURES: Final = ("map50", "map50_95", "precision", "recall")


def list_targets(
    releases: Sequence[tuple[Release, Model]], groups: Mapping[str, str], logged: Mapping[int, LogEntry]
) -> list[ReleaseTarget]:
    """Return what devices may be told to run: the newest of each scope, and those in a rollout or with canaries.

    Args:
        releases: All releases with their students, in any order.
        groups: Group by site.
        logged: The entry in the log of decisions of each release, by version.
    """
    newest: dict[str, tuple[Release, Model]] = {}
    tried, in_steps = [], {release.version for release in canary.under_way(release for release, _ in releases)}
    for release, student in sorted(releases, key=lambda pair: pair[0].version):
        if release.version in in_steps:  # others of the scope run the one before
            tried.append((release, student))
        elif release.status is ReleaseStatus.RELEASED:
            newest[release.scope] = (release, student)
        elif release.status is ReleaseStatus.CANARY and release.canaries:
            tried.append((release, student))
    return [target for pair in (*newest.values(), *tried) if (target := _target(*pair, groups, logged)) is not None]


def _target(
    release: Release, student: Model, groups: Mapping[str, str], logged: Mapping[int, LogEntry]
) -> ReleaseTarget | None:
    if student.onnx is None:
        return None
    group = group_of(release.scope)
    sites = sorted(site_digest(release.scope, site) for site, name in groups.items() if group and name == group)
    presumed = student.presumed
    claims = ReleaseClaims(
        version=release.version,
        scope=release.scope,
        sites=tuple(sites),
        architecture=student.architecture,
        labels=labels_digest(student.labels),
        image_size=student.image_size,
        student=student.id,
        cycle=release.cycle_id,
        created=release.created.isoformat(timespec="seconds"),
        gate={} if presumed is None else {name: f"{getattr(presumed, name):.4f}" for name in _FIGURES},
        log=logged[release.version].proof if release.version in logged else None,
    )
    return ReleaseTarget(file=student.onnx, claims=claims)

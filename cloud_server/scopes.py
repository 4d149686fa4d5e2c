"""Whom a cycle, its class names, its models and its release are for: pure rules.

    site:NAME    one site
    group:NAME   the sites that an operator has put into a group; a site is in one group at most
    fleet        all sites

A device runs the newest release of the narrowest scope that it is in, and a cycle starts from what its own devices run.
Who is outside of a scope does not learn that there is anything in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from diredi.errors import InvalidInput, Refused
from diredi.trust.identity import Identity, Role

FLEET: Final = "fleet"
_SITE, _GROUP = "site", "group"


def site_scope(site: str) -> str:
    """Return the scope of one site."""
    return f"{_SITE}:{site}"


def group_scope(group: str) -> str:
    """Return the scope of a group."""
    return f"{_GROUP}:{group}"


def group_of(scope: str) -> str:
    """Return the name of the group that a scope is of; empty for another scope."""
    kind, _, name = scope.partition(":")
    return name if kind == _GROUP else ""


def scopes_of(site: str, group: str) -> tuple[str, ...]:
    """Return the scopes that a site is in, the narrowest first.

    Args:
        site: The site's name.
        group: The group that it is in; empty: none.
    """
    return (site_scope(site), *([group_scope(group)] if group else []), FLEET)


def wider_scopes(scope: str, group: str) -> tuple[str, ...]:
    """Return a scope and those that it is in, the narrowest first: where a cycle of it looks for its base.

    Args:
        scope: The scope.
        group: The group of the scope's site, if it is one site's.
    """
    kind, _, name = scope.partition(":")
    if kind == _SITE:
        return scopes_of(name, group)
    return (scope, FLEET) if kind == _GROUP else (FLEET,)


def visible_scopes(actor: Identity, groups: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the scopes that a caller may see, the narrowest first; None: all, for persons.

    Args:
        actor: The caller. A device sees what its site sees.
        groups: Group by site.
    """
    if actor.role.includes(Role.VIEWER):
        return None
    return scopes_of(actor.site, groups.get(actor.site, "")) if actor.site else (FLEET,)


def resolve_scope(wanted: str, sites: Sequence[str], groups: Mapping[str, str]) -> str:
    """Return the scope of a new cycle.

    Args:
        wanted: What the operator asks for: "fleet", "site" or "group:NAME"; empty stands for "fleet".
        sites: The sites to learn from.
        groups: Group by site.

    Raises:
        InvalidInput: That is no scope, or there is no such group.
        Refused: A site is outside of the scope, so what it teaches would not be for it.
    """
    if wanted in {"", FLEET}:
        return FLEET
    if wanted == _SITE or (len(sites) == 1 and wanted == site_scope(sites[0])):
        if len(sites) != 1:
            raise InvalidInput(
                f"scope site is for one site, not for {len(sites)}: start a cycle for each, or use a group"
            )
        return site_scope(sites[0])
    group = group_of(wanted)
    if not group:
        raise InvalidInput(f"{wanted[:80]!r} is no scope: use site, group:NAME or fleet")
    if group not in set(groups.values()):
        raise InvalidInput(
            f"there is no group {group[:80]!r}: make it with `diredi group set`, or see `diredi group list`"
        )
    outside = [site for site in sites if groups.get(site) != group]
    if outside:
        raise Refused(
            f"{', '.join(outside)} is not in group {group!r}: add it with `diredi group set`, or leave it out"
        )
    return wanted


def check_group_name(name: str) -> None:
    """Raises InvalidInput where a group cannot be called so. The rules are those of sites."""
    Identity(Role.SITE, name)


def in_scope(scope: str, visible: Collection[str] | None) -> bool:
    """Return whether a scope is among those that a caller may see (`visible_scopes`)."""
    return visible is None or scope in visible

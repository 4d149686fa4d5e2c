"""Who may do what: pure rules on the identity in the caller's certificate.

Each function returns nothing and raises Refused where the caller may not.
"""

from __future__ import annotations

from collections.abc import Collection

from diredi.errors import Refused
from diredi.trust.identity import PEOPLE, Identity, Role


def require_viewer(actor: Identity) -> None:
    """Refuse everybody but persons, who may all look.

    Raises:
        Refused: The caller is not a viewer, operator or admin.
    """
    _require_person(actor, Role.VIEWER)


def require_operator(actor: Identity) -> None:
    """Refuse everybody but operators and admins.

    Raises:
        Refused: The caller is neither an operator nor an admin.
    """
    _require_person(actor, Role.OPERATOR)


def require_admin(actor: Identity) -> None:
    """Refuse everybody but admins, who say who belongs to the fleet.

    Raises:
        Refused: The caller is not an admin.
    """
    _require_person(actor, Role.ADMIN)


def require_member_site(actor: Identity, sites: Collection[str]) -> None:
    """Refuse everybody but the sites of a cycle. The message does not name them.

    Args:
        actor: The caller.
        sites: The sites of the cycle.

    Raises:
        Refused: The caller is not one of the sites.
    """
    if actor.role is not Role.SITE or actor.name not in sites:
        raise Refused(f"{actor} may not speak for a site of that cycle: only these may, with their own certificates")


def require_site(actor: Identity, site: str) -> None:
    """Refuse everybody but one site, operators too.

    Raises:
        Refused: The caller is not that site.
    """
    if actor.role is not Role.SITE or actor.name != site:
        raise Refused(f"{actor} may not speak for site {site!r}: only that site may, with its own certificate")


def require_device(actor: Identity, device: str, site: str | None = None) -> None:
    """Refuse everybody but one device.

    Args:
        actor: The caller.
        device: The device's name.
        site: The site that the device says it belongs to; None where it says nothing.

    Raises:
        Refused: The caller is another device, or belongs to another site.
    """
    if actor.role is not Role.DEVICE or actor.name != device:
        raise Refused(f"{actor} may not speak for device {device!r}: only that device may, with its own certificate")
    if site is not None and actor.site != site:
        raise Refused(f"the certificate of device {device!r} is of site {actor.site!r}, not of {site!r}: check --site")


def require_view_of(actor: Identity, *sites: str) -> None:
    """Refuse those who may not see a cycle of these sites: persons see every cycle, a site its own.

    Raises:
        Refused: The caller is neither a person nor one of the sites.
    """
    if not actor.role.includes(Role.VIEWER) and not (actor.role is Role.SITE and actor.name in sites):
        raise Refused(f"{actor} may not see that: viewers, operators and admins may see every cycle, a site its own")


def require_viewer_or_site(actor: Identity) -> None:
    """Refuse devices and the cloud.

    Raises:
        Refused: The caller is neither a person nor a site.
    """
    if not actor.role.includes(Role.VIEWER) and actor.role is not Role.SITE:
        raise Refused(f"{actor} may not see that: viewers, operators, admins and sites may")


def _require_person(actor: Identity, least: Role) -> None:
    if not actor.role.includes(least):
        enough = " or ".join(PEOPLE[PEOPLE.index(least) :])
        raise Refused(f"{actor} may not do that: it takes a certificate with the role {enough}, ask an admin for one")

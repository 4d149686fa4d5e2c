"""Who may do what: pure rules on the identity in the caller's certificate.

Each function returns nothing and raises Refused where the caller may not.
"""

from __future__ import annotations

from collections.abc import Collection

from diredi.errors import Refused
from diredi.trust.identity import Identity, Role


def require_operator(actor: Identity) -> None:
    """Refuse everybody but operators.

    Raises:
        Refused: The caller is not an operator.
    """
    if actor.role is not Role.OPERATOR:
        raise Refused(f"{actor} may not do that: it is for operators, use an operator's certificate")


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
    """Refuse those who may not see a cycle of these sites: operators see every cycle, a site its own.

    Raises:
        Refused: The caller is neither an operator nor one of the sites.
    """
    if actor.role is not Role.OPERATOR and not (actor.role is Role.SITE and actor.name in sites):
        raise Refused(f"{actor} may not see that: operators may see every cycle, a site its own")


def require_operator_or_site(actor: Identity) -> None:
    """Refuse devices and the cloud.

    Raises:
        Refused: The caller is neither an operator nor a site.
    """
    if actor.role not in {Role.OPERATOR, Role.SITE}:
        raise Refused(f"{actor} may not see that: operators and sites may")

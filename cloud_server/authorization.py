"""Who may do what: rules on the identity in the caller's certificate. Pure."""

from __future__ import annotations

from collections.abc import Collection

from diredi.errors import Refused
from diredi.trust.identity import Identity, Role


def require_operator(actor: Identity) -> None:
    if actor.role is not Role.OPERATOR:
        raise Refused(f"{actor} may not do that: it is for operators, use an operator's certificate")


def require_member_site(actor: Identity, sites: Collection[str]) -> None:
    """As `require_site`, for a cycle; who else takes part in it is not said."""
    if actor.role is not Role.SITE or actor.name not in sites:
        raise Refused(f"{actor} may not speak for a site of that cycle: only these may, with their own certificates")


def require_site(actor: Identity, site: str) -> None:
    """A site speaks for itself and for nobody else; an operator does not speak for it either."""
    if actor.role is not Role.SITE or actor.name != site:
        raise Refused(f"{actor} may not speak for site {site!r}: only that site may, with its own certificate")


def require_device(actor: Identity, device: str, site: str | None = None) -> None:
    if actor.role is not Role.DEVICE or actor.name != device:
        raise Refused(f"{actor} may not speak for device {device!r}: only that device may, with its own certificate")
    if site is not None and actor.site != site:
        raise Refused(f"the certificate of device {device!r} is of site {actor.site!r}, not of {site!r}: check --site")


def require_view_of(actor: Identity, *sites: str) -> None:
    """Operators see every site's cycles, a site those that it takes part in."""
    if actor.role is not Role.OPERATOR and not (actor.role is Role.SITE and actor.name in sites):
        raise Refused(f"{actor} may not see that: operators may see every cycle, a site its own")


def require_operator_or_site(actor: Identity) -> None:
    if actor.role not in {Role.OPERATOR, Role.SITE}:
        raise Refused(f"{actor} may not see that: operators and sites may")

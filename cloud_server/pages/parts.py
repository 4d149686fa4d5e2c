"""What the handlers of the console share: the services that the RPCs call, and whose session it is."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_server.config import CloudConfig
from cloud_server.context import CloudContext
from cloud_server.cycles.service import CycleService
from cloud_server.fleet.service import FleetService
from cloud_server.sites.service import SiteService
from diredi.trust.identity import Identity, Role
from diredi.web.sessions import Session


@dataclass(frozen=True)
class ConsoleParts:
    """The services of the cloud; they check the role of the caller, act in one transaction and write the log."""

    config: CloudConfig
    context: CloudContext
    cycles: CycleService
    fleet: FleetService
    sites: SiteService


def actor_of(session: Session) -> Identity:
    """Return the identity whose certificate has opened a session; the services decide what it may do."""
    return Identity.from_certificate(session.certificate)


def may_operate(session: Session) -> bool:
    """Return whether a person may start cycles and change rollouts, so that pages offer it."""
    return Role(session.role).includes(Role.OPERATOR)


def may_administer(session: Session) -> bool:
    """Return whether a person may say who belongs to the fleet, so that pages offer it."""
    return Role(session.role).includes(Role.ADMIN)

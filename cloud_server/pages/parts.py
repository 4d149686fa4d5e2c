"""What the handlers of the console share: the services that the RPCs call, and whose session it is."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cloud_server.config import CloudConfig
from cloud_server.context import CloudContext
from cloud_server.cycles.service import CycleService
from cloud_server.enrolment import EnrolmentService
from cloud_server.fleet.service import FleetService
from cloud_server.sites.service import SiteService
from diredi.rpc.byte_counter import EgressMeter, IngressMeter
from diredi.store.blobs import BlobStore
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
    enrolment: EnrolmentService
    meter: IngressMeter
    blobs: BlobStore
    sent: EgressMeter
    """Counts what browsers are shown, among what leaves the cloud beside answers to sites and devices."""


def actor_of(session: Session) -> Identity:
    """Return the identity whose certificate has opened a session; the services decide what it may do."""
    return Identity.from_certificate(session.certificate)


def may_operate(session: Session) -> bool:
    """Return whether a person may start cycles and change rollouts, so that pages offer it."""
    return Role(session.role).includes(Role.OPERATOR)


def may_administer(session: Session) -> bool:
    """Return whether a person may say who belongs to the fleet, so that pages offer it."""
    return Role(session.role).includes(Role.ADMIN)


def when_changed(
    parts: ConsoleParts, topic: str, render: Callable[[], Awaitable[str]], again_s: float = math.inf
) -> Callable[[], Awaitable[str]]:
    """Return a function that renders again only if there is a reason, and leaves the database alone otherwise.

    Args:
        parts: Of the console.
        topic: Renders again after a change of this topic.
        render: Returns a piece of a page.
        again_s: Renders again after so many seconds, too.
    """
    seen, last, rendered = -1, "", -math.inf

    async def look() -> str:
        nonlocal seen, last, rendered
        version, now = parts.context.notifier.version(topic), time.monotonic()
        if version != seen or now - rendered >= again_s:
            seen, rendered, last = version, now, await render()
        return last

    return look

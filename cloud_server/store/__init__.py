"""The cloud's durable state: SQLite by default, PostgreSQL by URL; one repository over both."""

from __future__ import annotations

from sqlalchemy.orm import Session

from cloud_server.scopes import visible_scopes
from cloud_server.store.cycles import Cycles
from cloud_server.store.fleet import Devices, Groups, Sites
from cloud_server.store.log import Log
from cloud_server.store.registry import Classes, Facts, Models, Releases
from cloud_server.store.uploads import Uploads
from diredi.trust.identity import Identity


class Repository:
    """The tables, as one transaction sees them."""

    def __init__(self, session: Session) -> None:
        self.changed_topics: set[str] = set()
        """What the transaction has changed, as topics of `cloud_server.notifier`; to be notified after the commit."""
        self.log = Log(session)
        self.models = Models(session)
        self.releases = Releases(session, self.changed_topics, self.log)
        self.classes = Classes(session, self.changed_topics)
        self.facts = Facts(session)
        self.cycles = Cycles(session, self.changed_topics, self.log)
        self.sites = Sites(session)
        self.groups = Groups(session, self.changed_topics)
        self.devices = Devices(session)
        self.uploads = Uploads(session)

    def visible_to(self, actor: Identity) -> tuple[str, ...] | None:
        """Return the scopes that a caller may see; None: all (`cloud_server.scopes.visible_scopes`)."""
        return visible_scopes(actor, self.groups.by_site())

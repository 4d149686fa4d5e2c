"""All that one transaction can read and write."""

from __future__ import annotations

from sqlalchemy.orm import Session

from cloud_server.store.cycles import Cycles
from cloud_server.store.fleet import Devices, Sites
from cloud_server.store.registry import Classes, Facts, Models, Releases


class Repository:
    def __init__(self, session: Session) -> None:
        self.models = Models(session)
        self.releases = Releases(session)
        self.classes = Classes(session)
        self.facts = Facts(session)
        self.cycles = Cycles(session)
        self.sites = Sites(session)
        self.devices = Devices(session)

"""What a cloud must not forget, in a file outside of its database: how far release numbers and class ids have come.

A database that is empty, or was restored from before the newest release, gives out numbers for the second time, and
devices and sites know them for something else. So the cloud compares its database with this file at each start, and
does not begin anew in silence. The file is written after each commit that gives out a number, before that is told.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, Field

from cloud_server.store import Repository
from diredi.errors import NoRoom, WrongState
from diredi.store.files import atomic_write, read_state

LEDGER_FILE: Final = "ledger.json"
_EPOCH: Final = "epoch"


class Past(BaseModel):
    """The numbers that were given out last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: str
    """Made up with the first release: two databases with the same one have a common past."""
    release: int = 0
    classes: dict[str, int] = Field(default_factory=dict)
    """Number of class names by scope."""


class Ledger:
    """The file with the past."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER_FILE
        self._known: Past | None = None

    def check(self, r: Repository, *, published: int, accept_lost_past: bool) -> None:
        """Compare a database with the past, at the start. A database of before there was a ledger gets an epoch.

        Args:
            r: The database, in a transaction that writes.
            published: The newest release in the signed metadata; 0 where there is none.
            accept_lost_past: Go on with this database though its past is gone. Numbers of releases go on after the lost
                ones, so that devices take what is released next.

        Raises:
            WrongState: The database does not know releases or class names that were given out.
        """
        past = self.read()
        newest = max(published, 0 if past is None else past.release)
        here = read_past(r)
        lost = explain_loss(here, past, newest)
        if lost and not accept_lost_past:
            raise WrongState(
                f"{lost}: restore a backup of the database from after that. If there is none, start once with "
                "--accept-lost-past: what is missing stays lost, and release numbers go on after it"
            )
        if lost:
            r.releases.continue_after(newest)
            structlog.get_logger().warning("lost_past_accepted", lost=lost, release=newest)
        if newest or r.releases.all():
            begin_epoch(r)
        self.record(read_past(r))

    def read(self) -> Past | None:
        """Return the past that is written; None where none is, or the file is damaged."""
        return read_state(self.path, Past.model_validate_json)

    def record(self, past: Past | None) -> None:
        """Write how far the database is; a full disk is said in the log, because the database itself has it."""
        if past is None or past == self._known:
            return
        try:
            atomic_write(self.path, past.model_dump_json())
        except (NoRoom, OSError) as error:
            structlog.get_logger().error("ledger_not_written", path=str(self.path), error=str(error))
        else:
            self._known = past


def begin_epoch(r: Repository) -> None:
    """Record, with the first release, that a past has begun."""
    if r.facts.get(_EPOCH) is None:
        r.facts.put(_EPOCH, {"id": uuid.uuid4().hex})


def read_past(r: Repository) -> Past | None:
    """Return how far a database has come; None before its first release."""
    epoch = r.facts.get(_EPOCH)
    if epoch is None:
        return None
    return Past(epoch=str(epoch["id"]), release=r.releases.last_version(), classes=r.classes.counts())


def explain_loss(here: Past | None, past: Past | None, newest: int) -> str:
    """Say what the database does not know any more; empty where it knows everything."""
    known = 0 if here is None else here.release
    if newest > known:
        return f"the newest release in the database is {known or 'none'}, and release {newest} has been made before"
    if past is None or here is None:
        return ""
    if past.epoch != here.epoch:
        return f"the database is another one than that of release {past.release}"
    fewer = [scope for scope, count in past.classes.items() if here.classes.get(scope, 0) < count]
    return f"the database lacks class names of {fewer[0]} that sites have used" if fewer else ""

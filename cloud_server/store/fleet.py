"""Sites, their groups and devices in the database, and which release ran where."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, String, and_, case, cast, delete, false, func, not_, or_, select
from sqlalchemy.orm import Session, aliased

from cloud_server.entities import UNHEALTHY_SHARE, Device, Install, Outcome, Site, Vitals, device_key
from cloud_server.notifier import RELEASES
from cloud_server.store.schema import DeviceRow, GroupRow, InstallRow, SiteRow
from diredi.errors import NotFound
from diredi.trust.live import ENDS_SOON

AWAY_AFTER: Final = timedelta(seconds=45)
"""A device that was silent for longer is away."""


class RunningDevice(NamedTuple):
    """What a device runs, for whoever counts all of them."""

    key: str
    site: str
    release_version: int
    frames: int
    failed_frames: int
    update_wait: str
    detection: dict[str, Any] | None


class Trouble(StrEnum):
    """Why somebody should look at a device."""

    AWAY = "away"
    FAILED_INSTALL = "failed install"
    FAILED_FRAMES = "failed frames"
    NO_UPDATES = "no updates"
    CERTIFICATE = "certificate ends"
    DRIFT = "drift"


@dataclass(frozen=True)
class DeviceQuery:
    """Which devices to list, and in which order; an empty value means all."""

    site: str = ""
    release: int | None = None
    runtime: str = ""
    trouble: Trouble | None = None
    healthy: bool = False
    """Only devices without any trouble."""
    text: str = ""
    """A part of the device's name."""
    sort: str = "name"
    """A key of `ORDERS`."""
    descending: bool = False


@dataclass(frozen=True)
class FoundDevice:
    """A device of a list, without its history."""

    name: str
    site: str
    key: str
    release_version: int
    runtime: str
    frames_per_second: float
    latency_ms: float
    last_seen: datetime
    certificate_expires: datetime | None
    troubles: tuple[Trouble, ...]


_LISTED: Final = tuple(field.name for field in fields(FoundDevice) if field.name != "troubles")

ORDERS: Final = {
    "name": DeviceRow.name,
    "site": DeviceRow.site,
    "release": DeviceRow.release_version,
    "runtime": DeviceRow.runtime,
    "seen": DeviceRow.last_seen,
    "fps": DeviceRow.frames_per_second,
    "latency": DeviceRow.latency_ms,
}
"""What lists of devices can be sorted by."""


class Sites:
    """All sites that have ever called."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def record_contact(
        self, name: str, now: datetime, auto_approve: bool | None = None, validates_external: bool | None = None
    ) -> Site:
        """Record that a site has called; the first call adds it.

        Args:
            name: The site.
            now: The current time.
            auto_approve: Whether it approves by itself; None where it has not said so now.
            validates_external: Whether it may be asked about candidates of cycles that it takes no part in; None as
                before.
        """
        row = self._session.get(SiteRow, name)
        if row is None:
            row = SiteRow(name=name, auto_approve=False, validates_external=False, last_seen=now)
            self._session.add(row)
        row.last_seen = now
        if auto_approve is not None:
            row.auto_approve = auto_approve
        if validates_external is not None:
            row.validates_external = validates_external
        self._session.flush()
        return Site.model_validate(row)

    def get(self, name: str) -> Site:
        """Return a site.

        Raises:
            NotFound: The site has never called.
        """
        row = self._session.get(SiteRow, name)
        if row is None:
            raise NotFound(f"site {name!r} has never called: start its user domain, or see `diredi site list`")
        return Site.model_validate(row)

    def all(self, after: str = "", limit: int | None = None) -> list[Site]:
        """Return sites by name: those behind the name `after`, at most `limit`."""
        query = select(SiteRow).where(SiteRow.name > after).order_by(SiteRow.name).limit(limit)
        return [Site.model_validate(row) for row in self._session.scalars(query)]


class Groups:
    """The groups of sites. A site is in one group at most."""

    def __init__(self, session: Session, changed_topics: set[str]) -> None:
        self._session = session
        self._changed_topics = changed_topics

    def by_site(self) -> dict[str, str]:
        """Return the group of each site that is in one."""
        return {row.site: row.name for row in self._session.scalars(select(GroupRow).order_by(GroupRow.site))}

    def of_site(self, site: str) -> str:
        """Return the group of a site; empty where it is in none."""
        row = self._session.get(GroupRow, site)
        return "" if row is None else row.name

    def members(self, name: str) -> list[str]:
        """Return the sites of a group, by name; empty where there is no such group."""
        return list(self._session.scalars(select(GroupRow.site).where(GroupRow.name == name).order_by(GroupRow.site)))

    def set(self, name: str, sites: Collection[str]) -> None:
        """Make a group of these sites and of no others; without sites there is no such group any more."""
        self._session.execute(delete(GroupRow).where(GroupRow.name == name))
        self._session.add_all(GroupRow(site=site, name=name) for site in sites)
        self._session.flush()
        self._changed_topics.add(RELEASES)  # other releases may be for these sites now


class Devices:
    """All devices that have ever called."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def record_contact(self, name: str, site: str, now: datetime, vitals: Vitals) -> None:
        """Record that a device has called, and what it reports of itself; the first call adds it."""
        key = device_key(site, name)
        row = self._session.get(DeviceRow, key)
        if row is None:
            row = DeviceRow(key=key, name=name, site=site, last_seen=now, **vitals.model_dump())
            self._session.add(row)
        row.last_seen = now
        for key, value in vitals.model_dump().items():
            setattr(row, key, value)
        self._session.flush()

    def record_install(self, key: str, install: Install, most: int = 50) -> bool:
        """Add an installation to a device's history.

        Args:
            key: The device's key.
            install: What it reports.
            most: How many entries are kept, the newest ones.

        Returns:
            False where the last entry says the same already.

        Raises:
            NotFound: The device has never called.
        """
        row = self._session.get(DeviceRow, key)
        if row is None:
            raise NotFound(f"device {key!r} is not registered: call RegisterDevice first")
        last = row.installs[-1] if row.installs else None
        if last is not None and (last.release_version, last.outcome) == (
            install.release_version,
            install.outcome.value,
        ):
            return False
        row.installs.append(
            InstallRow(
                device=key, release_version=install.release_version,
                outcome=install.outcome.value, reason=install.reason, at=install.at,
            )
        )  # fmt: skip
        for old in row.installs[:-most]:
            self._session.delete(old)
        if install.outcome.value == "installed":
            if row.release_version != install.release_version:
                row.detection = None  # it was of the release before
            row.release_version = install.release_version
        self._session.flush()
        return True

    def find(self, key: str) -> Device | None:
        """Return the device of a key, or None."""
        row = self._session.get(DeviceRow, key)
        return None if row is None else Device.model_validate(row)

    def of_site(self, site: str = "", after: str = "", limit: int | None = None) -> list[Device]:
        """Return the devices of one site, or of all where `site` is empty, by name.

        Args:
            site: The site.
            after: Only devices behind the one with this key; empty: all.
            limit: At most so many; None: all.
        """
        query = select(DeviceRow).order_by(DeviceRow.name, DeviceRow.key).limit(limit)
        if after:
            name = after.rpartition("/")[2]
            query = query.where(or_(DeviceRow.name > name, and_(DeviceRow.name == name, DeviceRow.key > after)))
        if site:
            query = query.where(DeviceRow.site == site)
        return [Device.model_validate(row) for row in self._session.scalars(query)]

    def count_by_site(self) -> dict[str, int]:
        """Return how many devices each site has."""
        query = select(DeviceRow.site, func.count()).group_by(DeviceRow.site)
        return dict(self._session.execute(query).tuples().all())

    def search(self, query: DeviceQuery, now: datetime, offset: int, limit: int) -> tuple[list[FoundDevice], int]:
        """Return one page of the devices that a query asks for, and how many there are.

        Args:
            query: Which devices, in which order.
            now: The current time.
            offset: How many to leave out at the beginning.
            limit: At most so many.
        """
        troubles = _troubles(now)
        where = _conditions(query, troubles)
        order = ORDERS.get(query.sort, DeviceRow.name)
        columns = [getattr(DeviceRow, name) for name in _LISTED]
        select_rows = select(*columns, *(condition.label(name.name) for name, condition in troubles.items()))
        select_rows = select_rows.where(*where).offset(offset).limit(limit)
        select_rows = select_rows.order_by(order.desc() if query.descending else order.asc(), DeviceRow.key)
        rows = [row._mapping for row in self._session.execute(select_rows)]
        found = [
            FoundDevice(
                **{name: row[name] for name in _LISTED}, troubles=tuple(name for name in troubles if row[name.name])
            )
            for row in rows
        ]
        return found, self._session.scalar(select(func.count()).select_from(DeviceRow).where(*where)) or 0

    def troubles_of(self, key: str, now: datetime) -> tuple[Trouble, ...]:
        """Return why somebody should look at one device."""
        troubles = _troubles(now)
        columns = (condition.label(name.name) for name, condition in troubles.items())
        row = self._session.execute(select(*columns).where(DeviceRow.key == key)).one()
        return tuple(name for name in troubles if row._mapping[name.name])

    def count_troubles(self, now: datetime) -> tuple[int, dict[Trouble, int]]:
        """Return how many devices there are, and how many have each trouble."""
        troubles = _troubles(now)
        sums = [func.coalesce(func.sum(case((condition, 1), else_=0)), 0) for condition in troubles.values()]
        total, *counts = self._session.execute(select(func.count(), *sums).select_from(DeviceRow)).one()
        return int(total), {name: int(count) for name, count in zip(troubles, counts, strict=True)}

    def known_values(self) -> tuple[list[str], dict[int, int], list[str]]:
        """Return the sites that have devices, how many devices run each release, and the runtimes that there are."""
        sites = self._session.scalars(select(DeviceRow.site).distinct().order_by(DeviceRow.site)).all()
        by_release = select(DeviceRow.release_version, func.count()).group_by(DeviceRow.release_version)
        runtimes = self._session.scalars(select(DeviceRow.runtime).distinct().order_by(DeviceRow.runtime)).all()
        releases = dict(self._session.execute(by_release).tuples().all())
        return list(sites), dict(sorted(releases.items(), reverse=True)), [name for name in runtimes if name]

    def running(self) -> Iterator[RunningDevice]:
        """Yield what each device runs."""
        columns = [getattr(DeviceRow, name) for name in RunningDevice._fields]
        return (RunningDevice(*row) for row in self._session.execute(select(*columns)))

    def failures_of(self, versions: Collection[int]) -> set[tuple[str, int]]:
        """Return device and release where the last report about one of these releases is of a failure."""
        columns = (InstallRow.device, InstallRow.release_version, InstallRow.outcome)
        query = select(*columns).where(InstallRow.release_version.in_(versions)).order_by(InstallRow.id)
        last = {(device, version): outcome for device, version, outcome in self._session.execute(query)}
        return {key for key, outcome in last.items() if outcome == Outcome.FAILED.value}

    def installs_of(self, version: int, limit: int = 20_000) -> list[tuple[datetime, str]]:
        """Return when and how installations of a release ended, oldest first; the last `limit` of them."""
        query = select(InstallRow.at, InstallRow.outcome).where(InstallRow.release_version == version)
        rows = self._session.execute(query.order_by(InstallRow.id.desc()).limit(limit)).tuples().all()
        return sorted(rows)


def _troubles(now: datetime) -> Mapping[Trouble, ColumnElement[bool]]:
    every = aliased(InstallRow)
    last = select(func.max(every.id)).where(every.device == DeviceRow.key).correlate(DeviceRow).scalar_subquery()
    failed = select(InstallRow.id).where(InstallRow.id == last, InstallRow.outcome == Outcome.FAILED.value)
    soon = and_(DeviceRow.certificate_expires.is_not(None), DeviceRow.certificate_expires < now + ENDS_SOON)
    return {
        Trouble.AWAY: DeviceRow.last_seen < now - AWAY_AFTER,
        Trouble.FAILED_INSTALL: failed.exists(),
        Trouble.FAILED_FRAMES: and_(
            DeviceRow.failed_frames > 0, DeviceRow.failed_frames > UNHEALTHY_SHARE * DeviceRow.frames
        ),
        Trouble.NO_UPDATES: DeviceRow.updates_stalled.is_(True),
        Trouble.CERTIFICATE: func.coalesce(soon, false()),
        Trouble.DRIFT: cast(DeviceRow.drifts, String) != "{}",
    }


def _conditions(query: DeviceQuery, troubles: Mapping[Trouble, ColumnElement[bool]]) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.site:
        found.append(DeviceRow.site == query.site)
    if query.release is not None:
        found.append(DeviceRow.release_version == query.release)
    if query.runtime:
        found.append(DeviceRow.runtime == query.runtime)
    if query.text:
        found.append(DeviceRow.name.icontains(query.text, autoescape=True))
    if query.trouble is not None:
        found.append(troubles[query.trouble])
    if query.healthy:
        found.append(not_(or_(*troubles.values())))
    return found

"""Sites, their groups and devices in the database, and which release ran where."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.orm import Session

from cloud_server.entities import Device, Install, Site, Vitals, device_key
from cloud_server.notifier import RELEASES
from cloud_server.store.schema import DeviceRow, GroupRow, InstallRow, SiteRow
from diredi.errors import NotFound


class Sites:
    """All sites that have ever called."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def record_contact(self, name: str, now: datetime, auto_approve: bool | None = None) -> Site:
        """Record that a site has called; the first call adds it.

        Args:
            name: The site.
            now: The current time.
            auto_approve: Whether it approves by itself; None where it has not said so now.
        """
        row = self._session.get(SiteRow, name)
        if row is None:
            row = SiteRow(name=name, auto_approve=False, last_seen=now)
            self._session.add(row)
        row.last_seen = now
        if auto_approve is not None:
            row.auto_approve = auto_approve
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

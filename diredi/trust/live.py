"""Credentials that are read again while a service runs: renewed certificates, and what was revoked since."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from diredi.errors import InvalidInput
from diredi.trust.deny_list import CRL_FILE, DenyList
from diredi.trust.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, Credentials, Identity

ENDS_SOON: Final = timedelta(days=30)
"""For so long before its end a certificate is warned of."""
_WARN_EVERY: Final = timedelta(days=1)


class LiveIdentity:
    """The credentials of a service and the deny list beside them, as their folder has them now.

    What cannot be used changes nothing: the service goes on with what it has, and the log says why.

    Attributes:
        credentials: The newest that can be used.
        deny_list: The newest that the authority has signed.
    """

    def __init__(self, credentials: Credentials, folder: Path | None = None) -> None:
        """Begin with these credentials, and with the deny list of the folder.

        Args:
            credentials: What was read from the folder.
            folder: The folder; None for credentials that never change.

        Raises:
            InvalidInput: The folder has a deny list that cannot be used.
        """
        self.credentials = credentials
        self._folder = folder
        self._seen = self._state_of_files()
        self._problem = ""
        self._warned = datetime.min.replace(tzinfo=UTC)
        self.deny_list = DenyList() if folder is None else DenyList.read(folder / CRL_FILE, credentials.ca)

    def refresh(self) -> bool:
        """Read the folder again if a file in it has changed, and return whether the credentials are others now."""
        if self._folder is None or (state := self._state_of_files()) == self._seen:
            return False
        self._seen = state
        problem, before = "", self.credentials
        try:
            self._read(self._folder)
        except InvalidInput as error:
            problem = str(error)
            self._seen = ()  # a folder that is being written is looked at again
        if problem and problem != self._problem:
            structlog.get_logger().error("identity_not_renewed", problem=problem)
        self._problem = problem
        return self.credentials != before

    def warn_if_ending(self, now: datetime | None = None) -> None:
        """Log once a day that the certificate ends soon."""
        now = now or datetime.now(UTC)
        ends, days = self.credentials.expires, (self.credentials.expires - now).days
        if ends - now < ENDS_SOON and now - self._warned > _WARN_EVERY:
            structlog.get_logger().warning(
                "certificate_ends_soon", identity=str(self.credentials.identity), ends=ends.isoformat(), days=days
            )
            self._warned = now

    def _read(self, folder: Path) -> None:
        credentials = Credentials.load(folder, owner=self.credentials.identity)
        if credentials != self.credentials:
            self.credentials = credentials
            structlog.get_logger().info("identity_renewed", ends=credentials.expires.isoformat())
        deny_list = DenyList.read(folder / CRL_FILE, credentials.ca)
        if deny_list.number < self.deny_list.number:
            raise InvalidInput(f"{folder / CRL_FILE} is gone, or older than the list in use: copy the newest there")
        if deny_list != self.deny_list:
            self.deny_list = deny_list
            structlog.get_logger().info("deny_list_changed", number=deny_list.number, revoked=len(deny_list.serials))

    def _state_of_files(self) -> tuple[object, ...]:
        found: list[object] = []
        for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE, CRL_FILE) if self._folder is not None else ():
            assert self._folder is not None
            try:
                status = (self._folder / name).stat()
                found.append((status.st_mtime_ns, status.st_ino, status.st_size))
            except OSError:
                found.append(None)
        return tuple(found)


async def wait_for_valid(
    folder: Path, stop: asyncio.Event, *, owner: Identity | None = None, longest_s: float = 30.0
) -> Credentials | None:
    """Read the credentials of a folder, and wait while their time has not come or is over, which a person may correct.

    Args:
        folder: Where the files are.
        stop: Ends the wait.
        owner: Whose certificate it must be; None for anybody's.
        longest_s: The longest pause between two looks, in seconds.

    Returns:
        The credentials; None once stopped.

    Raises:
        InvalidInput: The folder cannot be used, whatever the time is, when it is first read.
    """
    pause_s, logged = 0.5, ""
    while not stop.is_set():
        try:
            credentials = Credentials.read(folder, owner=owner)
            if not (problem := credentials.time_problem(folder)):
                return credentials
        except InvalidInput as error:
            if not logged:
                raise
            problem = str(error)  # it is being replaced
        if problem != logged:
            structlog.get_logger().warning("identity_rejected", problem=problem)
        logged = problem
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause_s)
        pause_s = min(longest_s, pause_s * 2)
    return None

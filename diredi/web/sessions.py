"""Who is logged in: one-time links, sessions, and how much one of them may ask for. All of it is in memory."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from diredi.errors import NoRoom

LINK_S: Final = 120.0
"""How long a one-time link works, in seconds."""
MOST_SESSIONS: Final = 200
"""The most sessions, and the most unused links, at a time."""


@dataclass
class Session:
    """One browser of one person."""

    person: str
    """Who it is, as logs and journals say it."""
    role: str
    """What the person may do, as the certificate said that asked for the link."""
    begun: float
    seen: float
    certificate: bytes = field(default=b"", repr=False)
    """The certificate that asked for the link, in PEM form."""
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    """What each change must bring along, which no page of a stranger can know."""
    ended: bool = False


class Sessions:
    """Turn links into sessions, and end sessions. Only digests of secrets are held, so no dump of them opens a page."""

    def __init__(self, idle_s: float, longest_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nobody logged in.

        Args:
            idle_s: A session ends when it was not used for so many seconds.
            longest_s: A session ends after so many seconds, however much it is used.
            clock: Returns the time in seconds.
        """
        self._idle_s, self._longest_s, self._clock = idle_s, longest_s, clock
        self._links: dict[str, tuple[float, str, str, bytes]] = {}
        self._sessions: dict[str, Session] = {}
        self.admits: Callable[[bytes], bool] = lambda _certificate: True
        """Returns whether the holder of a certificate may still come in. Where not, the session ends."""

    def make_link(self, person: str, role: str, certificate: bytes = b"") -> str:
        """Return a token that logs a person in, once.

        Raises:
            NoRoom: Too many links have been asked for and not used.
        """
        now = self._clock()
        self._links = {name: link for name, link in self._links.items() if now - link[0] < LINK_S}
        if len(self._links) >= MOST_SESSIONS:
            raise NoRoom(f"{MOST_SESSIONS} links wait to be used: use one of them, or try again in two minutes")
        token = secrets.token_urlsafe(32)
        self._links[_digest(token)] = now, person, role, certificate
        return token

    def redeem(self, token: str) -> tuple[str, Session] | None:
        """Return the secret of a new session and the session; None where the token is used, too old or none."""
        now = self._clock()
        made, person, role, certificate = self._links.pop(_digest(token), (-LINK_S, "", "", b""))
        if now - made >= LINK_S:
            return None
        self._drop_ended()
        while len(self._sessions) >= MOST_SESSIONS:
            self.end(min(self._sessions.values(), key=lambda session: session.seen))
        secret = secrets.token_urlsafe(32)
        session = self._sessions[_digest(secret)] = Session(person, role, begun=now, seen=now, certificate=certificate)
        return secret, session

    def find(self, secret: str) -> Session | None:
        """Return the session of a secret, and count it as used now; None where there is none any more."""
        session = self._sessions.get(_digest(secret))
        if session is None or not self.is_open(session):
            return None
        session.seen = self._clock()
        return session

    def is_open(self, session: Session) -> bool:
        """Return whether a session has not ended. It does not count as used."""
        now = self._clock()
        is_late = now - session.seen >= self._idle_s or now - session.begun >= self._longest_s
        if is_late or (session.certificate and not self.admits(session.certificate)):
            session.ended = True
        return not session.ended

    def end(self, session: Session) -> None:
        """Log a person out."""
        session.ended = True
        self._drop_ended()

    def _drop_ended(self) -> None:
        self._sessions = {name: session for name, session in self._sessions.items() if self.is_open(session)}


class Throttle:
    """Allow so many calls a minute to each key, and so many keys a minute."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic, most_keys: int = 1000) -> None:
        """Allow `most` calls a minute to each of `most_keys` keys."""
        self._most, self._clock, self._most_keys = most, clock, most_keys
        self._begun, self._counts = clock(), dict[object, int]()

    def allows(self, key: object) -> bool:
        """Count a call and return whether it is still allowed in this minute."""
        now = self._clock()
        if now - self._begun >= 60:
            self._begun, self._counts = now, {}
        if key not in self._counts and len(self._counts) >= self._most_keys:
            return False
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key] <= self._most


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

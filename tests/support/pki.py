"""An authority of the tests' own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from diredi.trust import ca
from diredi.trust.identity import Credentials

HOSTS = ("localhost", "127.0.0.1", "::1")


class Pki:
    """An authority in `folder`, and whoever it believes; each identity is issued once, when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ca.init(folder / "ca")

    def issue(self, role: str, name: str, site: str = "") -> Path:
        """The folder of an identity, as a service wants it named."""
        out = self.folder / role / site / name
        if not out.exists():
            ca.issue(self.folder / "ca", role, name, HOSTS, out, site=site)
        return out

    def credentials(self, role: str, name: str, site: str = "") -> Credentials:
        return Credentials.load(self.issue(role, name, site))

    def anew(
        self,
        role: str,
        name: str,
        site: str = "",
        *,
        hosts: Sequence[str] = HOSTS,
        out: Path | None = None,
        **validity: Any,
    ) -> Credentials:
        """Another key and certificate for an identity, for other hosts or (`now`, `lifetime`) another time."""
        out = out or self.folder / "anew" / uuid4().hex
        return ca.issue(self.folder / "ca", role, name, hosts, out, site, **validity)

    def expired(self, role: str, name: str) -> Credentials:
        """A certificate that ran out yesterday; such a folder would not load, so it is loaded as of then."""
        return self.anew(role, name, now=datetime.now(UTC) - timedelta(days=11), lifetime=timedelta(days=10))

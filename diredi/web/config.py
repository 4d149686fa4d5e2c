"""Where a service serves its web pages, as a part of its configuration."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from diredi.config import Config


class PagesConfig(Config):
    """Where the web pages of a service are. There are none unless `listen` is set."""

    listen: str = Field(default="", pattern=r"^$|^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")
    """The host:port of the web pages; empty: there are none. Without TLS it must be of this machine alone, such as
    127.0.0.1:8480. With port 0 the system chooses a free port."""
    certificate: Path | None = None
    """A certificate in PEM form that browsers trust, with those between it and its root; the pages use TLS then."""
    key: Path | None = None
    """The private key of `certificate`, in PEM form, without a password."""
    without_tls: bool = False
    """Whether to serve other machines without TLS, for a server in front that has it or a network that nobody else
    uses. Whoever reads that network can take over a session."""
    names: tuple[str, ...] = ()
    """Names in the public network by which browsers ask for the pages. Addresses and local names need no entry."""
    idle_minutes: float = Field(default=30.0, gt=0)
    """A session ends when it was not used for so many minutes."""
    longest_hours: float = Field(default=12.0, gt=0)
    """A session ends after so many hours, however much it is used."""

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port of `listen`."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def has_tls(self) -> bool:
        """Return whether the pages use TLS."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: name both, or neither")
        if self.listen and not (self.has_tls or self.without_tls or _is_this_machine(self.address[0])):
            raise ValueError(
                f"{self.listen} serves other machines without TLS: listen at 127.0.0.1, name a certificate and its "
                "key, or say without_tls: true"
            )
        return self


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

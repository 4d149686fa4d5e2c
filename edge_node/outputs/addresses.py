"""Where outputs go to, as users write it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from diredi.errors import InvalidInput
from edge_node.sources.credentials import with_credentials
from edge_node.sources.reference import check_url, redacted

PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class Broker:
    """Hold where a broker is and how it is spoken to."""

    url: str
    """`mqtt://HOST:PORT` or `mqtts://HOST:PORT`; `{NAME}` stands for a variable of the environment."""
    version: str = "3.1.1"
    ca: Path | None = None
    credentials: Path | None = None

    def check(self) -> None:
        """Check how the address is written; raise InvalidInput if it cannot be used."""
        if not self.url.startswith(("mqtt://", "mqtts://")):
            raise InvalidInput(f"broker {redacted(self.url)} is not an address of MQTT: write it like mqtts://10.0.0.5")
        check_url(self.url, "broker", "mqtts://10.0.0.5:8883")
        try:
            port = urlsplit(self.url).port
        except ValueError:
            port = 0
        if port == 0:
            raise InvalidInput(f"broker {redacted(self.url)} has a port that does not exist: use one from 1 to 65535")

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def host(self) -> str:
        """The name or address of its machine."""
        return self._parts.hostname or ""

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return self._parts.port or PORTS[self._parts.scheme]

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted and the broker's certificate is checked."""
        return self._parts.scheme == "mqtts"

    def user(self) -> tuple[str, str]:
        """Return user name and password, empty for none, as the environment and the file of credentials have them now.

        Raises:
            InvalidInput: A variable is not set, or the file cannot be read.
        """
        parts = urlsplit(with_credentials(self.url, self.credentials))
        return unquote(parts.username or ""), unquote(parts.password or "")

    def __str__(self) -> str:
        """Return host and port."""
        return f"{self.host}:{self.port}"


def web_address(text: str) -> tuple[str, int]:
    """Return host and port of a web server.

    Args:
        text: "PORT", which is one of 127.0.0.1, or "HOST:PORT"; an IPv6 address stands in brackets.

    Raises:
        InvalidInput: It is neither.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535) or (":" in host and host[0] + host[-1] != "[]"):
        raise InvalidInput(f"http is {text!r}: write a port such as 8080, or host:port such as 0.0.0.0:8080")
    return host.strip("[]") or "127.0.0.1", int(port)


def check_webhook(url: str) -> None:
    """Check how the address is written; raise InvalidInput if it cannot be used."""
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"webhook {redacted(url)} is not an address of HTTP: write it like https://10.0.0.5/events")
    check_url(url, "webhook", "https://10.0.0.5/events")

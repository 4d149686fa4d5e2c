"""Who is told of alarms, as a part of the configuration of a cloud."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from diredi.config import Config


class AlarmsConfig(Config):
    """Who is told when something begins that a person should look at: nobody, unless a webhook or an address is set."""

    webhook: SecretStr = SecretStr("")
    """The URL to which alarms are posted as JSON, such as https://hooks.example.com/diredi. It is never shown, because
    it may hold a token."""
    email_to: tuple[Annotated[str, Field(pattern=r"^[^\s@<>]+@[^\s@<>]+$")], ...] = ()
    """The addresses to which alarms are sent by e-mail."""
    email_from: str = Field(default="", pattern=r"^$|^[^\s@<>]+@[^\s@<>]+$")
    """The address from which."""
    smtp: str = Field(default="", pattern=r"^$|^[^:\s]+:\d{1,5}$")
    """The host:port of the mail server."""
    smtp_tls: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection to the mail server is encrypted."""
    smtp_user: str = ""
    """The user name at the mail server; empty: it takes mail without a log-in."""
    smtp_password: SecretStr = SecretStr("")
    """Its password. Better in the environment than in a file."""
    console: str = Field(default="", pattern=r"^$|^https?://\S+$")
    """The URL of the console, for links in alarms."""
    every_s: float = Field(default=30.0, gt=0)
    """How often to look, in seconds."""
    after_s: float = Field(default=120.0, ge=0)
    """Only what lasts so many seconds is told."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        url = self.webhook.get_secret_value()
        if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise ValueError("webhook is a URL, such as https://hooks.example.com/diredi")
        if self.email_to and not (self.smtp and self.email_from):
            raise ValueError("email_to needs smtp (the mail server, such as mail.example.com:587) and email_from")
        if self.smtp_user and self.smtp_tls == "none":
            raise ValueError("a password is sent only with TLS: set smtp_tls to starttls or tls")
        return self

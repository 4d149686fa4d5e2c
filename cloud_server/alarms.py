"""What somebody should look at in the fleet, told by webhook and e-mail when it begins and when it is over."""

from __future__ import annotations

import asyncio
import json
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import structlog
from pydantic import BaseModel, TypeAdapter

from cloud_server import canary
from cloud_server.alarms_config import AlarmsConfig
from cloud_server.states import State
from cloud_server.store import Repository
from cloud_server.store.fleet import AWAY_AFTER, Trouble
from diredi.errors import DirediError, Unreachable
from diredi.rpc.byte_counter import EgressMeter
from diredi.store.files import atomic_write, read_state

RECENT: Final = timedelta(days=7)
TIMEOUT_S: Final = 15.0
_LOOK_BACK: Final = 50
_TROUBLE_TEXTS: Final = {
    Trouble.AWAY: "Devices away",
    Trouble.FAILED_INSTALL: "Last install failed",
    Trouble.FAILED_FRAMES: "Failing on frames",
    Trouble.NO_UPDATES: "Taking no updates",
    Trouble.CERTIFICATE: "Certificates that end within 30 days",
    Trouble.DRIFT: "What they see has changed",
}


class Alarm(BaseModel):
    """Something that a person should look at."""

    text: str
    count: int
    path: str
    """Where the console shows it."""


def find_alarms(r: Repository, now: datetime, online: set[str]) -> list[Alarm]:
    """Return what somebody should look at.

    Args:
        r: The database.
        now: The current time.
        online: Who has a stream open, such as "site/site-1".
    """
    troubles = r.devices.count_troubles(now)[1]
    paused = sum(bool(one.rollout and one.rollout.paused) for one in canary.under_way(r.releases.all()))
    bad = {State.FAILED, State.ROLLED_BACK, State.REJECTED}
    cycles = [cycle for cycle in r.cycles.recent(limit=_LOOK_BACK) if now - cycle.progressed_at < RECENT]
    ended = sum(cycle.state in bad for cycle in cycles)
    silent = sum(
        f"site/{site.name}" not in online and site.last_seen < now - AWAY_AFTER for site in r.sites.all()
    )  # fmt: skip
    found = (
        *((_TROUBLE_TEXTS[one], count, "/fleet?" + urlencode({"state": one.value})) for one, count in troubles.items()),
        ("Rollouts paused", paused, "/rollouts"),
        ("Cycles without a release in 7 days", ended, "/cycles"),
        ("Sites away", silent, "/sites"),
    )
    return [Alarm(text=text, count=count, path=path) for text, count, path in found if count]


class AlarmNotifier:
    """Tells each channel what has begun and what is over since it was told last, also over a restart.

    A channel that fails is tried again at the next look, with what is true then.
    """

    def __init__(
        self, config: AlarmsConfig, find: Callable[[], Awaitable[list[Alarm]]], meter: EgressMeter, path: Path
    ) -> None:
        """Make it; `run` starts it.

        Args:
            config: Who is told.
            find: Returns what somebody should look at now.
            meter: Counts what leaves.
            path: The file with what was told.
        """
        self._config, self._find, self._meter, self._path = config, find, meter, path
        self._since: dict[str, float] = {}
        channels: dict[str, tuple[bool, Callable[[dict[str, Any]], None]]] = {
            "webhook": (bool(config.webhook.get_secret_value()), self._post),
            "email": (bool(config.email_to), self._mail),
        }
        self._channels = {name: send for name, (is_wanted, send) in channels.items() if is_wanted}
        self._told: dict[str, list[str]] = read_state(path, TypeAdapter(dict[str, list[str]]).validate_json) or {}
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        """Look and tell, for ever; returns at once where nobody is to be told."""
        while self._channels:
            alarms = self._lasting(await self._find())
            for name, send in self._channels.items():
                await self._tell(name, send, alarms)
            await asyncio.sleep(self._config.every_s)

    def _lasting(self, alarms: list[Alarm]) -> list[Alarm]:
        now = time.monotonic()
        self._since = {alarm.text: self._since.get(alarm.text, now) for alarm in alarms}
        told = {text for texts in self._told.values() for text in texts}
        return [one for one in alarms if one.text in told or now - self._since[one.text] >= self._config.after_s]

    async def _tell(self, name: str, send: Callable[[dict[str, Any]], None], alarms: list[Alarm]) -> None:
        before, texts = self._told.get(name, []), [alarm.text for alarm in alarms]
        began = [alarm for alarm in alarms if alarm.text not in before]
        over = [text for text in before if text not in texts]
        if not began and not over:
            return
        console = self._config.console.rstrip("/")
        message = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "began": [
                {"text": one.text, "count": one.count} | ({"url": console + one.path} if console else {})
                for one in began
            ],
            "over": over,
        }
        try:
            await asyncio.to_thread(send, message)
        except DirediError as error:
            if self._problems.get(name) != str(error):
                structlog.get_logger().warning("alarm_not_told", channel=name, error=str(error))
            self._problems[name] = str(error)
            return
        self._problems.pop(name, None)
        self._told[name] = texts
        await asyncio.to_thread(atomic_write, self._path, json.dumps(self._told))
        structlog.get_logger().info("alarm_told", channel=name, began=[one.text for one in began], over=over)

    def _post(self, message: dict[str, Any]) -> None:
        url, body = self._config.webhook.get_secret_value(), json.dumps(message).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        self._meter.count("alarm/webhook", len(body))
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            error.close()
            why = f"answers {error.code}"
        except (OSError, ValueError) as error:
            why = f"does not answer ({getattr(error, 'reason', error)})"
        raise Unreachable(f"webhook at {urlsplit(url).hostname} {why}: correct alarms.webhook, or look there")

    def _mail(self, message: dict[str, Any]) -> None:
        config, mail = self._config, EmailMessage()
        said = [f"{one['text']}: {one['count']}" for one in message["began"]]
        over = [f"over: {text}" for text in message["over"]]
        mail["Subject"] = f"DiReDi: {', '.join([*said, *over])}"[:200]
        mail["From"], mail["To"] = config.email_from, ", ".join(config.email_to)
        links = (f"{one['text']}: {one['count']}  {one.get('url', '')}".rstrip() for one in message["began"])
        mail.set_content(_lines(*links, *over, "", f"Cloud, {message['at']}"))
        host, _, port = config.smtp.rpartition(":")
        context = ssl.create_default_context()
        self._meter.count("alarm/email", len(mail.as_bytes()))
        try:
            made = smtplib.SMTP_SSL if config.smtp_tls == "tls" else smtplib.SMTP
            more: dict[str, Any] = {"context": context} if config.smtp_tls == "tls" else {}
            with made(host, int(port), timeout=TIMEOUT_S, **more) as server:
                if config.smtp_tls == "starttls":
                    server.starttls(context=context)
                if config.smtp_user:
                    server.login(config.smtp_user, config.smtp_password.get_secret_value())
                server.send_message(mail)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise Unreachable(f"mail server {config.smtp} takes no mail ({error}): look at alarms.smtp") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follow nobody to another address: it would get what is meant for this one."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 - the library's own signature
        return None


def _lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)

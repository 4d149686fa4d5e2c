"""What a box does: it starts cloud, site and edge node, waits until they detect, and watches over them to its end."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diredi.child_process import ChildProcess
from diredi.errors import WrongState
from diredi.local_services import LocalServices
from diredi.rpc.enrolment import enrol
from diredi.rpc.retry import Backoff
from diredi.trust.enrolment import Token
from diredi.trust.identity import CERTIFICATE_FILE, Identity, Role
from diredi_box.folder import BoxFolder
from diredi_box.options import EDGE, SITE, BoxOptions
from diredi_box.service_configs import HOST, cloud_values, edge_values, site_values
from diredi_cli.connection import page_link
from diredi_cli.output import Progress

START_S = 300.0
"""How long a service may take until it answers, on a small board."""
_LOOK_EVERY_S = 0.25
_RENEW_EVERY_S = 86_400.0
_MODULES = {"cloud": "cloud_server", SITE: "user_domain", EDGE: "edge_node"}


@dataclass(frozen=True)
class Links:
    """Where the pages of a box are; the first two work once, for two minutes."""

    site: str
    console: str
    camera: str
    """The edge node's own page, which needs no log-in on this machine."""


class Box:
    """The services of one box, which is started in a folder that nobody else has."""

    def __init__(self, options: BoxOptions, folder: BoxFolder, tell: Callable[[str], None]) -> None:
        """Know of no process yet.

        Args:
            options: What the box was told.
            folder: Where everything is; this process has its lock.
            tell: Called with one line for a person.
        """
        self._options, self._folder, self._tell = options, folder, tell
        self._services = LocalServices(folder, tell, keep_logs=True)
        self._pauses = {name: Backoff(1.0, 60.0) for name in _MODULES}
        self._restarts: dict[str, float] = {}
        self._values: dict[str, dict[str, Any]] = {}

    def stop(self) -> None:
        """End all services."""
        self._services.stop()

    async def start(self, bar: Progress) -> Links:
        """Start the services, make identities for those that have none, and wait until the edge node has a release.

        Raises:
            DirediError: A service could not start. Its last lines have been told.
        """
        bar.step("Starting cloud, site and edge node")
        folder, options, services = self._folder, self._options, self._services
        cloud = await self._begin("cloud", cloud_values(options, folder))
        folder.make_tokens(cloud, SITE, [EDGE])
        site = await self._begin(SITE, site_values(options, folder, cloud))
        await self._enrol_operator()
        await self._begin(EDGE, edge_values(options, folder, cloud, site))
        bar.step("Making the first release" if not options.has_release else "Loading the release")
        while not await services.guard(self._has_release()):
            for event in services.services["cloud"].new_events():
                if event.get("event") == "bootstrap_progressed":
                    bar.step(
                        "Making the first release", float(event["fraction"]), f"{event['step']}: {event['message']}"
                    )
            self._tell_news()
            await asyncio.sleep(_LOOK_EVERY_S)
        return await links(folder, options)

    async def _begin(self, name: str, values: dict[str, Any]) -> str:
        """Start one service and return its address."""
        self._values[name] = values
        service = self._services.start(name, _MODULES[name], values)
        return await self._services.guard(self._services.ready(service, START_S, self._hear))

    async def _enrol_operator(self) -> None:
        folder, token = self._folder.identity("operator"), self._folder.token("operator")
        if not (folder / CERTIFICATE_FILE).exists():
            await enrol(Token.decode(token.read_text()), folder, Identity(Role.ADMIN, "operator"))
        token.unlink(missing_ok=True)

    async def _has_release(self) -> bool:
        return bool((await asyncio.to_thread(self.health)).get("release"))

    def health(self) -> dict[str, Any]:
        """Return what the edge node says of itself; nothing while it does not answer."""
        connection = http.client.HTTPConnection(HOST, self._options.edge_port, timeout=3)
        try:
            connection.request("GET", "/healthz")
            return dict(json.loads(connection.getresponse().read()))
        except (OSError, ValueError, http.client.HTTPException):
            return {}
        finally:
            connection.close()

    async def watch(self) -> None:
        """Watch over the services for ever: tell what a person should know, and start again what has ended."""
        renewed = time.monotonic()
        while True:
            self._tell_news()
            for service in list(self._services.services.values()):
                if service.process.poll() is not None:
                    self._restart(service)
            if time.monotonic() - renewed > _RENEW_EVERY_S:
                await asyncio.to_thread(self._folder.make_identities)
                renewed = time.monotonic()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _restart(self, ended: ChildProcess) -> None:
        """Start a service again, after a pause, at the address that the others know."""
        name, now = ended.name, time.monotonic()
        if name not in self._restarts:
            pause_s = self._pauses[name].next_s()
            self._restarts[name] = now + pause_s
            self._tell(
                f"{name} ended by itself with exit code {ended.process.returncode}: it is started again in "
                f"{pause_s:.0f} s; its log is {ended.log}"
            )
        elif now >= self._restarts[name]:
            del self._restarts[name]
            address = ended.address
            again = self._services.start(name, _MODULES[name], self._values[name] | {"listen": address})
            again.address = address

    def _tell_news(self) -> None:
        for name in (SITE, EDGE):
            if (service := self._services.services.get(name)) is not None:
                for event in service.new_events():
                    self._hear(event)

    def _hear(self, event: dict[str, Any]) -> None:
        if text := news_in(event):
            self._tell(text)


def news_in(event: dict[str, Any]) -> str:
    """Return what a line of a service's log tells a person; empty for nothing."""
    match event.get("event"):
        case "source_opened":
            return f"camera {event.get('camera')} gives frames"
        case "source_failed":
            return f"camera {event.get('camera')} gives no frames, and is tried again: {event.get('error')}"
        case "release_swapped":
            return f"release {event.get('version')} detects"
        case "web_server_failed":
            return f"the edge node's page is not served: {event.get('error')}"
        case "certificate_not_renewed":
            return f"a certificate was not renewed, and is tried again: {event.get('why')}"
    return ""


async def links(folder: BoxFolder, options: BoxOptions) -> Links:
    """Return where the pages of a running box are.

    Raises:
        WrongState: No box has started here yet.
        Unreachable: The box does not run.
    """
    try:
        addresses = folder.addresses()
        cloud, site = addresses["cloud"], addresses[SITE]
    except (FileNotFoundError, KeyError):
        raise WrongState(f"no box has started in {folder.root} yet: start one with `diredi box --camera ...`") from None
    own = Identity(Role.SITE, SITE)
    return Links(
        site=await page_link(site, folder.identity(SITE), own),
        console=await page_link(cloud, folder.identity("operator")),
        camera=f"http://{HOST}:{options.edge_port}/",
    )

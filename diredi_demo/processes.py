"""The processes of a demo; they are the real services with their real configurations."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

from diredi.child_process import ChildProcess
from diredi.errors import DirediError
from diredi_cli.output import note
from diredi_demo.workspace import Workspace

_T = TypeVar("_T")

_LOOK_EVERY_S = 0.1


class Fleet:
    """All processes of a demo."""

    def __init__(self, folder: Workspace, outlive: bool) -> None:
        self._folder = folder
        self._outlive = outlive
        self.services: dict[str, ChildProcess] = {}

    def start(self, name: str, module: str, config: dict[str, Any]) -> ChildProcess:
        """Start one service; its log is a file, so that it can outlive the demo."""
        path = self._folder.write_config(name, config)
        log = self._folder.log(name)
        wrapper = [] if self._outlive else ["diredi.child_process"]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", *wrapper, module, "--config", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # Ctrl-C is for us alone; and its children can be ended with it
                env=_environment(),
            )
        service = ChildProcess(name, process, log)
        self.services[name] = service
        self._folder.record_processes({name: s.process.pid for name, s in self.services.items()})
        return service

    async def ready(self, service: ChildProcess, timeout_s: float = 60.0) -> str:
        """Wait until a service answers and return its address.

        Raises:
            DirediError: It did not say so in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for event in service.new_events():
                if event.get("event") == "service_started":
                    service.address = str(event["address"])
                    self._folder.record_addresses({s.name: s.address for s in self.services.values() if s.address})
                    return service.address
            await asyncio.sleep(_LOOK_EVERY_S)
        raise self._failure(service, f"was not ready after {timeout_s:.0f} s")

    async def guard(self, work: Awaitable[_T]) -> _T:
        """Await some work and return its result, as long as all services live.

        Raises:
            DirediError: A service has died meanwhile.
        """
        working = asyncio.ensure_future(work)
        watching = asyncio.create_task(self._first_death())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not working.done():
                dead = watching.result()
                raise self._failure(dead, f"ended by itself with exit code {dead.process.returncode}")
            return await working
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def _first_death(self) -> ChildProcess:
        while True:
            for service in self.services.values():
                if service.process.poll() is not None:
                    return service
            await asyncio.sleep(_LOOK_EVERY_S)

    def _failure(self, service: ChildProcess, what: str) -> DirediError:
        note(f"last lines of {service.log}:")
        for line in service.last_lines():
            note(f"  {line}")
        return DirediError(f"{service.name} {what}: its log is {service.log}")

    def stop(self, grace_s: float = 10.0) -> None:
        """End every process and its children: SIGTERM first, SIGKILL after some seconds."""
        for service in self.services.values():
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for service in self.services.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.process.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(service.process.pid, signal.SIGKILL)
            service.process.wait()
        self.services.clear()
        self._folder.forget_processes()


def _environment() -> dict[str, str]:
    """Ours, without settings of other deployments: those would win over the demo's configuration files."""
    foreign = ("DIREDI_CLOUD_", "DIREDI_SITE_", "DIREDI_EDGE_")
    return {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | {"PYTHONUNBUFFERED": "1"}

"""Services of ours as processes of this machine, and the folder with their files: what a demo and a box share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml

from diredi.child_process import ChildProcess
from diredi.errors import DirediError, InvalidInput
from diredi.store.files import atomic_write, read_state

HOSTS = ("localhost", "127.0.0.1", "::1")
TOKEN_VALID = timedelta(hours=1)
_LOOK_EVERY_S = 0.1
_FOREIGN = ("DIREDI_CLOUD_", "DIREDI_SITE_", "DIREDI_EDGE_")

_T = TypeVar("_T")


class ServiceFolder:
    """The places of the services' files below one folder: identities, configurations, states, logs, processes."""

    def __init__(self, root: Path) -> None:
        """Name the folder; nothing is made."""
        self.root = root

    def identity(self, name: str) -> Path:
        """Return the folder of somebody's credentials."""
        return self.root / "pki" / name

    def state(self, name: str) -> Path:
        """Return the folder of a service's state."""
        return self.root / name

    def log(self, name: str) -> Path:
        """Return the path of a service's log."""
        return self.root / "logs" / f"{name}.log"

    def write_config(self, name: str, values: dict[str, Any]) -> Path:
        """Write the YAML file of one service and return its path."""
        path = self.root / "config" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    def token(self, name: str) -> Path:
        """Return the path of the token with which somebody enrols; the file is there until then."""
        return self.root / "tokens" / name

    def make_authority(self, name: str) -> None:
        """Make an authority where there is none, and the identity of the cloud, which signs with it for all others.

        Args:
            name: What the certificate of the authority is called.
        """
        from diredi.trust import ca
        from diredi.trust.identity import CA_FILE

        if not (self.identity("ca") / CA_FILE).exists():
            ca.init(self.identity("ca"), name)
        ca.issue(self.identity("ca"), "cloud", "cloud", HOSTS, self.identity("cloud"))

    def make_tokens(self, cloud: str, site: str, devices: Iterable[str]) -> None:
        """Make a one-time token for everybody but the cloud who has no certificate; each makes its own key with it.

        Args:
            cloud: The cloud as host:port.
            site: Name of the site.
            devices: Names of its devices.
        """
        from diredi.trust.enrolment import Token, create_token
        from diredi.trust.identity import CERTIFICATE_FILE, Identity, Role

        people = [Identity(Role.SITE, site), Identity(Role.ADMIN, "operator")]
        for identity in (*people, *(Identity(Role.DEVICE, device, site) for device in devices)):
            if (self.identity(identity.name) / CERTIFICATE_FILE).exists():
                continue
            hosts = [] if identity.role is Role.ADMIN else HOSTS
            token = Token(cloud, create_token(self.identity("ca"), identity, hosts, TOKEN_VALID))
            self.token(identity.name).parent.mkdir(mode=0o700, exist_ok=True)
            atomic_write(self.token(identity.name), token.encode().encode(), durable=False, mode=0o600)

    @property
    def _processes(self) -> Path:
        return self.root / "processes.json"

    @property
    def _addresses(self) -> Path:
        return self.root / "addresses.json"

    def record_processes(self, ids: dict[str, int]) -> None:
        """So that another command can stop them. A process is its id and the moment it began: ids are used again."""
        found = {name: {"pid": pid, "began": _began(pid)} for name, pid in ids.items()}
        atomic_write(self._processes, json.dumps(found, indent=1), durable=False)

    def record_addresses(self, addresses: dict[str, str]) -> None:
        """Record where each service answers, for later commands."""
        atomic_write(self._addresses, json.dumps(addresses, indent=1), durable=False)

    def addresses(self) -> dict[str, str]:
        """Return where each service answers."""
        return dict(json.loads(self._addresses.read_text()))

    def forget_processes(self) -> None:
        """Forget the recorded processes, which have ended."""
        self._processes.unlink(missing_ok=True)

    def running(self) -> dict[str, int]:
        """Return the process id of every process of this folder that still runs, by name."""
        recorded = read_state(self._processes, _processes_in) or {}
        return {name: pid for name, (pid, began) in recorded.items() if began is not None and _began(pid) == began}

    def stop_running(self, grace_s: float = 10.0) -> list[str]:
        """End what still runs, first gently, and return the names."""
        stopped = list(self.running())
        for pid in self.running().values():
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in self.running().values():
            os.killpg(pid, signal.SIGKILL)
        self.forget_processes()
        return stopped


class LocalServices:
    """The processes of services of this machine; they are the real services with their real configurations."""

    def __init__(
        self, folder: ServiceFolder, tell: Callable[[str], None], *, outlive: bool = False, keep_logs: bool = False
    ) -> None:
        """Know of no process yet.

        Args:
            folder: Where their files are.
            tell: Called with the last lines of the log of a service that failed, for a person.
            outlive: Whether they go on when this process has ended.
            keep_logs: Whether the log of a service's last start is kept beside the new one, as NAME.log.1.
        """
        self._folder = folder
        self._tell = tell
        self._outlive = outlive
        self._keep_logs = keep_logs
        self.services: dict[str, ChildProcess] = {}

    def start(self, name: str, module: str, config: dict[str, Any]) -> ChildProcess:
        """Start one service; its log is a file, so that it can outlive us."""
        path = self._folder.write_config(name, config)
        log = self._folder.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if self._keep_logs and log.exists():
            log.replace(log.with_name(f"{log.name}.1"))
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

    async def ready(
        self, service: ChildProcess, timeout_s: float = 60.0, heard: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> str:
        """Wait until a service answers and return its address.

        Args:
            service: A process that was started.
            timeout_s: How long to wait, in seconds.
            heard: Called with each event that the service logs meanwhile.

        Raises:
            DirediError: It did not say so in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for event in service.new_events():
                heard(event)
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
        self._tell(f"last lines of {service.log}:")
        for line in service.last_lines():
            self._tell(f"  {line}")
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


def end_as_by_ctrl_c() -> None:
    """Let whoever ends this process have it unwind and stop its services, as Ctrl-C does; but `nohup` is heeded.

    A script's background jobs start with SIGINT ignored, and then SIGTERM, which is turned into it, would be as well.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: signal.raise_signal(signal.SIGINT))


def _environment() -> dict[str, str]:
    """Ours, without settings of other deployments: those would win over the files of this one."""
    return {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)} | {"PYTHONUNBUFFERED": "1"}


def _processes_in(data: bytes) -> dict[str, tuple[int, str | None]]:
    return {str(name): (int(entry["pid"]), entry["began"]) for name, entry in json.loads(data).items()}


def _began(pid: int) -> str | None:
    """When a process began, in a form that only serves comparison; None for one that has ended."""
    import psutil  # type: ignore[import-untyped]

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


@contextlib.contextmanager
def named(part: str) -> Iterator[None]:
    """Say in an error of a configuration which part of the whole it is about.

    Args:
        part: Such as "cloud".

    Raises:
        InvalidInput: What the block has raised, with the part before it.
    """
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{part}: {error}") from None

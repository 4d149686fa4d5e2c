"""The folder of a demo: `DIR/fleet/` is the demo's own, and the rest of DIR is for people."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from diredi.errors import InvalidInput, WrongState
from diredi.store.files import atomic_write, read_state

_MARK = ".diredi-demo"
HOSTS = ("localhost", "127.0.0.1", "::1")
TOKEN_VALID = timedelta(hours=1)


@dataclass(frozen=True)
class Workspace:
    """The places in a demo's folder."""

    out: Path

    @property
    def fleet(self) -> Path:
        """Return the folder of the services' own files."""
        return self.out / "fleet"

    @property
    def data(self) -> Path:
        """Return the folder of generated scenes; equal seeds give equal files, so a second demo uses them again."""
        return self.fleet / "data"

    @property
    def report(self) -> Path:
        """Return the path of report.json."""
        return self.out / "report.json"

    @property
    def page(self) -> Path:
        """Return the path of report.html."""
        return self.out / "report.html"

    def identity(self, name: str) -> Path:
        """Return the folder of somebody's credentials."""
        return self.fleet / "pki" / name

    def state(self, name: str) -> Path:
        """Return the folder of a service's state."""
        return self.fleet / name

    def log(self, name: str) -> Path:
        """Return the path of a service's log."""
        return self.fleet / "logs" / f"{name}.log"

    def release(self, version: int) -> Path:
        """Return the path of a release's ONNX file."""
        return self.out / f"release-{version}.onnx"

    def write_config(self, name: str, values: dict[str, Any]) -> Path:
        """Write the YAML file of one service and return its path."""
        path = self.fleet / "config" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    def check(self) -> None:
        """Find out whether a demo may use the folder; nothing is changed.

        Raises:
            InvalidInput: The folder is somebody else's, or cannot be written.
            WrongState: Another demo still runs in it.
        """
        if self.out.exists() and not self.out.is_dir():
            raise InvalidInput(f"{self.out} is a file: name a folder with --out")
        if self.out.exists() and any(self.out.iterdir()) and not (self.out / _MARK).exists():
            raise InvalidInput(f"{self.out} is not empty and no demo made it: name another folder with --out")
        if self.running():
            raise WrongState(f"the demo in {self.out} still runs: stop it with `diredi demo --out {self.out} --stop`")
        there = next(folder for folder in (self.out, *self.out.absolute().parents) if folder.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise InvalidInput(f"{self.out} cannot be made or written, because of {there}: name another with --out")

    def prepare(self) -> None:
        """Make the folder ready for a new demo; what an earlier one left is replaced, but for the scenes.

        Raises:
            InvalidInput: The folder is somebody else's, or cannot be written.
            WrongState: Another demo still runs in it.
        """
        self.check()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / _MARK).touch()
        except OSError as error:
            raise InvalidInput(f"{self.out} cannot be written ({error.strerror}): name another with --out") from None
        for old in (self.report, self.page, *self.out.glob("release-*.onnx")):
            old.unlink(missing_ok=True)
        for old in self.fleet.glob("*"):
            if old != self.data:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        self.log("x").parent.mkdir(parents=True)

    def token(self, name: str) -> Path:
        """Return the path of the token with which somebody enrols; the file is there until then."""
        return self.fleet / "tokens" / name

    def make_authority(self) -> None:
        """Make an authority, and the identity of the cloud, which signs with it for all others."""
        from diredi.trust import ca

        ca.init(self.identity("ca"), "DiReDi demo")
        ca.issue(self.identity("ca"), "cloud", "cloud", HOSTS, self.identity("cloud"))

    def make_tokens(self, cloud: str, site: str, devices: Iterable[str]) -> None:
        """Make a one-time token for everybody but the cloud; each makes its own key with it.

        Args:
            cloud: The cloud as host:port.
            site: Name of the site.
            devices: Names of its devices.
        """
        from diredi.trust.enrolment import Token, create_token
        from diredi.trust.identity import Identity, Role

        people = [Identity(Role.SITE, site), Identity(Role.ADMIN, "operator")]
        for identity in (*people, *(Identity(Role.DEVICE, device, site) for device in devices)):
            hosts = [] if identity.role is Role.ADMIN else HOSTS
            token = Token(cloud, create_token(self.identity("ca"), identity, hosts, TOKEN_VALID))
            self.token(identity.name).parent.mkdir(mode=0o700, exist_ok=True)
            atomic_write(self.token(identity.name), token.encode().encode(), durable=False, mode=0o600)

    @property
    def _processes(self) -> Path:
        return self.fleet / "processes.json"

    @property
    def _addresses(self) -> Path:
        return self.fleet / "addresses.json"

    def record_processes(self, ids: dict[str, int]) -> None:
        """So that another command can stop them. A process is its id and the moment it began: ids are used again."""
        found = {name: {"pid": pid, "began": _began(pid)} for name, pid in ids.items()}
        atomic_write(self._processes, json.dumps(found, indent=1), durable=False)

    def record_addresses(self, addresses: dict[str, str]) -> None:
        """Record where each service answers, for later commands."""
        atomic_write(self._addresses, json.dumps(addresses, indent=1), durable=False)

    def addresses(self) -> dict[str, str]:
        """Return where each service of this demo answers."""
        return dict(json.loads(self._addresses.read_text()))

    def forget_processes(self) -> None:
        """Forget the recorded processes, which have ended."""
        self._processes.unlink(missing_ok=True)

    def running(self) -> dict[str, int]:
        """Return the process id of every service of this demo that still runs, by name."""
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

"""What docker-compose.yml describes, under test."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container
from docker.utils.socket import frames_iter

from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
EDGES = ("edge-1", "edge-2", "edge-3")
_END = "-- the end --"
SERVICES = ("cloud", "gateway", "user-domain", *EDGES)


class Project:
    """Services of docker-compose.yml under a project name of their own: containers, volumes and networks are apart from
    those of other tests, and of what `make up` left running. A user's proxy must not come between them."""

    files: tuple[str, ...] = ("docker-compose.yml", "tests/containers/proxy.yaml")

    def __init__(self, project: str, **environment: str) -> None:
        """`environment` is for the variables of docker-compose.yml."""
        self.engine = docker.from_env()
        self._project = project
        self._environment = {**os.environ, **environment}

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """What `docker compose` printed. Raises AssertionError with all of it when it failed."""
        files = [argument for file in self.files for argument in ("-f", file)]
        command = [str(ROOT / "deploy/compose.sh"), "-p", self._project, *files, *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def stop(self) -> None:
        """Leaves nothing; before a start, nothing of a test run that was killed."""
        self.compose("--profile", "peers", "down", "--volumes", "--remove-orphans")

    def logs(self) -> str:
        return self.compose("--profile", "peers", "logs", "--no-color", "--tail", "200")

    def container(self, service: str) -> Container:
        """As it is now."""
        labels = [f"com.docker.compose.project={self._project}", f"com.docker.compose.service={service}"]
        (container,) = self.engine.containers.list(all=True, filters={"label": labels})
        return container

    def services(self) -> set[str]:
        """Those that have a container, whether it runs or not."""
        label = f"com.docker.compose.project={self._project}"
        containers = self.engine.containers.list(all=True, filters={"label": label})
        return {container.labels["com.docker.compose.service"] for container in containers}


class Deployment(Project):
    """All that `make up` starts: started, looked into, hurt and mended."""

    files = (*Project.files, "tests/containers/small.yaml")

    def __init__(self, folder: Path, project: str = "diredi-test", port: int = 18443) -> None:
        super().__init__(project, DIREDI_CLOUD_PORT=str(port))
        self.identity = folder / "operator"
        self.address = f"localhost:{port}"

    def start(self) -> None:
        self.stop()
        self.compose("up", "--detach", "--wait", "--wait-timeout", "600", timeout_s=660)
        command = ("diredi", "pki", "token", "admin/operator", "--ca", "/authority", "--address", self.address)
        token = json.loads(self.compose("exec", "-T", "cloud", *command, "--json"))["token"]
        self.cli("pki", "enroll", token, "--out", str(self.identity))

    def kill_and_start(self, service: str) -> None:
        """As a power cut does: no time to say good-bye, the volumes stay."""
        container = self.container(service)
        container.kill()
        container.wait(timeout=30)
        container.start()

    def python(self, service: str, code: str, *arguments: str) -> str:
        """What Python code printed inside a container. Raises AssertionError when it failed.

        The engine sometimes loses what a process prints just before its end (docker/docker-py#2042), so the process
        ends only when its last line has arrived here.
        """
        api, container = self.engine.api, self.container(service)
        command = ["python", "-c", f"{code}\nimport sys\nprint({_END!r}, flush=True)\nsys.stdin.read()", *arguments]
        run = api.exec_create(container.id, command, stdin=True)["Id"]
        output = b""
        with contextlib.closing(api.exec_start(run, socket=True)) as stream:
            for _, data in frames_iter(stream, tty=False):
                output += data
                if output.rstrip().endswith(_END.encode()):
                    stream._sock.shutdown(socket.SHUT_WR)  # the end of its input, for which docker-py has no call
        eventually("it has ended", lambda: not api.exec_inspect(run)["Running"], 60)
        code_ = api.exec_inspect(run)["ExitCode"]
        assert code_ == 0, f"in {service}: {output.decode()}"
        return output.decode().removesuffix(f"{_END}\n").strip()

    def cli(self, *arguments: str, timeout_s: float = 180) -> Any:
        """What `diredi ... --json` printed, from a shell of this machine outside every container."""
        environment = {**os.environ, "DIREDI_CLOUD": self.address, "DIREDI_IDENTITY": str(self.identity)}
        command = [sys.executable, "-m", "diredi_cli", *arguments, "--json"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}"
        return json.loads(done.stdout)

    def releases(self) -> dict[str, int]:
        """Device to the release it runs, as `diredi device list` says."""
        return {device["name"]: device["release_version"] for device in self.cli("device", "list")}

    def address_of(self, service: str) -> str:
        """Of its container on the first of its networks that is not the wide one."""
        networks = self.container(service).attrs["NetworkSettings"]["Networks"]
        ((_, network),) = [(name, n) for name, n in networks.items() if not name.endswith("_wan")] or networks.items()
        return str(network["IPAddress"])

"""`python flower.py FOLDER`: Flower's deployment engine, a SuperLink and one SuperNode a client, as its commands start
them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

APP = Path(__file__).parent / "flower_app"
UP_S = 60


def main(folder: Path, programs: Path) -> None:
    """`programs`: where Flower's commands lie."""
    spec = json.loads((folder / "spec.json").read_text())
    link, *nodes = free_ports(1 + spec["clients"])
    home = folder / "home"
    home.mkdir(exist_ok=True)
    address = f"127.0.0.1:{link}"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "{address}"\ninsecure = true\n'
    )
    os.environ |= {"FLWR_HOME": str(home), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    with ExitStack() as running:
        start(running, "flower-superlink", "--insecure", "--port", str(link))
        wait_for(link)
        for port in nodes:
            start(running, "flower-supernode", "--insecure", "--superlink", address, "--port", str(port))
        config = f"folder='{folder}' clients={spec['clients']} rounds={spec['rounds']}"
        subprocess.run(["flwr", "run", ".", "bench", "--run-config", config, "--stream"], cwd=APP, check=True)


def start(running: ExitStack, *command: str) -> None:
    """Until `running` ends, with all that it starts."""
    process = subprocess.Popen(command, start_new_session=True)
    running.callback(end, process)


def end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 15)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)


def wait_for(port: int) -> None:
    until = time.monotonic() + UP_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

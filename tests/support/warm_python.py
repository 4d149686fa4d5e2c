"""A Python that has imported our programs already: `python -m MODULE` begins where the imports have ended.

Each job and each command of a test is a process of its own, and most of what it costs is `import torch`. Here a server
imports once, and forks for each process that a test starts. Who starts one gets a process as from the real interpreter:
it is killed, told to stop and waited for by its own id, and has its own files, environment and folder. A process that
is traced is a real one. Not for tests that look at a process itself, such as its memory or its imports.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diredi.child_process import die_with_parent

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("warm_client.py")
MODULES = ("diredi.jobs", "diredi.child_process", "diredi_cli", "cloud_server", "edge_node", "user_domain", "peer_node")
LOADED = (
    "edge_node", "edge_node.sources", "cloud_server", "cloud_server.store", "diredi.decentralized", "diredi.detectors",
    "diredi.distillation", "diredi.knowledge.jobs", "diredi_box", "diredi_cli", "diredi_demo", "peer_node",
    "user_domain", "tests.services.cloud.quick_jobs", "torch._dynamo",
)  # fmt: skip
"""What is imported ahead, with the modules of our packages among it.

`edge_node` is first: OpenCV reads the largest image that a node takes once, when it is loaded."""


@contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """The path of such an interpreter, to stand in the place of `sys.executable`."""
    executable, at = folder / "python", folder / "socket"
    call = f"main({sys.executable!r}, {str(at)!r}, {MODULES!r})"
    executable.write_text(f"#!{sys.executable} -IS\n{CLIENT.read_text()}\n\n{call}\n")
    executable.chmod(0o755)
    command = [sys.executable, "-m", __name__, str(at), str(executable)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline(), "it ended before it was ready"
        try:
            yield executable
        finally:
            server.kill()


def _load() -> None:
    for name in LOADED:
        package = importlib.import_module(name)
        for found in pkgutil.iter_modules(package.__path__) if not name.startswith("torch") else ():
            if found.name != "__main__":
                importlib.import_module(f"{name}.{found.name}")


class _Server:
    """Forks for whoever calls, and tells them how the process ended."""

    def __init__(self, at: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(at)
        self._socket.listen(100)
        self._callers: dict[int, socket.socket] = {}

    def wait_for_a_caller(self) -> None:
        """Return when there is somebody to serve: where no test asks, nothing is imported."""
        select.select([self._socket], [], [])

    def serve(self) -> list[str]:
        """Return in a new process, with the arguments that it was started with."""
        signal.signal(signal.SIGCHLD, lambda *_: self._tell())
        while True:
            caller, _ = self._socket.accept()
            said, files, _, _ = socket.recv_fds(caller, 2**20, 3)
            if not said:  # the caller was killed before it could speak
                caller.close()
                continue
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
            process = os.fork()
            if not process:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
                self._socket.close()
                for other in self._callers.values():
                    other.close()
                return _become(caller, files, said)
            for file in files:
                os.close(file)
            with suppress(OSError):  # the caller was killed meanwhile, which its process notices
                caller.send(str(process).encode())
            self._callers[process] = caller
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _tell(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with self._callers.pop(ended[0]) as caller, suppress(OSError):
                    caller.send(str(os.waitstatus_to_exitcode(ended[1])).encode())


def _become(caller: socket.socket, files: list[int], said: bytes) -> list[str]:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    here, count, *words = said.decode().split("\0")
    arguments, environment = words[: int(count)], words[int(count) :]
    os.chdir(here)
    os.environ.clear()
    os.environ.update({name: value for name, _, value in (line.partition("=") for line in environment)})
    sys.path[:1] = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]

    # The kernel kills this process when its caller is gone; the caller says nothing more until then.
    fcntl.fcntl(caller, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(caller, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(caller, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([caller], [], [], 0)[0]:
        sys.exit(1)
    return arguments


def main() -> None:
    """Serve at the socket that the command line names, until the parent dies."""
    die_with_parent(signal.SIGKILL)
    at, executable = sys.argv[1:]
    server = _Server(at)
    print("ready", flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    server.wait_for_a_caller()
    gc.disable()
    _load()
    gc.freeze()
    gc.enable()
    module, *arguments = server.serve()
    sys.executable, sys.argv = executable, [module, *arguments]
    code = _run(module)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # to take thousands of modules down takes longer than most processes run


def _run(module: str) -> int:
    """Be `python -m module`, and return its exit code."""
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")  # it was imported before it is run
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()

"""The other end of `warm_python`: it asks for a process, hands it signals and ends as it ends.

`warm_python` makes a program of this source. It imports as little as can be, since it is what each process costs.
"""

import _socket
import os
import signal
import sys
from collections.abc import Collection

ENDS_WITH_PARENT = {"diredi.jobs": signal.SIGKILL, "diredi.child_process": signal.SIGTERM}
"""What these programs ask of the kernel, which this process has to ask for, since it has the parent."""


def is_watched() -> bool:
    """Whether somebody records what this process does: then it has to be the real one."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        traced = "TracerPid:\t0\n" not in status.read()
    folders = os.environ.get("PYTHONPATH", "").split(":")
    return traced or any(os.path.exists(f"{folder}/sitecustomize.py") for folder in folders)  # noqa: PTH110


def main(python: str, server: str, modules: Collection[str]) -> None:
    """Be `python`, warm where it runs one of `modules`."""
    _, *arguments = sys.argv
    if arguments[:1] != ["-m"] or arguments[1] not in modules or is_watched():
        os.execv(python, [python, *arguments])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if arguments[1] in ENDS_WITH_PARENT:
        import ctypes

        ctypes.CDLL(None).prctl(1, ENDS_WITH_PARENT[arguments[1]])
    caller = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    caller.connect(server)
    environment = [f"{name}={value}" for name, value in os.environ.items()]
    said = "\0".join([os.getcwd(), str(len(arguments) - 1), *arguments[1:], *environment])  # noqa: PTH109
    files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    caller.sendmsg([said.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
    process = int(caller.recv(20))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(process, number))
    code = int(caller.recv(20))
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)

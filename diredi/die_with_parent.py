"""Processes that end when the process that started them does, however that ends.

python -m diredi.die_with_parent MODULE [ARGUMENTS]
"""

from __future__ import annotations

import os
import runpy
import signal
import sys


def die_with_parent(number: signal.Signals) -> None:
    """Ask the kernel to send this process a signal when its parent dies; Linux only, elsewhere nothing happens.

    Args:
        number: The signal to send, for example SIGTERM.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, number)


def main() -> None:
    """Become the module that the command line names, and get SIGTERM when the parent dies."""
    parent = os.getppid()
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)  # it died before the kernel was asked
    module = sys.argv[1]
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

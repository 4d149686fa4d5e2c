"""`python -m diredi.cli.demo.leash MODULE ...`: runs a service that ends when the demo does, however the demo ends."""

from __future__ import annotations

import os
import runpy
import signal
import sys


def main() -> None:
    """Asks the kernel (on Linux) for SIGTERM when the parent dies, then becomes the service."""
    parent = os.getppid()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)  # it died before we had asked
    module = sys.argv[1]
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

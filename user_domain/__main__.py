"""Runs a user domain: `python -m user_domain`."""

from __future__ import annotations

import sys

from diredi.process import run
from user_domain.config import UserDomainConfig
from user_domain.site import serve

if __name__ == "__main__":
    sys.exit(run("user_domain", UserDomainConfig.from_command_line, serve))

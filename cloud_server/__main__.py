"""Run the cloud as a program: `python -m cloud_server`."""

from __future__ import annotations

from cloud_server.app import serve
from cloud_server.config import CloudConfig
from diredi.process import run

if __name__ == "__main__":
    raise SystemExit(run("cloud_server", CloudConfig.from_command_line, serve))

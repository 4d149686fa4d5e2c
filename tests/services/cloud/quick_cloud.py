"""`python -m tests.services.cloud.quick_cloud FLAGS`: the cloud as a process, with the quick jobs."""

from __future__ import annotations

from functools import partial

from cloud_server.app import serve
from cloud_server.config import CloudConfig
from diredi.process import run

if __name__ == "__main__":
    quick = partial(serve, jobs="tests.services.cloud.quick_jobs")
    raise SystemExit(run("cloud_server", CloudConfig.from_command_line, quick))

"""A Docker engine and one deployment for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.deployment import ROOT, Deployment

SETUP_S = 2400
"""The first test waits for the engine, the images and the deployment."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A whole deployment takes longer than a test of a function."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SETUP_S))


@pytest.fixture(scope="session")
def engine() -> None:
    """An engine that answers. Where none can be had the tests skip and say why; in CI they fail."""
    done = subprocess.run(
        [ROOT / "deploy/docker-engine.sh", "up"], capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode == 0:
        return
    why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs a Docker engine: {done.stderr}")
    pytest.skip(why)


@pytest.fixture(scope="session")
def deployment(
    engine: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Deployment]:
    """Images built from this checkout, every service started and healthy, the operator's identity exported."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    try:
        deployment.start()
        yield deployment
    finally:
        if request.session.testsfailed:
            print(deployment.logs())
        deployment.stop()

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
def images() -> None:
    """Built from this checkout, by an engine that answers. Where none can be had the tests skip and say why; in CI they
    fail."""
    engine = ran("deploy/docker-engine.sh", "up")
    if engine.returncode != 0:
        why = engine.stderr.strip() or f"exit code {engine.returncode}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs a Docker engine: {why}")
        pytest.skip(why.splitlines()[-1])
    built = ran("deploy/images.sh")
    assert built.returncode == 0, built.stderr


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SETUP_S, check=False)


@pytest.fixture(scope="package")
def deployment(
    images: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Deployment]:
    """Every service started and healthy, the operator's identity exported."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    try:
        deployment.start()
        yield deployment
    finally:
        if request.session.testsfailed:
            print(deployment.logs())
        deployment.stop()

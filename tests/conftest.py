"""What every kind of test may use, and the order in which two workers take them."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

# Before torch is loaded, and for every process that a test starts: threads of one operator wait for each other in a
# spin, and where another program has a core that makes a small training many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from execnet import XSpec
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests.support.warm_python import warm_python

# What the user's terminal or continuous integration wants of pytest is not what the output under test should be.
for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
    os.environ.pop(name, None)

ROOT = Path(__file__).resolve().parent.parent


SLOW_S = 1.0
"""Processor seconds above which a test is marked slow, which `make test-quick` leaves out; each run lists the rest."""

LEFT_OUT = {"slow", "containers", "browser", "gpu"}
TOOK = "processor seconds"
WARM = pytest.StashKey[Path]()

WHOLE_FOLDERS = ("tests/containers/", "tests/e2e/")
"""Tests that share one heavy thing, a deployment or a demo: one worker has all of them."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist's schedulers are not typed
    """Give a worker whole files, or whole folders where the tests of a folder share one heavy thing."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in WHOLE_FOLDERS if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """What distributes the tests; groups by marker need a private field that this pytest no longer has."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest first, so that no worker is left alone with a long test at the end."""
    for item in items:
        if item.path.parent.name == "containers":
            item.add_marker(pytest.mark.containers)
    items.sort(key=_rank)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None]:
    """Look for garbage once, when all is imported, and leave that out of the thousands of searches that follow."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Measure the test itself, without its fixtures, with the processes that it has started and waited for."""
    before = sum(os.times()[:4])
    try:
        return (yield)
    finally:
        item.user_properties.append((TOOK, sum(os.times()[:4]) - before))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what should be marked slow. It is no failure: on a slow machine every test takes longer."""
    reports = [one for one in terminalreporter.getreports("passed") if not LEFT_OUT & one.keywords.keys()]
    took = sorted(((dict(one.user_properties).get(TOOK, 0.0), one.nodeid) for one in reports), reverse=True)
    if over := [(seconds, test) for seconds, test in took if seconds > SLOW_S]:
        terminalreporter.section(f"{len(over)} tests took more than {SLOW_S:g} s of processor time and are not slow")
        for seconds, test in over[:20]:
            terminalreporter.write_line(f"{seconds:5.1f} s {test}")


def _rank(item: pytest.Item) -> int:
    marks = {mark.name for mark in item.iter_markers()}
    return 0 if "containers" in marks else 1 if item.path.parent.name == "e2e" else 2 if "slow" in marks else 3


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and weights that stand beside the checkout on machines of the project; the test skips elsewhere."""
    folder = Path(os.environ.get("DIREDI_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist: real images and weights are not part of the repository")
    return folder


def pytest_xdist_setupnodes(config: pytest.Config, specs: list[XSpec]) -> None:
    """Start one warm interpreter for all workers, which loads what it is to have when the first of them asks."""
    running = ExitStack()
    config.add_cleanup(running.close)
    folder = running.enter_context(TemporaryDirectory(prefix="diredi-warm-"))
    config.stash[WARM] = running.enter_context(warm_python(Path(folder)))


def pytest_configure_node(node: WorkerController) -> None:
    """Tell a worker where it is."""
    node.workerinput["warm"] = str(node.config.stash[WARM])


@pytest.fixture(scope="session")
def _warm_interpreter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if shared := getattr(request.config, "workerinput", {}).get("warm"):
        yield Path(shared)
    else:
        with warm_python(tmp_path_factory.mktemp("warm")) as executable:
            yield executable


@pytest.fixture
def quick_processes(_warm_interpreter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the jobs, commands and services that this test starts begin with everything imported; see `warm_python`."""
    monkeypatch.setattr(sys, "executable", str(_warm_interpreter))

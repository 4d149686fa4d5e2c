"""An edge node chooses what runs its network; a runtime that crashes, lies or is not there costs it nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_doubles import EdgeCloud, config_of, running

from diredi.detectors.spec import DetectorSpec
from tests.support.pki import Pki

Students = list[tuple[Path, DetectorSpec]]
CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"


@pytest.mark.slow
async def test_a_node_runs_the_network_with_the_runtime_that_is_asked_for_and_says_so(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    pytest.importorskip("openvino")
    await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames, runtime="openvino", measure_s=0.1, trial_s=120)
    async with running(config, pki) as node:
        status = await node.until(lambda status: status.runtime == "openvino")
        assert "ms a frame and onnxruntime" in status.runtime_reason
        await node.until(lambda later: later.frames > status.frames + 5)
        await node.until(lambda _: cloud.fleet.heartbeats[-1].runtime == "openvino")
        assert (await node.status()).dropped_frames == 0
    async with running(config, pki) as node:
        status = await node.until(lambda status: status.frames > 0)
        assert status.runtime == "openvino", "it was remembered"


@pytest.mark.slow
async def test_a_runtime_that_crashes_in_native_code_ends_no_node(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = tmp_path / "crashing" / "openvino"
    crashing.mkdir(parents=True)
    (crashing / "__init__.py").write_text(CRASHES)
    monkeypatch.setenv("PYTHONPATH", str(crashing.parent))
    monkeypatch.syspath_prepend(crashing.parent)
    await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames, runtime="openvino", trial_s=120)
    async with running(config, pki) as node:
        status = await node.until(lambda status: status.runtime_reason != "")
        assert status.runtime == "onnxruntime"
        assert status.runtime_reason == ("openvino ended the process that tried it (SIGSEGV): onnxruntime detects")
        await node.until(lambda later: later.frames > status.frames + 5)

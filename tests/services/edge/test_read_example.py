"""`examples/read_edge_node.py`, as somebody at the site would run it, against a real node."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from edge_doubles import EdgeCloud, config_of, running

from diredi.detectors.spec import DetectorSpec
from tests.support.pki import Pki
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]


async def test_the_example_reads_frame_by_frame_what_a_node_sees(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: list[tuple[Path, DetectorSpec]]
) -> None:
    await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames)
    async with running(config, pki) as node:
        await node.until(lambda status: status.release_version == 1 and status.frames > 0)
        script = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "examples" / "read_edge_node.py"), config.listen,
            str(pki.issue("site", "site-1")), "camera-1", "3",
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        said, _ = await asyncio.wait_for(script.communicate(), PATIENCE_S)
    lines = said.decode().splitlines()
    assert script.returncode == 0
    assert lines[0] == "camera-1 at site-1 runs release 1 and knows car, person"
    assert [line.split()[0] for line in lines[1:]] == ["frame", "frame", "frame"]

"""An edge node with a network camera: it detects what the camera sees, and says what is wrong without its password."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from edge_doubles import EdgeCloud, Node, config_of
from test_edge_process import start

from diredi.detectors.spec import DetectorSpec
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import edge_pb2, fleet_pb2
from tests.support.pki import Pki
from tests.support.rtsp import PASSWORD, USER, RtspCamera, rtsp_camera, rtsp_server
from tests.support.waiting import until

__all__ = ["rtsp_camera", "rtsp_server"]

pytestmark = pytest.mark.slow

Students = list[tuple[Path, DetectorSpec]]


async def test_a_password_is_in_nothing_that_a_node_prints_or_sends_and_a_corrected_one_needs_no_restart(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, students: Students, rtsp_camera: RtspCamera,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await cloud.fleet.publish(1, *students[0])
    monkeypatch.setenv("GATE_PASSWORD", PASSWORD)
    credentials = tmp_path / "netrc"
    credentials.write_text(f"machine 127.0.0.1 login {USER} password hunter2-wrong\n")
    cameras = {
        "gate": rtsp_camera.url("h265").replace("://", f"://{USER}:{{GATE_PASSWORD}}@"),
        "yard": rtsp_camera.url("h264"),
    }
    config = config_of(
        tmp_path / "node", pki, cloud.address, None, cameras=cameras, credentials=credentials, reconnect_s=0.02,
        log_level="DEBUG",
    )  # fmt: skip
    seen: list[edge_pb2.DetectStreamResponse] = []
    said = ""

    def state_of(camera: str) -> str:
        last = cloud.fleet.heartbeats[-1].sources if cloud.fleet.heartbeats else ()
        return next((fleet_pb2.SourceState.Name(item.state)[13:] for item in last if item.name == camera), "")

    process = await start(config)
    node = Node(config.listen, pki.credentials("device", "camera-1", "site-1"))
    log = asyncio.create_task(process.stderr.read())
    try:
        arguments = Path(f"/proc/{process.pid}/cmdline").read_text()
        await until(lambda: (state_of("gate"), state_of("yard")) == ("OK", "REFUSED"))
        status = await node.until(lambda status: "refuses the user name or password" in status.last_error)
        said += status.last_error
        credentials.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
        await until(lambda: (state_of("gate"), state_of("yard")) == ("OK", "OK"))
        async for message in read_messages(node.stub.DetectStream(edge_pb2.DetectStreamRequest()), 60):
            seen.append(message)
            if {item.camera for item in seen} == {"gate", "yard"}:
                break
        rtsp_camera.switch_off()
        await until(lambda: (state_of("gate"), state_of("yard")) == ("AWAY", "AWAY"))
        said += (await node.status()).last_error
    finally:
        await node.channel.close()
        process.terminate()
        await process.wait()
    said += (await log).decode() + arguments + repr(cloud.fleet.heartbeats) + repr(cloud.fleet.registered)
    assert '"service_configured"' in said
    assert '"source_failed"' in said
    assert str(rtsp_camera.port) in said
    assert "hunter2" not in said, "neither the right password nor the wrong one"
    assert all(message.captured.seconds > 1_700_000_000 for message in seen)

"""An edge node over real gRPC and TLS: it detects, updates between two frames, and survives what happens around it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from edge_doubles import CAMERA, EdgeCloud, Node, config_of, downloaded, running

from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData, InvalidInput, Refused, WrongState
from diredi.labels import LabelSpace
from diredi.rpc import convert
from diredi.rpc.client import connect, is_serving
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import edge_pb2
from edge_node.node import serve
from edge_node.update_states import UpdateRecord
from tests.support.pki import Pki
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.usefixtures("quick_processes")

Students = list[tuple[Path, DetectorSpec]]


def runs(version: int):
    return lambda status: status.release_version == version and status.frames > 0


async def test_detect_image_before_a_release_is_refused_as_a_matter_of_state(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, jpeg: bytes
) -> None:
    async with running(config_of(tmp_path / "node", pki, cloud.address, frames), pki) as node:
        with pytest.raises(WrongState, match="no release is installed"):
            await node.detect(jpeg)
        assert (await node.status()).release_version == 0


async def test_bytes_that_are_no_image_are_refused_as_invalid(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, jpeg: bytes
) -> None:
    await cloud.fleet.publish(1, *students[0])
    async with running(config_of(tmp_path / "node", pki, cloud.address, frames), pki) as node:
        await node.until(runs(1))
        for bad in (b"", b"not an image", jpeg[:40], bytes(8 * 2**20 + 1)):
            with pytest.raises(InvalidInput):
                await node.detect(bad)
        with pytest.raises(InvalidInput, match="confidence"):
            await node.detect(jpeg, confidence=1.5)
        assert (await node.detect(jpeg)).release_version == 1


@pytest.mark.slow
async def test_an_update_drops_no_frame_and_shows_the_new_class(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, jpeg: bytes
) -> None:
    await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames, confidence=0.01, frames_per_second=10)
    async with running(config, pki) as node:
        await node.until(runs(1))
        stream: list[tuple[int, int]] = []
        seen = asyncio.create_task(frames_until_version(node, 3, stream))
        asked = asyncio.create_task(versions_of_images(node, jpeg, 3))
        await node.until(lambda _: len(stream) > 3)
        await cloud.fleet.publish(2, *students[1])
        await node.until(runs(2))
        await cloud.fleet.publish(3, *students[2])
        await seen
        images = await asked
        status = await node.until(lambda status: runs(3)(status) and len(cloud.fleet.reports) == 3)
        assert status.dropped_frames == 0
        assert [item.name for item in status.labels.classes] == ["car", "person", "forklift"]
        versions = [version for _, version in stream]
        assert set(versions) == {1, 2, 3}
        assert versions == sorted(versions), "a frame belongs to one release, and releases do not alternate"
        assert images == sorted(images)
        await until(lambda: cloud.fleet.heartbeats[-1].detection.boxes > 0)
        health = cloud.fleet.heartbeats[-1].detection
        assert health.frames > 0 and health.boxes_before > 0 and 0 < health.confidence < 1
        assert (health.failed_frames, health.dropped_frames) == (0, 0)
        numbers = [number for number, _ in stream]
        assert numbers == sorted(set(numbers)), "each frame is shown once, in its order"
        assert [(r[0], r[1]) for r in cloud.fleet.reports] == [
            (1, "INSTALLED"), (2, "INSTALLED"), (3, "INSTALLED"),
        ]  # fmt: skip


async def frames_until_version(node: Node, version: int, seen: list[tuple[int, int]]) -> None:
    async for message in read_messages(node.stub.DetectStream(edge_pb2.DetectStreamRequest()), 10):
        seen.append((message.frame, message.release_version))
        if message.release_version == version:
            break


async def versions_of_images(node: Node, jpeg: bytes, last: int) -> list[int]:
    seen: list[int] = []
    while last not in seen:
        seen.append((await node.detect(jpeg)).release_version)
    return seen


async def test_a_withdrawn_release_is_followed_by_a_new_one_with_the_old_bytes_without_a_download(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    await cloud.fleet.publish(1, *students[0])
    async with running(config_of(tmp_path / "node", pki, cloud.address, frames), pki) as node:
        await node.until(runs(1))
        await cloud.fleet.publish(2, *students[1])
        await node.until(runs(2))
        served = cloud.blobs.served_bytes
        await cloud.fleet.publish(3, *students[0])
        status = await node.until(runs(3))
        assert (cloud.blobs.served_bytes, status.dropped_frames) == (served, 0)


async def test_a_corrupt_download_is_refused_and_the_old_release_runs_on(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    await cloud.fleet.publish(1, *students[0])
    async with running(config_of(tmp_path / "node", pki, cloud.address, frames), pki) as node:
        await node.until(runs(1))
        cloud.blobs.corrupt, served = True, cloud.blobs.served_bytes
        await cloud.fleet.publish(2, *students[1])
        await node.until(lambda _: any(r[1] == "FAILED" for r in cloud.fleet.reports))
        assert cloud.blobs.served_bytes > served, "the bad bytes must have been delivered"
        status = await node.status()
        assert (status.release_version, status.dropped_frames) == (1, 0)
        assert status.last_error
        assert (2, "FAILED", "downloading: the bytes do not match the digest") in cloud.fleet.reports
        cloud.blobs.corrupt = False
        await node.until(runs(2))


async def test_a_cloud_that_fails_at_downloads_and_reports_for_a_while_costs_no_release_and_no_report(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    cloud.blobs.failures = 5  # more often than one download is tried
    cloud.fleet.report_errors = [RuntimeError("a defect"), CorruptData("a count is damaged")]
    await cloud.fleet.publish(1, *students[0])
    async with running(config_of(tmp_path / "node", pki, cloud.address, frames), pki) as node:
        await node.until(lambda status: runs(1)(status) and bool(cloud.fleet.reports))
    assert cloud.fleet.reports == [(1, "INSTALLED", "")]
    assert (cloud.blobs.failures, cloud.fleet.report_errors) == (0, [])


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["labels", "size", "garbage"])
async def test_a_file_that_is_not_what_the_release_says_is_refused_for_good(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, wrong: str
) -> None:
    onnx, spec = students[1]
    if wrong == "garbage":
        onnx = tmp_path / "garbage.onnx"
        onnx.write_bytes(b"\x08\x01garbage" * 1000)
    lie = {
        "labels": spec.model_copy(update={"labels": LabelSpace(names=("car", "cat"))}),
        "size": spec.model_copy(update={"image_size": 96}),
        "garbage": spec,
    }[wrong]
    await cloud.fleet.publish(1, *students[0])
    async with running(config_of(tmp_path / "node", pki, cloud.address, frames), pki) as node:
        await node.until(runs(1))
        await cloud.fleet.publish(2, onnx, lie)
        await node.until(lambda _: len(cloud.fleet.reports) == 2)
        frames_then = (await node.status()).frames
        status = await node.until(lambda status: status.frames > frames_then + 50)
        assert (status.release_version, status.dropped_frames) == (1, 0)
        assert cloud.fleet.reports[1][:2] == (2, "FAILED")
        assert len(cloud.fleet.reports) == 2, "said once, though the cloud repeats the release"


@pytest.mark.slow
async def test_the_node_starts_from_disk_and_runs_on_while_the_cloud_is_away(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, jpeg: bytes
) -> None:
    await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames)
    async with running(config, pki) as node:
        await node.until(runs(1))
        assert (await node.until(lambda status: status.cloud_online)).cloud_online
        await cloud.stop()
        then = (await node.until(lambda status: not status.cloud_online)).frames
        await node.until(lambda status: status.frames > then + 20)
    async with running(config, pki) as node:
        status = await node.until(runs(1))
        assert not status.cloud_online
        assert (await node.detect(jpeg)).release_version == 1
        await cloud.fleet.publish(2, *students[1])
        before = len(cloud.fleet.registered)
        await cloud.start()
        status = await node.until(lambda status: runs(2)(status) and status.cloud_online)
        assert status.dropped_frames == 0
    again = cloud.fleet.registered[before:]
    assert again, "it registers with the cloud that is back, and says what it runs by then"
    assert set(again) <= {("device/site-1/camera-1", 1), ("device/site-1/camera-1", 2)}


async def test_a_download_goes_on_after_a_restart_where_it_stopped(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    cloud.blobs.stall_after = 2
    release = await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames)
    async with running(config, pki):
        await until(lambda: downloaded(config.state_dir) == 2 * 256 * 1024)
    assert UpdateRecord.model_validate_json((config.state_dir / "update.json").read_bytes()).state == "DOWNLOADING"
    cloud.blobs.stall_after = None
    async with running(config, pki) as node:
        await node.until(runs(1))
    assert cloud.blobs.served_bytes == release.onnx.bytes


async def test_a_stream_reader_that_is_slow_skips_frames_and_holds_nobody_up(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    await cloud.fleet.publish(1, *students[0])
    async with running(config_of(tmp_path / "node", pki, cloud.address, frames), pki) as node:
        await node.until(runs(1))
        numbers = []
        call = node.stub.DetectStream(edge_pb2.DetectStreamRequest())
        for _ in range(3):
            numbers.append((await call.read()).frame)
            await node.until(lambda status: status.frames > numbers[-1] + 20)
        call.cancel()
        assert numbers == sorted(set(numbers))


async def test_a_stream_ends_when_the_source_ends(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    config = config_of(tmp_path / "node", pki, cloud.address, frames, repeat=False, frames_per_second=5)
    async with running(config, pki) as node:
        reading = asyncio.create_task(all_frames(node))
        await asyncio.sleep(0.3)
        await cloud.fleet.publish(1, *students[0])
        assert await asyncio.wait_for(reading, PATIENCE_S) == [1, 2, 3, 4, 5], (
            "no frame is read before there is a model, and a reader that is not far behind sees every frame"
        )
        assert (await node.status()).frames == 5


async def test_a_source_that_comes_after_the_start_and_goes_is_said_and_read_again(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    await cloud.fleet.publish(1, *students[0])
    folder, later = Path(frames.removeprefix("folder:")), tmp_path / "mounted-later"
    config = config_of(tmp_path / "node", pki, cloud.address, f"folder:{later}", reconnect_s=0.05)
    async with running(config, pki) as node:
        says = f"{later} does not exist"
        status = await node.until(lambda status: status.release_version == 1 and says in status.last_error)
        assert status.frames == 0
        folder.rename(later)
        status = await node.until(lambda status: status.frames > 0 and not status.last_error)
        later.rename(folder)
        await node.until(lambda status: says in status.last_error)
        folder.rename(later)
        seen = (await node.status()).frames
        await node.until(lambda status: status.frames > seen + 5 and not status.last_error)


async def all_frames(node: Node) -> list[int]:
    call = node.stub.DetectStream(edge_pb2.DetectStreamRequest())
    return [message.frame async for message in read_messages(call, 20)]


async def test_what_a_node_sends_is_counted_and_holds_no_image(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    await cloud.fleet.publish(1, *students[0])
    async with running(config_of(tmp_path / "node", pki, cloud.address, frames), pki) as node:
        await node.until(lambda _: len(cloud.fleet.heartbeats) > 2 and len(cloud.fleet.reports) > 0)
        status = await node.status()
        assert set(status.sent_bytes) == {
            f"diredi.v1.{name}"
            for name in (
                "RegisterDeviceRequest", "HeartbeatRequest", "WatchReleasesRequest", "ReportInstallRequest",
                "GetBlobRequest", "GetReleaseMetadataRequest",
            )
        }  # fmt: skip
        assert sum(status.sent_bytes.values()) < 10_000
    said = convert.time_from(cloud.fleet.heartbeats[-1].certificate_expires)
    assert said == pki.credentials("device", "camera-1", "site-1").expires


async def test_only_the_own_site_may_look_through_the_camera(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, jpeg: bytes
) -> None:
    await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames)
    async with running(config, pki) as own:
        await own.until(runs(1))
        for who in (("operator", "alice"), ("cloud", "cloud"), ("site", "site-2"), ("device", "stranger", "site-2")):
            stranger = Node(config.listen, pki.credentials(*who))
            with pytest.raises(Refused):
                await stranger.status()
            with pytest.raises(Refused):
                await stranger.detect(jpeg)
            with pytest.raises(Refused):
                await all_frames(stranger)
            await stranger.channel.close()
        site = Node(config.listen, pki.credentials("site", "site-1"))
        assert (await site.status()).release_version == 1
        await site.channel.close()


async def test_health_and_reflection_answer(tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str) -> None:
    config = config_of(tmp_path / "node", pki, cloud.address, frames)
    async with (
        running(config, pki),
        connect(config.listen, pki.credentials("operator", "alice"), server=CAMERA) as channel,
    ):
        assert await is_serving(channel)
        assert await is_serving(channel, "diredi.v1.EdgeService")


async def test_a_certificate_of_another_device_is_refused_at_start(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str
) -> None:
    config = config_of(tmp_path / "node", pki, cloud.address, frames, device="camera-2")
    with pytest.raises(InvalidInput, match="is for device/site-1/camera-1, not for device/site-1/camera-2"):
        async with running(config, pki):
            pass


@pytest.mark.parametrize("who", [("site", "site-2", ""), ("device", "camera-2", "site-1")])
async def test_the_release_of_an_impostor_is_never_fetched_and_the_camera_goes_on(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, who: tuple[str, str, str]
) -> None:
    """In the cloud's place stands a server of another identity of our authority; its certificate fits the address."""
    config = config_of(tmp_path / "node", pki, cloud.address, frames)
    await cloud.fleet.publish(1, *students[0])
    async with running(config, pki) as node:
        await node.until(lambda status: status.release_version == 1)
        await cloud.stop()
        impostor = EdgeCloud(tmp_path / "impostor", pki, pki.credentials(*who))
        impostor.port = cloud.port
        await impostor.fleet.publish(2, *students[1])
        await impostor.start()
        seen = await node.until(lambda status: "it is somebody else" in status.last_error)
        seen = await node.until(lambda status: status.frames > seen.frames)
        await impostor.stop()
    assert seen.release_version == 1
    assert impostor.fleet.registered == [] and impostor.fleet.heartbeats == [] and impostor.blobs.served_bytes == 0


async def test_a_device_whose_certificate_names_no_host_takes_updates_and_serves_nobody(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    pki.anew("device", "camera-1", "site-1", hosts=[], out=tmp_path / "hostless")
    await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames, identity=tmp_path / "hostless")
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(config, stop))
    await until(lambda: (1, "INSTALLED", "") in cloud.fleet.reports)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(config.listen.rpartition(":")[2]))) != 0
    stop.set()
    await serving


async def test_a_damaged_deny_list_keeps_a_camera_from_answering_and_from_nothing_else(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    pki.anew("device", "camera-1", "site-1", out=tmp_path / "identity")
    (tmp_path / "identity" / "crl.pem").write_bytes(b"rubbish")
    await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames, identity=tmp_path / "identity")
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(config, stop))
    await until(lambda: (1, "INSTALLED", "") in cloud.fleet.reports)
    await until(lambda: cloud.fleet.heartbeats[-1].frames > 0)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(config.listen.rpartition(":")[2]))) != 0
    stop.set()
    await serving

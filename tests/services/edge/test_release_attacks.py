"""A cloud that lies about releases, against a running edge node: each lie is refused with its own reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from edge_doubles import EdgeCloud, Node, config_of, running

from diredi.detectors.spec import DetectorSpec
from diredi.errors import Untrusted
from diredi.rpc import convert
from diredi.trust.release_client import ReleaseClient
from diredi.trust.release_keys import read_root
from diredi.trust.release_repository import ReleaseRepository
from edge_node.release_trust import SignedMetadata
from edge_node.update_states import UpdateRecord
from tests.support.pki import Pki

pytestmark = pytest.mark.usefixtures("quick_processes")

Students = list[tuple[Path, DetectorSpec]]


@pytest.mark.slow
async def test_each_lie_about_releases_is_refused_with_its_reason_while_the_old_one_detects(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    fleet = cloud.fleet
    old = await fleet.publish(2, *students[1])
    async with running(config_of(tmp_path / "node", pki, cloud.address, frames), pki) as node:
        await node.until(lambda status: status.release_version == 2)
        seven = await fleet.publish(7, *students[0])
        await node.until(lambda status: status.release_version == 7 and len(fleet.reports) == 2)
        other = fleet.blobs.add_file(students[2][0])

        await refused(cloud, node, lambda: old, "older than release 7 of fleet")
        await refused(cloud, node, lambda: replace(seven, onnx=old.onnx), "run here with other bytes")
        await refused(cloud, node, lambda: replace(seven, version=8, onnx=other), "signed with another version")
        far = "4000000000"
        await refused(
            cloud, node, lambda: replace(seven, version=int(far), target=seven.target.replace("7", far)),
            "not in the signed metadata",
        )  # fmt: skip
        await refused(cloud, node, lambda: replace(fleet.sign(9, *students[2]), onnx=old.onnx), "another digest")
        await refused(cloud, node, lambda: fleet.sign(10, *students[2], scope="site:site-2"), "belongs to site site-1")
        await refused(cloud, node, lambda: fleet.sign(11, *students[2], scope="group:others"), "belongs to site site-1")
        await refused(
            cloud, node, lambda: fleet.sign(12, *students[2], logged_as=11), "log of decisions does not prove"
        )
        await refused(cloud, node, lambda: fleet.sign(13, *students[2], logged_as=0), "in no log of decisions")
        honest = await fleet.publish(14, *students[2])
        await node.until(lambda status: status.release_version == honest.version)
        assert (await node.status()).dropped_frames == 0


async def refused(cloud: EdgeCloud, node: Node, lie: Callable[[], convert.Release], reason: str) -> None:
    """The node hears of the release, reports why it refuses, fetches no byte of its file, and detects on."""
    before, served = (await node.status()), cloud.blobs.served_bytes
    cloud.fleet.reports.clear()
    told = lie()
    await cloud.fleet.name(told)
    await node.until(lambda _: any(report[0] == told.version for report in cloud.fleet.reports))
    outcome, why = cloud.fleet.reports[-1][1:]
    assert outcome == "FAILED"
    assert reason in why
    status = await node.until(lambda status: status.frames > before.frames)
    assert (status.release_version, cloud.blobs.served_bytes) == (before.release_version, served)


async def test_a_freeze_is_said_in_heartbeats_while_the_node_detects_on(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    config = config_of(tmp_path / "node", pki, cloud.address, frames)
    await cloud.fleet.publish(1, *students[0])
    async with running(config, pki) as node:
        await node.until(lambda status: status.release_version == 1 and bool(cloud.fleet.reports))
        assert not cloud.fleet.heartbeats[-1].updates_stalled
    trust = SignedMetadata(config.state_dir / "trust", config.identity, config.site, cloud.fleet.repository.read)
    next_week = datetime.now(UTC) + timedelta(days=8)
    assert "no newer ones came" in trust.refresh(None, next_week)
    # What the device has is as old as if nothing had come for a week, and so is all that the cloud serves.
    old = ReleaseRepository(tmp_path / "old", pki.issue("cloud", "cloud"))
    old.publish([], datetime.now(UTC) - timedelta(days=8), ["fleet"])
    shutil.rmtree(config.state_dir / "trust" / "metadata")
    with pytest.raises(Untrusted, match="have expired"):
        ReleaseClient(config.state_dir / "trust" / "metadata", read_root(config.identity), old.read).refresh()
    shutil.copy(tmp_path / "old" / "timestamp.json", config.state_dir / "trust" / "metadata")
    cloud.fleet.repository = old
    cloud.fleet.heartbeats.clear()
    async with running(config, pki) as node:
        await node.until(lambda _: any(beat.updates_stalled for beat in cloud.fleet.heartbeats))
        status = await node.until(lambda status: status.frames > 0)
        assert status.release_version == 1
        assert "have expired" in status.last_error
        assert "timestamp.json" in cloud.fleet.served


async def test_a_file_that_another_hand_has_put_on_the_disk_does_not_start(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    release = await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames)
    async with running(config, pki) as node:
        await node.until(lambda status: status.release_version == 1 and bool(cloud.fleet.reports))
    forged = cloud.fleet.blobs.add_file(students[2][0])
    record = UpdateRecord.model_validate_json((config.state_dir / "update.json").read_bytes())
    assert record.installed is not None
    told = {"digest": forged.digest, "bytes": forged.bytes, "labels": students[2][1].labels}
    swapped = record.installed.model_copy(update=told)
    shutil.copy(students[2][0], config.state_dir / "releases" / swapped.file_name)
    (config.state_dir / "update.json").write_text(record.model_copy(update={"installed": swapped}).model_dump_json())
    await cloud.stop()
    async with running(config, pki) as node:
        assert (await node.status()).release_version == 0
        await cloud.start()
        status = await node.until(lambda status: status.release_version == 1)
        assert len(status.labels.classes) == len(release.labels.names)


async def test_a_node_that_never_had_a_root_goes_on_with_what_it_has_and_installs_nothing(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    await cloud.fleet.publish(1, *students[0])
    identity = tmp_path / "identity"
    shutil.copytree(pki.issue("device", "camera-1", "site-1"), identity)
    config = config_of(tmp_path / "node", pki, cloud.address, frames, identity=identity)
    async with running(config, pki) as node:
        await node.until(lambda status: status.release_version == 1 and bool(cloud.fleet.reports))
    (identity / "root.json").unlink()
    shutil.rmtree(config.state_dir / "trust")
    async with running(config, pki) as node:
        assert (await node.until(lambda status: status.frames > 0)).release_version == 1
        await cloud.fleet.publish(2, *students[1])
        await node.until(lambda _: cloud.fleet.reports[-1][0] == 2)  # that of release 1 may come twice
        assert cloud.fleet.reports[-1][1] == "FAILED"
        assert "root.json cannot be read" in cloud.fleet.reports[-1][2]
        assert (await node.status()).release_version == 1
        shutil.copy(pki.issue("device", "camera-1", "site-1") / "root.json", identity)
        await node.until(lambda status: status.release_version == 2)

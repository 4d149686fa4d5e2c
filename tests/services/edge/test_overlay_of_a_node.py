"""An edge node under its site's overlay: put on after it has proved itself, taken off when the site has none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_doubles import EdgeCloud, Node, config_of, running

from diredi.detectors.predictor import Detections, Image
from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput
from diredi.labels import LabelSpace
from diredi.rpc import convert
from diredi.rpc.blobs import BlobServicer
from diredi.rpc.v1 import overlay_pb2 as pb
from diredi.rpc.v1.overlay_pb2_grpc import OverlayServiceServicer
from diredi.store.blobs import BlobStore
from edge_node.config import EdgeConfig
from edge_node.overlay import explain_unfit
from tests.support.pki import Pki
from tests.support.stub_cloud import StubCloud
from tests.support.waiting import until

Students = list[tuple[Path, DetectorSpec]]


class UserDomain(StubCloud, OverlayServiceServicer):
    """A site whose overlays are what a test says; `asked` are the releases that the node has asked for."""

    def __init__(self, folder: Path, pki: Pki) -> None:
        self.store, self.offers, self.asked = BlobStore(folder), dict[str, pb.Overlay](), list[str]()
        super().__init__(pki.credentials("site", "site-1"), [self, BlobServicer(self.store, putters=())])

    async def GetOverlay(self, request: pb.GetOverlayRequest, context: Any) -> pb.GetOverlayResponse:
        self.asked.append(request.release)
        none = pb.Overlay(release=request.release, state=pb.OVERLAY_STATE_NONE)
        return pb.GetOverlayResponse(overlay=self.offers.get(request.release, none))

    def offer(self, release: str, onnx: Path, digest: str, *, quantised: bool = False) -> None:
        blob = convert.blob_to(self.store.add_file(onnx))
        self.offers[release] = pb.Overlay(
            release=release, state=pb.OVERLAY_STATE_READY, digest=digest, onnx=blob, quantised=quantised
        )


@pytest.fixture
async def site(tmp_path: Path, pki: Pki) -> AsyncIterator[UserDomain]:
    site = UserDomain(tmp_path / "served", pki)
    await site.start()
    yield site
    await site.stop()


@asynccontextmanager
async def node_of(
    folder: Path, pki: Pki, cloud: EdgeCloud, site: UserDomain, frames: str, **more: Any
) -> AsyncIterator[tuple[Node, EdgeConfig]]:
    asks = {"user_domain": site.address, "overlay": True, "overlay_every_s": 0.1, "frames_per_second": 10, **more}
    config = config_of(folder, pki, cloud.address, frames, **asks)
    async with running(config, pki) as node:
        yield node, config


ONE, TWO = ("sha256:" + character * 64 for character in "12")


def under(version: int, overlay: str) -> Any:
    return lambda status: (status.release_version, status.overlay) == (version, overlay) and status.frames > 0


@pytest.mark.slow
async def test_a_node_changes_and_takes_off_the_overlay_as_its_site_says_and_drops_no_frame(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, site: UserDomain, frames: str, students: Students
) -> None:
    first = await cloud.fleet.publish(1, *students[0])
    async with node_of(tmp_path / "node", pki, cloud, site, frames) as (node, config):
        await node.until(under(1, ""))
        site.offer(first.onnx.digest, students[1][0], ONE)
        await node.until(under(1, ONE))
        site.offer(first.onnx.digest, students[0][0], TWO)
        await node.until(under(1, TWO))
        await until(lambda: len(list((config.state_dir / "overlays").glob("*.onnx"))) == 1)
        await cloud.fleet.publish(2, *students[1])
        await node.until(under(2, ""))
        await cloud.fleet.publish(3, *students[0])  # the bytes of the first
        await node.until(under(3, TWO))
        site.offers.clear()
        status = await node.until(under(3, ""))
        assert status.dropped_frames == 0
        await until(lambda: not list((config.state_dir / "overlays").iterdir()))
        assert first.onnx.digest in site.asked
    assert all(outcome == "INSTALLED" for _, outcome, _ in cloud.fleet.reports)


async def test_an_overlay_that_is_another_detector_is_not_put_on(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, site: UserDomain, frames: str, students: Students
) -> None:
    first = await cloud.fleet.publish(1, *students[0])
    site.offer(first.onnx.digest, students[2][0], ONE)  # it knows a class more
    async with node_of(tmp_path / "node", pki, cloud, site, frames) as (node, _):
        await node.until(lambda status: under(1, "")(status) and len(site.asked) > 3)
        site.offer(first.onnx.digest, students[1][0], TWO)
        await node.until(under(1, TWO))


@pytest.mark.parametrize(("quantised", "expected"), [("always", ONE), ("never", TWO)])
async def test_a_file_with_8_bits_is_run_where_the_node_wants_one(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, site: UserDomain, frames: str, students: Students, quantised: str,
    expected: str,
) -> None:  # fmt: skip
    first = await cloud.fleet.publish(1, *students[0])
    site.offer(first.onnx.digest, students[1][0], ONE, quantised=True)
    async with node_of(tmp_path / "node", pki, cloud, site, frames, quantised=quantised) as (node, _):
        await until(lambda: len(site.asked) > 3)
        if quantised == "never":
            await node.until(under(1, ""))
            site.offer(first.onnx.digest, students[1][0], TWO)
        await node.until(under(1, expected))


class Board:
    """A predictor that takes its time on a board's clock."""

    labels = LabelSpace(names=("car",))

    def __init__(self, clock: list[float], seconds: float, boxes: int) -> None:
        self.clock, self.seconds = clock, seconds
        self.found = Detections.of([[9 * i, 0, 9 * i + 9, 9] for i in range(boxes)], [0.9] * boxes, [0] * boxes)

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        self.clock[0] += self.seconds
        return [self.found] * len(images)


@pytest.mark.parametrize(
    ("seconds", "boxes", "why"),
    [
        (0.02, 4, ""),
        (0.04, 4, "it takes 40.0 ms a frame here, and 40.0 ms without 8 bits"),
        (0.02, 0, "4 of 4 boxes differ on this board"),
    ],
)
def test_8_bits_are_no_good_on_a_board_where_they_are_slower_or_find_other_boxes(
    seconds: float, boxes: int, why: str
) -> None:
    clock = [0.0]
    said = explain_unfit(
        Board(clock, seconds, boxes), Board(clock, 0.04, 4), np.zeros((9, 40, 3), np.uint8), lambda: clock[0]
    )
    assert said == why


async def test_a_node_with_overlays_needs_to_know_where_its_site_is(tmp_path: Path, pki: Pki, frames: str) -> None:
    with pytest.raises(InvalidInput, match="user_domain is not"):
        async with running(config_of(tmp_path / "node", pki, "localhost:1", frames, overlay=True), pki):
            pass

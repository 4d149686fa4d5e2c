"""What leaves a site in a whole cycle, byte for byte, and that nothing private is among it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diredi.codecs import codec_named, read_header
from diredi.data.dataset import Dataset, load
from diredi.data.images import read_image
from diredi.data.yolo import label_file_of
from diredi.store.weights import WeightMap
from tests.e2e.demo_world import Demo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WINDOW = 24
"""Bytes of a private file that may not appear: long enough that chance does not make them."""


@pytest.fixture(scope="module")
def private(demo: Demo) -> Dataset:
    return load(next(demo.folder.data.glob("scenes-site-1-*/data.yaml")))


@pytest.fixture(scope="module")
def sent(demo: Demo) -> bytes:
    return b"\0".join(demo.sent.sent_by(name) for name in sorted(demo.sent.senders))


def images(private: Dataset) -> list[Path]:
    return [sample.image for sample in (*private.train, *private.val)]


def windows(data: bytes, step: int) -> Iterator[bytes]:
    """Pieces of `data`, but for those that any file may have: few different bytes."""
    for start in range(0, len(data) - WINDOW, step):
        piece = data[start : start + WINDOW]
        if len(set(piece)) > WINDOW // 2:
            yield piece


def test_the_recorder_saw_every_sender_and_the_whole_gap(demo: Demo, sent: bytes):
    assert demo.sent.senders == {"site-1", "edge-1", "edge-2", "edge-3"}
    gap = demo.report["gap"]
    assert len(demo.sent.sent_by("site-1")) > gap["bytes"] + gap["student_bytes"]
    blobs = [p.read_bytes() for p in (demo.folder.state("cloud") / "blobs").rglob("*") if p.is_file()]
    uploaded = next(blob for blob in blobs if len(blob) == gap["bytes"])
    found = [piece in sent for piece in windows(uploaded, 4096)]
    assert sum(found) > 0.9 * len(found), "a search that finds the gap would find a picture too"


def test_what_was_counted_is_what_was_sent(demo: Demo):
    for name, kinds in demo.report["egress_by_sender"].items():
        counted, recorded = sum(kinds.values()), len(demo.sent.sent_by(name))
        assert counted <= recorded, f"{name} sent more than was recorded"
        # Beside messages there are the frames, headers and pings of HTTP/2, and what was sent after the report.
        assert counted > 0.95 * recorded or recorded - counted < 200_000


def test_only_the_gap_its_manifest_progress_and_signs_of_life_leave(demo: Demo):
    may_leave = {
        "site-1": {
            "EnrolRequest",
            "ApproveCycleRequest",
            "WatchTasksRequest",
            "ReportProgressRequest",
            "ProposeClassesRequest",
            "StatBlobRequest",
            "GetBlobRequest",
            "PutChunkRequest",
            "SubmitGapRequest",
            "SubmitValidationRequest",
        },
        "edge": {
            "EnrolRequest",
            "RegisterDeviceRequest",
            "HeartbeatRequest",
            "WatchReleasesRequest",
            "GetBlobRequest",
            "GetReleaseMetadataRequest",
            "ReportInstallRequest",
        },
    }
    for name, kinds in demo.report["egress_by_sender"].items():
        assert kinds.keys() <= may_leave.get(name, may_leave["edge"]), name


def test_no_private_image_leaves_whole_or_in_part(private: Dataset, sent: bytes):
    for path in images(private):
        assert not any(piece in sent for piece in windows(path.read_bytes(), 256)), path


def test_no_crop_of_decoded_pixels_leaves(private: Dataset, sent: bytes):
    for path in images(private):
        for row in read_image(path)[::8]:
            assert not any(piece in sent for piece in windows(row.tobytes(), 120)), path


def test_no_label_file_leaves(private: Dataset, sent: bytes):
    for path in images(private):
        for line in label_file_of(path).read_text().splitlines():
            assert line.encode() not in sent, path
            assert line.partition(" ")[2].encode() not in sent, path


def test_no_file_name_or_path_leaves(private: Dataset, demo: Demo, sent: bytes):
    for path in images(private):
        assert path.name.encode() not in sent and label_file_of(path).name.encode() not in sent
    assert str(private.root).encode() not in sent
    assert str(demo.folder.out).encode() not in sent


def test_a_gap_has_room_for_weights_only(demo: Demo):
    """Its arrays are the tutor's, by name and shape, and what it says of itself is no more than a few words."""
    from diredi.detectors.spec import DetectorSpec

    gap = demo.report["gap"]
    files = [p for p in (demo.folder.state("cloud") / "blobs").rglob("*") if p.is_file()]
    data = next(p.read_bytes() for p in files if p.stat().st_size == gap["bytes"])
    header = read_header(data)
    decoded = codec_named(header.codec).decode(data)
    schemas = []
    for path in files:
        is_model = b"diredi.spec" in path.read_bytes()[8:200_000] and path.read_bytes()[8:9] == b"{"
        if is_model and "forklift" in DetectorSpec.of_file(path).labels.names:
            schemas.append(WeightMap.load(path).schema())
    names = {name for schema in schemas for name in schema}
    assert set(decoded) <= names
    assert sum(len(value) for value in header.metadata.values()) < 2000

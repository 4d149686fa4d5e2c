"""A whole cycle of a site, every byte that left it on record, and nothing private in any of them.

The user domain runs as a process of its own and reaches its cloud through a proxy that ends its TLS. What left is read
three ways: raw, as gRPC messages, and with the gaps in them put together, decompressed and decoded.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sys
from asyncio.subprocess import DEVNULL
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import zstandard
from google.protobuf.message import Message
from http2_log import Stream, bytes_by_path, streams_of
from leaks import LeakDetector
from recording_proxy import RecordingProxy
from site_doubles import RECIPE, Local, Models, SiteCloud, config_of, write_data_set
from test_user_domain_process import site_process

from diredi.codecs import codec_named
from diredi.rpc.blobs import upload
from diredi.rpc.client import call, connect
from diredi.rpc.v1 import cycles_pb2, registry_pb2, sites_pb2
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
from diredi.rpc.v1.sites_pb2_grpc import SiteServiceStub
from tests.support.host_trace import HostTrace
from tests.support.net import free_port
from tests.support.pki import Pki
from tests.support.waiting import PATIENCE_S, until

MAY_LEAVE = {
    "/diredi.v1.CycleService/ApproveCycle": cycles_pb2.ApproveCycleRequest,
    "/diredi.v1.SiteService/WatchTasks": sites_pb2.WatchTasksRequest,
    "/diredi.v1.SiteService/ReportProgress": sites_pb2.ReportProgressRequest,
    "/diredi.v1.SiteService/ProposeClasses": sites_pb2.ProposeClassesRequest,
    "/diredi.v1.SiteService/SubmitGap": sites_pb2.SubmitGapRequest,
    "/diredi.v1.SiteService/SubmitValidation": sites_pb2.SubmitValidationRequest,
    "/diredi.v1.BlobService/StatBlob": registry_pb2.StatBlobRequest,
    "/diredi.v1.BlobService/PutChunk": registry_pb2.PutChunkRequest,
    "/diredi.v1.BlobService/GetBlob": registry_pb2.GetBlobRequest,
}
"""The whole list of calls with which a site speaks to its cloud in a cycle, and what each of them carries."""


@dataclass(frozen=True)
class PrivateSet:
    folder: Path
    sample: bytes
    """A frame that an edge node hands over."""

    @property
    def images(self) -> list[Path]:
        return sorted((self.folder / "images").rglob("*.jpg"))

    @property
    def labels(self) -> list[Path]:
        return sorted((self.folder / "labels").rglob("*.txt"))

    def detector(self, scratch: Path) -> LeakDetector:
        handed = scratch / "handed-over.jpg"
        handed.write_bytes(self.sample)
        names = {part for path in (*self.images, *self.labels) for part in (path.name, path.stem)}
        names |= {str(self.folder), self.folder.name, "private-gate", handed.stem}
        return LeakDetector([*self.images, handed], self.labels, names)

    def digest(self) -> str:
        """Of every file and its name."""
        sha = hashlib.sha256()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            sha.update(str(path).encode() + path.read_bytes())
        return sha.hexdigest()


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> PrivateSet:
    folder = tmp_path_factory.mktemp("vault") / "harbour-cameras"
    write_data_set(folder)
    frame = np.random.default_rng(99).integers(0, 255, (64, 64, 3), np.uint8)
    return PrivateSet(folder, bytes(cv2.imencode(".jpg", frame)[1]))


@pytest.fixture(scope="module")
def detector(private: PrivateSet, tmp_path_factory: pytest.TempPathFactory) -> LeakDetector:
    return private.detector(tmp_path_factory.mktemp("scratch"))


@pytest.fixture
async def proxy(pki: Pki, cloud: SiteCloud) -> AsyncIterator[RecordingProxy]:
    proxy = RecordingProxy(pki.issue("cloud", "cloud"), pki.issue("site", "site-1"), cloud.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.mark.slow
async def test_in_a_whole_cycle_nothing_private_leaves(
    tmp_path: Path,
    pki: Pki,
    cloud: SiteCloud,
    models: Models,
    private: PrivateSet,
    detector: LeakDetector,
    proxy: RecordingProxy,
) -> None:
    before = private.digest()
    config = config_of(tmp_path / "site", pki, f"localhost:{proxy.port}", private.folder / "data.yaml")
    recipe = RECIPE | {"student_gap": True}
    await cloud.site.offer(models.extract_task(cloud, approved=False, recipe=recipe))
    trace = HostTrace(tmp_path / "trace")
    async with site_process(config, trace) as (process, _):
        local = Local(config.listen, pki.credentials("device", "camera-1", "site-1"))
        assert await local.hand(private.sample)
        await until(lambda: bool(cloud.site.gaps))
        updated = await updated_models(models, tmp_path / "updated")
        await cloud.site.offer(updated.validate_task(cloud, recipe=recipe))
        await until(lambda: bool(cloud.site.validations))
        egress = dict((await local.status()).sent_bytes)
        await local.channel.close()
        process.terminate()
        await process.wait()

    sent = read(proxy)
    assert not detector.found_in(proxy.sent), "in the bytes as they went over the wire"
    assert not detector.found_in(b"".join(sent.messages)), "in the messages"
    gaps = list(sent.blobs())
    assert len(gaps) == 2
    for gap in gaps:
        for form in forms_of(gap):
            assert not detector.found_in(form), "in a gap"

    assert set(sent.by_path) <= set(MAY_LEAVE), "a call that a site has no business to make"
    assert set(sent.by_path) == set(MAY_LEAVE), "the cycle was not whole"
    assert sent.unknown_fields() == [], "a message with something in it that the contract does not have"
    assert egress == json.loads((config.state_dir / "egress.json").read_text())["bytes"]
    wire = sent.by_type()
    assert set(egress) == set(wire)
    if len(proxy.connections) == 1:
        assert egress == wire, "the meter's figures and the bytes on the wire"
    else:  # a call that finds no connection is counted though nothing of it leaves
        assert all(egress[kind] >= wire[kind] for kind in wire), "bytes on the wire that the meter has not seen"
    assert private.digest() == before, "the private data set was written to"
    reached = await trace.reached(process.pid)
    assert {port for _, port in reached} == {proxy.port}, "not the configured cloud"
    assert {host for host, _ in reached} <= {"127.0.0.1", "::1"}


async def updated_models(models: Models, folder: Path) -> Models:
    """A candidate that knows the new class, as the cloud would have made it."""
    from diredi.detectors.export import export_onnx
    from diredi.detectors.registry import create
    from diredi.labels import LabelSpace

    folder.mkdir()
    student = create("yolo11-w0.125", 64, LabelSpace(version=2, names=("car", "person", "forklift")), 3)
    student.save(folder / "student.safetensors")
    export_onnx(student, folder / "student.onnx")
    return Models(models.tutor, folder / "student.safetensors", folder / "student.onnx", models.coreset)


@dataclass(frozen=True)
class Sent:
    """What a site sent, read from the record."""

    streams: list[Stream]

    @property
    def messages(self) -> list[bytes]:
        return [message for stream in self.streams for message in stream.messages()]

    @property
    def by_path(self) -> Counter[str]:
        return bytes_by_path(self.streams)

    def by_type(self) -> dict[str, int]:
        return {MAY_LEAVE[path].DESCRIPTOR.full_name: count for path, count in self.by_path.items()}

    def blobs(self) -> Iterator[bytes]:
        """Uploads, put together from their chunks."""
        parts: dict[str, dict[int, bytes]] = {}
        for stream in self.streams:
            if stream.path.endswith("/PutChunk"):
                for message in stream.messages():
                    chunk = registry_pb2.PutChunkRequest.FromString(message)
                    parts.setdefault(chunk.digest, {})[chunk.offset] = chunk.data
        for digest, chunks in parts.items():
            blob = b"".join(chunks[offset] for offset in sorted(chunks))
            assert "sha256:" + hashlib.sha256(blob).hexdigest() == digest
            yield blob

    def unknown_fields(self) -> list[str]:
        """Paths of calls whose messages hold more than their type says."""
        more = []
        for stream in self.streams:
            for message in stream.messages():
                parsed: Message = MAY_LEAVE[stream.path].FromString(message)
                size = parsed.ByteSize()
                parsed.DiscardUnknownFields()
                if parsed.ByteSize() != size or size != len(message):
                    more.append(stream.path)
        return more


def read(proxy: RecordingProxy) -> Sent:
    return Sent([stream for connection in proxy.connections for stream in streams_of(bytes(connection.sent))])


def forms_of(gap: bytes) -> Iterator[bytes]:
    """A gap as it travels, decompressed, and decoded to weights."""
    yield gap
    decompressed = b""
    at = gap.find(b"\x28\xb5\x2f\xfd")
    while at >= 0:
        unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(gap[at:])
        decompressed += unpacked
        yield unpacked
        at = gap.find(b"\x28\xb5\x2f\xfd", at + 1)
    assert len(decompressed) > len(gap), "the gap was not decompressed"
    weights = codec_named("int8-row-zstd").decode(gap)
    yield b"".join(np.ascontiguousarray(weights[name]).tobytes() for name in weights)


# Positive controls: the detector, the record and the trace find what is planted.


CALLS_HOME = """
import socket, subprocess, sys
socket.socket(type=socket.SOCK_DGRAM).sendto(b"hello", ("127.0.0.1", int(sys.argv[1])))
subprocess.run([sys.executable, "-c", "import socket; socket.getaddrinfo('vendor.invalid', 443)"])
"""


async def test_the_trace_shows_a_datagram_and_the_look_up_of_a_child(tmp_path: Path) -> None:
    trace, port = HostTrace(tmp_path / "trace"), free_port()
    command = [*trace.prefix, sys.executable, "-c", CALLS_HOME, str(port)]
    process = await asyncio.create_subprocess_exec(*command, stderr=DEVNULL)
    await process.wait()
    assert {port, 53} <= {to for _, to in await trace.reached(process.pid)}


PLANTS = {
    "part of a file": lambda s: s.images[3].read_bytes()[700:760],
    "hex": lambda s: s.images[3].read_bytes()[700:760].hex().encode(),
    "base64": lambda s: __import__("base64").b64encode(s.images[3].read_bytes()[701:780]),
    "pixel row": lambda s: cv2.imread(str(s.images[2]))[20].tobytes()[5:80],
    "crop": lambda s: np.ascontiguousarray(cv2.imread(str(s.images[2]))[10:40, 17:33]).tobytes(),
    "rgb crop": lambda s: np.ascontiguousarray(cv2.imread(str(s.images[2]))[10:40, 17:33, ::-1]).tobytes(),
    "network input": lambda s: (
        (cv2.imread(str(s.images[2]))[..., ::-1].transpose(2, 0, 1) / np.float32(255)).astype(np.float32).tobytes()
    ),
    "re-encoded": lambda s: bytes(cv2.imencode(".webp", cv2.imread(str(s.images[1])))[1]),
    "label line": lambda s: s.labels[0].read_bytes().splitlines()[1],
    "boxes": lambda s: np.loadtxt(s.labels[0], dtype=np.float32)[1].tobytes(),
    "file name": lambda s: s.images[0].stem.encode(),
    "folder": lambda s: str(s.folder).encode(),
    "handed sample": lambda s: s.sample[300:400],
}


@pytest.mark.parametrize("plant", PLANTS)
def test_the_detector_finds_a_planted(private: PrivateSet, detector: LeakDetector, plant: str) -> None:
    noise = np.random.default_rng(1).bytes(100_000)
    assert not detector.found_in(noise)
    assert detector.found_in(noise[:50_001] + PLANTS[plant](private) + noise[50_001:])


async def test_the_record_shows_what_a_leaking_site_would_send(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, private: PrivateSet, detector: LeakDetector, proxy: RecordingProxy
) -> None:
    hidden = tmp_path / "hidden.bin"
    hidden.write_bytes(zstandard.ZstdCompressor().compress(b"".join(p.read_bytes() for p in private.images)))
    async with connect(f"localhost:{proxy.port}", pki.credentials("site", "site-1")) as channel:
        reason = f"cannot read {private.images[0]}"
        await call(SiteServiceStub(channel).FailTask, sites_pb2.FailTaskRequest(reason=reason), deadline_s=PATIENCE_S)
        await upload(BlobServiceStub(channel), hidden)
    sent = read(proxy)
    assert any(found.startswith("the name") for found in detector.found_in(proxy.sent))
    assert sent.by_path["/diredi.v1.SiteService/FailTask"] > len(reason)
    (blob,) = sent.blobs()
    assert detector.found_in(zstandard.ZstdDecompressor().decompressobj().decompress(blob))
    shutil.copy(private.images[0], hidden)
    async with connect(f"localhost:{proxy.port}", pki.credentials("site", "site-1")) as channel:
        await upload(BlobServiceStub(channel), hidden)
    assert any(found.startswith("bytes of the file") for found in detector.found_in(proxy.sent))

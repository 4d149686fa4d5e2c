import os

import pytest

from diredi.rpc.blobs import BlobServicer, upload
from diredi.rpc.byte_counter import EgressMeter, IngressMeter
from diredi.rpc.client import call, connect, is_serving
from diredi.rpc.v1 import registry_pb2 as pb
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
from diredi.store.blobs import BlobStore

MIB = 2**20


async def test_what_was_counted_is_what_travelled_and_what_arrived(serve, site, proxy, tmp_path):
    """Three counts of the same bytes: by the sender, by the receiver, and on the socket between them."""
    arrived = IngressMeter()
    server = await serve(BlobServicer(BlobStore(tmp_path / "blobs")), meter=arrived)
    between = await proxy(server.address)
    sent = EgressMeter(tmp_path / "egress.json")
    (tmp_path / "gap").write_bytes(os.urandom(4 * MIB + 1))
    async with connect(between.address, site, sent) as channel:
        await upload(BlobServiceStub(channel), tmp_path / "gap")
        await is_serving(channel)

    ours = {name: n for name, n in sent.totals().items() if name.startswith("diredi.")}
    assert ours == arrived.totals("site/site-1")
    assert set(sent.totals()) - set(ours) == {"grpc.health.v1.HealthCheckRequest"}
    assert sent.messages()["diredi.v1.PutChunkRequest"] >= 5
    overhead = between.sent_bytes - sent.total_bytes
    assert 0 < overhead < 0.02 * sent.total_bytes  # TLS records, HTTP/2 headers, the handshake


async def test_a_disk_that_takes_no_count_empties_no_message(serve, site, tmp_path):
    """Neither the sender's nor the receiver's: what travels is whole, and the count is told as at risk."""
    arrived = IngressMeter(tmp_path / "ingress")
    (tmp_path / "ingress").rmdir()
    store = BlobStore(tmp_path / "blobs")
    server = await serve(BlobServicer(store), meter=arrived)
    sent = EgressMeter(tmp_path / "gone" / "egress.json")
    (tmp_path / "gap").write_bytes(os.urandom(MIB))
    async with connect(server.address, site, sent) as channel:
        blob = await upload(BlobServiceStub(channel), tmp_path / "gap")
    assert store.path(blob.digest).read_bytes() == (tmp_path / "gap").read_bytes()
    assert sent.totals() == arrived.totals("site/site-1")
    assert not sent.save()
    assert "cannot be saved" in sent.problem


async def test_a_damaged_count_of_a_peer_refuses_it_nothing(serve, site, tmp_path):
    (tmp_path / "ingress").mkdir()
    (tmp_path / "ingress" / "site%2Fsite-1.json").write_text("")
    arrived = IngressMeter(tmp_path / "ingress")
    server = await serve(BlobServicer(BlobStore(tmp_path / "blobs")), meter=arrived)
    async with connect(server.address, site) as channel:
        await call(BlobServiceStub(channel).StatBlob, pb.StatBlobRequest(digest="sha256:" + "0" * 64), deadline_s=30)
    assert list(arrived.totals("site/site-1")) == ["diredi.v1.StatBlobRequest"]


async def test_each_message_is_counted_to_the_byte(serve, site, tmp_path):
    server = await serve(BlobServicer(BlobStore(tmp_path / "blobs")))
    request = pb.StatBlobRequest(digest="sha256:" + "0" * 64)
    meter = EgressMeter()
    async with connect(server.address, site, meter) as channel:
        for _ in range(3):
            await call(BlobServiceStub(channel).StatBlob, request, deadline_s=30)

    assert meter.totals() == {"diredi.v1.StatBlobRequest": 3 * (len(request.SerializeToString()) + 5)}


@pytest.mark.parametrize("data", [bytes(MIB), b"a" * MIB], ids=["zeros", "letters"])
async def test_nothing_is_compressed_behind_the_meters_back(serve, site, proxy, tmp_path, data):
    server = await serve(BlobServicer(BlobStore(tmp_path / "blobs")))
    between = await proxy(server.address)
    (tmp_path / "gap").write_bytes(data)
    async with connect(between.address, site) as channel:
        await upload(BlobServiceStub(channel), tmp_path / "gap")

    assert between.sent_bytes > MIB

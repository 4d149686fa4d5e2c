from pathlib import Path

import pytest

from diredi.rpc.blobs import BlobServicer, download, upload
from diredi.rpc.client import connect
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
from diredi.store.blobs import BlobStore

MIB = 2**20
SIZE_MIB = 200
BOUND_MIB = 64


def peak_mib():
    """The most memory this process ever held since the last reset, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel says no VmHWM")


def reset_peak():
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return peak_mib()
    except OSError as error:
        pytest.skip(f"peak memory cannot be reset on this machine: {error}")


@pytest.mark.slow
async def test_memory_stays_flat_however_big_the_blob(serve, site, tmp_path):
    """Client and server share this process, so the bound holds for both together."""
    block = bytes(range(256)) * 4096
    with (tmp_path / "weights").open("wb") as file:
        for number in range(SIZE_MIB):
            file.write(number.to_bytes(4, "big") + block[4:])
    store = BlobStore(tmp_path / "blobs")
    server = await serve(BlobServicer(store))
    before = reset_peak()
    async with connect(server.address, site) as channel:
        stub = BlobServiceStub(channel)
        blob = await upload(stub, tmp_path / "weights")
        after_upload = peak_mib() - before
        await download(stub, blob, tmp_path / "back")
        after_download = peak_mib() - before

    assert blob.bytes == SIZE_MIB * MIB
    assert after_upload < BOUND_MIB
    assert after_download < BOUND_MIB

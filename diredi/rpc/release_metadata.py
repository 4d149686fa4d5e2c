"""The signed metadata of releases over gRPC: small files by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from diredi.errors import Unreachable
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import fleet_pb2 as pb
from diredi.trust.release_client import LONGEST_BYTES

if TYPE_CHECKING:
    from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceAsyncStub

_CHUNK_BYTES: Final = 256 * 1024
_SILENCE_S: Final = 30.0
_LONGEST_S: Final = 120.0


async def fetch_metadata(stub: FleetServiceAsyncStub, name: str, longest_s: float = _LONGEST_S) -> bytes:
    """Return a file of the cloud's metadata. No more is read than a file may have, and one piece.

    Args:
        stub: The client.
        name: The file.
        longest_s: How long all of it may take, in seconds, however it trickles.

    Raises:
        NotFound: The cloud has no such file for this caller.
        Unreachable: The cloud does not answer, or it takes too long.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(longest_s):
            stream = stub.GetReleaseMetadata(pb.GetReleaseMetadataRequest(name=name))
            async for message in read_messages(stream, _SILENCE_S):
                data += message.data
                if len(data) > LONGEST_BYTES:
                    break
    except TimeoutError:
        raise Unreachable(
            f"the metadata {name} did not come within {longest_s:.0f} s: they are asked for again"
        ) from None
    return bytes(data)


def fetch_from_thread(stub: FleetServiceAsyncStub, loop: asyncio.AbstractEventLoop) -> Callable[[str], bytes]:
    """Return `fetch_metadata` as a function for other threads than that of the event loop."""

    def fetch(name: str) -> bytes:
        return asyncio.run_coroutine_threadsafe(fetch_metadata(stub, name), loop).result()

    return fetch


def chunks_of(data: bytes) -> Iterator[pb.GetReleaseMetadataResponse]:
    """Yield the messages that carry a file."""
    for offset in range(0, len(data), _CHUNK_BYTES):
        yield pb.GetReleaseMetadataResponse(data=data[offset : offset + _CHUNK_BYTES])

"""What waits for signatures at a cloud, fetched by who signs, and the signatures handed back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp

from diredi.errors import CorruptData, NotFound
from diredi.rpc.client import Channel, call
from diredi.rpc.release_metadata import fetch_metadata
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import releases_pb2 as pb
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceStub
from diredi.rpc.v1.releases_pb2_grpc import ReleaseServiceStub
from diredi.trust.release_signing import Bundle

if TYPE_CHECKING:
    from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceAsyncStub
    from diredi.rpc.v1.releases_pb2_grpc import ReleaseServiceAsyncStub

_SILENCE_S: Final = 30.0
_DEADLINE_S: Final = 10.0
_MOST_ROOTS: Final = 256


@dataclass(frozen=True)
class LineageStep:
    """A release that another one stands on, or is."""

    version: int
    parents: tuple[int, ...]
    index: int
    entry: dict[str, Any]
    details: dict[str, Any]


async def fetch_lineage(channel: Channel, version: int) -> list[LineageStep]:
    """Return a release and all that it stands on, newest first.

    Args:
        channel: A channel to the cloud, with a person's certificate.
        version: The release.

    Raises:
        CorruptData: The details of a step are not those that the log has the digest of.
        NotFound: There is no such release.
        Unreachable: The cloud does not answer.
    """
    stub: ReleaseServiceAsyncStub = ReleaseServiceStub(channel)
    steps = []
    async for message in read_messages(stub.GetLineage(pb.GetLineageRequest(version=version)), _SILENCE_S):
        entry, details = json.loads(message.entry), json.loads(message.details)
        if entry["details"] != hashlib.sha256(message.details.encode()).hexdigest():
            raise CorruptData(f"the details of release {message.version} were changed: see `diredi audit verify`")
        steps.append(LineageStep(message.version, tuple(message.parents), message.index, entry, details))
    return steps


async def fetch_waiting(channel: Channel, root: bytes) -> Bundle:
    """Fetch what waits for signatures, what is published of the same roles, and the roots that followed one.

    Args:
        channel: A channel to the cloud, with an operator's certificate.
        root: The root that the caller trusts.

    Raises:
        Refused: The caller is not an operator.
        Unreachable: The cloud does not answer.
    """
    stub: ReleaseServiceAsyncStub = ReleaseServiceStub(channel)
    fleet: FleetServiceAsyncStub = FleetServiceStub(channel)
    waiting = {
        message.name: message.metadata.decode()
        async for message in read_messages(stub.ListUnsigned(pb.ListUnsignedRequest()), _SILENCE_S)
    }
    published = {}
    try:
        timestamp = Metadata[Timestamp].from_bytes(await fetch_metadata(fleet, "timestamp.json")).signed
        name = f"{timestamp.snapshot_meta.version}.{Snapshot.type}.json"
        meta = Metadata[Snapshot].from_bytes(await fetch_metadata(fleet, name)).signed.meta
        for role in waiting:
            if (entry := meta.get(f"{role}.json")) is not None:
                published[role] = (await fetch_metadata(fleet, f"{entry.version}.{role}.json")).decode()
    except NotFound:
        pass  # nothing was ever published
    return Bundle(roots=tuple(await fetch_roots(fleet, root)), waiting=waiting, published=published)


async def fetch_roots(fleet: FleetServiceAsyncStub, root: bytes) -> list[str]:
    """Return the roots that followed one, in their order. Whoever gets them checks their signatures (`newest_root`).

    Args:
        fleet: A stub of the fleet service.
        root: The root that the caller trusts.
    """
    version = Metadata[Root].from_bytes(root).signed.version
    roots: list[str] = []
    while len(roots) < _MOST_ROOTS:
        try:
            roots.append((await fetch_metadata(fleet, f"{version + len(roots) + 1}.root.json")).decode())
        except NotFound:
            break
    return roots


async def hand_back(channel: Channel, name: str, metadata: bytes) -> bool:
    """Hand signed metadata back, and return whether they are published by it.

    Args:
        channel: A channel to the cloud, with an operator's certificate.
        name: The role; "root" for the next root.
        metadata: The signed metadata.

    Raises:
        InvalidInput: No key has signed that counts.
        WrongState: Something newer waits.
        Unreachable: The cloud does not answer.
    """
    request = pb.AddSignaturesRequest(name=name, metadata=metadata)
    answer = await call(ReleaseServiceStub(channel).AddSignatures, request, deadline_s=_DEADLINE_S)
    return answer.published

"""The services of the contract, so that a server needs only a servicer to know what to serve and under which name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from diredi.rpc.v1 import (
    cycles_pb2,
    cycles_pb2_grpc,
    edge_pb2,
    edge_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    local_pb2,
    local_pb2_grpc,
    overlay_pb2,
    overlay_pb2_grpc,
    pages_pb2,
    pages_pb2_grpc,
    peers_pb2,
    peers_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    releases_pb2,
    releases_pb2_grpc,
    sites_pb2,
    sites_pb2_grpc,
)

_MODULES: tuple[tuple[ModuleType, ModuleType], ...] = (
    (registry_pb2, registry_pb2_grpc),
    (cycles_pb2, cycles_pb2_grpc),
    (sites_pb2, sites_pb2_grpc),
    (fleet_pb2, fleet_pb2_grpc),
    (edge_pb2, edge_pb2_grpc),
    (enrolment_pb2, enrolment_pb2_grpc),
    (local_pb2, local_pb2_grpc),
    (overlay_pb2, overlay_pb2_grpc),
    (pages_pb2, pages_pb2_grpc),
    (peers_pb2, peers_pb2_grpc),
    (releases_pb2, releases_pb2_grpc),
)


@dataclass(frozen=True)
class Service:
    """A service of the contract.

    Attributes:
        name: Full name such as "diredi.v1.BlobService".
        servicer: Base class of its implementations.
        add: Registers an implementation with a gRPC server.
    """

    name: str
    servicer: type
    add: Callable[[Any, Any], None]


def _all() -> Iterator[Service]:
    for messages, stubs in _MODULES:
        for name, descriptor in messages.DESCRIPTOR.services_by_name.items():
            add = getattr(stubs, f"add_{name}Servicer_to_server")
            yield Service(descriptor.full_name, getattr(stubs, f"{name}Servicer"), add)


SERVICES = tuple(_all())


def service_of(servicer: object) -> Service:
    """Return the service that an object implements.

    Raises:
        TypeError: The object implements no service of the contract.
    """
    for service in SERVICES:
        if isinstance(servicer, service.servicer):
            return service
    raise TypeError(f"{type(servicer).__name__} extends no generated servicer of the contract")

"""Impostors: servers with a certificate of our authority that fits the address, and is not that of whom was dialled."""

import pytest

from diredi.errors import InvalidInput, Unreachable
from diredi.rpc.client import call, connect
from diredi.rpc.v1 import fleet_pb2 as pb
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceServicer, FleetServiceStub
from diredi.trust.identity import Identity, Role

CLOUD = ("cloud", "cloud", "")
SITE_1, SITE_2 = ("site", "site-1", ""), ("site", "site-2", "")
CAMERA, OTHER_CAMERA, NAMESAKE = (
    ("device", "camera-1", "site-1"),
    ("device", "camera-2", "site-1"),
    ("device", "camera-1", "site-2"),
)


class Fleet(FleetServiceServicer):
    def __init__(self):
        self.calls = 0

    async def Heartbeat(self, request, context):
        self.calls += 1
        return pb.HeartbeatResponse()


async def dial(address, credentials, expected):
    async with connect(address, credentials, server=expected) as channel:
        await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=30)


def identity(role, name, site):
    return Identity(Role(role), name, site)


@pytest.mark.parametrize(
    ("impostor", "expected"),
    [
        (SITE_2, Role.CLOUD),
        (CAMERA, Role.CLOUD),
        (("site", "cloud", ""), Role.CLOUD),
        (SITE_1, identity(*CLOUD)),
        (("cloud", "staging", ""), identity(*CLOUD)),
        (SITE_2, identity(*SITE_1)),
        (CLOUD, identity(*SITE_1)),
        (CAMERA, identity(*SITE_1)),
        (("site", "Site-1", ""), identity(*SITE_1)),
        (OTHER_CAMERA, identity(*CAMERA)),
        (NAMESAKE, identity(*CAMERA)),
        (SITE_1, identity(*CAMERA)),
    ],
)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_nobody_of_the_fleet_answers_in_anothers_place(serve, pki, host, impostor, expected):
    """The certificate is of our authority and names the host that is dialled, as all of these do."""
    servicer = Fleet()
    server = await serve(servicer, credentials=pki.credentials(*impostor))
    address = f"{host}:{server.port}"

    with pytest.raises(Unreachable, match="it is somebody else"):
        await dial(address, pki.credentials("device", "camera-9", "site-1"), expected)
    assert servicer.calls == 0
    if impostor[0] != "cloud":  # the same server is reached by whoever dials it, so it was there to be reached
        await dial(address, pki.credentials("operator", "alice"), identity(*impostor))
        assert servicer.calls == 1


@pytest.mark.parametrize("who", [CLOUD, SITE_1, CAMERA])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_whom_was_dialled_is_reached(serve, pki, host, who):
    servicer = Fleet()
    server = await serve(servicer, credentials=pki.credentials(*who))
    await dial(f"{host}:{server.port}", pki.credentials("operator", "alice"), identity(*who))

    assert servicer.calls == 1


async def test_any_cloud_of_our_authority_is_the_cloud(serve, pki):
    servicer = Fleet()
    server = await serve(servicer, credentials=pki.credentials("cloud", "Cloud_2"))
    await dial(server.address, pki.credentials(*SITE_1), Role.CLOUD)

    assert servicer.calls == 1


async def test_the_right_identity_at_another_host_is_refused(serve, pki):
    servicer = Fleet()
    server = await serve(servicer, credentials=pki.anew(*CLOUD, hosts=["127.0.0.1"]))

    with pytest.raises(Unreachable, match="does not name this address"):
        await dial(f"localhost:{server.port}", pki.credentials(*SITE_1), Role.CLOUD)
    assert servicer.calls == 0


@pytest.mark.parametrize("role", ["cloud", "site", "device"])
async def test_a_certificate_without_a_host_makes_no_server(serve, pki, role):
    servicer = Fleet()
    hostless = pki.anew(role, "one", "site-1" if role == "device" else "", hosts=[])
    server = await serve(servicer, credentials=hostless)

    with pytest.raises(Unreachable):
        await dial(server.address, pki.credentials(*SITE_2), hostless.identity)
    assert servicer.calls == 0
    with pytest.raises(InvalidInput, match=r"names no host at which it serves.*--host"):
        hostless.require_server()

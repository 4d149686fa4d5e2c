import asyncio
import socket

import grpc
import pytest

from diredi.errors import Refused, Unreachable
from diredi.rpc.caller import caller_identity, require
from diredi.rpc.client import call, connect, is_serving
from diredi.rpc.retry import Backoff
from diredi.rpc.v1 import fleet_pb2 as pb
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceServicer, FleetServiceStub
from diredi.trust import ca
from diredi.trust.identity import Credentials, Identity, Role
from tests.support.waiting import PATIENCE_S

DIRECT = [("grpc.enable_http_proxy", 0)]


class Fleet(FleetServiceServicer):
    """Notes who reached it."""

    def __init__(self):
        self.callers = []

    async def Heartbeat(self, request, context):
        self.callers.append(caller_identity(context))
        return pb.HeartbeatResponse()

    async def RegisterDevice(self, request, context):
        require(context, Role.DEVICE, name=request.device, site=request.site)
        return pb.RegisterDeviceResponse()

    async def ListDevices(self, request, context):
        require(context, "operator", "cloud")
        return pb.ListDevicesResponse()


@pytest.fixture
async def fleet(serve):
    servicer = Fleet()
    server = await serve(servicer)
    return servicer, server


async def beat(address, credentials, **more):
    async with connect(address, credentials) as channel:
        await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=30, **more)


async def expect_no_way_in(fleet, channel, pki):
    """The call fails as a retriable one, the handler is never called, and yet it answers a caller of ours."""
    servicer, server = fleet
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await FleetServiceStub(channel).Heartbeat(pb.HeartbeatRequest(), timeout=PATIENCE_S)
    await channel.close()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert servicer.callers == []
    await beat(server.address, pki.credentials("site", "site-1"))
    assert servicer.callers == [Identity(Role.SITE, "site-1")]


async def test_a_client_without_tls_never_reaches_a_handler(fleet, pki):
    await expect_no_way_in(fleet, grpc.aio.insecure_channel(fleet[1].address, options=DIRECT), pki)


async def test_a_client_without_a_certificate_never_reaches_a_handler(fleet, pki, site):
    tls = grpc.ssl_channel_credentials(root_certificates=site.ca)
    await expect_no_way_in(fleet, grpc.aio.secure_channel(fleet[1].address, tls, options=DIRECT), pki)


async def test_a_client_with_a_foreign_certificate_never_reaches_a_handler(fleet, pki, site, foreign_pki):
    stranger = foreign_pki.credentials("site", "site-1")
    tls = grpc.ssl_channel_credentials(site.ca, stranger.key, stranger.certificate)
    await expect_no_way_in(fleet, grpc.aio.secure_channel(fleet[1].address, tls, options=DIRECT), pki)


async def test_a_client_with_an_expired_certificate_never_reaches_a_handler(fleet, pki):
    await expect_no_way_in(fleet, connect(fleet[1].address, pki.expired("site", "site-1")), pki)


async def test_a_client_that_signed_its_own_certificate_never_reaches_a_handler(fleet, pki, site, tmp_path):
    """A site's own certificate must not serve as an authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    from diredi.trust import ca

    authority = ca.Authority(
        x509.load_pem_x509_certificate(site.certificate), serialization.load_pem_private_key(site.key, None)
    )
    key, request = ca.new_request()
    forged = authority.sign(request, Identity(Role.OPERATOR, "mallory")) + site.certificate
    tls = grpc.ssl_channel_credentials(site.ca, key, forged)
    await expect_no_way_in(fleet, grpc.aio.secure_channel(fleet[1].address, tls, options=DIRECT), pki)


async def test_retries_against_a_door_that_stays_shut_are_bounded(fleet, pki, proxy):
    servicer, server = fleet
    counted = await proxy(server.address)

    with pytest.raises(Unreachable, match="certificate"):
        await beat(
            counted.address, pki.expired("site", "site-1"), attempts=3, backoff=Backoff(first_s=0.01, longest_s=0.02)
        )
    assert 1 <= counted.connections <= 3
    assert servicer.callers == []


async def test_a_server_of_another_authority_is_not_believed(serve, site, foreign_pki):
    servicer = Fleet()
    impostor = await serve(servicer, credentials=foreign_pki.credentials("cloud", "cloud"))

    with pytest.raises(Unreachable, match=r"another authority or expired.*ca\.pem"):
        await beat(impostor.address, site)
    assert servicer.callers == []


async def test_a_server_with_an_expired_certificate_is_not_believed(serve, site, pki):
    servicer = Fleet()
    server = await serve(servicer, credentials=pki.expired("cloud", "cloud"))

    with pytest.raises(Unreachable, match="expired"):
        await beat(server.address, site)
    assert servicer.callers == []


async def test_a_server_whose_certificate_names_another_host_is_not_believed(serve, site, pki):
    servicer = Fleet()
    server = await serve(servicer, credentials=pki.anew("cloud", "cloud", hosts=["cloud.example.org", "10.0.0.1"]))

    with pytest.raises(Unreachable, match="does not name this address"):
        await beat(server.address, site)
    assert servicer.callers == []


async def test_an_operators_certificate_does_not_make_a_server(serve, site, pki):
    servicer = Fleet()
    server = await serve(servicer, credentials=pki.credentials("operator", "alice"))

    with pytest.raises(Unreachable):
        await beat(server.address, site)
    assert servicer.callers == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_names_and_addresses_both_work(fleet, site, host):
    servicer, server = fleet
    await beat(f"{host}:{server.port}", site)

    assert len(servicer.callers) == 1


async def test_ipv6_addresses_work(serve, site):
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    servicer = Fleet()
    server = await serve(servicer, listen="[::1]:0")
    await beat(server.address, site)

    assert len(servicer.callers) == 1


def _has_ipv6():
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


async def test_the_caller_is_who_its_certificate_says(fleet, pki):
    servicer, server = fleet
    await beat(server.address, pki.credentials("device", "camera-1", "site-1"))

    assert servicer.callers == [Identity(Role.DEVICE, "camera-1", "site-1")]


@pytest.mark.parametrize(
    ("role", "name", "its_site", "device", "said_site", "allowed"),
    [
        ("device", "camera-1", "site-1", "camera-1", "site-1", True),
        ("device", "camera-1", "site-1", "camera-2", "site-1", False),
        ("device", "camera-1", "site-1", "camera-1", "site-2", False),
        ("site", "site-1", "", "site-1", "site-1", False),
        ("operator", "camera-1", "", "camera-1", "site-1", False),
    ],
)
async def test_nobody_speaks_for_another(fleet, pki, role, name, its_site, device, said_site, allowed):
    async with connect(fleet[1].address, pki.credentials(role, name, its_site)) as channel:
        request = pb.RegisterDeviceRequest(device=device, site=said_site)
        registering = call(FleetServiceStub(channel).RegisterDevice, request, deadline_s=30)
        if allowed:
            await registering
        else:
            with pytest.raises(Refused, match=f"{role}/.* may not"):
                await registering


async def test_a_role_may_only_do_what_it_may(fleet, pki, site):
    for credentials, allowed in ((pki.credentials("operator", "alice"), True), (site, False)):
        async with connect(fleet[1].address, credentials) as channel:
            listing = call(FleetServiceStub(channel).ListDevices, pb.ListDevicesRequest(), deadline_s=30)
            if allowed:
                await listing
            else:
                with pytest.raises(Refused, match="site/site-1 may not do that: it takes the role operator or cloud"):
                    await listing


async def test_a_listener_that_never_answers_does_not_outlast_the_deadline(site):
    mute = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    started = asyncio.get_running_loop().time()
    async with connect(f"127.0.0.1:{mute.sockets[0].getsockname()[1]}", site) as channel:
        with pytest.raises(Unreachable):
            await is_serving(channel, deadline_s=1)
    mute.close()

    assert asyncio.get_running_loop().time() - started < 3


def test_the_package_has_no_way_to_talk_without_tls():
    from pathlib import Path

    import diredi

    package = Path(diredi.__file__).parent
    sources = [path for path in package.rglob("*.py") if "rpc/v1" not in path.as_posix()]
    talkers = [path.name for path in sources if "insecure" in path.read_text()]
    assert len(sources) > 20
    assert talkers == []


def test_credentials_load_from_the_folder_that_was_issued(pki, tmp_path):
    issued = ca.issue(pki.folder / "ca", "site", "site-7", [], tmp_path / "own")

    assert Credentials.load(tmp_path / "own") == issued

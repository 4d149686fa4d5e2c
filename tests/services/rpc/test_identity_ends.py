"""A certificate that ends, is revoked or is renewed while its connection is open."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import grpc
import pytest
from structlog.testing import capture_logs

from diredi.errors import InvalidInput, Refused, Unauthenticated, Unreachable
from diredi.rpc.client import call, connect, is_serving
from diredi.rpc.enrolment import enrol
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import fleet_pb2 as pb
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceServicer, FleetServiceStub
from diredi.trust import ca, enrolment, rotation
from diredi.trust.identity import Identity, Role
from tests.support.pki import Pki
from tests.support.waiting import PATIENCE_S, until

WITHIN_S = 5.0
"""An open stream or call ends so soon after its caller's certificate does; on a busy machine the test waits longer."""


class Fleet(FleetServiceServicer):
    """Streams without end, calls without an answer, and how many of each began and ended."""

    def __init__(self):
        self.begun = self.ended = 0
        self.beats = 0

    async def WatchReleases(self, request, context):
        self.begun += 1
        try:
            yield pb.WatchReleasesResponse()
            await asyncio.Event().wait()
        finally:
            self.ended += 1

    async def ReportInstall(self, request, context):
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1

    async def Heartbeat(self, request, context):
        self.beats += 1
        return pb.HeartbeatResponse()


def short_lived(pki, seconds):
    lifetime = timedelta(days=1)
    return pki.anew("site", "site-1", now=datetime.now(UTC) - lifetime + timedelta(seconds=seconds), lifetime=lifetime)


@pytest.fixture
def folder(pki, tmp_path):
    """The identity folder of a cloud, as a service has it."""
    pki.anew("cloud", "cloud", out=tmp_path / "cloud")
    return tmp_path / "cloud"


def revoke(pki, folder, *identities, certificates=()):
    ca.revoke(pki.folder / "ca", identities, certificates)
    (folder / "crl.pem.new").write_bytes((pki.folder / "ca" / "crl.pem").read_bytes())
    (folder / "crl.pem.new").replace(folder / "crl.pem")


async def hold_stream_and_call(channel):
    """A stream that has begun, and a call that waits; each ends with an error."""
    stub = FleetServiceStub(channel)
    stream = read_messages(stub.WatchReleases(pb.WatchReleasesRequest()), PATIENCE_S)
    await anext(stream)
    waiting = asyncio.create_task(call(stub.ReportInstall, pb.ReportInstallRequest(), deadline_s=PATIENCE_S))
    return asyncio.create_task(anext(stream)), waiting


async def test_an_expired_certificate_ends_its_open_stream_and_call_and_begins_no_more(serve, pki):
    servicer = Fleet()
    server = await serve(servicer)
    credentials = short_lived(pki, 2)
    async with connect(server.address, credentials) as channel:
        open_ = await hold_stream_and_call(channel)
        await until(lambda: servicer.begun == 2)
        done, _ = await asyncio.wait(open_, timeout=PATIENCE_S)
        late_s = (datetime.now(UTC) - credentials.expires).total_seconds()
        with pytest.raises(Unauthenticated, match=r"your certificate expired on .*: renew it"):
            await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
        with pytest.raises(Unauthenticated):
            await is_serving(channel)

    assert {type(task.exception()) for task in done} == {Unauthenticated} and len(done) == 2
    assert 0 <= late_s < WITHIN_S
    assert (servicer.ended, servicer.beats) == (2, 0)


async def test_a_revoked_certificate_ends_its_open_stream_and_call_and_nobody_elses(serve, pki, folder):
    servicer = Fleet()
    server = await serve(servicer, identity=folder)
    revoked, honest = pki.anew("device", "camera-7", "site-1"), pki.anew("device", "camera-8", "site-1")
    async with connect(server.address, revoked) as channel, connect(server.address, honest) as other:
        open_ = await hold_stream_and_call(channel)
        others = await hold_stream_and_call(other)
        await until(lambda: servicer.begun == 4)
        revoke(pki, folder, Identity(Role.DEVICE, "camera-7", "site-1"))
        done, _ = await asyncio.wait(open_, timeout=PATIENCE_S)
        with pytest.raises(Unauthenticated, match="was revoked"):
            await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
        assert servicer.beats == 0
        await call(FleetServiceStub(other).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
        assert {type(task.exception()) for task in done} == {Unauthenticated} and len(done) == 2
        assert (servicer.ended, servicer.beats) == (2, 1) and not any(task.done() for task in others)
        for task in others:
            task.cancel()


async def test_who_was_revoked_is_let_in_with_a_new_certificate_and_not_with_the_old_one(serve, pki, folder):
    servicer = Fleet()
    old = pki.anew("site", "site-7")
    revoke(pki, folder, Identity(Role.SITE, "site-7"))
    server = await serve(servicer, identity=folder)
    for credentials, beats in ((old, 0), (pki.anew("site", "site-7"), 1)):
        async with connect(server.address, credentials) as channel:
            calling = call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
            if beats:
                await calling
            else:
                with pytest.raises(Unauthenticated, match="was revoked"):
                    await calling
        assert servicer.beats == beats


async def test_a_certificate_is_revoked_by_its_file_alone(serve, pki, folder):
    """One from before there was a register."""
    servicer = Fleet()
    old, younger = pki.anew("site", "site-8"), pki.anew("site", "site-8")
    revoke(pki, folder, certificates=[old.certificate])
    server = await serve(servicer, identity=folder)
    async with connect(server.address, younger) as channel:
        await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
    async with connect(server.address, old) as channel:
        with pytest.raises(Unauthenticated):
            await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
    assert servicer.beats == 1


@pytest.mark.parametrize("fault", ["foreign", "rubbish", "gone", "older"])
async def test_a_deny_list_that_is_forged_damaged_or_older_changes_nothing_while_a_server_runs(
    serve, pki, foreign_pki, folder, fault
):
    servicer = Fleet()
    revoked, honest = pki.anew("site", "site-9"), pki.anew("site", "site-10")
    revoke(pki, folder, Identity(Role.SITE, "site-9"))
    before = (folder / "crl.pem").read_bytes()
    revoke(pki, folder, Identity(Role.SITE, "site-9"))
    server = await serve(servicer, identity=folder)
    foreign_pki.anew("site", "site-10")
    with capture_logs() as logs:
        if fault == "foreign":
            revoke(foreign_pki, folder, Identity(Role.SITE, "site-10"))
        elif fault == "gone":
            (folder / "crl.pem").unlink()
        else:
            (folder / "crl.pem").write_bytes(before if fault == "older" else b"rubbish")
        await until(lambda: any("crl.pem" in line.get("problem", "") for line in logs))
    async with connect(server.address, honest) as channel:
        await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
    async with connect(server.address, revoked) as channel:
        with pytest.raises(Unauthenticated):
            await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
    assert servicer.beats == 1


async def test_a_server_does_not_start_with_a_forged_deny_list(serve, pki, foreign_pki, folder):
    foreign_pki.anew("site", "site-1")
    revoke(foreign_pki, folder, Identity(Role.SITE, "site-1"))

    with pytest.raises(InvalidInput, match=r"crl\.pem is not signed by our authority"):
        await serve(Fleet(), identity=folder)


async def test_a_servers_own_end_ends_what_is_open_and_its_renewal_is_used_without_a_restart(serve, pki, folder, site):
    servicer = Fleet()
    day = timedelta(days=1)
    dying = ca.issue(
        pki.folder / "ca", "cloud", "cloud", ["127.0.0.1"], folder,
        now=datetime.now(UTC) - day + timedelta(seconds=2), lifetime=day,
    )  # fmt: skip
    server = await serve(servicer, credentials=dying, identity=folder)
    async with connect(server.address, site) as channel:
        open_ = await hold_stream_and_call(channel)
        done, _ = await asyncio.wait(open_, timeout=PATIENCE_S)
        assert {type(task.exception()) for task in done} == {Unreachable} and len(done) == 2
        assert (datetime.now(UTC) - dying.expires).total_seconds() < WITHIN_S
    async with connect(server.address, site) as channel:
        with pytest.raises(Unreachable, match="expired"):
            await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
    assert (servicer.ended, servicer.beats) == (2, 0)

    pki.anew("cloud", "cloud", out=folder)
    await until(lambda: server.identity.credentials != dying)
    async with connect(server.address, site) as channel:
        await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
    assert servicer.beats == 1


async def test_a_new_authority_beside_the_old_one_is_believed_without_a_restart(serve, pki, foreign_pki, folder, site):
    servicer = Fleet()
    server = await serve(servicer, credentials=pki.credentials("cloud", "cloud"), identity=folder)
    newcomer = foreign_pki.credentials("site", "site-2")
    tls = grpc.ssl_channel_credentials(site.ca, newcomer.key, newcomer.certificate)
    options = [("grpc.enable_http_proxy", 0)]

    async def beat():
        async with grpc.aio.secure_channel(server.address, tls, options=options) as channel:
            await FleetServiceStub(channel).Heartbeat(pb.HeartbeatRequest(), timeout=PATIENCE_S)

    with pytest.raises(grpc.aio.AioRpcError):
        await beat()
    assert servicer.beats == 0
    (folder / "ca.pem").write_bytes(site.ca + newcomer.ca)
    await until(lambda: newcomer.ca in server.identity.credentials.ca)
    await beat()
    assert servicer.beats == 1


async def test_a_renewed_client_goes_on_through_the_same_channel(serve, pki, folder):
    """The old certificate is revoked then, so that what follows was not sent with it."""
    servicer = Fleet()
    server = await serve(servicer, identity=folder)
    old = pki.anew("site", "site-11")
    async with connect(server.address, old) as channel:
        stub = FleetServiceStub(channel)
        stream = read_messages(stub.WatchReleases(pb.WatchReleasesRequest()), PATIENCE_S)
        await anext(stream)
        revoke(pki, folder, certificates=[old.certificate])
        with pytest.raises(Unauthenticated):
            await anext(stream)
        channel.renew(pki.anew("site", "site-11"))
        await call(stub.Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
    assert servicer.beats == 1


async def test_a_stream_that_a_renewal_leaves_behind_is_broken_and_not_cancelled(serve, pki):
    server = await serve(Fleet())
    async with connect(server.address, pki.credentials("site", "site-1")) as channel:
        stub = FleetServiceStub(channel)
        stream = read_messages(stub.WatchReleases(pb.WatchReleasesRequest()), PATIENCE_S)
        await anext(stream)
        channel.renew(pki.anew("site", "site-1"), grace_s=0.1)
        with pytest.raises(Unreachable, match="renewed"):
            await anext(stream)


async def test_a_server_says_for_30_days_that_its_certificate_ends(serve, pki):
    for days, said in ((29, True), (31, False)):
        with capture_logs() as logs:
            server = await serve(Fleet(), credentials=pki.anew("cloud", "cloud", lifetime=timedelta(days=days)))
            server.identity.warn_if_ending()
            server.identity.warn_if_ending()
        assert [line["days"] for line in logs if line["event"] == "certificate_ends_soon"] == [28] * said


@pytest.fixture
def stolen(tmp_path):
    """An authority whose cloud's identity somebody has a copy of, a client, and the folders of both."""
    own = Pki(tmp_path / "pki")
    thief = own.anew("cloud", "cloud", out=tmp_path / "thief")
    client = own.anew("device", "camera-1", "site-1", out=tmp_path / "camera")
    return SimpleNamespace(pki=own, thief=thief, client=client, folder=tmp_path / "camera", cloud=tmp_path / "cloud")


async def beat(address, stolen):
    async with connect(address, stolen.client, identity=stolen.folder) as channel:
        await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)


async def test_a_stolen_cloud_that_was_revoked_gets_no_byte_and_one_sentence_and_the_next_cloud_is_reached(
    serve, stolen
):
    """It serves with the real key and certificate, at the address that it names; the thief has no deny list."""
    thief = Fleet()
    server = await serve(thief, credentials=stolen.thief)
    await beat(server.address, stolen)
    assert thief.beats == 1  # it was there to be reached
    revoke(stolen.pki, stolen.folder, Identity(Role.CLOUD, "cloud"))
    with pytest.raises(Unreachable, match="its certificate was revoked") as refused:
        await beat(server.address, stolen)
    assert thief.beats == 1 and "\n" not in str(refused.value)

    cloud = Fleet()
    anew = stolen.pki.anew("cloud", "cloud", out=stolen.cloud)
    server = await serve(cloud, credentials=anew, identity=stolen.cloud)
    await beat(server.address, stolen)
    (stolen.folder / "crl.pem").unlink()
    await beat(server.address, stolen)  # who has not heard of the deny list yet reaches the new one, too
    assert cloud.beats == 2


async def test_a_cloud_that_is_revoked_loses_its_open_connections_and_refuses_by_itself_where_it_knows(serve, stolen):
    thief = Fleet()
    server = await serve(thief, credentials=stolen.thief)
    async with connect(server.address, stolen.client, identity=stolen.folder) as channel:
        open_ = await hold_stream_and_call(channel)
        await until(lambda: thief.begun == 2)
        revoke(stolen.pki, stolen.folder, Identity(Role.CLOUD, "cloud"))
        began = time.monotonic()
        done, _ = await asyncio.wait(open_, timeout=PATIENCE_S)
        assert {type(task.exception()) for task in done} == {Unreachable} and len(done) == 2
        assert time.monotonic() - began < WITHIN_S
        with pytest.raises(Unreachable, match="its certificate was revoked"):
            await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
    assert thief.beats == 0

    own = Fleet()
    (stolen.cloud).mkdir()
    (stolen.cloud / "crl.pem").write_bytes((stolen.folder / "crl.pem").read_bytes())
    (stolen.folder / "crl.pem").unlink()
    server = await serve(own, credentials=stolen.thief, identity=stolen.cloud)
    with pytest.raises(Unreachable, match="cloud/cloud was revoked: it answers when"):
        await beat(server.address, stolen)
    assert own.beats == 0


async def test_an_older_or_damaged_deny_list_gives_a_revoked_cloud_nothing_back(serve, stolen):
    thief = Fleet()
    stolen.pki.anew("site", "site-1")
    revoke(stolen.pki, stolen.folder, Identity(Role.SITE, "site-1"))
    older = (stolen.folder / "crl.pem").read_bytes()
    revoke(stolen.pki, stolen.folder, Identity(Role.CLOUD, "cloud"))
    server = await serve(thief, credentials=stolen.thief)
    with capture_logs() as logs:
        async with connect(server.address, stolen.client, identity=stolen.folder) as channel:
            for state in (b"rubbish", older):
                (stolen.folder / "crl.pem").write_bytes(state)
                if state == b"rubbish":
                    await until(lambda: any(line["event"] == "deny_list_not_read" for line in logs))
                with pytest.raises(Unreachable, match="its certificate was revoked"):
                    await call(FleetServiceStub(channel).Heartbeat, pb.HeartbeatRequest(), deadline_s=PATIENCE_S)
    assert thief.beats == 0


async def test_a_token_made_after_the_revocation_leads_past_a_stolen_cloud(serve, stolen, tmp_path):
    revoke(stolen.pki, stolen.folder, Identity(Role.CLOUD, "cloud"))
    authority = stolen.pki.folder / "ca"
    made = enrolment.create_token(authority, Identity(Role.SITE, "late"), [], timedelta(hours=1))
    server = await serve(Fleet(), credentials=stolen.thief)
    token = enrolment.Token.decode(enrolment.Token(server.address, made, 1).encode())
    with pytest.raises(Unreachable, match="its certificate was revoked"):
        await enrol(token, tmp_path / "late")


def test_a_cloud_is_not_renewed_by_its_own_authority_once_it_was_revoked_and_another_cloud_is(stolen, tmp_path):
    authority, other = stolen.pki.folder / "ca", tmp_path / "other"
    stolen.pki.anew("cloud", "other", hosts=["localhost"], out=other)
    revoke(stolen.pki, stolen.folder, Identity(Role.CLOUD, "cloud"))
    before = (tmp_path / "thief" / "cert.pem").read_bytes(), (other / "cert.pem").read_bytes()
    rotation.follow(authority, tmp_path / "thief")
    rotation.follow(authority, other)
    assert (tmp_path / "thief" / "cert.pem").read_bytes() == before[0] and (other / "cert.pem").read_bytes() != before[
        1
    ]
    with pytest.raises(Refused, match="was revoked, and is not renewed"):
        enrolment.renew(authority, before[0], b"")

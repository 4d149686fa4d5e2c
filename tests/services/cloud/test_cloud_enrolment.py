"""Enrolment and renewal: tokens that work once, keys that never leave, certificates that are renewed while all runs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from diredi.errors import InvalidInput, NoRoom, NotFound, Refused, Unauthenticated, Unreachable, WrongState
from diredi.rpc import renewal
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.client import call, connect
from diredi.rpc.enrolment import enrol, enrol_with_file
from diredi.rpc.server import start_server
from diredi.rpc.services import SERVICES
from diredi.rpc.v1 import enrolment_pb2, fleet_pb2, fleet_pb2_grpc, registry_pb2, registry_pb2_grpc
from diredi.rpc.v1.enrolment_pb2_grpc import EnrolmentServiceServicer, EnrolmentServiceStub
from diredi.trust import ca, enrolment
from diredi.trust.enrolment import Token
from diredi.trust.identity import Credentials, Identity, Role, hosts_in
from tests.services.cloud.world import World
from tests.support.net import free_port
from tests.support.waiting import PATIENCE_S, until

CAMERA = Identity(Role.DEVICE, "cam-9", "site-1")


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    ca.init(tmp_path / "ca")
    return tmp_path / "ca"


@pytest.fixture
async def world(tmp_path: Path, first_release: Path, authority: Path) -> AsyncIterator[World]:
    """A cloud that signs, with an authority of this test's own."""
    import shutil

    world = World(tmp_path, tmp_path / "pki", settings={"authority": authority})
    for role, name, site in (("cloud", "cloud", ""), ("admin", "alice", ""), ("site", "site-1", "")):
        hosts = ["127.0.0.1"] if role == "cloud" else []
        ca.issue(authority, role, name, hosts, world.identities / name, site)
    shutil.copytree(first_release, world.state_dir)
    yield world
    await world.close()


async def diredi(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "diredi_cli", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def token_for(
    world: World, identity: Identity = CAMERA, valid_s: int = 3600, hosts: tuple[str, ...] = ()
) -> Token:
    stub = EnrolmentServiceStub(world.channel("alice"))
    request = enrolment_pb2.CreateTokenRequest(identity=str(identity), valid_s=valid_s, hosts=hosts)
    made = await call(stub.CreateToken, request, deadline_s=PATIENCE_S)
    return Token(world.address, Credentials.parse(made.ca, made.certificate, made.key))


async def heartbeat(world: World, credentials: Credentials) -> None:
    async with connect(world.address, credentials) as channel:
        request = fleet_pb2.HeartbeatRequest(device=credentials.identity.name)
        await call(fleet_pb2_grpc.FleetServiceStub(channel).Heartbeat, request, deadline_s=PATIENCE_S)


@pytest.mark.slow
async def test_an_operators_token_makes_a_device_that_the_cloud_knows_and_its_key_is_made_there(
    world: World, tmp_path: Path
) -> None:
    async with world.cloud():
        said = await diredi(
            "device", "enroll", "cam-9", "--site", "site-1", "--host", "cam-9.example.org", "--valid", "2h", "--json",
            "--cloud", world.address, "--identity", str(world.identities / "alice"),
        )  # fmt: skip
        token = json.loads(said)["token"]
        assert " " not in token and len(token) < 2953, "a QR code holds it"
        out = json.loads(await diredi("pki", "enroll", token, "--out", str(tmp_path / "cam-9"), "--json"))
        made = Credentials.load(tmp_path / "cam-9", owner=CAMERA)
        await heartbeat(world, made)
    assert out["identity"] == "device/site-1/cam-9"
    assert hosts_in(made.certificate) == ["cam-9.example.org"]
    assert made.expires - datetime.now(UTC) < timedelta(days=91)
    assert (tmp_path / "cam-9" / "key.pem").stat().st_mode & 0o777 == 0o600
    held = sorted(path.name for path in (tmp_path / "cam-9").iterdir())
    assert held == ["ca.pem", "cert.pem", "key.pem", "root.json"]
    assert Token.decode(token).credentials.key != made.key
    assert not [path for path in world.state_dir.rglob("*") if path.is_file() and made.key in path.read_bytes()]


async def test_a_token_works_once_and_for_the_same_key_again(world: World, tmp_path: Path) -> None:
    async with world.cloud():
        token = await token_for(world)
        first = await enrol(token, tmp_path / "first")
        root = world.identities / "cloud" / "root.json"
        assert (tmp_path / "first" / root.name).read_bytes() == root.read_bytes()
        with pytest.raises(Refused, match="this token has been used"):
            await enrol(token, tmp_path / "thief")
        assert not (tmp_path / "thief" / "cert.pem").exists()
        (tmp_path / "first" / "cert.pem").unlink()  # as if the answer had been lost
        (tmp_path / "first" / "key.pem").rename(tmp_path / "first" / "key.pem.new")
        again = await enrol(token, tmp_path / "first")
    assert again.key == first.key and again.identity == CAMERA


async def test_a_service_with_a_token_enrols_itself_as_soon_as_the_cloud_answers(
    world: World, authority: Path, tmp_path: Path
) -> None:
    world.address = f"127.0.0.1:{free_port()}"
    file, folder, meter = tmp_path / "token", tmp_path / "cam-9", EgressMeter()
    text = Token("elsewhere:1", enrolment.create_token(authority, CAMERA, ["cam-9"], timedelta(hours=1))).encode()
    file.write_text(text)
    with pytest.raises(InvalidInput, match="chmod 600"):
        await enrol_with_file(file, world.address, folder, CAMERA)
    file.chmod(0o600)
    enrolling = asyncio.create_task(enrol_with_file(file, world.address, folder, CAMERA, meter))
    await until((folder / "key.pem.new").exists)  # it has made its key while the cloud is away
    async with world.cloud():
        await asyncio.wait_for(enrolling, PATIENCE_S)
        made = Credentials.load(folder, owner=CAMERA)
        await heartbeat(world, made)
        assert meter.messages().keys() == {"diredi.v1.EnrolRequest"} and not file.exists()
        file.write_text(text)  # a thief who had copied it
        file.chmod(0o600)
        with pytest.raises(Refused, match="this token has been used"):
            await enrol_with_file(file, world.address, tmp_path / "thief", CAMERA)
        await enrol_with_file(file, world.address, folder, CAMERA)
    assert Credentials.load(folder).certificate == made.certificate, "who has a certificate keeps it"


async def test_a_service_does_not_take_the_token_of_another(world: World, authority: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "token", Identity(Role.DEVICE, "cam-8", "site-1")
    file.write_text(Token("", enrolment.create_token(authority, CAMERA, [], timedelta(hours=1))).encode())
    file.chmod(0o600)
    async with world.cloud():
        with pytest.raises(InvalidInput, match="is of device/site-1/cam-9, not of device/site-1/cam-8"):
            await enrol_with_file(file, world.address, tmp_path / "cam-8", other)
    assert not (tmp_path / "cam-8" / "cert.pem").exists()


async def test_a_token_that_has_expired_is_refused_in_the_handshake(
    world: World, authority: Path, tmp_path: Path
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=2)
    old = enrolment.create_token(authority, CAMERA, [], timedelta(days=1), long_ago)
    async with world.cloud():
        with pytest.raises(Unreachable, match="certificate"):
            await enrol(Token(world.address, old), tmp_path / "late")
    assert not (tmp_path / "late" / "cert.pem").exists()
    assert "cam-9" not in [line["identity"] for line in register(authority)]


def register(authority: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (authority / "issued.jsonl").read_text().splitlines()]


async def test_a_token_opens_nothing_but_enrolment(world: World) -> None:
    """Each call of the contract is made with it, the streams too."""
    tried = 0
    async with world.cloud():
        token = await token_for(world)
        async with connect(world.address, token.credentials) as channel:
            for service in SERVICES:
                for name in [name for name in dir(service.servicer) if name[0].isupper() and name != "Enrol"]:
                    method = f"/{service.name}/{name}"
                    for kind in (channel.unary_unary, channel.unary_stream):
                        calling = kind(method, lambda _: b"", lambda data: data)(b"", timeout=PATIENCE_S)
                        with pytest.raises(grpc.aio.AioRpcError) as caught:
                            await (calling if kind == channel.unary_unary else calling.read())
                        if caught.value.code() is grpc.StatusCode.PERMISSION_DENIED:
                            assert "is a token" in (caught.value.details() or "")
                            tried += 1
                        else:
                            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED, method
    assert tried > 30


async def test_only_admins_make_tokens_and_none_for_a_cloud_or_a_host_of_another(world: World, authority: Path) -> None:
    ca.issue(authority, "site", "site-2", ["user-domain.example.org"], world.identities / "site-2")
    async with world.cloud():
        before = register(authority)
        for name in ("site-1", "cloud"):
            stub = EnrolmentServiceStub(world.channel(name))
            with pytest.raises(Refused, match="the role admin"):
                request = enrolment_pb2.CreateTokenRequest(identity=str(CAMERA), valid_s=60)
                await call(stub.CreateToken, request, deadline_s=PATIENCE_S)
        for wanted, hosts, valid_s in (
            ("cloud/evil", [], 60), ("enrolment/x", [], 60), ("king/arthur", [], 60), ("site/a", ["a b"], 60),
            ("site/a", ["user-domain.example.org"], 60), ("site/a", [], 0), ("site/a", [], 31 * 86_400),
        ):  # fmt: skip
            request = enrolment_pb2.CreateTokenRequest(identity=wanted, hosts=hosts, valid_s=valid_s)
            with pytest.raises(InvalidInput):
                await call(EnrolmentServiceStub(world.channel("alice")).CreateToken, request, deadline_s=PATIENCE_S)
        assert register(authority) == before


async def test_a_token_of_another_register_is_not_known(world: World, authority: Path, tmp_path: Path) -> None:
    """As after a restored backup: the certificate is the authority's, and it has no entry."""
    key, request = ca.new_request()
    certificate = ca.sign_request(authority, request, Identity(Role.ENROLMENT, "made-up"), ())
    token = Token("", Credentials.parse((authority / "ca.pem").read_bytes(), certificate, key))
    async with world.cloud():
        with pytest.raises(NotFound, match="ask for another one"):
            await enrol(Token(world.address, token.credentials), tmp_path / "own")


async def test_a_certificate_is_renewed_at_half_of_its_time_with_the_same_key_and_hosts(
    world: World, authority: Path, tmp_path: Path
) -> None:
    folder, now = tmp_path / "cam-9", datetime.now(UTC)
    hosts = ["cam-9.example.org", "10.0.0.9", "fd00::9"]
    old = ca.issue(
        authority, "device", "cam-9", hosts, folder, "site-1", now=now - timedelta(days=6), lifetime=timedelta(days=10)
    )
    assert renewal.is_due(old) and not renewal.is_due(old, now - timedelta(days=2))
    async with world.cloud():
        async with connect(world.address, old) as channel:
            async with asyncio.timeout(PATIENCE_S):
                await renewal.keep_renewed(channel, old, folder)
        new = Credentials.load(folder, owner=CAMERA)
        await heartbeat(world, new)
    assert (new.key, hosts_in(new.certificate)) == (old.key, hosts)
    assert new.expires - now > timedelta(days=89) and new.certificate != old.certificate
    assert new.require_server()


async def test_who_was_revoked_is_not_renewed(world: World, authority: Path, tmp_path: Path) -> None:
    old = ca.issue(authority, "device", "cam-9", [], tmp_path / "cam-9", "site-1")
    ca.revoke(authority, [CAMERA])
    (world.identities / "cloud" / "crl.pem").write_bytes((authority / "crl.pem").read_bytes())
    async with world.cloud():
        before = register(authority)
        async with connect(world.address, old) as channel:
            with pytest.raises(Unauthenticated, match="was revoked"):
                await renewal.renew(channel, old, tmp_path / "cam-9")
        assert register(authority) == before
    assert Credentials.load(tmp_path / "cam-9").certificate == old.certificate


async def test_a_renewed_identity_brings_the_deny_list(world: World, authority: Path, tmp_path: Path) -> None:
    own = ca.issue(authority, "site", "site-4", [], tmp_path / "site-4")
    ca.issue(authority, "device", "cam-9", [], tmp_path / "cam-9", "site-1")
    ca.revoke(authority, [CAMERA])
    async with world.cloud(), connect(world.address, own) as channel:
        await renewal.renew(channel, own, tmp_path / "site-4")
    assert (tmp_path / "site-4" / "crl.pem").read_bytes() == (authority / "crl.pem").read_bytes()


async def test_a_cloud_renews_its_own_certificate(world: World, authority: Path) -> None:
    folder, now = world.identities / "cloud", datetime.now(UTC)
    old = ca.issue(
        authority, "cloud", "cloud", ["127.0.0.1"], folder, now=now - timedelta(days=6), lifetime=timedelta(days=10)
    )
    async with world.cloud() as cloud:
        async with asyncio.timeout(PATIENCE_S):
            while cloud._server.identity.credentials == old:
                await asyncio.sleep(0.05)
        lister = registry_pb2_grpc.RegistryServiceStub(world.channel("alice")).ListModels
        await call(lister, registry_pb2.ListModelsRequest(), deadline_s=PATIENCE_S)
    shown = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    assert shown.not_valid_after_utc > old.expires + timedelta(days=80)


async def test_a_cloud_without_an_authority_signs_nothing(world: World, authority: Path, tmp_path: Path) -> None:
    world.settings.clear()
    own = Credentials.load(world.identities / "site-1")
    async with world.cloud(), connect(world.address, own) as channel:
        with pytest.raises(WrongState, match="--authority"):
            await token_for(world)
        with pytest.raises(WrongState, match="--authority"):
            await renewal.renew(channel, own, world.identities / "site-1")


@pytest.mark.parametrize("fault", ["", "diredi-enrol-", "diredi-enrol-AAAA", "cut", "bent", "long"])
async def test_what_is_no_token_is_told_as_such(authority: Path, fault: str) -> None:
    whole = Token("cloud:1", enrolment.create_token(authority, CAMERA, [], timedelta(hours=1))).encode()
    text = {
        "cut": whole[:-40],
        "bent": whole[:60] + ("B" if whole[60] == "A" else "A") + whole[61:],
        "long": whole + "A" * 10_000,
    }.get(fault, fault)

    with pytest.raises(InvalidInput, match="is no enrolment token"):
        Token.decode(text)
    assert Token.decode(f" {whole}\n").credentials.identity.role is Role.ENROLMENT


async def test_nobody_makes_the_register_grow_without_end(world: World, authority: Path, tmp_path: Path) -> None:
    own = ca.issue(authority, "device", "cam-9", [], tmp_path / "cam-9", "site-1", lifetime=timedelta(days=10))
    other = ca.issue(authority, "device", "cam-8", [], tmp_path / "cam-8", "site-1", lifetime=timedelta(days=10))
    async with world.cloud(), connect(world.address, own) as channel, connect(world.address, other) as honest:
        with pytest.raises(NoRoom, match="try tomorrow"):
            for _ in range(50):
                await renewal.renew(channel, own, tmp_path / "cam-9")
        assert len(register(authority)) == 5 + enrolment.MAX_SIGNED_A_DAY
        await renewal.renew(honest, other, tmp_path / "cam-8")


@pytest.mark.parametrize("answered", ["of another authority", "of another identity", "with a forged deny list"])
async def test_a_cloud_that_answers_a_renewal_with_other_trust_changes_nothing(
    world: World, authority: Path, tmp_path: Path, answered: str
) -> None:
    """One that has the cloud's own certificate and key, but not the authority's."""
    own = ca.issue(authority, "site", "site-4", [], tmp_path / "site-4")
    ca.init(tmp_path / "evil")
    ca.issue(tmp_path / "evil", "site", "site-9", [], tmp_path / "site-9")
    ca.revoke(tmp_path / "evil", [Identity(Role.SITE, "site-9")])
    asked = 0

    class Evil(EnrolmentServiceServicer):
        async def RenewCertificate(self, request: Any, context: Any) -> enrolment_pb2.RenewCertificateResponse:
            nonlocal asked
            asked += 1
            identity = Identity(Role.SITE, "site-5" if answered == "of another identity" else "site-4")
            folder = tmp_path / "evil" if answered == "of another authority" else authority
            signed = ca.sign_request(folder, x509.load_pem_x509_csr(request.signing_request), identity, ())
            forged = (tmp_path / "evil" / "crl.pem").read_bytes() if "deny" in answered else b""
            return enrolment_pb2.RenewCertificateResponse(certificate=signed, deny_list=forged)

    before = {path.name: path.read_bytes() for path in (tmp_path / "site-4").iterdir()}
    server = await start_server(Credentials.load(world.identities / "cloud"), "127.0.0.1:0", [Evil()])
    async with connect(server.address, own) as channel:
        with pytest.raises(InvalidInput):
            await renewal.renew(channel, own, tmp_path / "site-4")
    await server.stop(0)
    assert asked == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "site-4").iterdir()} == before

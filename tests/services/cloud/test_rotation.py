"""The authority of a fleet is replaced while the fleet runs."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from diredi.errors import InvalidInput, Unreachable, WrongState
from diredi.rpc.client import connect
from diredi.rpc.enrolment import enrol
from diredi.rpc.v1 import fleet_pb2
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceStub
from diredi.trust import ca, enrolment, rotation
from diredi.trust.identity import Credentials, Identity, Role, issued_by
from diredi_cli.main import run
from tests.services.cloud.test_retired import camera, world
from tests.services.cloud.world import World, ask
from tests.support.waiting import PATIENCE_S, until

__all__ = ["world"]

HOUR = timedelta(hours=1)


def signer_of(folder: Path) -> x509.Certificate:
    """Which of the trusted authorities has signed the certificate in an identity folder."""
    own = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    (found,) = [one for one in trusted_in(folder) if issued_by(own, one)]
    return found


def trusted_in(folder: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates((folder / "ca.pem").read_bytes())


def rotate(authority: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    capsys.readouterr()
    assert run(["pki", "rotate", "--ca", str(authority), "--json", *options]) == 0
    return dict(json.loads(capsys.readouterr().out))


async def heartbeat(world: World, credentials: Credentials, device: str = "cam-1") -> None:
    async with connect(world.address, credentials) as channel:
        await ask(FleetServiceStub(channel).Heartbeat, fleet_pb2.HeartbeatRequest(device=device))


@pytest.mark.slow
async def test_the_authority_is_rotated_while_a_camera_runs_and_the_old_one_opens_nothing_afterwards(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, own = world.settings["authority"], world.identities / "cam-1"
    old, before = ca.load(authority), world.credentials("cam-1")
    async with world.cloud(), camera(world, tmp_path):

        async def follows() -> bool:
            return "cam-1" in await world.operator().devices()

        await until(follows)
        assert "device/site-1/cam-1" in rotate(authority, capsys)["waiting"]
        new = ca.load(authority / "next").certificate
        await until(lambda: len(trusted_in(own)) == 2 and signer_of(own) == new)  # by itself, over the stream it holds
        assert len(trusted_in(world.identities / "cloud")) == 2
        assert signer_of(world.identities / "cloud") == old.certificate
        assert "device/site-1/cam-1" not in rotate(authority, capsys)["waiting"]
        await heartbeat(world, before)  # both are good
        await heartbeat(world, Credentials.load(own))
        anna = ["--cloud", world.address, "--identity", str(world.identities / "alice")]
        assert await asyncio.to_thread(run, ["pki", "renew", *anna]) == 0
        assert signer_of(world.identities / "alice") == new
        with pytest.raises(WrongState, match="have not renewed yet"):
            rotation.finish(authority)

        assert "site/site-2" in rotate(authority, capsys, "--finish", "--leave-out")["left_out"]
        await until(lambda: trusted_in(own) == [new])
        await until(lambda: trusted_in(world.identities / "cloud") == [new])
        assert signer_of(world.identities / "cloud") == signer_of(own) == new
        now = Credentials.load(own)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await heartbeat(world, now)
                    break
                except Unreachable:
                    await asyncio.sleep(0.1)
        with pytest.raises(Unreachable):
            await heartbeat(world, Credentials.parse(now.ca + before.ca, before.certificate, before.key))
        token = enrolment.Token(world.address, enrolment.create_token(authority, Identity(Role.SITE, "late"), [], HOUR))
        assert (await enrol(token, tmp_path / "late")).ca == (authority / "ca.pem").read_bytes()
    assert ca.load(authority).certificate == new != old.certificate


async def test_a_next_authority_that_ours_has_not_signed_is_not_believed(world: World, tmp_path: Path) -> None:
    """From a cloud that was stolen, which has no key of an authority that anybody trusts."""
    own = world.identities / "cam-1"
    before = (own / "ca.pem").read_bytes()
    ca.init(tmp_path / "evil")
    rotation.begin(tmp_path / "evil")
    rotation.begin(world.settings["authority"])
    evil, honest = (rotation.proof_of_next(folder) for folder in (tmp_path / "evil", world.settings["authority"]))
    marked = [part + b"-----END CERTIFICATE-----\n" for part in (evil + honest).split(b"-----END CERTIFICATE-----\n")]
    for proof in (evil, b"", b"x", marked[0] + marked[3], marked[2], marked[3] + marked[3]):
        with pytest.raises(InvalidInput):
            rotation.take_next(own, before, proof)
        assert (own / "ca.pem").read_bytes() == before
    assert rotation.take_next(own, before, honest) == (own / "ca.pem").read_bytes() != before


@pytest.mark.parametrize("step", ["write_key", "write_deny_list", "atomic_write"])
def test_a_rotation_that_is_interrupted_is_finished_by_the_same_command(tmp_path: Path, step: str) -> None:
    """The states that a crash between its steps leaves behind."""
    authority = tmp_path / "ca"
    ca.init(authority)
    ca.issue(authority, "site", "site-1", [], tmp_path / "site-1")
    rotation.begin(authority)
    rotation.begin(authority)
    new = ca.load(authority / "next")
    if step != "write_key":
        ca.write_key(authority, new.key, b"")
    if step == "atomic_write":
        ca.write_deny_list(authority, new, (), datetime.now(UTC))
    assert rotation.finish(authority, leave_out=True) == ["site/site-1"]
    assert ca.load(authority).certificate == new.certificate and not rotation.is_under_way(authority)

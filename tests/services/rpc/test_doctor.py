"""The doctor, against real servers, certificates and files: each fault is found, and no other."""

import asyncio
import json
import os
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.doctor import Installation, Level, examine
from diredi.trust import ca
from diredi.trust.identity import Identity, Role
from tests.support.net import free_port
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.usefixtures("quick_processes")

CAMERA = Identity(Role.DEVICE, "camera-1", "site-1")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def installation(pki, tmp_path):
    """installation(cloud address, ...) -> that of an edge node."""

    def make(address="", *, owner=CAMERA, listen="127.0.0.1:0", server=Role.CLOUD, folder=None, **issue):
        folder = folder or tmp_path / "identity"
        if not folder.exists():
            pki.anew("device", "camera-1", "site-1", out=folder, **issue)
        dials = [("cloud", address, server)] if address else []
        return Installation(folder, owner, listen, tmp_path / "state", dials)

    return make


async def bad(installation, **more):
    """Check to what was found and the remedy, of all that is not well."""
    findings = await examine(installation, **more)
    assert all(finding.found for finding in findings)
    assert all(finding.remedy for finding in findings if finding.level is not Level.OK)
    return {f.check: (f.level, f.found, f.remedy) for f in findings if f.level is not Level.OK}


async def test_a_sound_installation_has_no_finding_that_is_bad(serve, installation, tmp_path):
    server = await serve()
    (tmp_path / "state").mkdir()
    meter = EgressMeter(tmp_path / "state" / "egress.json")
    meter.count("diredi.v1.HeartbeatRequest", 95)
    meter.close()
    findings = {f.check: f for f in await examine(installation(f"localhost:{server.port}"))}

    assert not [f for f in findings.values() if f.level is not Level.OK and f.check != "cloud: address"]
    assert "ends on" in findings["certificate"].found
    assert "proves to be the cloud" in findings["cloud: certificate"].found
    assert "IPv4 127.0.0.1" in findings["cloud: address"].found
    assert findings["cloud: answer"].found == "it takes our certificate and serves"
    assert findings["bytes sent"].found == "100 in all: HeartbeatRequest 100"
    assert f"dials cloud at localhost:{server.port} and nobody else" in findings["what leaves"].found
    assert {"clock", "port", "disk", "versions", "names", "deny list"} <= set(findings)


@pytest.mark.parametrize(
    ("days", "level", "said"),
    [(29, Level.WARNING, "ends on"), (-1, Level.ERROR, "expired"), (31, None, "")],
)
async def test_the_end_of_a_certificate(installation, days, level, said):
    now = datetime.now(UTC)
    found = await bad(installation(now=now - timedelta(days=40), lifetime=timedelta(days=40 + days)))

    assert (found["certificate"][0], said in found["certificate"][1]) == (level, True) if level else found == {}


async def test_a_certificate_of_another_and_one_that_others_may_read(installation, tmp_path):
    named = await bad(installation(owner=Identity(Role.DEVICE, "camera-2", "site-1")))
    assert "is for device/site-1/camera-1, not for device/site-1/camera-2" in named["certificate"][1]
    (tmp_path / "identity" / "key.pem").chmod(0o644)
    assert "chmod 600" in (await bad(installation()))["certificate"][2]


async def test_a_clock_that_stands_in_1970_or_behind_its_own_files(installation, tmp_path):
    found = await bad(installation(), now=datetime(1970, 1, 2, tzinfo=UTC))
    assert found["clock"][0] is Level.ERROR and "timedatectl" in found["clock"][2]
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "update.json").touch()
    found = await bad(installation(), now=datetime.now(UTC) - timedelta(minutes=30))
    assert found["clock"][0] is Level.WARNING


async def test_a_revoked_certificate_is_found_here_and_at_the_cloud(serve, pki, installation, tmp_path):
    one = installation()
    pki.anew("cloud", "cloud", out=tmp_path / "cloud")
    revoked = (tmp_path / "identity" / "cert.pem").read_bytes()
    ca.revoke(pki.folder / "ca", [], [revoked])
    (tmp_path / "cloud" / "crl.pem").write_bytes((pki.folder / "ca" / "crl.pem").read_bytes())
    server = await serve(identity=tmp_path / "cloud")
    found = await bad(installation(f"127.0.0.1:{server.port}"))
    assert "was revoked" in found["cloud: answer"][1] and set(found) == {"cloud: answer"}
    (tmp_path / "identity" / "crl.pem").write_bytes((pki.folder / "ca" / "crl.pem").read_bytes())
    assert (await bad(one))["deny list"][:2] == (Level.ERROR, "this certificate was revoked")


async def test_an_impostor_is_named(serve, pki, installation):
    server = await serve(credentials=pki.credentials("site", "site-9"))
    found = await bad(installation(f"127.0.0.1:{server.port}"))

    level, said, remedy = found["cloud: certificate"]
    assert level is Level.ERROR and "site/site-9 answers there" in said and "it must be the cloud" in remedy


async def test_a_certificate_for_another_host_is_named_with_its_hosts(serve, pki, installation):
    server = await serve(credentials=pki.anew("cloud", "cloud", hosts=["cloud.example.org"]))
    found = await bad(installation(f"127.0.0.1:{server.port}"))

    assert "cloud/cloud answers there, with a certificate for cloud.example.org" in found["cloud: certificate"][1]


async def test_a_server_of_another_authority_is_told_apart(serve, foreign_pki, installation):
    server = await serve(credentials=foreign_pki.credentials("cloud", "cloud"))
    found = await bad(installation(f"127.0.0.1:{server.port}"))

    assert "is not believed" in found["cloud: certificate"][1] and "ca.pem" in found["cloud: certificate"][2]


async def test_nobody_there_a_name_that_is_unknown_and_an_address_that_is_none(installation):
    found = await bad(installation(f"127.0.0.1:{free_port()}"))
    assert "no answer from IPv4 127.0.0.1 (Connection refused)" in found["cloud: address"][1]
    found = await bad(installation("no-such-host.invalid:7070"))
    assert found["cloud: name"][:2] == (Level.ERROR, "no-such-host.invalid is not known here")
    assert "HOST:PORT" in (await bad(installation("cloud")))["cloud"][2]


async def test_one_that_listens_and_speaks_no_tls(installation):
    async def hang_up(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    found = await bad(installation(f"127.0.0.1:{plain.sockets[0].getsockname()[1]}"))
    plain.close()

    assert "the handshake failed" in found["cloud: certificate"][1]


async def test_a_port_in_use_and_a_certificate_without_a_host(installation):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        found = await bad(installation(listen=listen, hosts=[]))
    assert found["port"][0] is Level.WARNING and listen in found["port"][1]
    assert "names no host" in found["names"][1] and "--host" in found["names"][2]


async def test_the_command_reads_the_services_own_configuration(serve, pki, tmp_path):
    server = await serve()
    folder = pki.issue("device", "camera-1", "site-1")
    (tmp_path / "edge.yaml").write_text(
        json.dumps({"device": "camera-1", "site": "site-1", "identity": str(folder), "source": "camera:0"})
    )

    async def run(*flags):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "diredi_cli", "doctor", "edge", "--config", str(tmp_path / "edge.yaml"), *flags,
            stdout=asyncio.subprocess.PIPE, cwd=ROOT,
            env={**os.environ, "DIREDI_EDGE_STATE_DIR": str(tmp_path / "state")},
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        return process.returncode, out.decode()

    code, out = await run("--cloud", f"127.0.0.1:{server.port}", "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    code, out = await run("--cloud", f"127.0.0.1:{free_port()}")
    assert code == 1 and "start the other side" in " ".join(out.split())
    assert not (tmp_path / "state").exists(), "nothing is changed"

"""`diredi pki`: what an authority has signed, and what it has taken back."""

import json
import re
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import pytest

from diredi.trust import ca, enrolment
from diredi.trust.identity import Identity, Role
from diredi_cli.enrolment import QR_BORDER
from diredi_cli.main import run

CAMERA = Identity(Role.DEVICE, "edge-1", "site-1")


@pytest.fixture
def authority(tmp_path):
    ca.init(tmp_path / "ca")
    return tmp_path / "ca"


def listed(authority, capsys):
    capsys.readouterr()
    assert run(["pki", "list", "--ca", str(authority), "--json"]) == 0
    return [(entry["identity"].split("/")[0], entry["state"]) for entry in json.loads(capsys.readouterr().out)]


def test_the_list_says_which_certificates_hold_and_which_tokens_were_used(authority, tmp_path, capsys):
    long_ago = datetime.now(UTC) - timedelta(days=9)
    ca.issue(authority, "site", "site-1", ["user-domain"], tmp_path / "site")
    ca.sign_request(authority, ca.new_request()[1], Identity(Role.OPERATOR, "eve"), (), timedelta(days=1), long_ago)
    tokens = [enrolment.create_token(authority, CAMERA, ["edge-1"], timedelta(hours=1)) for _ in range(2)]
    request = ca.new_request()[1]
    enrolment.redeem(authority, tokens[0].identity, request.public_bytes(ca.serialization.Encoding.PEM))

    held = [
        ("site", "holds"),
        ("operator", "expired"),
        ("enrolment", "used"),
        ("enrolment", "holds"),
        ("device", "holds"),
    ]
    assert listed(authority, capsys) == held
    assert run(["pki", "list", "--ca", str(authority)]) == 0
    assert "user-domain" in capsys.readouterr().out


def test_one_call_revokes_devices_sites_and_operators_and_hands_the_list_to_services(authority, tmp_path, capsys):
    for role, name, site in (("device", "edge-1", "site-1"), ("site", "site-2", ""), ("operator", "alice", "")):
        ca.issue(authority, role, name, [], tmp_path / name, site)
    ca.issue(authority, "cloud", "cloud", ["cloud"], tmp_path / "cloud")
    holders = ["device/site-1/edge-1", "site/site-2", str(tmp_path / "alice" / "cert.pem")]
    assert run(["pki", "revoke", *holders, "--ca", str(authority), "--to", str(tmp_path / "cloud")]) == 0
    assert listed(authority, capsys) == [
        ("device", "revoked"), ("site", "revoked"), ("operator", "revoked"), ("cloud", "holds"),
    ]  # fmt: skip
    assert (tmp_path / "cloud" / "crl.pem").read_bytes() == (authority / "crl.pem").read_bytes()


@pytest.mark.parametrize(
    ("holder", "said"),
    [("site/site-9", "no certificate of site/site-9"), ("king/arthur", "not an identity"), ("ca.pem", "no names")],
)
def test_a_holder_that_cannot_be_revoked_is_named_and_nothing_is_signed(
    authority, tmp_path, capsys, monkeypatch, holder, said
):
    monkeypatch.chdir(authority)
    assert run(["pki", "revoke", holder, "--ca", str(authority)]) == 2
    assert said in capsys.readouterr().err
    assert not (authority / "crl.pem").exists()


def test_a_token_is_shown_as_a_code_that_a_reader_reads(authority, capsys):
    """A reader that is told where the corners are, since OpenCV's finds those of so fine a code only now and then."""
    capsys.readouterr()
    said = ["pki", "token", "device/site-1/edge-1", "--ca", str(authority), "--address", "cloud:8443"]
    assert run([*said, "--qr"]) == 0
    out, err = capsys.readouterr()
    token = re.search(r"diredi-enrol-[\w-]+", out)[0]
    lines = [line for line in out.splitlines() if set(line) <= set(" █▀▄") and len(line) > 100]
    halves = {" ": (0, 0), "▀": (255, 0), "▄": (0, 255), "█": (255, 255)}
    modules = np.array([[halves[sign] for sign in line] for line in lines], np.uint8)
    picture = modules.transpose(0, 2, 1).reshape(-1, modules.shape[1])[: modules.shape[1]]
    big, edge = cv2.resize(picture, None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST), 6 * QR_BORDER
    far = big.shape[0] - edge - 1
    corners = np.array([[[edge, edge], [far, edge], [far, far], [edge, far]]], np.float32)
    assert cv2.QRCodeDetector().decode(big, corners)[0] == token
    assert "too narrow" in err
    assert run([*said, "--qr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identity"] == "device/site-1/edge-1"

import ipaddress
import os
import pty
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from diredi.errors import InvalidInput, WrongState
from diredi.trust import ca, rotation
from diredi.trust.identity import Credentials, Identity, Role

HOSTS = ["localhost", "cloud.example.org", "127.0.0.1", "::1"]


@pytest.fixture
def authority(tmp_path):
    folder = tmp_path / "ca"
    ca.init(folder)
    return folder


@pytest.fixture
def own(authority, tmp_path):
    ca.issue(authority, "cloud", "cloud", HOSTS, tmp_path / "own")
    return tmp_path / "own"


def certificate_in(folder):
    return x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())


def test_names_and_addresses_stand_in_the_certificate(own):
    names = certificate_in(own).extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.DNSName)[:2] == ["localhost", "cloud.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(host) for host in HOSTS[2:]]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["diredi://cloud/cloud"]


def test_an_operator_cannot_pass_for_a_server(authority, tmp_path):
    ca.issue(authority, "operator", "alice", [], tmp_path / "alice")
    uses = certificate_in(tmp_path / "alice").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value

    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_holder_cannot_issue_certificates(own):
    constraints = certificate_in(own).extensions.get_extension_for_class(x509.BasicConstraints)

    assert constraints.critical
    assert constraints.value.ca is False


def test_private_keys_are_readable_by_their_owner_alone(authority, own):
    assert (authority / "ca-key.pem").stat().st_mode & 0o777 == 0o600
    assert (own / "key.pem").stat().st_mode & 0o777 == 0o600


def test_the_authoritys_key_is_in_no_folder_of_a_service(authority, own):
    secret = (authority / "ca-key.pem").read_bytes()

    of_releases = ["1.root.json", "online-key.pem", "role-names.key", "root.json", "targets-key.pem"]
    assert sorted(path.name for path in own.iterdir()) == sorted(["ca.pem", "cert.pem", "key.pem", *of_releases])
    assert (authority / "releases" / "root-key.pem").exists()
    assert all(secret not in path.read_bytes() for path in own.iterdir())
    with pytest.raises(InvalidInput, match="authority's own folder"):
        ca.issue(authority, "cloud", "cloud", HOSTS, authority)


def test_an_authority_is_never_replaced(authority):
    before = (authority / "ca.pem").read_bytes()

    with pytest.raises(WrongState, match="already"):
        ca.init(authority)
    assert (authority / "ca.pem").read_bytes() == before


def test_issuing_again_replaces_the_identity_whole(authority, own):
    before = Credentials.load(own)
    ca.issue(authority, "cloud", "cloud", HOSTS, own)

    assert Credentials.load(own).key != before.key


def test_names_in_a_signing_request_are_not_believed(authority):
    key, request = ca.new_request()
    signed = ca.load(authority).sign(request, Identity(Role.SITE, "site-1"), ["localhost"])

    assert Identity.from_certificate(signed) == Identity(Role.SITE, "site-1")
    public = serialization.load_pem_private_key(key, None).public_key()
    assert x509.load_pem_x509_certificate(signed).public_key() == public


@pytest.mark.parametrize("host", ["", "a b", "http://cloud", "ü.example.org", "*"])
def test_a_host_that_is_none_is_refused_and_nothing_is_written(authority, tmp_path, host):
    with pytest.raises(InvalidInput, match="neither a host name nor an address"):
        ca.issue(authority, "cloud", "cloud", [host], tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_an_unknown_role_is_refused_by_name(authority, tmp_path):
    with pytest.raises(InvalidInput, match="'king' is not a role: use one of cloud, site, device, viewer, op"):
        ca.issue(authority, "king", "arthur", [], tmp_path / "own")


def test_issuing_without_an_authority_says_how_to_make_one(tmp_path):
    with pytest.raises(InvalidInput, match="diredi pki init"):
        ca.issue(tmp_path / "nowhere", "cloud", "cloud", [], tmp_path / "own")


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
def test_a_missing_file_is_named_with_the_remedy(own, name):
    (own / name).unlink()

    with pytest.raises(InvalidInput, match=rf"{name} cannot be read .*diredi pki issue"):
        Credentials.load(own)


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
def test_a_file_that_is_not_pem_is_named(own, name):
    (own / name).write_text("rubbish")

    with pytest.raises(InvalidInput, match=f"{name} is not a"):
        Credentials.load(own)


def test_a_key_that_everyone_can_read_is_refused(own):
    (own / "key.pem").chmod(0o644)

    with pytest.raises(InvalidInput, match="chmod 600"):
        Credentials.load(own)


def test_a_certificate_of_another_authority_is_refused(own, tmp_path):
    ca.init(tmp_path / "other")
    (own / "ca.pem").write_bytes((tmp_path / "other" / "ca.pem").read_bytes())

    with pytest.raises(InvalidInput, match="was not issued by the authority"):
        Credentials.load(own)


def test_the_key_of_another_certificate_is_refused(authority, own, tmp_path):
    ca.issue(authority, "site", "site-1", [], tmp_path / "site")
    (own / "key.pem").write_bytes((tmp_path / "site" / "key.pem").read_bytes())

    with pytest.raises(InvalidInput, match="not the key of the certificate"):
        Credentials.load(own)


def test_an_expired_certificate_says_when_and_what_to_do(authority, tmp_path):
    past = datetime.now(UTC) - timedelta(days=30)
    ca.issue(authority, "cloud", "cloud", HOSTS, tmp_path / "old", lifetime=timedelta(days=10), now=past)

    with pytest.raises(InvalidInput, match=f"expired on {past + timedelta(days=10):%Y-%m-%d}.*diredi pki issue"):
        Credentials.load(tmp_path / "old")


def test_a_certificate_of_the_future_points_at_the_clock(own):
    with pytest.raises(InvalidInput, match="clock"):
        Credentials.load(own, now=datetime.now(UTC) - timedelta(days=1))


def test_during_a_change_of_authority_both_are_believed(own, tmp_path):
    ca.init(tmp_path / "new")
    (own / "ca.pem").write_bytes((tmp_path / "new" / "ca.pem").read_bytes() + (own / "ca.pem").read_bytes())

    assert Credentials.load(own).identity.name == "cloud"


def test_a_key_is_not_shown_when_credentials_are_printed(own):
    assert "PRIVATE" not in repr(Credentials.load(own))


@pytest.fixture
def passphrase_file(tmp_path, monkeypatch):
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery staple\n")
    path.chmod(0o600)
    monkeypatch.setenv("DIREDI_CA_PASSPHRASE_FILE", str(path))
    return path


def test_a_key_behind_a_passphrase_signs_with_it_and_with_nothing_else(tmp_path, passphrase_file, monkeypatch):
    ca.init(tmp_path / "ca")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (tmp_path / "ca" / "ca-key.pem").read_bytes()
    assert ca.issue(tmp_path / "ca", "site", "a", [], tmp_path / "a").identity.name == "a"

    passphrase_file.write_text("another one")
    with pytest.raises(InvalidInput, match="behind another passphrase"):
        ca.issue(tmp_path / "ca", "site", "b", [], tmp_path / "b")
    monkeypatch.delenv("DIREDI_CA_PASSPHRASE_FILE")
    with pytest.raises(InvalidInput, match=r"behind a passphrase: name the file.*DIREDI_CA_PASSPHRASE_FILE"):
        ca.issue(tmp_path / "ca", "site", "b", [], tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("mode", "text", "said"), [(0o644, "x", "chmod 600"), (0o600, " \n", "is empty")])
def test_a_passphrase_that_others_may_read_or_that_is_none_is_refused(tmp_path, passphrase_file, mode, text, said):
    passphrase_file.write_text(text)
    passphrase_file.chmod(mode)

    with pytest.raises(InvalidInput, match=said):
        ca.init(tmp_path / "ca")
    assert not (tmp_path / "ca" / "ca-key.pem").exists()


def test_a_passphrase_does_no_harm_to_an_authority_that_has_none(authority, tmp_path, passphrase_file):
    assert ca.issue(authority, "site", "a", [], tmp_path / "a").identity.name == "a"


def test_the_passphrase_itself_may_be_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DIREDI_CA_PASSPHRASE", "correct horse")
    assert ca.init(tmp_path / "ca").passphrase == b"correct horse"
    assert ca.issue(tmp_path / "ca", "site", "a", [], tmp_path / "a").identity.name == "a"


def test_an_open_key_is_put_behind_a_passphrase_and_both_keys_of_a_rotation_behind_the_next_one(
    tmp_path, passphrase_file, monkeypatch
):
    """A next authority never has an open key beside one that is behind a passphrase."""
    folder = tmp_path / "ca"
    monkeypatch.delenv("DIREDI_CA_PASSPHRASE_FILE")
    ca.init(folder)
    ca.change_passphrase(folder, b"first")
    monkeypatch.setenv("DIREDI_CA_PASSPHRASE", "first")
    rotation.begin(folder)
    changed = ca.change_passphrase(folder, b"second")
    assert changed == [folder / "ca-key.pem", folder / "next" / "ca-key.pem"]
    with pytest.raises(InvalidInput, match="behind another passphrase"):
        ca.load(folder)
    monkeypatch.setenv("DIREDI_CA_PASSPHRASE", "second")
    rotation.finish(folder)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (folder / "ca-key.pem").read_bytes()
    assert ca.load(folder).passphrase == b"second"
    with pytest.raises(InvalidInput, match="an empty passphrase"):
        ca.change_passphrase(folder, b"")


def test_a_passphrase_is_typed_at_the_terminal_and_is_in_no_process_list(tmp_path):
    """In a terminal of its own: a new one twice, then for each command once; nothing of it is shown."""
    own = [sys.executable, "-m", "diredi_cli", "pki"]
    folder = str(tmp_path / "ca")
    shown = in_terminal([*own, "init", folder, "--ask-passphrase"], ["New passphrase", "The same again"], "tr0ub4dor")
    shown += in_terminal([*own, "list", "--ca", folder], ["Passphrase of"], "tr0ub4dor")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (tmp_path / "ca" / "ca-key.pem").read_bytes()
    assert "behind a passphrase" in shown and "tr0ub4dor" not in shown


def in_terminal(command, prompts, typed):
    """What a command shows in a terminal where `typed` is the answer to each prompt."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, start_new_session=True)
    os.close(end)
    shown = ""
    for prompt in prompts:
        while prompt not in shown:
            shown += os.read(terminal, 4096).decode()
        assert typed not in Path(f"/proc/{process.pid}/cmdline").read_text()
        os.write(terminal, f"{typed}\n".encode())
    with suppress(OSError):  # a terminal ends with an error
        while data := os.read(terminal, 4096):
            shown += data.decode()
    process.wait()
    os.close(terminal)
    return shown

import json

import pytest

from diredi.errors import InvalidInput
from diredi.trust import ca
from diredi.trust.identity import Credentials


@pytest.fixture
def authority(tmp_path):
    ca.init(tmp_path / "ca")
    return tmp_path / "ca"


@pytest.mark.parametrize("host", ["cloud.example.org", "CLOUD.example.org.", "10.0.0.7", "fd00::7", "[fd00:0:0::7]"])
def test_no_host_is_given_to_two_identities(authority, tmp_path, host):
    ca.issue(authority, "cloud", "cloud", ["cloud.example.org", "10.0.0.7", "fd00::7"], tmp_path / "cloud")

    with pytest.raises(InvalidInput, match=r"is the host of cloud/cloud until .*one host serves one identity"):
        ca.issue(authority, "device", "camera-1", [host], tmp_path / "camera", site="site-1")
    assert not (tmp_path / "camera").exists()


def test_its_own_host_is_given_to_an_identity_again(authority, tmp_path):
    for _ in range(2):
        ca.issue(authority, "cloud", "cloud", ["cloud.example.org"], tmp_path / "cloud")


def test_each_machine_calls_itself_localhost(authority, tmp_path):
    for name in ("site-1", "site-2"):
        ca.issue(authority, "site", name, ["localhost", "127.0.0.1", "::1"], tmp_path / name)


def test_every_certificate_is_in_the_register(authority, tmp_path):
    issued = [ca.issue(authority, "site", name, [f"{name}.example.org"], tmp_path / name) for name in ("a", "b", "a")]
    entries = [json.loads(line) for line in (authority / "issued.jsonl").read_text().splitlines()]

    assert [entry["identity"] for entry in entries] == ["site/a", "site/b", "site/a"]
    assert [entry["expires"] for entry in entries] == [one.expires.timestamp() for one in issued]
    assert len({entry["serial"] for entry in entries}) == 3


def test_a_damaged_register_is_named_with_its_line_and_nothing_is_issued(authority, tmp_path):
    ca.issue(authority, "site", "a", [], tmp_path / "a")
    with (authority / "issued.jsonl").open("a") as file:
        file.write('{"serial": "12\n')

    with pytest.raises(InvalidInput, match=r"issued\.jsonl, line 2: this is no entry"):
        ca.issue(authority, "site", "b", [], tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604, 0o666])
@pytest.mark.parametrize("key", ["own/key.pem", "ca/ca-key.pem"])
def test_a_key_that_others_may_use_is_refused_with_the_command_to_run(authority, tmp_path, mode, key):
    ca.issue(authority, "site", "a", [], tmp_path / "own")
    (tmp_path / key).chmod(mode)

    with pytest.raises(InvalidInput, match=f"chmod 600 {tmp_path / key}"):
        Credentials.load(tmp_path / "own") if key.startswith("own") else ca.load(authority)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o757, 0o1777])
@pytest.mark.parametrize("folder", ["own", "ca"])
def test_a_folder_in_which_others_may_replace_a_key_is_refused(authority, tmp_path, mode, folder):
    ca.issue(authority, "site", "a", [], tmp_path / "own")
    (tmp_path / folder).chmod(mode)

    with pytest.raises(InvalidInput, match=f"chmod 700 {tmp_path / folder}"):
        Credentials.load(tmp_path / "own") if folder == "own" else ca.load(authority)


def test_folders_of_keys_are_made_for_their_owner_alone(authority, tmp_path):
    ca.issue(authority, "site", "a", [], tmp_path / "own")

    assert {folder.stat().st_mode & 0o777 for folder in (authority, tmp_path / "own")} == {0o700}

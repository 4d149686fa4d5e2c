"""Keys that the cloud does not have: what waits, who signs it, what a signer refuses, and how keys are replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from diredi.errors import InvalidInput, Untrusted, WrongState
from diredi.trust import release_keys as keys
from diredi.trust.release_signing import Bundle, Request, examine
from diredi_cli.main import run
from tests.unit.trust.test_release_metadata import NOW, Channel, role_of


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Channel:
    monkeypatch.delenv(keys.PASSPHRASE_FILE, raising=False)
    return Channel(tmp_path)


def persons(channel: Channel, *names: str) -> list[CryptoSigner]:
    """Keys of persons, behind passphrases."""
    for name in names:
        keys.make_key(channel.folder / name, b"correct horse")
    return [keys.load_signer(channel.folder / name, b"correct horse") for name in names]


def give_targets_to(channel: Channel, *signers: CryptoSigner, threshold: int) -> None:
    keys.entrust(channel.authority, keys.TARGETS, [signer.public_key for signer in signers], threshold)
    channel.open()


def requests_of(channel: Channel, change: Callable[[dict[str, Any]], None] = lambda _: None) -> list[Request]:
    """What a signer sees; `change` is what a cloud in other hands does to what it asks for."""
    waiting = {}
    for entry in channel.repository.unsigned():
        said = entry.metadata.to_dict()
        change(said)
        waiting[entry.name] = json.dumps(said)
    published = {}
    for path in channel.repository.published().values():
        for name in (role_of(path).removesuffix(".json"), Targets.type):
            newest = max((channel.folder / "repository").glob(f"*.{name}.json"), key=lambda path: path.name)
            published[name] = newest.read_text()
    root = Metadata[Root].from_bytes(keys.read_root(channel.authority))
    return examine(Bundle(waiting=waiting, published=published), root, channel.now)


def sign(channel: Channel, signer: CryptoSigner) -> list[bool]:
    """Sign all that waits and hand it back."""
    done = []
    for request in requests_of(channel):
        request.sign(signer)
        added = channel.repository.add_signatures(request.name, request.metadata.to_bytes(), channel.now)
        assert signer.public_key.keyid in added.keyids
        done.append(added.published)
    return done


def test_two_of_three_persons_sign_and_no_device_hears_of_it_before_through_restarts_of_the_cloud(
    channel: Channel,
) -> None:
    alice, bob, carol = persons(channel, "alice", "bob", "carol")
    give_targets_to(channel, alice, bob, carol, threshold=2)
    assert channel.publish(1) == {}
    assert not any(sign(channel, alice))
    assert channel.publish(1) == {}, "what waits stays what it was, with the first signature"
    channel.open()
    assert channel.publish(1) == {}
    assert sign(channel, carol)[-1]
    assert channel.repository.unsigned() == []
    path = channel.repository.published()[1]
    client = channel.device()
    assert client.check(client.prove(path)).claims.version == 1
    assert channel.publish(2) == {1: path}, "devices keep the release that is signed"
    assert client.prove(path).path == path


def test_a_signature_that_does_not_count_and_metadata_that_do_not_wait_are_refused(channel: Channel) -> None:
    alice, mallory = persons(channel, "alice", "mallory")
    give_targets_to(channel, alice, threshold=1)
    channel.publish(1)
    request = requests_of(channel)[0]
    with pytest.raises(InvalidInput, match="does not count"):
        request.sign(mallory)
    request.metadata.sign(mallory)
    with pytest.raises(InvalidInput, match="no key that the root names"):
        channel.repository.add_signatures(request.name, request.metadata.to_bytes(), NOW)
    request.metadata.sign(channel.signer(keys.TARGETS_KEY_FILE))  # the key of before, which was stolen
    with pytest.raises(InvalidInput, match="no key that the root names"):
        channel.repository.add_signatures(request.name, request.metadata.to_bytes(), NOW)
    old = requests_of(channel)[0]
    old.sign(alice)
    channel.publish(1, 2)
    with pytest.raises(WrongState, match="not what waits"):
        channel.repository.add_signatures(old.name, old.metadata.to_bytes(), NOW)
    for garbage in (b"", b"{}", b"\xff", b'{"signed": 1, "signatures": []}', b"[" * 100_000):
        with pytest.raises(InvalidInput, match="no metadata"):
            channel.repository.add_signatures(old.name, garbage, NOW)
    assert channel.repository.published() == {}


def _another_scope(said: dict[str, Any]) -> None:
    for target in said["signed"].get("targets", {}).values():
        target["custom"]["scope"] = "site:other"


def _other_keys(said: dict[str, Any]) -> None:
    for role in said["signed"].get("delegations", {}).get("roles", []):
        role["threshold"] = 1


def _for_ever(said: dict[str, Any]) -> None:
    said["signed"]["expires"] = "2099-01-01T00:00:00Z"


def _files_of_others(said: dict[str, Any]) -> None:
    for role in said["signed"].get("delegations", {}).get("roles", []):
        role["paths"] = ["*"]


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (_another_scope, "is not the path of release 1"),
        (_other_keys, "lets other keys sign"),
        (_for_ever, "would hold until 2099"),
        (_files_of_others, "would list files of others"),
    ],
)
def test_a_cloud_in_other_hands_does_not_get_a_signature_for_more_than_releases(
    channel: Channel, lie: Callable[[dict[str, Any]], None], reason: str
) -> None:
    alice, bob = persons(channel, "alice", "bob")
    give_targets_to(channel, alice, bob, threshold=2)
    channel.publish(1)
    assert requests_of(channel)
    with pytest.raises(Untrusted, match=reason):
        requests_of(channel, lie)


def test_a_signer_is_told_in_words_what_is_new_and_refuses_what_goes_back(channel: Channel) -> None:
    (alice,) = persons(channel, "alice")
    give_targets_to(channel, alice, threshold=1)
    channel.publish(1)
    sign(channel, alice)
    channel.publish(1, 2)
    (request,) = requests_of(channel)
    words = "\n".join(request.words)
    assert "releases for fleet" in words
    assert f"NEW: release 2, a at 64 px, 1000 bytes, {2:064x}" in words
    assert "stays: release 1" in words

    def older(said: dict[str, Any]) -> None:
        said["signed"]["version"] = 1

    with pytest.raises(Untrusted, match="version 1 does not follow"):
        requests_of(channel, older)


def test_each_key_is_replaced_by_the_command_and_a_device_that_missed_all_of_it_follows(
    channel: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, path = channel.device(), channel.publish(1)[1]
    client.prove(path)
    authority = tmp_path / "pki"
    authority.mkdir()
    channel.authority.rename(authority / "releases")
    channel.authority = authority / "releases"
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    monkeypatch.setenv(keys.PASSPHRASE_FILE, str(secret))
    for name in ("dana", "erin"):
        assert run(["release", "key", str(tmp_path / name)]) == 0
    options = ["--ca", str(authority), "--to", str(channel.identity)]
    for role in ("targets", "online", "root"):
        assert run(["release", "rotate", role, *options]) == 0
    public = ["--key", str(tmp_path / "dana.pub"), "--key", str(tmp_path / "erin.pub")]
    assert run(["release", "rotate", "root", *public, "--threshold", "2", *options]) == 0
    waiting = channel.authority / keys.NEXT_ROOT_FILE
    assert waiting.exists(), "the new holders have to sign as well"
    assert keys.read_root(channel.identity) == (channel.authority / "4.root.json").read_bytes()
    for name in ("dana", "erin"):
        signed = ["release", "sign", "--in", str(waiting), "--key", str(tmp_path / name), "--yes"]
        assert run([*signed, "--identity", str(channel.identity)]) == 0
    assert not waiting.exists()
    assert run(["release", "keys", "--ca", str(authority)]) == 0
    channel.open()
    channel.publish(2)
    assert channel.repository.published() == {1: path}, "the new targets key is behind a passphrase, so releases wait"
    sign(channel, keys.load_signer(channel.authority / keys.TARGETS_KEY_FILE))
    newest = channel.repository.published()[2]
    assert client.check(client.prove(newest)).claims.version == 2
    assert Metadata[Root].from_bytes(keys.read_root(channel.authority)).signed.roles["root"].threshold == 2


@pytest.mark.parametrize("written", range(5))
def test_a_rotation_of_the_root_key_that_is_killed_before_any_rename_loses_no_key(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    rename, left = Path.replace, [written]

    def replace(source: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    with suppress(KeyboardInterrupt):
        keys.rotate(channel.authority, keys.ROOT_KEY_FILE)
    monkeypatch.undo()
    before = Metadata[Root].from_bytes(keys.read_root(channel.authority)).signed.version
    keys.rotate(channel.authority, keys.TARGETS_KEY_FILE)
    root = Metadata[Root].from_bytes(keys.read_root(channel.authority))
    assert root.signed.version >= before
    assert channel.signer(keys.TARGETS_KEY_FILE).public_key.keyid in root.signed.keys
    channel.now += timedelta(seconds=5)
    client, path = channel.device(), ""
    channel.open()
    path = channel.publish(1)[1]
    assert client.prove(path).path == path

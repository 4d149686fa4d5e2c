"""Attacks on the update channel, each of which delivers its bad bytes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from diredi.errors import InvalidInput, NotFound, Unreachable, Untrusted
from diredi.store.blobs import Blob
from diredi.trust import release_keys as keys
from diredi.trust.release_client import LONGEST_BYTES, ReleaseClient
from diredi.trust.release_repository import ReleaseClaims, ReleaseRepository, ReleaseTarget

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=7)
HUGE = 2**40
Tamper = Callable[[str, bytes], bytes]


class Channel:
    """An authority, a cloud that publishes, a device that asks, and somebody between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.identity = folder / "authority", folder / "cloud"
        self.identity.mkdir(parents=True)
        keys.init(self.authority)
        self.root = keys.read_root(self.authority)
        self.now = NOW
        self.tamper: Tamper = lambda _, data: data
        """What the device gets for a file; empty bytes stand for a file that the cloud does not have."""
        self.changed: list[str] = []
        """The files that reached the device otherwise than they were published."""
        self.open()

    def open(self) -> None:
        keys.hand_out(self.authority, self.identity, to_cloud=True)
        self.repository = ReleaseRepository(self.folder / "repository", self.identity)

    def publish(self, *versions: int, scope: str = "fleet") -> dict[int, str]:
        self.now += timedelta(seconds=1)
        return self.repository.publish([release(version, scope) for version in versions], self.now)

    def fetch(self, name: str) -> bytes:
        published = self.files().get(name, b"")
        data = self.tamper(name, published)
        if not data:
            raise NotFound(f"there are no metadata {name}")
        if data != published:
            self.changed.append(name)
        return data

    def device(self, name: str = "device") -> ReleaseClient:
        return ReleaseClient(self.folder / name, self.root, self.fetch)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "repository").iterdir()}

    def signer(self, name: str) -> CryptoSigner:
        return keys.load_signer(self.authority / name)


def release(version: int, scope: str = "fleet") -> ReleaseTarget:
    claims = ReleaseClaims(version=version, scope=scope, architecture="a", labels="l", image_size=64, student="s")
    return ReleaseTarget(file=Blob(f"sha256:{version:064x}", 1000), claims=claims)


def signed(role: Any, signer: CryptoSigner) -> bytes:
    metadata = Metadata(role)
    metadata.sign(signer)
    return metadata.to_bytes()


def role_of(path: str) -> str:
    return f"{path.partition('/')[0]}.json"


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return Channel(tmp_path)


def assert_refused(channel: Channel, client: ReleaseClient, path: str, reason: str) -> None:
    channel.changed.clear()
    with pytest.raises(Untrusted, match=reason):
        client.prove(path)
    assert channel.changed, "the bad bytes must have been delivered"


def test_an_honest_release_is_proven_and_its_proof_holds_without_the_cloud(channel: Channel) -> None:
    paths = channel.publish(7)
    proof = channel.device().prove(paths[7])
    channel.tamper = lambda *_: pytest.fail("nothing is asked")
    assert channel.device().check(proof).file == release(7).file


def test_a_release_that_is_not_listed_is_refused_whatever_the_cloud_says_of_it(channel: Channel) -> None:
    (path,) = channel.publish(7).values()
    for absent in (path.replace("/7", "/2"), path.replace("/7", "/4000000000"), "fleet/7.onnx", "", "../7.onnx"):
        with pytest.raises(Untrusted, match="not in the signed metadata"):
            channel.device().prove(absent)


def test_rollback_to_an_old_repository_is_refused(channel: Channel) -> None:
    old_path, old = channel.publish(2)[2], channel.files()
    client = channel.device()
    client.prove(channel.publish(7)[7])
    channel.tamper = old.get
    assert_refused(channel, client, old_path, "go back to an older version")


def test_rollback_of_a_release_with_a_stolen_online_key_is_refused(channel: Channel) -> None:
    old_path, old = channel.publish(2)[2], channel.files()
    client = channel.device()
    client.prove(channel.publish(7)[7])
    online = channel.signer(keys.ONLINE_KEY_FILE)
    old_snapshot = next(data for name, data in old.items() if name.endswith("snapshot.json"))
    meta = Metadata[Snapshot].from_bytes(old_snapshot).signed.meta
    forged = {
        "timestamp.json": signed(Timestamp(HUGE, expires=LATER, snapshot_meta=MetaFile(HUGE)), online),
        f"{HUGE}.snapshot.json": signed(Snapshot(HUGE, expires=LATER, meta=meta), online),
    }
    channel.tamper = lambda name, data: forged.get(name) or old.get(name, data)
    assert_refused(channel, client, old_path, "go back to an older version")


def test_a_stolen_online_key_cannot_sign_a_release(channel: Channel) -> None:
    path = channel.publish(1)[1]
    online = channel.signer(keys.ONLINE_KEY_FILE)

    def forge(name: str, data: bytes) -> bytes:
        if not name.endswith(role_of(path)):
            return data
        role = Metadata[Targets].from_bytes(data)
        role.signed.targets[path].hashes["sha256"] = "f" * 64
        role.sign(online)
        return role.to_bytes()

    channel.tamper = forge
    assert_refused(channel, channel.device(), path, "not signed by enough keys")


def test_freeze_is_noticed_and_nothing_is_believed_of_an_old_cloud(channel: Channel) -> None:
    channel.now = NOW - timedelta(days=8)
    path = channel.publish(1)[1]
    with pytest.raises(Untrusted, match="have expired"):
        channel.device().prove(path)
    channel.repository.refresh(NOW)
    client = channel.device("other")
    client.prove(path)
    assert client.find_freeze(NOW + timedelta(days=6)) == ""
    assert "no newer ones came" in client.find_freeze(NOW + timedelta(days=8))
    assert channel.device("new").find_freeze() == "", "a device that never heard anything is not frozen"


@pytest.mark.parametrize("kind", ["snapshot", "release"])
def test_mix_and_match_of_two_published_states_is_refused(channel: Channel, kind: str) -> None:
    channel.publish(1)
    old = channel.files()
    path = channel.publish(2)[2]
    ending = "snapshot.json" if kind == "snapshot" else role_of(path)
    before = next(data for name, data in old.items() if name.endswith(ending))
    channel.tamper = lambda name, data: before if name.endswith(ending) else data
    assert_refused(channel, channel.device(), path, "other version|go back to an older version")


def test_metadata_of_another_authority_are_refused(channel: Channel, tmp_path: Path) -> None:
    forger = Channel(tmp_path / "forger")
    path = forger.publish(1)[1]
    forged = {name: data for name, data in forger.files().items() if not name.endswith("root.json")}
    channel.publish(1)
    channel.tamper = forged.get
    assert_refused(channel, channel.device(), path, "not signed by enough keys")


def test_one_signature_of_two_is_below_the_threshold(channel: Channel) -> None:
    second = CryptoSigner.generate_ed25519()
    root = Metadata[Root].from_bytes(channel.root)
    root.signed.add_key(second.public_key, Targets.type)
    root.signed.roles[Targets.type].threshold = 2
    root.sign(channel.signer(keys.ROOT_KEY_FILE))
    channel.root = root.to_bytes()
    for name in ("root.json", "1.root.json"):
        (channel.authority / name).write_bytes(channel.root)
        (channel.folder / "repository" / name).unlink(missing_ok=True)
    channel.open()
    assert channel.publish(1) == {}, "nothing is published before the second signature"
    plan = channel.repository.plan([release(1)], NOW)
    with pytest.raises(InvalidInput, match="not signed by enough"):
        channel.repository.accept(plan, NOW)
    for metadata in plan.values():
        metadata.sign(channel.signer(keys.TARGETS_KEY_FILE))
        metadata.sign(second, append=True)
    channel.repository.accept(plan, NOW)
    path = channel.repository.published()[1]
    assert channel.device().prove(path)

    def drop_one(name: str, data: bytes) -> bytes:
        if not name.endswith(role_of(path)):
            return data
        metadata = Metadata[Targets].from_bytes(data)
        metadata.signatures.popitem()
        return metadata.to_bytes()

    channel.tamper = drop_one
    assert_refused(channel, channel.device("other"), path, "not signed by enough keys")


def test_no_flipped_bit_makes_another_release_of_it(channel: Channel) -> None:
    path = channel.publish(1)[1]
    expected, refusals = release(1).file, 0
    for name, data in channel.files().items():
        for offset in range(0, len(data), max(1, len(data) // 25)):

            def flip(asked: str, data: bytes, name: str = name, offset: int = offset) -> bytes:
                if asked != name:
                    return data
                return data[:offset] + bytes([data[offset] ^ 1 << offset % 8]) + data[offset + 1 :]

            channel.tamper = flip
            client = channel.device(f"{name}-{offset}")
            try:
                assert client.check(client.prove(path)).file == expected
            except Untrusted:
                refusals += 1
    assert len(channel.changed) > 80
    assert refusals > 0.9 * len(channel.changed)


def test_endless_data_are_read_no_further_than_metadata_may_reach(channel: Channel) -> None:
    path = channel.publish(1)[1]
    channel.tamper = lambda name, data: bytes(LONGEST_BYTES + 1) if name == "timestamp.json" else data
    assert_refused(channel, channel.device(), path, "longer than they may be")


def test_a_cloud_that_is_away_is_away_and_no_attack(channel: Channel) -> None:
    def away(_: str) -> bytes:
        raise Unreachable("the other side is away")

    path = channel.publish(1)[1]
    with pytest.raises(Unreachable):
        ReleaseClient(channel.folder / "device", channel.root, away).prove(path)


def test_a_device_follows_rotated_roots_with_a_skip_and_recovers_from_a_fast_forward(channel: Channel) -> None:
    path = channel.publish(1)[1]
    client = channel.device()
    meta = Metadata[Timestamp].from_bytes(channel.files()["timestamp.json"]).signed.snapshot_meta
    forged = signed(Timestamp(HUGE, expires=LATER, snapshot_meta=meta), channel.signer(keys.ONLINE_KEY_FILE))
    channel.tamper = lambda name, data: forged if name == "timestamp.json" else data
    proof = client.prove(path)
    channel.tamper = lambda _, data: data
    with pytest.raises(Untrusted, match="go back"):
        client.prove(path)
    keys.rotate(channel.authority, keys.ROOT_KEY_FILE)
    keys.rotate(channel.authority, keys.ONLINE_KEY_FILE, keys.TARGETS_KEY_FILE)
    channel.open()
    assert list(channel.publish(1, 2)) == [1, 2]
    assert client.prove(path).path == path
    with pytest.raises(Untrusted, match="does not hold"):
        client.check(proof)  # what a key has signed that does not count any more
    channel.root = (channel.authority / "2.root.json").read_bytes()
    fresh = channel.device().prove(path)
    assert channel.device().check(fresh).file == release(1).file, "a root that was handed out later is followed, too"


def test_a_root_that_the_one_before_did_not_sign_is_refused(channel: Channel, tmp_path: Path) -> None:
    forger = Channel(tmp_path / "forger")
    keys.rotate(forger.authority, keys.ROOT_KEY_FILE)
    forged = (forger.authority / "2.root.json").read_bytes()
    path = channel.publish(1)[1]
    channel.tamper = lambda name, data: forged if name == "2.root.json" else data
    assert_refused(channel, channel.device(), path, "not signed by enough keys")


def test_a_proof_with_another_digest_does_not_hold(channel: Channel) -> None:
    client = channel.device()
    proof = client.prove(channel.publish(1)[1])
    digest = release(1).file.digest.removeprefix("sha256:")
    with pytest.raises(Untrusted, match="does not hold"):
        client.check(proof.model_copy(update={"role": proof.role.replace(digest, "f" * 64)}))


def test_a_device_reads_its_own_scope_and_random_names_of_others(channel: Channel) -> None:
    paths = channel.repository.publish([release(1), release(2, "site:secret-customer")], NOW)
    channel.device().prove(paths[1])
    seen = b"".join(path.read_bytes() for path in (channel.folder / "device").rglob("*.json"))
    assert b"secret-customer" not in seen
    assert channel.repository.scope_of(f"1.{role_of(paths[2])}") == "site:secret-customer"


def test_metadata_that_the_disk_has_damaged_are_signed_anew_and_only_rise(channel: Channel) -> None:
    client = channel.device()
    client.prove(channel.publish(1)[1])
    for path in (channel.folder / "repository").iterdir():
        if not path.name.endswith("root.json"):
            path.write_bytes(b"")
    channel.now += timedelta(seconds=2)
    channel.open()
    assert client.prove(channel.publish(1, 2)[2])


def test_without_the_targets_key_nothing_new_is_published(channel: Channel) -> None:
    channel.publish(1)
    (channel.identity / keys.TARGETS_KEY_FILE).unlink()
    channel.repository = ReleaseRepository(channel.folder / "repository", channel.identity)
    assert list(channel.publish(1, 2)) == [1]

"""A device that requires a second repository installs nothing that it does not list, whatever the cloud has signed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from diredi.errors import Unreachable, Untrusted
from diredi.labels import LabelSpace
from diredi.store.blobs import Blob
from diredi.trust.merkle import Frontier
from diredi.trust.release_repository import LogProof, ReleaseClaims, ReleaseRepository, ReleaseTarget, labels_digest
from diredi.trust.second_repository import SecondRepository
from edge_node.release_trust import SignedMetadata
from edge_node.update_states import InstallableRelease
from tests.support.pki import Pki

GOOD, OTHER = (Blob(f"sha256:{digit * 64}", 1000) for digit in "12")


class Keeper:
    """Somebody else than the cloud, with a key of his own and any tool for The Update Framework."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.signer, self.version = folder, CryptoSigner.generate_ecdsa(), 0
        folder.mkdir()

    def publish(self, *files: TargetFile, days: int = 30) -> None:
        self.version += 1
        ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
        root = Root(expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=365))
        for role in ("root", "targets", "snapshot", "timestamp"):
            root.add_key(self.signer.public_key, role)
        targets = Targets(self.version, expires=ends, targets={file.path: file for file in files})
        snapshot = Snapshot(self.version, expires=ends, meta={"targets.json": MetaFile(self.version)})
        timestamp = Timestamp(self.version, expires=ends, snapshot_meta=MetaFile(self.version))
        named = {f"{self.version}.targets": targets, f"{self.version}.snapshot": snapshot, "timestamp": timestamp}
        for name, signed in ({"1.root": root} | named).items():
            metadata = Metadata(signed)  # type: ignore[type-var]
            metadata.sign(self.signer)
            if name != "1.root" or self.version == 1:
                metadata.to_file(str(self.folder / f"{name}.json"))

    @property
    def root(self) -> Path:
        return self.folder / "1.root.json"


def listed(blob: Blob, *, length: int | None = None, digest: str = "") -> TargetFile:
    name = blob.digest.removeprefix("sha256:")
    return TargetFile(blob.bytes if length is None else length, {"sha256": digest or name}, f"{name}.onnx")


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path / "second")


def second_of(keeper: Keeper, tmp_path: Path) -> SecondRepository:
    return SecondRepository(keeper.folder, keeper.root, tmp_path / "known")


def test_a_file_is_required_with_its_digest_and_length_and_may_be_taken_out_again(
    keeper: Keeper, tmp_path: Path
) -> None:
    keeper.publish(listed(GOOD))
    second = second_of(keeper, tmp_path)
    second.require(GOOD)
    with pytest.raises(Untrusted, match="does not list the file 222222"):
        second.require(OTHER)
    with pytest.raises(Untrusted, match="another digest or length"):
        second.require(Blob(GOOD.digest, 1001))
    keeper.publish(listed(GOOD, digest="3" * 64))
    with pytest.raises(Untrusted, match="another digest or length"):
        second.require(GOOD)
    keeper.publish()
    with pytest.raises(Untrusted, match="does not list"):
        second.require(GOOD)


def test_rollback_freeze_a_foreign_key_and_a_flipped_bit_of_the_second_repository_are_refused(
    keeper: Keeper, tmp_path: Path
) -> None:
    keeper.publish(listed(GOOD))
    second = second_of(keeper, tmp_path)
    old = (keeper.folder / "timestamp.json").read_bytes()
    keeper.publish(listed(GOOD))
    second.require(GOOD)
    (keeper.folder / "timestamp.json").write_bytes(old)
    with pytest.raises(Untrusted, match="BadVersionNumberError"):
        second.require(GOOD)
    keeper.publish(listed(GOOD), days=-1)
    with pytest.raises(Untrusted, match="Expired"):
        second.require(GOOD)
    keeper.publish(listed(GOOD))
    path = keeper.folder / f"{keeper.version}.targets.json"
    path.write_text(path.read_text().replace("1000", "1001"))
    with pytest.raises(Untrusted, match="Unsigned"):
        second.require(GOOD)
    stranger = Keeper(tmp_path / "stranger")
    stranger.publish(listed(GOOD))
    foreign = SecondRepository(stranger.folder, keeper.root, tmp_path / "other-known")
    with pytest.raises(Untrusted, match="do not hold"):
        foreign.require(GOOD)
    with pytest.raises(Unreachable, match="is not there"):
        SecondRepository(tmp_path / "away", keeper.root, tmp_path / "known").require(GOOD)


async def test_a_release_that_the_cloud_has_signed_with_all_its_keys_waits_for_the_second_repository(
    keeper: Keeper, tmp_path: Path
) -> None:
    keeper.publish(listed(OTHER))
    pki, labels = Pki(tmp_path / "pki"), LabelSpace.of(["car", "person"])
    cloud = ReleaseRepository(tmp_path / "releases", pki.issue("cloud", "cloud"))
    entry = json.dumps({"version": 1, "scope": "fleet", "file": GOOD.digest})
    logged = LogProof(index=0, entry=entry, peaks=(), root=Frontier().add(entry.encode()).root.hex())
    claims = ReleaseClaims(
        version=1, scope="fleet", architecture="yolo11n", labels=labels_digest(labels), image_size=64, student="s",
        log=logged,
    )  # fmt: skip
    paths = cloud.publish([ReleaseTarget(file=GOOD, claims=claims)], datetime.now(UTC))
    release = InstallableRelease(
        version=1, digest=GOOD.digest, bytes=GOOD.bytes, labels=labels, image_size=64, target=paths[1]
    )
    device = pki.issue("device", "camera-1", "site-1")
    trust = SignedMetadata(tmp_path / "trust", device, "site-1", cloud.read, second_of(keeper, tmp_path))
    with pytest.raises(Untrusted, match="second repository does not list"):
        await trust.prove(release)
    keeper.publish(listed(OTHER), listed(GOOD))
    await trust.prove(release)

"""A power cut at any step, on a disk that loses what was not synced; and each step failing once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from diredi.consent import ConsentEntry, sign_entry
from diredi.errors import CorruptData, NoRoom, NotFound
from diredi.store.blobs import BlobStore, digest_of
from diredi.store.files import append_durably, atomic_write, make_folder
from diredi.trust import ca
from diredi.trust.identity import Credentials
from diredi.trust.register import Register
from diredi.trust.release_client import ReleaseClient
from tests.support.lossy_disk import CrashState, LossyDisk, failing_each, room_for
from tests.unit.trust.test_release_metadata import Channel, release
from user_domain.consent import ConsentJournal

OLD, NEW = b"old" * 1000, b"new" * 2000


@pytest.fixture
def disk(tmp_path: Path) -> LossyDisk:
    (tmp_path / "disk").mkdir()
    return LossyDisk(tmp_path / "disk")


def each(disk: LossyDisk, folder: Path) -> list[tuple[CrashState, Path]]:
    """Every state that a power cut could have left, laid out."""
    assert len(disk.states) > 4
    return [(state, state.lay_out(folder / f"cut-{number}")) for number, state in enumerate(disk.states)]


def test_a_file_is_the_old_one_or_the_new_one_and_the_new_one_once_the_write_has_returned(
    disk: LossyDisk, tmp_path: Path
) -> None:
    atomic_write(disk.root / "a", OLD)
    with disk.recording():
        atomic_write(disk.root / "a", NEW)
        disk.done()
    for state, folder in each(disk, tmp_path):
        assert (folder / "a").read_bytes() in ((NEW,) if state.returned else (OLD, NEW)), state.label


def test_a_write_that_is_not_durable_would_be_found_out(disk: LossyDisk, tmp_path: Path) -> None:
    """The disk is no better than those of cameras: without a sync, an empty file has the name."""
    atomic_write(disk.root / "a", OLD)
    with disk.recording():
        atomic_write(disk.root / "a", NEW, durable=False)
    assert b"" in {(folder / "a").read_bytes() for _, folder in each(disk, tmp_path)}


def test_a_new_file_in_new_folders_is_there_once_its_write_has_returned(disk: LossyDisk, tmp_path: Path) -> None:
    with disk.recording():
        make_folder(disk.root / "x" / "y" / "z")
        atomic_write(disk.root / "x" / "y" / "z" / "a", NEW)
        disk.done()
    for state, folder in each(disk, tmp_path):
        path = folder / "x" / "y" / "z" / "a"
        assert path.read_bytes() == NEW if state.returned else not path.exists() or path.read_bytes() == NEW


def test_what_was_appended_is_there_once_that_has_returned(disk: LossyDisk, tmp_path: Path) -> None:
    with disk.recording():
        for number in range(3):
            append_durably(disk.root / "log", b"%d\n" % number)
            disk.done()
    for state, folder in each(disk, tmp_path):
        lines = (folder / "log").read_bytes().splitlines() if (folder / "log").exists() else []
        assert lines[: state.returned] == [b"%d" % number for number in range(state.returned)]


def test_a_blob_is_whole_or_not_there_and_is_there_once_it_was_complete(disk: LossyDisk, tmp_path: Path) -> None:
    digest, added = digest_of(NEW), digest_of(OLD)
    with disk.recording():
        store = BlobStore(disk.root / "blobs")
        for offset in range(0, len(NEW), 1000):
            state = store.put_chunk(digest, len(NEW), offset, NEW[offset : offset + 1000])
        assert state.complete
        disk.done()
        store.add_bytes(OLD)
        disk.done()
    for cut, folder in each(disk, tmp_path):
        again = BlobStore(folder / "blobs")
        for number, (wanted, data) in enumerate([(digest, NEW), (added, OLD)]):
            try:
                assert again.path(wanted).read_bytes() == data
            except (NotFound, CorruptData):
                assert cut.returned <= number, cut.label
            finish(again, digest, NEW)


def finish(store: BlobStore, digest: str, data: bytes) -> None:
    """Send an upload again as a client does, whose partial may be damaged once."""
    for _ in range(2):
        offset = store.stat(digest).received_bytes
        try:
            store.put_chunk(digest, len(data), offset, data[offset:])
            break
        except CorruptData:
            continue
    assert store.path(digest).read_bytes() == data


def test_an_authority_signs_after_any_cut_and_knows_what_it_has_signed(disk: LossyDisk, tmp_path: Path) -> None:
    authority = disk.root / "ca"
    ca.init(authority)
    with disk.recording():
        for name in ("site-1", "site-2"):
            ca.issue(authority, "site", name, [], disk.root / name)
            disk.done()
    for state, folder in each(disk, tmp_path):
        with Register.opened(folder / "ca") as register:
            known = [entry.identity for entry in register.issued]
        assert known[: state.returned] == ["site/site-1", "site/site-2"][: state.returned]
        for name in ("site-1", "site-2")[: state.returned]:
            assert Credentials.load(folder / name).identity.name == name


def test_a_consent_that_was_recorded_is_never_forgotten(disk: LossyDisk, tmp_path: Path) -> None:
    ca.init(tmp_path / "ca")
    own = ca.issue(tmp_path / "ca", "site", "site-1", [], tmp_path / "site-1")
    with disk.recording():
        journal = ConsentJournal(disk.root / "consent.jsonl", own)
        for number in range(2):
            entry = ConsentEntry(
                event="approved", site="site-1", cycle_id=f"c{number}", what={}, by="policy", at=datetime.now(UTC)
            )
            journal.add(sign_entry(entry, own))
            disk.done()
    for state, folder in each(disk, tmp_path):
        again = ConsentJournal(folder / "consent.jsonl", own)
        assert all(again.find(f"c{number}", "approved") for number in range(state.returned))


def test_a_repository_of_releases_is_published_anew_after_any_cut_and_a_device_follows(
    disk: LossyDisk, tmp_path: Path
) -> None:
    channel = Channel(disk.root / "cloud")
    channel.publish(1)
    channel.device("known").refresh()
    with disk.recording():
        channel.publish(2)
        disk.done()
    for number, (_, folder) in enumerate(each(disk, tmp_path)[::6]):
        after = Channel(tmp_path / f"after-{number}")
        after.folder, after.authority, after.identity = folder / "cloud", channel.authority, channel.identity
        after.root, after.now = channel.root, channel.now
        after.open()
        path = after.publish(3)[3]
        device = ReleaseClient(folder / "cloud" / "known", channel.root, after.fetch)
        assert device.check(device.prove(path)).file == release(3).file


def test_each_step_of_a_write_may_fail_and_the_old_file_stays_or_the_new_one_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def check(failed: str) -> None:
        assert path.read_bytes() in (OLD, NEW), failed
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"], failed
        atomic_write(path, NEW)
        assert path.read_bytes() == NEW

    def prepare() -> None:
        path.write_bytes(OLD)

    assert failing_each(prepare, lambda: atomic_write(path, NEW), check) >= 5


def test_each_step_of_an_upload_may_fail_and_the_upload_is_finished_afterwards(tmp_path: Path) -> None:
    digest, count = digest_of(NEW), 0
    root = tmp_path / "blobs"

    def prepare() -> None:
        nonlocal count, root
        count += 1
        root = tmp_path / f"blobs-{count}"
        BlobStore(root)

    def put() -> None:
        store = BlobStore(root)
        for offset in range(0, len(NEW), 3000):
            store.put_chunk(digest, len(NEW), offset, NEW[offset : offset + 3000])

    def check(failed: str) -> None:
        store = BlobStore(root)
        finish(store, digest, NEW)
        assert not list((root / "partial").glob("*")), failed

    assert failing_each(prepare, put, check) >= 6


def test_a_register_whose_disk_was_full_or_that_was_cut_goes_on_with_what_it_had(tmp_path: Path) -> None:
    authority = tmp_path / "ca"
    ca.init(authority)
    ca.issue(authority, "site", "site-1", [], tmp_path / "site-1")
    path = authority / "issued.jsonl"
    whole = path.read_bytes()
    with room_for(len(whole) + 20), pytest.raises(NoRoom):
        ca.issue(authority, "site", "site-2", [], tmp_path / "site-2")
    assert path.read_bytes() == whole
    path.write_bytes(whole + whole[:50])  # a power cut in mid-write
    ca.issue(authority, "site", "site-3", [], tmp_path / "site-3")
    with Register.opened(authority) as register:
        assert [entry.identity for entry in register.issued] == ["site/site-1", "site/site-3"]


@pytest.mark.parametrize("size", [0, 1, 100, 2999, 3001, 5999])
def test_a_disk_that_is_full_at_any_byte_leaves_the_old_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    atomic_write(path, OLD)
    with room_for(size), pytest.raises(NoRoom):
        atomic_write(path, NEW)
    assert path.read_bytes() == OLD and [entry.name for entry in tmp_path.iterdir()] == ["a"]

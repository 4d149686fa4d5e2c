"""A backup of a cloud in one file, made while the cloud runs, and a restore that overwrites nothing.

    backup.json         what is in the backup, with digests; and how far release numbers and class ids have come
    cloud.sqlite        all rows of the database, whichever kind that is
    releases/...        the signed metadata
    ingress/...         what was received of whom, in bytes
    blobs/<64 hex>      every file that the database refers to

The metadata are read before the database and the database before the files. A release is stored before it is published,
and a file before anything refers to it. So what is read first never names anything that is not there. Keys are not in a
backup: they lie in the identity folder and the authority's.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cloud_server.config import CloudConfig
from cloud_server.integrity import Damage, find_damaged
from cloud_server.ledger import Ledger, Past, explain_loss, read_past
from cloud_server.store.database import Database, find_rows, sqlite_url
from cloud_server.store.uploads import Reference
from diredi import __version__
from diredi.errors import CorruptData, InvalidInput, NotFound, WrongState
from diredi.store.blobs import Blob, BlobStore, blob_path, digest_of_file, digest_of_stream, hex_of
from diredi.store.files import atomic_write, check_room, make_folder, no_room_at, part_of, publish
from diredi.trust.release_repository import mark_restored, read_published

MANIFEST_FILE: Final = "backup.json"
_DATABASE: Final = "cloud.sqlite"
_METADATA: Final = "releases"
_INGRESS: Final = "ingress"
_BLOBS: Final = "blobs"
_LONGEST_MANIFEST: Final = 64 * 2**20
_MOST_RELEASES: Final = 10**9


class Member(BaseModel):
    """A file in a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str
    bytes: int


class Manifest(BaseModel):
    """What is in a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    made: datetime
    version: str
    """The version of DiReDi that has made it."""
    past: Past | None
    members: tuple[Member, ...]
    damaged: tuple[Damage, ...] = ()
    """Files that the database refers to and that were not whole when the backup was made; they are not in it."""

    @property
    def release(self) -> int:
        """The newest release in it; 0 for none."""
        return 0 if self.past is None else self.past.release

    @property
    def blobs(self) -> tuple[Member, ...]:
        """The files that the database refers to."""
        return tuple(member for member in self.members if member.name.startswith(f"{_BLOBS}/"))


class Restored(BaseModel):
    """What a restore has brought back."""

    model_config = ConfigDict(frozen=True)

    manifest: Manifest
    lost: str
    """What was given out after the backup was made and is in no database any more; empty for nothing that is known."""


def create(config: CloudConfig, out: Path) -> Manifest:
    """Write a backup of a cloud, which may be running; the file is there whole or not at all.

    A file that is damaged on the cloud's disk is left out and named in `damaged`, so that the rest is safe.

    Args:
        config: The cloud's configuration.
        out: The file.

    Returns:
        What is in it.

    Raises:
        NotFound: There is no database to back up.
        WrongState: `out` is there already, or the database is of another version.
        Unreachable: The database does not answer.
        NoRoom: The disk is full.
        CorruptData: The database is damaged.
    """
    if out.exists():
        raise WrongState(f"{out} is there already: a backup overwrites nothing, so name another file")
    if not find_rows(config.effective_database_url):
        raise NotFound(f"there is no database of a cloud in {config.state_dir}: check --state-dir and --database-url")
    make_folder(out.parent)
    with no_room_at(out), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        files = _read_small_files(config)
        copy = Path(scratch) / _DATABASE
        past, references = _copy_database(config, copy)
        damaged = find_damaged(config.state_dir / _BLOBS, references)
        left_out = {damage.digest for damage in damaged}
        blobs = [Blob(r.digest, r.bytes) for r in references if r.digest not in left_out]
        check_room(out.parent, copy.stat().st_size + sum(blob.bytes for blob in blobs))
        for name, data in files.items():
            path = Path(scratch) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        sources = {_DATABASE: copy} | {name: Path(scratch) / name for name in files}
        members = [Member(name=name, **vars(digest_of_file(path))) for name, path in sources.items()]
        sources |= {
            f"{_BLOBS}/{hex_of(blob.digest)}": blob_path(config.state_dir / _BLOBS, blob.digest) for blob in blobs
        }
        members += [Member(name=f"{_BLOBS}/{hex_of(b.digest)}", digest=b.digest, bytes=b.bytes) for b in blobs]
        manifest = Manifest(
            made=datetime.now(UTC), version=__version__, past=past, members=tuple(members), damaged=tuple(damaged)
        )
        part = part_of(out)
        try:
            _write_archive(part, manifest, sources)
            check(part)
            publish(part, out)
        finally:
            part.unlink(missing_ok=True)
    return manifest


def check(file: Path) -> Manifest:
    """Read a whole backup, and return what is in it.

    Raises:
        NotFound: There is no such file.
        CorruptData: It is no backup, or it is not complete or damaged.
    """
    with _open_archive(file) as (archive, manifest):
        for member in manifest.members:
            with _open_member(archive, member.name) as stream:
                found = digest_of_stream(stream)
            if found != Blob(member.digest, member.bytes):
                raise CorruptData(f"{member.name} in the backup {file} is damaged: take another backup")
    return manifest


def restore(config: CloudConfig, file: Path, last_release: int = 0) -> Restored:
    """Bring back a cloud's database, files and metadata from a backup, where no database is.

    The whole backup is verified before anything is written. Files that are there and good stay, and so do signed
    metadata, because they may be newer than the backup. The database comes last: an interrupted restore is begun again.

    Args:
        config: The configuration of the cloud that is to run with it, which need not be of the same kind of database.
        file: The backup.
        last_release: The highest number that a release had, as devices say; 0 where nothing is known but the ledger.

    Returns:
        What was brought back, and what is lost.

    Raises:
        NotFound: There is no such file.
        CorruptData: It is no backup, or it is damaged.
        WrongState: There is a database already, or the backup is of a newer version.
        NoRoom: The disk is full.
    """
    manifest = check(file)
    url = config.effective_database_url
    if found := find_rows(url):
        raise WrongState(
            f"there is a database already ({found}): a restore overwrites nothing, so stop the cloud and move the "
            "database away, with its -wal and -shm files, or name another --state-dir or --database-url"
        )
    make_folder(config.state_dir)
    check_room(config.state_dir, sum(member.bytes for member in manifest.members))
    ledger = Ledger(config.release_keys or config.state_dir)
    lost = _raise_ledger(ledger, manifest, last_release)
    blobs = BlobStore(config.state_dir / _BLOBS)
    with _open_archive(file) as (archive, _):
        for member in manifest.blobs:
            if not blobs.verify(member.digest):
                with _open_member(archive, member.name) as stream:
                    blobs.add_stream(stream)
        _restore_small_files(config.state_dir, archive, manifest)
        with _open_member(archive, _DATABASE) as stream:
            _restore_database(url, config.state_dir, stream)
    return Restored(manifest=manifest, lost=lost)


def _read_small_files(config: CloudConfig) -> dict[str, bytes]:
    metadata = read_published(config.state_dir / _METADATA)
    files = {f"{_METADATA}/{name}": data for name, data in metadata.items()}
    return files | {
        f"{_INGRESS}/{path.name}": path.read_bytes() for path in config.state_dir.glob(f"{_INGRESS}/*.json")
    }


def _copy_database(config: CloudConfig, copy: Path) -> tuple[Past | None, list[Reference]]:
    """Copy the database as one transaction sees it; return how far it has come, and the files that it refers to."""
    source, target = Database(config.effective_database_url, migrate=False), Database(sqlite_url(copy))
    try:
        source.copy_to(target)
        return target.transact(lambda r: (read_past(r), r.uploads.references()), writes=False)
    finally:
        source.close()
        target.close()


def _write_archive(part: Path, manifest: Manifest, sources: Mapping[str, Path]) -> None:
    part.touch(mode=0o600)
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
        data = manifest.model_dump_json(indent=1).encode()
        entry = tarfile.TarInfo(MANIFEST_FILE)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
        for name, path in sources.items():
            entry = tarfile.TarInfo(name)
            with path.open("rb") as file:
                entry.size = path.stat().st_size
                archive.addfile(entry, file)


@contextmanager
def _open_archive(file: Path) -> Iterator[tuple[tarfile.TarFile, Manifest]]:
    try:
        with tarfile.open(file, "r:") as archive:
            first = archive.next()
            stream = None if first is None or first.name != MANIFEST_FILE else archive.extractfile(first)
            if stream is None:
                raise CorruptData(f"{file} is no backup of a cloud: name a file that `diredi backup` has made")
            with stream:
                manifest = Manifest.model_validate_json(stream.read(_LONGEST_MANIFEST))
            yield archive, manifest
    except FileNotFoundError:
        raise NotFound(f"there is no backup {file}: check the path") from None
    except (tarfile.TarError, ValidationError, EOFError) as error:
        why = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise CorruptData(
            f"{file} is no backup of a cloud, or is damaged or not complete ({why}): take another"
        ) from None


@contextmanager
def _open_member(archive: tarfile.TarFile, name: str) -> Iterator[IO[bytes]]:
    try:
        stream = archive.extractfile(name)
    except KeyError:
        stream = None
    if stream is None:
        raise CorruptData(f"the backup {archive.name!s} lacks {name}: take another backup")
    with stream:
        yield stream


def _raise_ledger(ledger: Ledger, manifest: Manifest, last_release: int) -> str:
    """Let the ledger know all that was given out, before the cloud could begin anew, and say what the backup lacks."""
    known = ledger.read()
    if last_release >= _MOST_RELEASES:
        raise InvalidInput(f"--last-release {last_release} is no number of a release: it is below {_MOST_RELEASES}")
    newest = max(last_release, manifest.release, 0 if known is None else known.release)
    lost = explain_loss(manifest.past, known, newest)
    past = known or manifest.past
    if past is not None:
        ledger.record(past.model_copy(update={"release": newest}))
    return lost


def _restore_small_files(state_dir: Path, archive: tarfile.TarFile, manifest: Manifest) -> None:
    has_metadata = (state_dir / _METADATA / "timestamp.json").exists()
    for member in manifest.members:
        folder, _, name = member.name.partition("/")
        if folder not in {_METADATA, _INGRESS} or Path(name).name != name:
            continue
        path = state_dir / folder / name
        if path.exists() or (folder == _METADATA and has_metadata):
            continue
        make_folder(path.parent)
        with _open_member(archive, member.name) as stream:
            atomic_write(path, stream.read())
    if not has_metadata:
        mark_restored(state_dir / _METADATA, datetime.now(UTC))


def _restore_database(url: str, state_dir: Path, source: IO[bytes]) -> None:
    """Put the rows into an empty database, which is there with all of them or without any."""
    copy = state_dir / f"{_DATABASE}.restored"
    with no_room_at(copy):
        with copy.open("wb") as file:
            shutil.copyfileobj(source, file)
        restored = Database(sqlite_url(copy))  # and brought up to date, where an older version has made the backup
        try:
            if url != sqlite_url(state_dir / _DATABASE):
                target = Database(url)
                try:
                    restored.copy_to(target)
                finally:
                    target.close()
        finally:
            restored.close()
        if url == sqlite_url(state_dir / _DATABASE):
            publish(copy, state_dir / _DATABASE)
        copy.unlink(missing_ok=True)

"""Whether what a cloud has on its disk fits together: files against the database against the signed metadata."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cloud_server.config import CloudConfig
from cloud_server.entities import ReleaseStatus
from cloud_server.ledger import Ledger, explain_loss, read_past
from cloud_server.store import Repository
from cloud_server.store.database import Database, find_rows
from cloud_server.store.uploads import Reference
from diredi.errors import DirediError, NotFound
from diredi.store.blobs import Blob, blob_path, digest_of_file
from diredi.trust.release_client import ProvenRelease, ReleaseClient
from diredi.trust.release_keys import read_root
from diredi.trust.release_repository import list_paths, read_published


class Damage(BaseModel):
    """A file that the cloud needs and that is not whole."""

    model_config = ConfigDict(frozen=True)

    digest: str
    bytes: int
    found: str
    """What is there instead."""
    needed_by: tuple[str, ...]


class Finding(BaseModel):
    """Something that does not fit, and what to do about it."""

    model_config = ConfigDict(frozen=True)

    what: str
    found: str
    remedy: str


class Report(BaseModel):
    """What was looked at, and what was found."""

    model_config = ConfigDict(frozen=True)

    files: int
    bytes: int
    releases: int
    """Number of releases that devices may be told to run, each proven as a device does it."""
    findings: tuple[Finding, ...]


def check(config: CloudConfig) -> Report:
    """Look at all files of a cloud, which may be running.

    Args:
        config: The cloud's configuration.

    Raises:
        NotFound: There is no database.
        CorruptData: The database is damaged.
        WrongState: The database is of another version.
        Unreachable: The database does not answer.
    """
    url = config.effective_database_url
    if not find_rows(url):
        raise NotFound(f"there is no database of a cloud in {config.state_dir}: check --state-dir and --database-url")
    proven, findings = _prove_published(config)
    database = Database(url, migrate=False)
    try:
        references, others = database.transact(
            lambda r: (r.uploads.references(), [*_compare(r, proven), *_compare_past(r, config)]), writes=False
        )
    finally:
        database.close()
    damaged = find_damaged(config.state_dir / "blobs", references)
    return Report(
        files=len(references),
        bytes=sum(reference.bytes for reference in references),
        releases=len(proven),
        findings=(*(_explain(damage) for damage in damaged), *findings, *others),
    )


def find_damaged(root: Path, references: Iterable[Reference]) -> list[Damage]:
    """Read all files of a blob store that are needed, and return those that are missing or damaged.

    Args:
        root: The folder of the store, which another process may be using.
        references: The files that are needed.
    """
    damaged = []
    for reference in references:
        try:
            found = digest_of_file(blob_path(root, reference.digest))
        except FileNotFoundError:
            damaged.append(_damage(reference, "it is not there"))
        except OSError as error:
            damaged.append(_damage(reference, f"it cannot be read ({error.strerror})"))
        else:
            if found != Blob(reference.digest, reference.bytes):
                damaged.append(_damage(reference, f"its {found.bytes} bytes are {found.digest}"))
    return damaged


def _damage(reference: Reference, found: str) -> Damage:
    return Damage(digest=reference.digest, bytes=reference.bytes, found=found, needed_by=reference.needed_by)


def _explain(damage: Damage) -> Finding:
    return Finding(
        what=f"blob {damage.digest}",
        found=f"{damage.found}; it is the {', the '.join(damage.needed_by)}",
        remedy="put a good copy: `diredi model repair FILE`, with one of a backup or of `diredi model export`",
    )


def _prove_published(config: CloudConfig) -> tuple[list[ProvenRelease], list[Finding]]:
    """Prove every published release as a device does it, that knows nothing but the root."""
    folder, proven = config.state_dir / "releases", []
    path = ""
    try:
        files = read_published(folder)
        if "timestamp.json" not in files:
            return [], []
        with tempfile.TemporaryDirectory() as scratch:
            client = ReleaseClient(Path(scratch), read_root(config.identity), lambda name: _get(files, name))
            client.refresh()
            for path in list_paths(files):
                proven.append(client.check(client.prove(path)))
    except DirediError as error:
        remedy = "start the cloud with its targets key, or hand it what it lacks with `diredi release sign`"
        return proven, [Finding(what=f"metadata {path or 'in ' + str(folder)}", found=str(error), remedy=remedy)]
    return proven, []


def _get(files: dict[str, bytes], name: str) -> bytes:
    if name not in files:
        raise NotFound(f"there are no metadata {name!r}")
    return files[name]


def _compare(r: Repository, proven: Iterable[ProvenRelease]) -> list[Finding]:
    """Compare what is published with what the database says."""
    findings = []
    for release in proven:
        version, found = release.claims.version, ""
        try:
            known = r.releases.get(version)
            file = r.models.get(known.student_id).onnx
        except NotFound:
            found = "the database does not know it"
        else:
            if file != release.file or known.scope != release.claims.scope:
                found = f"the database has it with file {file.digest if file else 'none'} for {known.scope}"
            elif known.status is ReleaseStatus.WITHDRAWN:
                found = "the database says that it is withdrawn"
        if found:
            remedy = "start the cloud: it publishes what its database says. If that is older, restore a newer backup"
            findings.append(Finding(what=f"release {version}, as it is published", found=found, remedy=remedy))
    return findings


def _compare_past(r: Repository, config: CloudConfig) -> list[Finding]:
    ledger = Ledger(config.release_keys or config.state_dir)
    past = ledger.read()
    lost = explain_loss(read_past(r), past, 0 if past is None else past.release)
    remedy = "restore a newer backup of the database, or start the cloud once with --accept-lost-past"
    return [Finding(what=str(ledger.path), found=lost, remedy=remedy)] if lost else []

"""Whether the log of decisions is what it was: against itself, signed heads, published releases, and the tables."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from google.protobuf.message import DecodeError
from pydantic import BaseModel, ConfigDict

from cloud_server.config import CloudConfig
from cloud_server.store import Repository
from cloud_server.store.database import Database, find_rows
from cloud_server.store.log import LogEntry
from diredi.errors import DirediError, NotFound
from diredi.rpc.message_signature import signer_of
from diredi.rpc.v1.fleet_pb2 import InstallOutcome, ReportInstallRequest
from diredi.trust.identity import CA_FILE
from diredi.trust.log_head import LOG_HEAD_FILE, LogHead, read_head
from diredi.trust.merkle import Frontier
from diredi.trust.release_keys import newest_root, read_root
from diredi.trust.release_repository import LogProof, read_claims, read_published


class Report(BaseModel):
    """What was looked at, and what was found."""

    model_config = ConfigDict(frozen=True)

    entries: int
    root: str
    """Of all entries, in hex."""
    heads: int
    """Number of signed heads that the log was compared with."""
    releases: int
    """Number of published releases whose place in the log was compared."""
    findings: tuple[str, ...]


def verify(config: CloudConfig, kept: Sequence[bytes] = ()) -> Report:
    """Verify the whole log of a cloud, which may be running.

    Args:
        config: The cloud's configuration.
        kept: Signed heads that somebody has kept elsewhere.

    Raises:
        NotFound: There is no database.
        Untrusted: A head that was kept is not signed by the cloud's online key.
    """
    url = config.effective_database_url
    if not find_rows(url):
        raise NotFound(f"there is no database of a cloud in {config.state_dir}: check --state-dir and --database-url")
    files = read_published(config.state_dir / "releases")
    roots = [data for name, data in files.items() if name.endswith(".root.json")]
    root = newest_root([read_root(config.identity), *roots]).signed
    heads, findings = [read_head(data, root) for data in kept], []
    if LOG_HEAD_FILE in files:
        try:
            heads.append(read_head(files[LOG_HEAD_FILE], root))
        except DirediError as error:
            findings.append(f"{LOG_HEAD_FILE}: {error}")
    proofs = [claims.log for claims in read_claims(files) if claims.log is not None]
    authority = (config.identity / CA_FILE).read_bytes()
    database = Database(url, migrate=False)
    try:
        walk = database.transact(lambda r: _walk(r, heads, proofs, authority), writes=False)
    finally:
        database.close()
    return Report(
        entries=walk[0].size, root=walk[0].root.hex(), heads=len(heads), releases=len(proofs),
        findings=(*findings, *walk[1]),
    )  # fmt: skip


def _walk(
    r: Repository, heads: Sequence[LogHead], proofs: Sequence[LogProof], authority: bytes
) -> tuple[Frontier, list[str]]:
    """Go through all entries once; return the tree that they make, and what does not fit."""
    tree, findings, subjects = Frontier(), list[str](), dict[str, LogEntry]()
    expected = {head.size: head for head in heads}
    proven = {proof.index: proof for proof in proofs}
    for entry in r.log.all():
        if entry.index != tree.size:
            findings.append(f"entries {tree.size} to {entry.index - 1} were removed")
            break
        if entry.peaks != tree.peaks:
            findings.append(f"an entry before {entry.index} was changed: those after it stand on another one")
            break
        tree = tree.add(entry.entry.encode())
        digest = hashlib.sha256(entry.details.encode()).hexdigest()
        if f'"details":"{digest}"' not in entry.entry:
            findings.append(f"the details of entry {entry.index} ({entry.subject}) were changed")
        if (proof := proven.get(entry.index)) is not None and (proof.entry, proof.root) != (
            entry.entry,
            tree.root.hex(),
        ):
            findings.append(f"entry {entry.index} ({entry.subject}) is not the one that was signed with the release")
        if (head := expected.get(tree.size)) is not None and head.root != tree.root.hex():
            findings.append(f"one of the first {tree.size} entries is not what it was at {_time(head.at)}")
        subjects[entry.subject] = entry
    for size, head in expected.items():
        if size > tree.size:
            findings.append(f"{size - tree.size} entries that were there at {_time(head.at)} are missing at the end")
    findings += [
        f"the entry {index} that was signed with a release is missing" for index in proven if index >= tree.size
    ]
    installs = [entry for subject, entry in subjects.items() if subject.startswith("install/")]
    findings += [why for entry in installs if (why := _explain_forged(entry, authority))]
    return tree, [*findings, *r.log.compare(subjects)]


def _explain_forged(entry: LogEntry, authority: bytes) -> str:
    """Say why an entry is not what a device has reported; empty where its signature holds, or it has none."""
    said = entry.values
    if "report" not in said:
        return ""
    try:
        report = ReportInstallRequest.FromString(bytes.fromhex(said["report"]))
        holder = signer_of(report, said["certificate"].encode(), authority)
        outcome = InstallOutcome.Name(report.outcome).removeprefix("INSTALL_OUTCOME_").lower()
        signed = (f"{holder.site}/{holder.name}", outcome, f"install/{report.release_version}/")
    except (DirediError, DecodeError, ValueError) as error:
        return f"the report of {said['device']} in entry {entry.index} is not signed by it ({error})"
    if signed[:2] != (said["device"], said["outcome"]) or not entry.subject.startswith(signed[2]):
        return f"entry {entry.index} says something else than the report that {said['device']} has signed"
    return ""


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

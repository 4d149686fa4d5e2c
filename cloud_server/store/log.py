"""The log of decisions: every step of a cycle and every release, in a Merkle tree that only grows.

An entry is a line of JSON that everybody may see, with the digest of its details, which only persons see: who decided,
by which figures, from which gaps, signed with which certificates. An entry is written in the transaction that decides.
The row of each entry holds the peaks of the tree before it (`diredi.trust.merkle`), so that a row that is changed or
removed later does not fit those that follow, nor the signed heads.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_server.entities import Install, Json
from cloud_server.store.plain_json import finite
from cloud_server.store.schema import CycleRow, LogRow, ModelRow, PartRow, ReleaseRow, TransitionRow
from diredi.trust.merkle import Frontier
from diredi.trust.release_repository import LogProof

_ROWS_AT_ONCE: Final = 500
_WITHOUT_ROWS: Final = ("status/", "rollout/", "install/", "signatures/", "note/")
"""Subjects that have no row of their own in a table."""


@dataclass(frozen=True)
class LogEntry:
    """An entry as it is stored.

    Attributes:
        index: Its place, from 0.
        subject: What it is about: "release/VERSION", "status/VERSION/STATUS", "transition/NUMBER", or one of "rollout",
            "install" and "signatures" with what it is about and its place.
        entry: What is in the tree.
        details: What `entry` has the digest of.
        peaks: The tree before it.
    """

    index: int
    subject: str
    entry: str
    details: str
    peaks: tuple[bytes, ...]

    @property
    def frontier(self) -> Frontier:
        """The tree with this entry."""
        return Frontier(self.index, self.peaks).add(self.entry.encode())

    @property
    def values(self) -> Json:
        """What the details say."""
        return dict(json.loads(self.details))

    @property
    def public(self) -> Json:
        """What everybody may see of it, beside what every entry has."""
        return {name: value for name, value in json.loads(self.entry).items() if name not in {"about", "at", "details"}}

    @property
    def at(self) -> datetime:
        """When it was decided."""
        return datetime.fromisoformat(json.loads(self.entry)["at"])

    @property
    def proof(self) -> LogProof:
        """What proves that this entry is in the log."""
        peaks = tuple(peak.hex() for peak in self.peaks)
        return LogProof(index=self.index, entry=self.entry, peaks=peaks, root=self.frontier.root.hex())


class Log:
    """The log of decisions."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def record_transition(self, cycle: CycleRow, row: TransitionRow) -> None:
        """Add a step of a cycle, which has its number already."""
        self._append(f"transition/{row.id}", {"cycle": cycle.id}, transition_details(cycle, row), row.at)

    def record_release(self, row: ReleaseRow) -> None:
        """Add a release."""
        student = self._session.get_one(ModelRow, row.student_id)
        cycle = self._session.get(CycleRow, row.cycle_id) if row.cycle_id else None
        self._append(
            f"release/{row.version}", release_entry(row, student), release_details(row, student, cycle), row.created
        )

    def record_status(self, version: int, status: str, at: datetime) -> None:
        """Add that everybody may have a release, or nobody any more."""
        self._append(f"status/{version}/{status}", {"version": version, "status": status}, {}, at)

    def record_rollout(
        self, row: ReleaseRow, actor: str, reason: str, at: datetime, figures: Json | None = None
    ) -> None:
        """Add a step of the rollout of a release, whose row has it already, and by which figures it was decided."""
        details = {"actor": actor, "reason": reason, "rollout": rollout_details(row), "figures": figures}
        self._append(f"rollout/{row.version}/{self.frontier().size}", {"version": row.version}, details, at)

    def record_install(self, device: str, install: Install, signed: Json, at: datetime) -> None:
        """Add what a canary reports of a release, with its signature."""
        details = {"device": device, "outcome": install.outcome.value, "reason": install.reason} | signed
        number, version = self.frontier().size, install.release_version
        self._append(f"install/{version}/{number}", {"version": version}, details, at)

    def record_signatures(self, name: str, actor: str, keyids: Sequence[str], at: datetime) -> None:
        """Add which keys have signed metadata of releases, and who has handed that in."""
        number = self.frontier().size
        self._append(f"signatures/{name}/{number}", {}, {"actor": actor, "keys": list(keyids)}, at)

    def record_note(self, model_id: str, actor: str, text: str, at: datetime) -> None:
        """Add what a person says about a model."""
        number = self.frontier().size
        self._append(f"note/{model_id}/{number}", {"model": model_id}, {"actor": actor, "text": text}, at)

    def record_existing(self) -> None:
        """Add what was decided before there was a log; nothing where there is one."""
        if self._session.scalar(select(LogRow.index).limit(1)) is not None:
            return
        releases: list[Any] = list(self._session.scalars(select(ReleaseRow)))
        steps: list[Any] = list(self._session.scalars(select(TransitionRow)))
        for row in sorted([*releases, *steps], key=lambda row: row.created if isinstance(row, ReleaseRow) else row.at):
            if isinstance(row, ReleaseRow):
                self.record_release(row)
            else:
                self.record_transition(self._session.get_one(CycleRow, row.cycle_id), row)

    def frontier(self) -> Frontier:
        """Return the tree of all entries."""
        last = self._session.scalar(select(LogRow).order_by(LogRow.index.desc()).limit(1))
        return Frontier() if last is None else _entry(last).frontier

    def of_releases(self) -> dict[int, LogEntry]:
        """Return the entry of each release, by version."""
        rows = self._session.scalars(select(LogRow).where(LogRow.subject.startswith("release/")).order_by(LogRow.index))
        return {int(row.subject.partition("/")[2]): _entry(row) for row in rows}

    def about(self, subject: str, limit: int = 200) -> list[LogEntry]:
        """Return the entries whose subject begins so, oldest first; the last `limit` of them."""
        query = select(LogRow).where(LogRow.subject.startswith(subject, autoescape=True))
        return [_entry(row) for row in self._session.scalars(query.order_by(LogRow.index.desc()).limit(limit))][::-1]

    def newest(self, limit: int, kind: str = "", before: int | None = None) -> list[LogEntry]:
        """Return entries, newest first.

        Args:
            limit: At most so many.
            kind: Only those whose subject begins with it, such as "rollout"; empty: all.
            before: Only those before this place; None: from the end.
        """
        query = select(LogRow).order_by(LogRow.index.desc()).limit(limit)
        if kind:
            query = query.where(LogRow.subject.startswith(f"{kind}/", autoescape=True))
        if before is not None:
            query = query.where(LogRow.index < before)
        return [_entry(row) for row in self._session.scalars(query)]

    def all(self) -> Iterator[LogEntry]:
        """Yield all entries in their order."""
        query = select(LogRow).order_by(LogRow.index).execution_options(yield_per=_ROWS_AT_ONCE)
        return (_entry(row) for row in self._session.scalars(query))

    def compare(self, entries: Mapping[str, LogEntry]) -> list[str]:
        """Say which rows of the tables are not what the log says of them, or are in one of the two alone.

        Args:
            entries: The entries of the log, by their subject.
        """
        found, seen = list[str](), set[str]()
        changes = (subject.split("/")[1:] for subject in entries if subject.startswith("status/"))
        statuses = {change[0]: change[1] for change in changes}  # the last one counts, and so of rollouts
        steps = {
            key.split("/")[1]: entry.values["rollout"] for key, entry in entries.items() if key.startswith("rollout/")
        }
        for row in self._session.scalars(select(TransitionRow)):
            subject, cycle = f"transition/{row.id}", self._session.get_one(CycleRow, row.cycle_id)
            seen.add(subject)
            if subject not in entries:
                found.append(f"the step {row.state} of cycle {row.cycle_id} is in no entry of the log")
            elif differing := _differing(transition_details(cycle, row) | {"cycle": cycle.id}, entries[subject]):
                found.append(f"the step {row.state} of cycle {row.cycle_id} was changed: {differing}")
        for release in self._session.scalars(select(ReleaseRow)):
            subject, student = f"release/{release.version}", self._session.get_one(ModelRow, release.student_id)
            cycle_of = self._session.get(CycleRow, release.cycle_id) if release.cycle_id else None
            seen.add(subject)
            said = release_entry(release, student) | release_details(release, student, cycle_of)
            status, rollout = said.pop("status"), said.pop("rollout")
            if subject not in entries:
                found.append(f"release {release.version} is in no entry of the log")
                continue
            if differing := _differing(said, entries[subject]):
                found.append(f"release {release.version} was changed: {differing}")
            if status != (logged := statuses.get(str(release.version), entries[subject].values["status"])):
                found.append(f"release {release.version} was changed: its status was {logged} and is {status}")
            if rollout != (before := steps.get(str(release.version), entries[subject].values["rollout"])):
                found.append(f"release {release.version} was changed: its rollout was {before} and is {rollout}")
        missing = sorted(set(entries) - seen)
        return found + [
            f"the row of {subject} was removed" for subject in missing if not subject.startswith(_WITHOUT_ROWS)
        ]

    def _append(self, subject: str, said: Json, details: Json, at: datetime) -> None:
        tree = self.frontier()
        # Without a secret in it, details of which there are few could be guessed from their digest.
        text = canonical(details | {"salt": secrets.token_hex(16)})
        digest = hashlib.sha256(text.encode()).hexdigest()
        entry = canonical({"about": subject, "at": at.isoformat(), "details": digest} | said)
        peaks = [peak.hex() for peak in tree.peaks]
        self._session.add(LogRow(index=tree.size, subject=subject, entry=entry, details=text, peaks=peaks))
        self._session.flush()


def _differing(said: Json, entry: LogEntry) -> str:
    """Say which values of a row are not those of its entry; empty for none."""
    logged = entry.values | dict(json.loads(entry.entry))
    names = [name for name in said if canonical({"": said[name]}) != canonical({"": logged.get(name)})]
    return ", ".join(f"{name} was {str(logged.get(name))[:80]!r} and is {str(said[name])[:80]!r}" for name in names)


def transition_details(cycle: CycleRow, row: TransitionRow) -> Json:
    """Return what the log says of a step of a cycle to persons."""
    return {"state": row.state, "actor": row.actor, "reason": row.reason, "figures": finite(row.metrics)}


def release_entry(row: ReleaseRow, student: ModelRow) -> Json:
    """Return what the log says of a release to everybody."""
    file = student.onnx["digest"] if student.onnx else ""
    return {"version": row.version, "scope": row.scope, "student": row.student_id, "file": file}


def release_details(row: ReleaseRow, student: ModelRow, cycle: CycleRow | None) -> Json:
    """Return what the log says of a release to persons: what it is made of."""
    return {
        "tutor": row.tutor_id,
        "cycle": row.cycle_id,
        "status": row.status,
        "canaries": list(row.canaries),
        "rollout": rollout_details(row),
        "figures": finite(student.presumed or {}),
        "base_tutor": cycle.base_tutor_id if cycle else "",
        "base_student": cycle.base_student_id if cycle else "",
        "rebases": cycle.rebases if cycle else 0,
        "recipe": finite(cycle.recipe) if cycle else {},
        "gaps": [gap_details(part) for part in cycle.parts if part.gap] if cycle else [],
    }


def rollout_details(row: ReleaseRow) -> Json | None:
    """Return what was decided of a rollout; how long a step lasts already, nobody decides."""
    return {name: row.rollout[name] for name in ("steps", "step", "paused")} if row.rollout else None


def gap_details(part: PartRow) -> Json:
    """Return which gap a site has given, and which certificate has signed it."""
    gap, certificate = part.gap or {}, part.certificate.encode()
    student = gap.get("student_gap")
    return {
        "site": part.site,
        "tutor_gap": gap["tutor_gap"]["blob"]["digest"],
        "student_gap": student["blob"]["digest"] if student else "",
        "certificate": hashlib.sha256(certificate).hexdigest() if certificate else "",
    }


def canonical(value: Json) -> str:
    """Return the one form in which JSON is hashed."""
    return json.dumps(finite(value), sort_keys=True, separators=(",", ":"))


def _entry(row: LogRow) -> LogEntry:
    peaks = tuple(bytes.fromhex(peak) for peak in row.peaks)
    return LogEntry(row.index, row.subject, row.entry, row.details, peaks)

"""Consent: whether this site takes part in what it is asked for, and the journal in which that stands.

What the cloud says about it counts for nothing. A task begins only if the journal holds an entry, signed by this site's
own key, that approves of just what is asked. The entry is made by the site's policy or by a person at the site.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import structlog

from diredi.consent import ConsentEntry, Event, SignedEntry, check_entry, sign_entry
from diredi.errors import CorruptData, DirediError, InvalidInput, NotFound, Refused, WrongState
from diredi.knowledge.recipe import CycleRecipe
from diredi.store.files import append_durably, make_folder
from diredi.trust.identity import Credentials
from diredi.trust.signatures import holder_of
from user_domain.policy import Policy
from user_domain.private_data import PrivateData
from user_domain.request_text import explain_request
from user_domain.tasks import Task, TaskKind

BY_POLICY: Final = "policy"
NO_CYCLE: Final = ""
"""In place of a cycle: what a site says of releases, and what it has deleted."""


class ConsentJournal:
    """The site's journal of consent: one signed entry a line, which is only ever added to.

    A line that is damaged, or that this site's certificate did not sign, counts for nothing and is said in the log
    (`consent_entry_rejected`); the others hold.
    """

    def __init__(self, path: Path, credentials: Credentials) -> None:
        """Read the journal.

        Args:
            path: The file; it need not exist.
            credentials: The site's, with whose key it signs.

        Raises:
            InvalidInput: The file cannot be read.
        """
        self._path = path
        self.credentials = credentials
        self._entries: dict[str, list[ConsentEntry]] = {}
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else []
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read ({error.strerror}): make this user its owner") from None
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                self._keep(self._read(line))
            except (ValueError, TypeError, KeyError, RecursionError, DirediError) as error:
                why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                structlog.get_logger().error("consent_entry_rejected", path=str(path), line=number, why=why)

    def find(self, cycle_id: str, *events: Event) -> list[ConsentEntry]:
        """Return the entries of a cycle of these events, oldest first."""
        return [entry for entry in self._entries.get(cycle_id, ()) if entry.event in events]

    def lines(self, cycle_id: str, *events: Event) -> str:
        """Return the lines of the file with the entries of a cycle of these events, for who wants to check them."""
        wanted = self.find(cycle_id, *events)
        lines = self._path.read_bytes().split(b"\n") if wanted else []
        return "".join(f"{line.decode()}\n" for line in lines if self._is_one_of(wanted, line))

    @property
    def cycles(self) -> list[str]:
        """The cycles that have an entry, newest first."""
        cycles = [cycle_id for cycle_id in self._entries if cycle_id != NO_CYCLE]
        return sorted(cycles, key=lambda cycle_id: self._entries[cycle_id][-1].at, reverse=True)

    def record(
        self, event: Event, cycle_id: str, what: dict[str, Any], *, by: str = BY_POLICY, reason: str = ""
    ) -> ConsentEntry:
        """Sign an entry of this service's own and add it, as `add` does."""
        entry = ConsentEntry(
            event=event, site=self.credentials.identity.name, cycle_id=cycle_id, what=what, by=by[:200],
            reason=reason[:500], at=datetime.now(UTC),
        )  # fmt: skip
        return self.add(sign_entry(entry, self.credentials))

    def add(self, signed: SignedEntry) -> ConsentEntry:
        """Add an entry that this site's key has signed. It is on disk on return.

        Raises:
            Refused: Another key has signed it, or it is of another site.
            CorruptData: It is no entry.
            NoRoom: The disk is full; nothing is recorded.
        """
        entry = self.check(signed)
        line = {
            "entry": signed.text,
            "signature": base64.b64encode(signed.signature).decode(),
            "certificate": self.credentials.certificate.decode(),
        }
        make_folder(self._path.parent)
        # A line that a kill has cut stays alone on its line.
        append_durably(self._path, b"\n" + json.dumps(line).encode() + b"\n")
        self._keep(entry)
        return entry

    def check(self, signed: SignedEntry) -> ConsentEntry:
        """Return the entry if this site's present key has signed it; raises as `add` does."""
        entry = check_entry(signed, self.credentials.certificate)
        if entry.site != self.credentials.identity.name:
            raise Refused(f"that entry is of site {entry.site[:64]!r}, this is {self.credentials.identity.name!r}")
        return entry

    def _read(self, line: bytes) -> ConsentEntry:
        """Return the entry of a line. The key may have been renewed since, so the line brings its certificate."""
        said = json.loads(line)
        certificate = said["certificate"].encode()
        if holder_of(certificate, self.credentials.ca) != self.credentials.identity:
            raise Refused("the certificate beside it is not this site's")
        entry = check_entry(SignedEntry(said["entry"], base64.b64decode(said["signature"])), certificate)
        if entry.site != self.credentials.identity.name:
            raise CorruptData(f"it is of site {entry.site[:64]!r}")
        return entry

    def _is_one_of(self, entries: list[ConsentEntry], line: bytes) -> bool:
        try:
            return self._read(line) in entries
        except (ValueError, TypeError, KeyError, RecursionError, DirediError):
            return False

    def _keep(self, entry: ConsentEntry) -> None:
        self._entries.setdefault(entry.cycle_id, []).append(entry)


class Answer(StrEnum):
    """What a site answers to a task."""

    YES = "yes"
    NO = "no"
    WAITS = "waits"
    """A person is to be asked."""


@dataclass(frozen=True)
class Verdict:
    """An answer, and why it is no."""

    answer: Answer
    reason: str = ""


class Consent:
    """Decide on tasks by the journal and the site's policy, and record what was decided."""

    def __init__(
        self, journal: ConsentJournal, policy: Policy, data: Callable[[], PrivateData], *, publish_style: bool
    ) -> None:
        """Make it.

        Args:
            journal: Where approvals stand.
            policy: What the site's configuration says.
            data: Returns the private data set as it was read last.
            publish_style: Whether the site's style would leave, too.
        """
        self.journal = journal
        self._policy = policy
        self._data = data
        self._publish_style = publish_style

    def judge(self, task: Task) -> Verdict:
        """Return this site's answer to a task. Nothing is recorded.

        Raises:
            InvalidInput: The recipe is none.
        """
        if task.kind is TaskKind.VALIDATE_EXTERNAL:
            reason = self._refuse_external(task)
            return Verdict(Answer.NO if reason else Answer.YES, reason)
        if task.kind is TaskKind.VALIDATE:
            if reason := self._refuse_candidate(task):
                return Verdict(Answer.NO, reason)
            if not task.rebased_cycle_id:
                return Verdict(Answer.YES)  # by the approval of the cycle, whose candidate it is
        asked = self.describe(task)
        if reason := self._policy.refuse(CycleRecipe.of(task.recipe), task, asked["new_classes"]):
            return Verdict(Answer.NO, reason)
        decided = [entry for entry in self.journal.find(task.cycle_id, "approved", "declined") if entry.what == asked]
        if decided and decided[-1].event == "declined":
            return Verdict(Answer.NO, decided[-1].reason or "declined at the site")
        return Verdict(Answer.YES if decided or self._policy.approval != "ask" else Answer.WAITS)

    def approve_by_policy(self, task: Task) -> None:
        """Record that the policy approves of a task that `judge` has said yes to, unless an approval is there."""
        if task.kind is TaskKind.VALIDATE_EXTERNAL or (task.kind is TaskKind.VALIDATE and not task.rebased_cycle_id):
            return
        asked = self.describe(task)
        if not any(entry.what == asked for entry in self.journal.find(task.cycle_id, "approved")):
            self.journal.record("approved", task.cycle_id, asked)

    def decide_for(
        self, person: str, event: Event, cycle_id: str, shown: str, waiting: list[Task], reason: str = ""
    ) -> ConsentEntry:
        """Sign and record the decision of a person who has proved to hold this site's key, as who opens its pages has.

        Args:
            person: Who decides; it stands in the entry.
            event: "approved" or "declined".
            cycle_id: The cycle.
            shown: The digest (`digest_of`) of what the person was shown.
            waiting: The tasks that wait for a decision.
            reason: Why a person declines; the cloud is told.

        Raises:
            NotFound: Nothing of that cycle waits for a decision.
            WrongState: What is asked now is not what was shown.
        """
        asked = [self.describe(task) for task in waiting if task.cycle_id == cycle_id]
        what = next((one for one in asked if digest_of(one) == shown), {})
        entry = ConsentEntry(
            event=event, site=self.journal.credentials.identity.name, cycle_id=cycle_id, what=what, by=person[:200],
            reason=reason[:500], at=datetime.now(UTC),
        )  # fmt: skip
        return self.decide(sign_entry(entry, self.journal.credentials), waiting)

    def decide(self, signed: SignedEntry, waiting: list[Task]) -> ConsentEntry:
        """Record the decision of a person at the site.

        Args:
            signed: The decision, signed with the site's key.
            waiting: The tasks that wait for one.

        Raises:
            Refused: Another key has signed it, or it is of another site.
            CorruptData: It is no entry.
            InvalidInput: It is no decision.
            NotFound: Nothing of that cycle waits for a decision.
            WrongState: What is asked now is not what the decision is about.
        """
        entry = self.journal.check(signed)
        if entry.event not in {"approved", "declined"}:
            raise InvalidInput(f"{entry.event!r} is no decision: approve or decline")
        asked = [self.describe(task) for task in waiting if task.cycle_id == entry.cycle_id]
        if not asked:
            raise NotFound(f"nothing of cycle {entry.cycle_id[:64]!r} waits: `diredi site requests` lists what does")
        if entry.what not in asked:
            raise WrongState("what is asked has changed since it was shown: look at it again and decide anew")
        return self.journal.add(signed)

    def explain(self, task: Task) -> list[tuple[str, str]]:
        """Return what a task asks for in plain words, by subject, for the person who decides."""
        style = self._publish_style and task.kind is TaskKind.EXTRACT
        return explain_request(task, self._policy, self._data(), self._new_classes(task), publish_style=style)

    def describe(self, task: Task) -> dict[str, Any]:
        """Return all that a person is asked to approve, as JSON. Another recipe, model or class is another request."""
        asked: dict[str, Any] = {
            "kind": "rebase" if task.rebased_cycle_id else "cycle",
            "cycle": task.cycle_id,
            "scope": task.scope,
            "recipe": task.recipe,
            "publish_style": self._publish_style and task.kind is TaskKind.EXTRACT,
            "new_classes": self._new_classes(task),
        }
        if task.rebased_cycle_id:
            assert task.student and task.student.onnx
            return asked | {"rebased_cycle": task.rebased_cycle_id, "candidate": task.student.onnx.digest}
        assert task.tutor and task.tutor.weights and task.student and task.student.weights
        return asked | {
            "tutor": task.tutor.weights.digest,
            "student": task.student.weights.digest,
            "coreset": task.coreset.digest if task.coreset else "",
            "image_size": task.student.spec.image_size,
        }

    def record_upload(self, task: Task, digests: list[str]) -> None:
        """Record what is about to be submitted, before it is: who has sent a gap may be asked to validate."""
        self.journal.record("uploaded", task.cycle_id, {"gaps": digests})

    def submitted_before(self, task: Task) -> dict[str, Any] | None:
        """Return the figures of the release that a candidate would replace, as they were submitted before."""
        entries = self.journal.find(task.cycle_id, "validated")
        return next((entry.what["before"] for entry in entries if "before" in entry.what), None)

    def submitted_figures(self, task: Task) -> dict[str, Any] | None:
        """Return the figures of a candidate that were submitted before; they are never worked out a second time."""
        assert task.student and task.student.onnx
        for entry in self.journal.find(task.cycle_id, "validated"):
            if entry.what["candidate"] == task.student.onnx.digest:
                figures: dict[str, Any] = entry.what["figures"]
                return figures
        return None

    def record_validation(self, task: Task, figures: dict[str, Any], before: dict[str, Any] | None = None) -> None:
        """Record the figures that are about to be submitted, before they are.

        Args:
            task: The task.
            figures: Of the candidate.
            before: Of the release that it would replace, where this site takes no part in the cycle.
        """
        assert task.student and task.student.onnx
        what: dict[str, Any] = {"candidate": task.student.onnx.digest, "figures": figures}
        if task.deployed and task.deployed.onnx:
            what |= {"deployed": task.deployed.onnx.digest, "before": before}
        self.journal.record("validated", task.cycle_id, what)

    def _new_classes(self, task: Task) -> list[str]:
        """Return the class names of the data set that the cloud does not know yet and would be told."""
        if task.kind is not TaskKind.EXTRACT or task.recipe.get("labels") == "oracle":
            return []
        assert task.tutor
        return [name for name in self._data().names if name not in task.tutor.spec.labels.names]

    def _refuse_external(self, task: Task) -> str:
        """Say why a candidate of a cycle that this site takes no part in may not be measured; empty where it may."""
        assert task.student and task.student.onnx and task.deployed and task.deployed.onnx
        if self.journal.find(task.cycle_id, "approved", "declined", "uploaded"):
            return "this site has decided about this cycle: it is asked by VALIDATE or not at all"
        pair = (task.student.onnx.digest, task.deployed.onnx.digest)
        earlier = self.journal.find(task.cycle_id, "validated")
        if earlier and (earlier[0].what["candidate"], earlier[0].what.get("deployed")) != pair:
            return "this site has measured another candidate of this cycle: one is measured, once"
        if earlier:  # it counts among those of this week already, and its figures are not worked out again
            return ""
        since = datetime.now(UTC) - timedelta(days=7)
        others = (entry for cycle in self.journal.cycles for entry in self.journal.find(cycle, "validated"))
        return self._policy.refuse_external(task, sum("deployed" in one.what and one.at >= since for one in others))

    def _refuse_candidate(self, task: Task) -> str:
        """Say why a candidate may not be measured; empty where it may."""
        assert task.student and task.student.onnx
        source = task.rebased_cycle_id or task.cycle_id
        # What a rebase carries over was uploaded in the cycle that it names, or was itself a rebase of that.
        if not self.journal.find(source, "uploaded", *(("validated",) if task.rebased_cycle_id else ())):
            return f"this site has uploaded nothing to cycle {source[:64]}"
        earlier = self.journal.find(task.cycle_id, "validated")
        if earlier and earlier[0].what["candidate"] != task.student.onnx.digest:
            return "this site has measured another candidate of this cycle: one is measured, once"
        if task.rebased_cycle_id:
            return ""
        approved = next(iter(reversed(self.journal.find(task.cycle_id, "approved"))), None)
        if approved is None:
            return "this site has not approved this cycle"
        if task.scope != approved.what.get("scope", ""):
            return "the cycle is not for those for whom this site has approved it"
        if task.student.spec.image_size != approved.what.get("image_size"):
            return "the candidate has another input than the student that this site was shown"
        oracle = task.recipe.get("labels") == "oracle"
        tutor = task.tutor.weights.digest if task.tutor and task.tutor.weights else ""
        if task.recipe != approved.what["recipe"] or (oracle and tutor != approved.what["tutor"]):
            return "the recipe or the oracle is not the one that this site has approved"
        return ""


def digest_of(asked: dict[str, Any]) -> str:
    """Return a short name of what is asked; another request has another one."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

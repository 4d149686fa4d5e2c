"""Tasks that the cloud gives to a site, as validated values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from diredi.errors import InvalidInput
from diredi.rpc import convert
from diredi.rpc.v1 import sites_pb2 as pb
from diredi.store.blobs import Blob

MAX_ID = 200


class TaskKind(StrEnum):
    """Name what a task asks for."""

    EXTRACT = "extract"
    VALIDATE = "validate"
    VALIDATE_EXTERNAL = "validate-external"
    CANCEL = "cancel"


_KINDS = {
    pb.TASK_KIND_EXTRACT: TaskKind.EXTRACT,
    pb.TASK_KIND_VALIDATE: TaskKind.VALIDATE,
    pb.TASK_KIND_VALIDATE_EXTERNAL: TaskKind.VALIDATE_EXTERNAL,
    pb.TASK_KIND_CANCEL: TaskKind.CANCEL,
}


@dataclass(frozen=True)
class Task:
    """Describe one task."""

    id: str
    kind: TaskKind
    cycle_id: str
    approved: bool = False
    """What the cloud has on record. Whether the site has approved stands in its own journal (`user_domain.consent`)."""
    recipe: dict[str, Any] = field(default_factory=dict)
    tutor: convert.Model | None = None
    student: convert.Model | None = None
    coreset: Blob | None = None
    deployed: convert.Model | None = None
    """The student that the candidate would replace, in a cycle that this site takes no part in."""
    scope: str = ""
    """Whom the cycle's release is for: "site:NAME", "group:NAME" or "fleet"; empty: an older cloud does not say."""
    rebased_cycle_id: str = ""
    """In a rebase: the cycle whose release is carried over."""


def parse_task(message: pb.Task) -> Task:
    """Turn a message into a task. Raises InvalidInput that says what is wrong with it."""
    kind = _KINDS.get(message.kind)
    if kind is None:
        raise InvalidInput(f"a task of kind {message.kind} is not known here: both sides need the same version")
    for name, value in (("task", message.id), ("cycle", message.cycle_id)):
        if not 0 < len(value) <= MAX_ID or not value.isprintable():
            raise InvalidInput(f"the id of the {name} is empty, too long or not printable")
    for name, value in (("scope", message.scope), ("id of the rebased cycle", message.rebased_cycle_id)):
        if len(value) > MAX_ID or not value.isprintable():  # a person at the site reads it
            raise InvalidInput(f"the {name} is too long or not printable")
    task = Task(
        id=message.id,
        kind=kind,
        cycle_id=message.cycle_id,
        approved=message.approved,
        recipe=convert.struct_from(message.recipe),
        tutor=convert.model_from(message.tutor) if message.HasField("tutor") else None,
        student=convert.model_from(message.student) if message.HasField("student") else None,
        coreset=convert.blob_from(message.coreset) if message.coreset.digest else None,
        deployed=convert.model_from(message.deployed) if message.HasField("deployed") else None,
        scope=message.scope,
        rebased_cycle_id=message.rebased_cycle_id,
    )
    _check_models(task)
    return task


def _check_models(task: Task) -> None:
    if task.kind is TaskKind.EXTRACT and (not task.tutor or not task.tutor.weights):
        raise InvalidInput("the task names no tutor to begin with")
    if task.kind is TaskKind.EXTRACT and (not task.student or not task.student.weights):
        raise InvalidInput("the task names no deployed student")
    validates = {TaskKind.VALIDATE, TaskKind.VALIDATE_EXTERNAL}
    if task.kind in validates and (not task.student or not task.student.onnx):
        raise InvalidInput("the task names no candidate to validate")
    if task.kind is TaskKind.VALIDATE_EXTERNAL and (not task.deployed or not task.deployed.onnx):
        raise InvalidInput("the task names no release that the candidate would replace")

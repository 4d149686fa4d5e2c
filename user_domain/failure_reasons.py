"""What follows from an error while a task is performed, and what the cloud is told when the task fails."""

from __future__ import annotations

from enum import StrEnum

from diredi.errors import (
    CorruptData,
    DatasetError,
    DirediError,
    InvalidInput,
    NoLabels,
    NoRoom,
    NotFound,
    Refused,
    Unreachable,
    WrongState,
)


class Stage(StrEnum):
    """Name the part of a task in which an error was met."""

    CONSENT = "consent"
    DATA = "data"
    DOWNLOAD = "download"
    CLASSES = "classes"
    JOB = "job"
    UPLOAD = "upload"
    SUBMIT = "submit"


class Action(StrEnum):
    """Name what follows from an error."""

    WAIT = "wait"
    """Try again after a pause, for as long as it takes."""
    RETRY = "retry"
    """Try again after a pause, a few times; then the task fails."""
    FAIL = "fail"
    """Tell the cloud that the task failed."""
    DROP = "drop"
    """Forget the task: the cloud does not want it of this site, or no longer."""


class Reason(StrEnum):
    """Tell the cloud why a task failed: fixed sentences, without any path, name or content."""

    DATA = "the site's data set cannot be used: its own log says why"
    NO_LABELS = "the site's images have no labels: start the cycle with --labels oracle, or see the site's own log"
    DOWNLOAD = "a model or coreset of the task could not be fetched and verified"
    CLASSES = "a class name of the site cannot be used as it is: its own log says which, and how to decide"
    NO_ROOM = "the site's disk is full"
    NO_ROOM_IN_CLOUD = "the cloud has no room for the gap"
    JOB = "the work at the site failed: its own log says why"
    JOB_INPUT = "the site cannot work with the models, the recipe or the data of this task: its own log says why"
    REFUSED = "the cloud refused what the site worked out"
    TASK = "the task itself is not usable"
    CONSENT = "the site does not agree to this"


def action_for(stage: Stage | None, error: Exception) -> Action:
    """Return what follows from an error.

    Args:
        stage: Where it was met; None outside all stages, where the cloud is told about the task itself or the journal
            is written.
        error: The error.
    """
    match stage, error:
        case _, Unreachable():  # or RemoteFailure: the cloud failed at it, which says nothing about the task
            return Action.WAIT
        case None, WrongState() | NotFound() | Refused() | InvalidInput():
            return Action.DROP
        case None, _:
            return Action.WAIT
        case ((Stage.DOWNLOAD | Stage.CLASSES | Stage.UPLOAD | Stage.SUBMIT), CorruptData()):
            return Action.RETRY  # bytes were damaged on their way, or where they lay
        case _:
            return Action.FAIL


def reason_for(stage: Stage, error: Exception) -> Reason:
    """Return the sentence for an error; its own message stays in the local log."""
    match stage, error:
        case _, NoLabels():
            return Reason.NO_LABELS
        case _, DatasetError():
            return Reason.DATA
        case ((Stage.UPLOAD | Stage.SUBMIT), NoRoom()):
            return Reason.NO_ROOM_IN_CLOUD
        case _, NoRoom():
            return Reason.NO_ROOM
        case Stage.DATA, DirediError():
            return Reason.DATA
        case Stage.DOWNLOAD, DirediError():
            return Reason.DOWNLOAD
        case Stage.CLASSES, DirediError():
            return Reason.CLASSES
        case ((Stage.UPLOAD | Stage.SUBMIT), DirediError()):
            return Reason.REFUSED
        case Stage.JOB, (InvalidInput() | CorruptData() | NotFound() | WrongState()):
            return Reason.JOB_INPUT
        case _:
            return Reason.JOB

"""What the cloud hears when a task fails: one of these sentences, without any path, name or content."""

from __future__ import annotations

from enum import StrEnum

from diredi.errors import CorruptData, DatasetError, DirediError, InvalidInput, NoRoom, NotFound, WrongState


class Stage(StrEnum):
    """Which part of a task failed."""

    DATA = "data"
    DOWNLOAD = "download"
    CLASSES = "classes"
    JOB = "job"
    UPLOAD = "upload"
    SUBMIT = "submit"


class Reason(StrEnum):
    DATA = "the site's data set cannot be used: its own log says why"
    DOWNLOAD = "a model or coreset of the task could not be fetched and verified"
    CLASSES = "the cloud refused the site's class names"
    NO_ROOM = "the site's disk is full"
    NO_ROOM_IN_CLOUD = "the cloud has no room for the gap"
    JOB = "the work at the site failed: its own log says why"
    JOB_INPUT = "the site cannot work with the models, the recipe or the data of this task: its own log says why"
    REFUSED = "the cloud refused what the site worked out"
    TASK = "the task itself is not usable"


def reason_for(stage: Stage, error: DirediError) -> Reason:
    """The sentence for an error; its own message stays in the local log."""
    match stage, error:
        case _, DatasetError():
            return Reason.DATA
        case ((Stage.UPLOAD | Stage.SUBMIT), NoRoom()):
            return Reason.NO_ROOM_IN_CLOUD
        case _, NoRoom():
            return Reason.NO_ROOM
        case Stage.DATA, _:
            return Reason.DATA
        case Stage.DOWNLOAD, _:
            return Reason.DOWNLOAD
        case Stage.CLASSES, _:
            return Reason.CLASSES
        case ((Stage.UPLOAD | Stage.SUBMIT), _):
            return Reason.REFUSED
        case Stage.JOB, (InvalidInput() | CorruptData() | NotFound() | WrongState()):
            return Reason.JOB_INPUT
        case _:
            return Reason.JOB

"""What the cloud's jobs leave behind, validated before a word of it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from diredi.errors import CorruptData
from diredi.evaluation.metrics import DetectionMetrics

_Result = TypeVar("_Result", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class File(_Part):
    path: Path
    digest: str
    bytes: int


class Applied(_Part):
    weights: Path
    digest: str
    bytes: int
    before: DetectionMetrics
    after: DetectionMetrics

    def to_record(self) -> dict[str, Any]:
        """For the record: both figures, and whatever else the job says of its choices and its time."""
        return self.model_dump(mode="json", exclude={"weights", "digest", "bytes", "onnx"})


class Redistilled(Applied):
    onnx: File


class FirstModel(_Part):
    weights: Path
    digest: str
    bytes: int
    architecture: str
    figures: DetectionMetrics
    onnx: File | None = None


class Bootstrapped(_Part):
    teacher: FirstModel | None = None
    tutor: FirstModel
    student: FirstModel
    coreset: File | None = None
    seconds: Any = None


def parse_result(kind: type[_Result], result: dict[str, Any]) -> _Result:
    """Raises CorruptData when the job left something else."""
    try:
        return kind.model_validate(result)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CorruptData(f"the result of a job is not usable at {where} ({first['msg']}): see the job's log") from None

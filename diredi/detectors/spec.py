"""What a detector is, without its weights; readable without torch."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diredi.errors import CorruptData
from diredi.labels import LabelSpace
from diredi.store.weights import read_metadata

_KEY = "diredi.spec"


class DetectorSpec(BaseModel):
    """Architecture, input size and label space: enough to build the network that a `WeightMap` belongs to.

    `architecture` is a name of a detector family: "yolo11n", "yolo26m", "yolov8s", or a width below n for small boards,
    "yolo11-w0.125" (width 0.125, depth 0.50) or "yolo11-w0.125-d0.33". "-gn" at its end: group norm for batch norm.
    """

    model_config = ConfigDict(frozen=True)

    architecture: str
    image_size: int = Field(ge=32, le=2048, multiple_of=32)
    labels: LabelSpace

    def to_metadata(self) -> dict[str, str]:
        """For the header of the safetensors file, which so describes itself."""
        return {_KEY: self.model_dump_json()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> DetectorSpec:
        """Read the specification from the metadata of a file that holds a detector.

        Args:
            metadata: What `to_metadata` returned, as the file keeps it.

        Returns:
            The specification.

        Raises:
            CorruptData: The metadata are not those of a detector.
        """
        try:
            return cls.model_validate(json.loads(metadata[_KEY]))
        except (KeyError, ValueError, ValidationError):
            raise CorruptData("the file does not say which detector it belongs to: it is not one of DiReDi's") from None

    @classmethod
    def of_file(cls, path: Path) -> DetectorSpec:
        """Raises CorruptData when `path` is not a safetensors file of DiReDi's."""
        return cls.from_metadata(read_metadata(path))

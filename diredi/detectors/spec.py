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
    """Name of the architecture."""
    image_size: int = Field(ge=32, le=2048, multiple_of=32)
    """Side of the square input in pixels."""
    labels: LabelSpace
    """Class names in the order of their ids."""

    def to_metadata(self) -> dict[str, str]:
        """Return the header of the safetensors file, which so describes itself."""
        return {_KEY: self.model_dump_json()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> DetectorSpec:
        """Read the specification from the header of a file.

        Args:
            metadata: The header's strings.

        Raises:
            CorruptData: The header is none of DiReDi's.
        """
        try:
            return cls.model_validate(json.loads(metadata[_KEY]))
        except (KeyError, ValueError, ValidationError):
            raise CorruptData("the file does not say which detector it belongs to: it is not one of DiReDi's") from None

    @classmethod
    def of_file(cls, path: Path) -> DetectorSpec:
        """Read the specification of a safetensors file, without its weights and without torch.

        Args:
            path: The file.

        Raises:
            CorruptData: It is no safetensors file of DiReDi's.
        """
        return cls.from_metadata(read_metadata(path))

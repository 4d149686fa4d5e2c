"""The detector families by name, and what they call their weights. Needs no torch, so that a server may ask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from diredi.errors import InvalidInput

BRANCHES: Final = "branches"
"""Before the names of a branch's weights: "branches.0.model.22.cv2.0.0.conv.weight"."""
ROUTER: Final = "router"
"""Before those of its router's, which has a weight for each channel of the backbone's last map, and a bias."""
_BRANCH: Final = re.compile(rf"{BRANCHES}\.\d+\.")


@dataclass(frozen=True)
class Family:
    """Where to find a family's networks, and patterns of the names of their weights."""

    module: str
    """What has `create(spec, seed, device)`; imported when it is asked for."""
    backbone: str
    """How the names of the backbone's weights begin."""
    head: str
    """How those of the head's begin. What is neither belongs to the neck."""
    class_rows: str
    """How those of weights begin whose rows (axis 0) are the classes."""
    last_map: str
    """A weight of the backbone that has a row (axis 0) for each channel of its last map."""

    def section_of(self, name: str) -> str:
        """Return "backbone", "neck" or "head" for the name of a weight, a branch's among them."""
        name = _within_part(name)
        if re.match(self.backbone, name):
            return "backbone"
        return "head" if re.match(self.head, name) else "neck"

    def has_class_rows(self, name: str) -> bool:
        """Return whether the weight of a name, a branch's among them, has one row for each class."""
        return re.match(self.class_rows, _within_part(name)) is not None


_ULTRALYTICS: Final = "diredi.detectors.ultralytics_family"
_SPPF: Final = "model.9.cv2.conv.weight"

FAMILIES: Final[dict[str, Family]] = {
    r"yolov8([nsmlx]|-w).*": Family(_ULTRALYTICS, r"model\.\d\.", r"model\.22\.", r"model\.22\.cv3\.\d\.2\.", _SPPF),
    r"yolo11([nsmlx]|-w).*": Family(
        _ULTRALYTICS, r"model\.(\d|10)\.", r"model\.23\.", r"model\.23\.cv3\.\d\.2\.", _SPPF
    ),
    r"yolo26([nsmlx]|-w).*": Family(
        _ULTRALYTICS, r"model\.(\d|10)\.", r"model\.23\.", r"model\.23\.(one2one_)?cv3\.\d\.2\.", _SPPF
    ),
    r"libreyolo9.*": Family(
        "diredi.detectors.libreyolo_family",
        r"backbone\.",
        r"head\.",
        r"head\.cv3\.\d\.2\.",
        "backbone.spp.cv5.conv.weight",
    ),
}
"""Pattern of architecture names to the family that has them."""


def family_of(architecture: str) -> Family:
    """Return the family of an architecture.

    Raises:
        InvalidInput: No family has such a name.
    """
    for pattern, family in FAMILIES.items():
        if re.fullmatch(pattern, architecture):
            return family
    raise InvalidInput(
        f"architecture {architecture!r} is not known: name one such as yolo11n, yolo26s, yolov8m, yolo11-w0.125 or "
        "libreyolo9t"
    )


def _within_part(name: str) -> str:
    match = _BRANCH.match(name)
    return name[match.end() :] if match else name

"""The MQTT topics of a node (docs/reference/outputs.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from diredi.labels import LabelSpace


@dataclass(frozen=True)
class Topics:
    """Name the topics of a node; all begin with `<root>/<site>/<device>`."""

    root: str
    site: str
    device: str

    def _of(self, name: str) -> str:
        return f"{self.root}/{self.site}/{self.device}/{name}"

    @property
    def availability(self) -> str:
        """`online` or `offline`."""
        return self._of("availability")

    @property
    def status(self) -> str:
        """How the node is, as JSON."""
        return self._of("status")

    @property
    def problem(self) -> str:
        """`ON` or `OFF`."""
        return self._of("problem")

    @property
    def update(self) -> str:
        """The installed and the latest release, as JSON."""
        return self._of("update")

    @property
    def event(self) -> str:
        """Beginnings, updates and ends of objects, as JSON."""
        return self._of("event")

    def picture(self, camera: str) -> str:
        """Pictures of a camera with boxes, as JPEG."""
        return self._of(f"camera/{camera}/picture")

    def detections(self, camera: str) -> str:
        """What was found in each frame of a camera, as JSON."""
        return self._of(f"camera/{camera}/detections")

    def count(self, camera: str, zone: str, labels: LabelSpace, class_id: int) -> str:
        """The number of objects of a class in a zone of a camera."""
        return self._of(f"camera/{camera}/count/{zone}/{class_levels(labels.names)[class_id]}")


@lru_cache(maxsize=8)
def class_levels(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return what stands for each class in a topic: its name in small letters, with `_` for what is no letter or digit.

    Args:
        names: The names of the classes.

    Returns:
        One for each, no two alike: the id is added where two would be, and where a name ends like that.

    Examples:
        >>> class_levels(("Fork lift", "a/b", "a+b"))
        ('fork_lift', 'a_b_1', 'a_b_2')
    """
    plain = [re.sub(r"\W+", "_", name.lower()).strip("_") for name in names]
    return tuple(
        f"{level or 'class'}_{class_id}" if plain.count(level) > 1 or re.search(r"(^|_)\d*$", level) else level
        for class_id, level in enumerate(plain)
    )

"""The results of a demo: the contents of `report.json`, from which the table and the page are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from diredi.evaluation.metrics import DetectionMetrics
from diredi.store.files import atomic_write


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class StepTaken(_Part):
    """One transition of the cycle: when, who, why."""

    state: str
    at: str  # ISO 8601, UTC
    actor: str
    reason: str = ""
    metrics: dict[str, Any] = {}


class CycleSummary(_Part):
    """The cycle of the demo."""

    id: str
    site: str
    state: str
    history: tuple[StepTaken, ...] = ()
    recipe: dict[str, Any] = {}


class Pair(_Part):
    """One release, measured on both held-out sets from the ONNX file that devices run."""

    presumed: DetectionMetrics
    site: DetectionMetrics


class DecisionSummary(_Part):
    """One thing that the site has decided for itself."""

    subject: str
    choice: str
    because: str


class GapSummary(_Part):
    """What the knowledge gap weighs on the wire, beside the model that it updates."""

    bytes: int
    tutor_fp32_bytes: int
    codec: str = ""
    student_bytes: int = 0  # the student-sized gap, 0 for none
    student_fp32_bytes: int = 0
    decisions: tuple[DecisionSummary, ...] = ()


class DataSummary(_Part):
    """One data set by counts; `source` is "built-in scenes" or the path the user gave."""

    source: str
    train_images: int
    held_out_images: int
    bytes: int


class ModelSummary(_Part):
    """One model by its architecture and size."""

    architecture: str
    weights_bytes: int


class DeviceSummary(_Part):
    """One edge node and what it runs."""

    name: str
    release: int
    frames: int = 0
    dropped_frames: int = 0
    frames_per_second: float = 0.0
    latency_ms: float = 0.0


class Span(_Part):
    """One step on the clock; `start` is seconds since the demo began."""

    name: str
    start: float
    seconds: float
    part_of: Literal["set-up", "cycle", "after"] = "cycle"


class Box(_Part):
    """x1, y1, x2, y2 in pixels of the picture."""

    box: tuple[float, float, float, float]
    name: str
    confidence: float = 1.0


class Picture(_Part):
    """A held-out image with what each release sees in it. Never of a user's own private data."""

    origin: Literal["presumed", "site"]
    jpeg_base64: str
    width: int
    height: int
    truth: tuple[Box, ...]
    before: tuple[Box, ...]
    after: tuple[Box, ...]


class Report(_Part):
    """Everything a demo reports. The pictures go into the page only."""

    diredi: str
    made: str
    command: str
    machine: str
    cycle: CycleSummary
    before: Pair
    after: Pair
    estimate: tuple[DetectionMetrics, DetectionMetrics] | None = None
    """What the site said of both releases on its held-out images, where an oracle was all that it could judge by."""
    left_out: tuple[str, ...] = ()
    """Classes of the site that no release knows: none of the figures counts them."""
    new_classes: tuple[str, ...]
    labels: tuple[str, ...]
    gap: GapSummary
    egress: dict[str, int]
    egress_by_sender: dict[str, dict[str, int]] = {}
    private_bytes: int
    seconds: dict[str, float]
    spans: tuple[Span, ...] = ()
    releases: dict[str, int]
    before_version: int = 1
    after_version: int = 2
    devices: tuple[DeviceSummary, ...] = ()
    models: dict[str, ModelSummary] = {}
    data: dict[str, DataSummary] = {}
    built_in_scenes: bool = True
    pictures: tuple[Picture, ...] = Field(default=(), exclude=True)

    @property
    def bytes_left(self) -> int:
        """Return the bytes that left the site on the wire."""
        return sum(self.egress.values())

    @property
    def told_classes(self) -> tuple[str, ...]:
        """Return the classes of which there is something to tell, new ones first.

        These are the ones that the site's images show, and those that changed on the manufacturer's.
        """
        told = [name for name in self.labels if name in self.after.site.per_class or self._changed(name)]
        return (*self.new_classes, *(name for name in told if name not in self.new_classes))

    @property
    def unchanged_classes(self) -> int:
        """Return how many other classes the manufacturer's images show."""
        return len(set(self.after.presumed.per_class) - set(self.told_classes))

    def _changed(self, name: str) -> bool:
        sides = [side.presumed.per_class.get(name) for side in (self.before, self.after)]
        values = [0.0 if one is None else one.ap50 for one in sides]
        return round(100 * abs(values[1] - values[0]), 1) > 0

    def points(self, where: Literal["presumed", "site"]) -> float:
        """Return how many points of mAP50 the new release gained on a set."""
        after, before = getattr(self.after, where), getattr(self.before, where)
        return 100 * float(after.map50 - before.map50)

    def most_forgotten(self) -> tuple[str, float] | None:
        """Return the class that lost most AP50 on presumed data and its loss in points, or None if none lost any."""
        losses = {
            name: 100 * (metrics.ap50 - self.after.presumed.per_class[name].ap50)
            for name, metrics in self.before.presumed.per_class.items()
            if name in self.after.presumed.per_class
        }
        name = max(losses, key=lambda name: losses[name], default=None)
        return (name, losses[name]) if name is not None and losses[name] > 0 else None

    def write(self, path: Path) -> None:
        """Write report.json, complete or not at all."""
        atomic_write(path, self.model_dump_json(indent=2) + "\n", durable=False)

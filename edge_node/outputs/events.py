"""Events: an object comes into a camera's picture, stays in it, and leaves it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import cv2
import numpy as np

from diredi.labels import LabelSpace
from edge_node.camera import Camera
from edge_node.inference import Broadcast, Result
from edge_node.outputs.tracker import Track, Tracker
from edge_node.sources.reference import Zone

ALL = "all"
"""The zone that is the whole picture."""
RECENT = 500
"""How many events are remembered."""
UPDATE_S = 5.0
"""The time between two updates of an object that changes no zone."""
SILENT_S = 30.0
"""After so long without a frame to look at, the objects of a camera end: nobody knows whether they are still there."""

Json = dict[str, object]


@dataclass(frozen=True)
class Event:
    """Hold what is said of an object at one moment."""

    type: Literal["begin", "update", "end"]
    id: str
    """The same for all events of an object; never used again, also not after a restart."""
    device: str
    site: str
    camera: str
    class_name: str
    class_id: int
    confidence: float
    best_confidence: float
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the picture."""
    picture: tuple[int, int]
    """Width and height of the picture."""
    zones: tuple[str, ...]
    """Where the object is."""
    entered_zones: tuple[str, ...]
    """Where it has been, in this order."""
    began_s: float
    """When it was seen first, in seconds since 1970."""
    seen_s: float
    """When it was seen last, in seconds since 1970."""
    release: int

    def to_json(self) -> Json:
        """Return the event as it is published (docs/reference/outputs.md)."""
        return {
            "type": self.type,
            "id": self.id,
            "device": self.device,
            "site": self.site,
            "camera": self.camera,
            "class": self.class_name,
            "class_id": self.class_id,
            "confidence": round(self.confidence, 4),
            "best_confidence": round(self.best_confidence, 4),
            "box": [round(value, 1) for value in self.box],
            "picture": list(self.picture),
            "zones": list(self.zones),
            "entered_zones": list(self.entered_zones),
            "began": time_text(self.began_s),
            "seen": time_text(self.seen_s),
            "release": self.release,
        }


def time_text(seconds: float) -> str:
    """Return a time in ISO form, in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


@dataclass
class _Object:
    """What is remembered of an object that has begun."""

    last: Event
    updated_s: float


@dataclass
class Scene:
    """Hold what one camera sees.

    Attributes:
        zones: Its zones.
        tracker: Follows its objects.
        objects: The objects that have begun, by the number of the track.
        result: The last frame that was looked at; None before the first.
        looked_s: When that was, by the feed's clock.
    """

    zones: Sequence[Zone]
    tracker: Tracker = field(default_factory=Tracker)
    objects: dict[int, _Object] = field(default_factory=dict)
    result: Result | None = None
    looked_s: float = 0.0

    def counts(self) -> Counter[tuple[str, int]]:
        """Return the number of objects by zone, ALL for the whole picture, and class id."""
        found: Counter[tuple[str, int]] = Counter()
        for item in self.objects.values():
            found.update((zone, item.last.class_id) for zone in (ALL, *item.last.zones))
        return found


class EventFeed:
    """Turn results into events, for any number of listeners in the event loop."""

    def __init__(
        self,
        device: str,
        site: str,
        cameras: Sequence[Camera],
        broadcast: Broadcast,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a feed.

        Args:
            device: Name of this device.
            site: The site that it stands at.
            cameras: Whose results are to come.
            broadcast: Gives them.
            clock: Returns seconds that never go back.
        """
        self._device, self._site, self._broadcast, self._clock = device, site, broadcast, clock
        self._run = secrets.token_hex(4)
        self.scenes = {camera.name: Scene(camera.settings.zone) for camera in cameras}
        self._wanted = {
            camera.name: {*camera.settings.classes, *(name for zone in camera.settings.zone for name in zone.classes)}
            for camera in cameras
        }
        self.recent: deque[Event] = deque(maxlen=RECENT)
        self.on_event: list[Callable[[Event], None]] = []
        """Called with each event, in order."""
        self.on_result: list[Callable[[Result], None]] = []
        """Called with each result, after its events."""
        self.labels = LabelSpace(names=())
        """The label space of the release that detected last."""

    @property
    def problem(self) -> str:
        """Which classes cameras want that the release does not know; empty for none."""
        missing = [
            f"camera {camera} is to report {', '.join(sorted(unknown))}, which the release does not know"
            for camera, wanted in self._wanted.items()
            if self.labels.names and (unknown := wanted - set(self.labels.names))
        ]
        return "; ".join(missing)

    def metrics(self) -> tuple[()]:
        """Return no figures of its own."""
        return ()

    async def run(self) -> None:
        """Follow the results until there are no more; then, and when this is cancelled, all objects end."""
        ticking = asyncio.ensure_future(self._end_silent_for_ever())
        try:
            async for result in self._broadcast.results():
                self.take(result)
        finally:
            ticking.cancel()
            for scene in self.scenes.values():
                self._end_all(scene)

    def take(self, result: Result) -> None:
        """Take in a result."""
        now_s, scene = self._clock(), self.scenes[result.camera]
        self.labels = result.model.release.labels
        scene.result, scene.looked_s = result, now_s
        changes = scene.tracker.update(result.detections, now_s)
        for track in changes.begun:
            self._say("begin", scene, track, now_s)
        for track in changes.found:
            self._say("update", scene, track, now_s)
        for track in changes.ended:
            self._end(scene, track)
        for listener in self.on_result:
            listener(result)

    async def _end_silent_for_ever(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.end_silent()

    def end_silent(self) -> None:
        """End the objects of cameras that have given no frame to look at for SILENT_S."""
        for scene in self.scenes.values():
            if scene.objects and self._clock() - scene.looked_s > SILENT_S:
                self._end_all(scene)

    def _end_all(self, scene: Scene) -> None:
        for track in scene.tracker.end_all():
            self._end(scene, track)

    def _say(self, kind: Literal["begin", "update"], scene: Scene, track: Track, now_s: float) -> None:
        """Publish a beginning, or an update if there is something new; note where the object is in either case."""
        assert scene.result is not None
        known = scene.objects.get(track.number)
        height, width = scene.result.image.shape[:2]
        names = scene.result.model.release.labels.names
        zones = tuple(zones_of(track, scene.zones, (width, height), names[track.class_id]))
        entered = known.last.entered_zones if known else ()
        event = Event(
            type=kind, id=known.last.id if known else f"{self._run}-{scene.result.number}-{track.number}",
            device=self._device, site=self._site, camera=scene.result.camera,
            class_name=names[track.class_id], class_id=track.class_id,
            confidence=track.score, best_confidence=track.best_score,
            box=(float(track.box[0]), float(track.box[1]), float(track.box[2]), float(track.box[3])),
            picture=(width, height),
            zones=zones, entered_zones=(*entered, *(zone for zone in zones if zone not in entered)),
            began_s=known.last.began_s if known else scene.result.captured_s - (now_s - track.first_s),
            seen_s=scene.result.captured_s, release=scene.result.model.release.version,
        )  # fmt: skip
        is_due = known is None or known.last.zones != zones or now_s - known.updated_s >= UPDATE_S
        scene.objects[track.number] = _Object(event, now_s if known is None or is_due else known.updated_s)
        if is_due:
            self._publish(event)

    def _end(self, scene: Scene, track: Track) -> None:
        last = scene.objects.pop(track.number).last
        self._publish(replace(last, type="end", zones=()))

    def _publish(self, event: Event) -> None:
        self.recent.append(event)
        for listener in self.on_event:
            listener(event)


def zones_of(track: Track, zones: Sequence[Zone], size: tuple[int, int], class_name: str) -> Iterator[str]:
    """Yield the names of the zones that an object stands in: the middle of the lower edge of its box does.

    Args:
        track: The object.
        zones: Zones of the camera.
        size: Width and height of the picture.
        class_name: The object's class.
    """
    x1, _, x2, y2 = track.box
    foot = (float(x1 + x2) / 2, float(y2))
    for zone in zones:
        corners = (np.array(zone.corners).reshape(-1, 2) * size).astype(np.float32)
        if (not zone.classes or class_name in zone.classes) and cv2.pointPolygonTest(corners, foot, False) >= 0:
            yield zone.name

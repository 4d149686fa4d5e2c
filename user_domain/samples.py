"""Stores the frames that edge nodes hand over, and what people at the site label on them. They are never sent on.

    store = SampleStore(Path("state/samples"), max_samples=10_000)
    for info in store.find(order="doubtful", labelled=False, limit=20):
        jpeg, media_type = store.image(info.id)
        store.set_labels(info.id, [Box(name="forklift", x=0.5, y=0.6, width=0.2, height=0.3)], by="alice")
    store.export(Path("labelled"))                       # a data set in YOLO format

Every method may be called from any thread. A sample is an image `FOLDER/<id>.jpg` or `.png` beside `<id>.json`, which
is written first, so that a process that is killed leaves no half of one.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, model_validator

from diredi.data.images import decode_image
from diredi.data.sample_reason import SampleReason
from diredi.errors import InvalidInput, NoRoom, NotFound, WrongState
from diredi.labels import ClassName, LabelSpace
from diredi.store.files import atomic_write, make_folder, sync_folder
from user_domain.labelled_samples import write_data_set

MAX_IMAGE_BYTES = 8 * 2**20
MAX_BOXES: Final = 1000
"""An image has no more labels, and no more detections of an image are kept."""
HALF_LIFE: Final = timedelta(days=7)
"""After such a time a sample is worth half as much as a new one with the same doubt, where room has to be made."""
Order = Literal["newest", "doubtful"]

_MEDIA_TYPES = {".jpg": "image/jpeg", ".png": "image/png"}
_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}
_LEAST_DOUBT: Final = 0.01
_ROUNDING: Final = 0.001
"""By how much of the image a box may reach beyond its edge, where somebody has rounded; it is cut off there."""

Share = Annotated[float, Field(ge=0, le=1)]
Label = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")]


class Box(BaseModel):
    """A box with its class, as a label file has it: the centre and the size as shares of the image, 0 to 1."""

    model_config = ConfigDict(frozen=True)

    name: ClassName
    """The class."""
    x: float = Field(ge=0, le=1)
    """The centre, from the left edge."""
    y: float = Field(ge=0, le=1)
    """The centre, from the upper edge."""
    width: float = Field(gt=0, le=1 + _ROUNDING)
    height: float = Field(gt=0, le=1 + _ROUNDING)

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if not self.name.isprintable():
            raise ValueError(f"class name {self.name!r} has characters that cannot be printed")
        for centre, size in ((self.x, self.width), (self.y, self.height)):
            if centre - size / 2 < -_ROUNDING or centre + size / 2 > 1 + _ROUNDING:
                raise ValueError(f"the box of {self.name!r} reaches beyond the edge of the image")
        return self


class DetectedBox(Box):
    """A box that the release of an edge node has found."""

    confidence: Share


class Sighting(BaseModel):
    """What an edge node says of a frame that it hands over."""

    model_config = ConfigDict(frozen=True)

    device: Label
    camera: Label = ""
    """Which camera of the device; the only one of a device has its name."""
    captured: datetime | None = None
    """When the frame was taken; None where the node does not say, and the time of its arrival counts."""
    detections: tuple[DetectedBox, ...] = Field(default=(), max_length=MAX_BOXES)
    """What the node's release has found, the most confident first."""
    release: int = Field(default=0, ge=0)
    """The version of that release; 0: not told."""
    reasons: tuple[SampleReason, ...] = ()
    """Why the node has picked this frame."""
    doubt: Share = 0.0
    """How much a label may teach, 0 to 1, by the node."""


class SampleInfo(Sighting):
    """All that is known of a sample beside its image."""

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the encoded image, in hexadecimal."""
    received: datetime
    """When it was handed over."""
    width: int = 0
    """Of the image, in pixels; 0: not known."""
    height: int = 0
    labels: tuple[Box, ...] | None = None
    """What somebody has labelled. None: nobody has yet. Empty: somebody has said that the image shows nothing."""
    labelled: datetime | None = None
    """When."""
    labelled_by: str = Field(default="", max_length=128)
    """Who."""

    @property
    def taken(self) -> datetime:
        """When the frame was taken, or, where the node does not say, when it arrived."""
        return self.captured or self.received

    @property
    def worth(self) -> float:
        """How much it is worth to keep: more with more doubt, and less with age. Only to be compared."""
        return math.log2(max(self.doubt, _LEAST_DOUBT)) + self.received.timestamp() / HALF_LIFE.total_seconds()


class SampleStore:
    """Store samples, up to a number, a size and an age. Those that are labelled stay until somebody discards them."""

    def __init__(
        self, folder: Path, max_samples: int, *, max_bytes: int | None = None, max_age: timedelta | None = None
    ) -> None:
        """Read what is in a folder.

        Args:
            folder: Where the samples lie; made if there is none.
            max_samples: How many there may be, labelled ones included.
            max_bytes: How much their images may take together; None: as much as there is.
            max_age: After how long one is deleted that nobody has labelled; None: never.
        """
        self._folder = folder
        self._max_samples = max_samples
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._lock = threading.RLock()
        self._samples: dict[str, SampleInfo] = {}
        self._files: dict[str, tuple[Path, int]] = {}
        self._bytes = 0
        self._gone: set[str] = set()
        make_folder(folder)
        for path in folder.iterdir():
            size = path.stat().st_size if path.suffix in _MEDIA_TYPES else 0
            if size and len(path.stem) == 64:  # an empty one may be stored again
                self._remember(_read_info(path), path, size)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def image_bytes(self) -> int:
        """How much the images take together."""
        return self._bytes

    def count(self, *, labelled: bool | None = None) -> int:
        """Return the number of samples, of those with or without labels, or of all (None)."""
        with self._lock:
            return sum(labelled in (None, info.labels is not None) for info in self._samples.values())

    def find(
        self,
        *,
        order: Order = "newest",
        labelled: bool | None = None,
        device: str | None = None,
        camera: str | None = None,
        reason: SampleReason | None = None,
        name: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[SampleInfo]:
        """List samples.

        Args:
            order: "newest" begins with those that were taken last, "doubtful" with those that may teach most.
            labelled: Only those with labels, or without; None for both.
            device: Only those of a device.
            camera: Only those of a camera.
            reason: Only those that were picked for a reason.
            name: Only those on which a class was detected or labelled.
            limit: How many at most; None for all.
            offset: How many to pass over, for the next page.
        """
        self.delete_old()
        with self._lock:
            found = [
                info
                for info in self._samples.values()
                if labelled in (None, info.labels is not None)
                and device in (None, info.device)
                and camera in (None, info.camera)
                and (reason is None or reason in info.reasons)
                and (name is None or any(box.name == name for box in (*info.detections, *(info.labels or ()))))
            ]
        found.sort(key=lambda info: (info.doubt if order == "doubtful" else 0, info.taken, info.id), reverse=True)
        return found[offset : None if limit is None else offset + limit]

    def has(self, sample_id: str) -> bool:
        """Return whether there is such a sample."""
        return sample_id in self._samples

    def get(self, sample_id: str) -> SampleInfo:
        """Return all that is known of a sample. Raises NotFound."""
        with self._lock:
            if sample_id not in self._samples:
                raise NotFound(f"there is no sample {sample_id[:64]!r} here: list them anew, it may have been deleted")
            return self._samples[sample_id]

    def image(self, sample_id: str) -> tuple[bytes, str]:
        """Return the encoded image of a sample and its media type, "image/jpeg" or "image/png". Raises NotFound."""
        path = self.image_path(sample_id)
        try:
            return path.read_bytes(), _MEDIA_TYPES[path.suffix]
        except OSError:
            raise NotFound(f"the image of sample {sample_id} is gone: discard it") from None

    def image_path(self, sample_id: str) -> Path:
        """Return the file of a sample's image. Raises NotFound."""
        with self._lock:
            self.get(sample_id)
            return self._files[sample_id][0]

    def names(self) -> list[str]:
        """Return the classes that were detected or labelled on any sample, sorted: what a page may propose."""
        with self._lock:
            infos = list(self._samples.values())
        return sorted({box.name for info in infos for box in (*info.detections, *(info.labels or ()))})

    def add(self, image: bytes, sighting: Sighting, *, labels: Sequence[Box] | None = None, by: str = "") -> bool:
        """Store an encoded image. Where there is no room, the least worthy sample without labels makes it.

        Args:
            image: JPEG or PNG, at most MAX_IMAGE_BYTES.
            sighting: What the node says of it.
            labels: All objects on it, where somebody has labelled it already.
            by: Who has.

        Returns:
            False if it is there already, is worth less than all that is there, or was deleted for good.

        Raises:
            InvalidInput: It is no JPEG or PNG image, or too large.
            NoRoom: The store is full of labelled samples, or the disk is full.
        """
        if len(image) > MAX_IMAGE_BYTES:
            raise InvalidInput(f"the image has {len(image)} bytes, more than {MAX_IMAGE_BYTES}: send it smaller")
        suffix = next((suffix for magic, suffix in _MAGIC.items() if image.startswith(magic)), None)
        if suffix is None:
            raise InvalidInput(f"these {len(image)} bytes are neither JPEG nor PNG: encode the frame as one of them")
        height, width = decode_image(image).shape[:2]
        info = SampleInfo(
            **dict(sighting), id=hashlib.sha256(image).hexdigest(), received=datetime.now(UTC), width=width,
            height=height, **({} if labels is None else _labelled(labels, by)),
        )  # fmt: skip
        with self._lock:
            self.delete_old()
            if info.id in self._samples or info.id in self._gone or not self._make_room(info, len(image)):
                return False
            path = self._folder / f"{info.id}{suffix}"
            self._write(info)
            atomic_write(path, image)
            self._remember(info, path, len(image))
        return True

    def set_labels(self, sample_id: str, labels: Sequence[Box], *, by: str = "") -> SampleInfo:
        """Set what a sample shows, in place of what was labelled before.

        Args:
            sample_id: The sample.
            labels: All objects on it; none says that it shows nothing.
            by: Who says so.

        Returns:
            The sample with its labels.

        Raises:
            NotFound: There is no such sample.
            InvalidInput: There are too many labels, or a class name cannot be used.
            NoRoom: The disk is full; what was labelled before stays.
        """
        return self._change(sample_id, **_labelled(labels, by))

    def clear_labels(self, sample_id: str) -> SampleInfo:
        """Take the labels of a sample back, as if nobody had labelled it. Raises NotFound and NoRoom."""
        return self._change(sample_id, labels=None, labelled=None, labelled_by="")

    def delete_for_good(self, sample_ids: Iterable[str]) -> None:
        """Delete samples, also what a killed process has left of them, and never take their images again.

        Args:
            sample_ids: Digests of images; there need be no such sample.

        Raises:
            WrongState: A file cannot be deleted; all others are.
        """
        left: list[str] = []
        with self._lock:
            for sample_id in sample_ids:
                self._gone.add(sample_id)
                if sample_id in self._samples:
                    self._delete(sample_id)
                for file in (self._folder / f"{sample_id}{suffix}" for suffix in (*_MEDIA_TYPES, ".json")):
                    try:
                        file.unlink(missing_ok=True)
                    except OSError as error:
                        left.append(f"{file} ({error.strerror})")
        sync_folder(self._folder)
        if left:
            raise WrongState(f"{left[0]} and {len(left) - 1} others cannot be deleted: make this user their owner")

    def was_deleted(self, sample_id: str) -> bool:
        """Return whether an image was deleted for good."""
        return sample_id in self._gone

    def delete_old(self) -> int:
        """Delete the samples that are older than the site keeps them and have no labels; return their number."""
        if self._max_age is None:
            return 0
        oldest = datetime.now(UTC) - self._max_age
        with self._lock:
            old = [info.id for info in self._unlabelled() if info.received < oldest]
            for sample_id in old:
                self._delete(sample_id)
        return len(old)

    def export(self, folder: Path, *, held_out: float = 0.2, beside: Path | None = None) -> Path | None:
        """Write the labelled samples as a data set in YOLO format; images are links where the disk allows.

        They are split by time and not at random: frames of one hour are too much alike to measure on one what another
        has taught.

        Args:
            folder: Where; what is there is replaced. One folder for each call that is still in use.
            held_out: Which share of each camera's samples, the newest, goes to `val`; 0 to 1.
            beside: The data.yaml of another data set. The new one then names the images of both, and has the classes
                of `beside` first, with their ids. None: the samples alone.

        Returns:
            The path of its data.yaml; None, and nothing is written, where no sample is labelled.

        Raises:
            DatasetError: `beside` cannot be read.
            NoRoom: The disk is full.
        """
        with self._lock:
            labelled = [(info, self._files[info.id][0]) for info in self.find(labelled=True)]
            return write_data_set(labelled, folder, held_out=held_out, beside=beside) if labelled else None

    def labels_digest(self) -> str:
        """Return a digest of all labels, which changes when one does; empty where there is none."""
        with self._lock:
            labelled = sorted((info for info in self._samples.values() if info.labels is not None), key=lambda i: i.id)
        said = "".join(info.model_dump_json(include={"id", "labels", "captured", "camera"}) for info in labelled)
        return hashlib.sha256(said.encode()).hexdigest() if said else ""

    def _unlabelled(self) -> Iterable[SampleInfo]:
        return [info for info in self._samples.values() if info.labels is None]

    def _make_room(self, new: SampleInfo, size: int) -> bool:
        """Delete what is worth less than a new sample until it fits; False, and nothing is deleted, where it is not."""
        number, total = len(self._samples) + 1, self._bytes + size
        leaving: list[str] = []
        candidates = sorted(self._unlabelled(), key=lambda info: info.worth)
        while number > self._max_samples or (self._max_bytes is not None and total > self._max_bytes):
            if len(leaving) == len(candidates):
                raise NoRoom(
                    f"this site keeps at most {self._max_samples} samples"
                    + (f" of {self._max_bytes // 2**20} MiB" if self._max_bytes is not None else "")
                    + " and deletes no labelled one: discard some, or raise max_samples and max_samples_mib"
                )
            least = candidates[len(leaving)]
            if least.worth >= new.worth and new.labels is None:
                return False
            leaving.append(least.id)
            number, total = number - 1, total - self._files[least.id][1]
        for sample_id in leaving:
            self._delete(sample_id)
        return True

    def _change(self, sample_id: str, **changes: object) -> SampleInfo:
        with self._lock:
            changed = self.get(sample_id).model_copy(update=changes)
            self._write(changed)
            self._samples[sample_id] = changed
        return changed

    def _write(self, info: SampleInfo) -> None:
        atomic_write(self._folder / f"{info.id}.json", info.model_dump_json())

    def _remember(self, info: SampleInfo, path: Path, size: int) -> None:
        self._samples[info.id] = info
        self._files[info.id] = (path, size)
        self._bytes += size

    def _delete(self, sample_id: str) -> None:
        """Delete the image first: what is left after a kill is no sample."""
        path, size = self._files.pop(sample_id)
        del self._samples[sample_id]
        self._bytes -= size
        for file in (path, path.with_suffix(".json")):
            with suppress(OSError):
                file.unlink()


def _labelled(labels: Sequence[Box], by: str) -> dict[str, Any]:
    """Return the fields that say what somebody has labelled. Raises InvalidInput for what cannot be."""
    if len(labels) > MAX_BOXES:
        raise InvalidInput(f"{len(labels)} labels are more than {MAX_BOXES} of one image: leave some out")
    LabelSpace.of(dict.fromkeys(box.name for box in labels))
    plain = tuple(Box(**box.model_dump(include=set(Box.model_fields))) for box in labels)
    return {"labels": plain, "labelled": datetime.now(UTC), "labelled_by": by[:128]}


def _read_info(image: Path) -> SampleInfo:
    """Read what is known of a stored image; where its JSON file is of an older version or damaged, that is little."""
    arrived = datetime.fromtimestamp(image.stat().st_mtime, UTC)
    file = image.with_suffix(".json")
    try:
        said = json.loads(file.read_bytes())
        return SampleInfo.model_validate({"received": arrived, **said, "id": image.stem})
    except OSError as error:
        problem = str(error.strerror)
    except (ValueError, TypeError) as error:
        problem = str(error).splitlines()[0]
    structlog.get_logger().warning("sample_description_unreadable", path=str(file), why=problem)
    return SampleInfo(id=image.stem, device="", received=arrived)

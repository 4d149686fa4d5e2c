"""The site's overlay over the release that runs: fetched from the user domain, tried, and taken off again.

The updater knows releases only. An overlay comes after it and replaces the loaded release by the same release with the
site's batch-norm statistics, or with 8 bits that the site's images have calibrated, or both. A newer release runs alone
until the site has measured one for it. The cloud is not told.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import numpy as np
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diredi.detectors.predictor import Image, Predictor
from diredi.errors import DirediError, InvalidInput
from diredi.rpc import blobs
from diredi.rpc.client import Channel, call
from diredi.rpc.v1 import overlay_pb2 as pb
from diredi.rpc.v1.overlay_pb2_grpc import OverlayServiceStub
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
from diredi.store.blobs import Blob, digest_of_file, hex_of
from diredi.store.files import atomic_write, read_state
from edge_node.active_model import ActiveModel, LoadedModel, ModelFile, RunningModel, warm_up
from edge_node.runtimes import LEAST_SPEEDUP
from edge_node.shadow import compare
from edge_node.update_states import Digest, InstallableRelease

Quantised = Literal["faster", "always", "never"]
"""When a node runs a file of its site that has 8 bits: if it is faster on this board, always, or never."""
PAIRS: Final = 5
"""So often both files detect on the last frame, by turns, to see which one is faster."""
REPORTED: Final = 0.25


class OverlayRecord(BaseModel):
    """The overlay that runs, as it is remembered for the next start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: Digest
    """Of the release's ONNX file."""
    overlay: Digest
    """Of the statistics."""
    onnx: Digest
    """Of release and overlay as one file."""
    bytes: int = Field(ge=1)
    quantised: bool = False
    """Whether that file has 8 bits."""


class OverlayUpdater:
    """Keep the release that runs under the overlay that the user domain has for it."""

    def __init__(
        self,
        folder: Path,
        active: ActiveModel,
        *,
        load: Callable[[Path], LoadedModel],
        load_release: Callable[[InstallableRelease], RunningModel],
        frame: Callable[[], Image | None],
        every_s: float,
        quantised: Quantised = "faster",
    ) -> None:
        """Make it.

        Args:
            folder: Where the file and the record are kept.
            active: The model that is replaced.
            load: Loads a model file.
            load_release: Loads an installed release, to run it alone again.
            frame: Returns the last live frame; None if there was none.
            every_s: Seconds between two questions.
            quantised: When a file with 8 bits is run.
        """
        self._folder = folder
        self._active = active
        self._load = load
        self._load_release = load_release
        self._frame = frame
        self._every_s = every_s
        self._quantised = quantised
        self._failed: set[str] = set()
        """Overlays that failed on a frame; they are not tried again by this process."""
        self._last_error = ""
        self._log = structlog.get_logger()

    def start_from_disk(self) -> None:
        """Put the overlay of before on the installed release; this needs no user domain."""
        record = read_state(self._record_path, OverlayRecord.model_validate_json)
        current = self._active.current
        if record is None or current is None or current.release.digest != record.release:
            return
        try:
            self._put_on(current, record, None)
            self._active.accept()
        except DirediError as error:  # the release runs alone until the user domain answers
            self._log_problem(error)

    async def run(self, channel: Channel) -> None:
        """Ask for overlays for ever.

        Args:
            channel: The connection to the user domain.
        """
        while True:
            try:
                await self._look(channel)
                self._last_error = ""
            except DirediError as error:
                self._log_problem(error)
            await asyncio.sleep(self._every_s)

    async def _look(self, channel: Channel) -> None:
        current = self._active.current
        if current is None:
            return
        request = pb.GetOverlayRequest(release=current.release.digest)
        offered = (await call(OverlayServiceStub(channel).GetOverlay, request, deadline_s=10)).overlay
        if offered.state == pb.OVERLAY_STATE_READY:
            if offered.digest not in {current.overlay, *self._failed, *self._active.failed_overlays}:
                record = _record_of(offered, current.release)
                blob = Blob(record.onnx, record.bytes)
                await blobs.download(BlobServiceStub(channel), blob, self._path(record), attempts=3)
                await asyncio.to_thread(self._try_on, current, record, self._frame())
        elif offered.state == pb.OVERLAY_STATE_NONE and current.overlay:
            await asyncio.to_thread(self._take_off, current)

    def _try_on(self, current: RunningModel, record: OverlayRecord, frame: Image | None) -> None:
        """Put an overlay on; one with 8 bits that is no good on this board is not tried again by this process."""
        if record.quantised and (why := self._explain_unfit(current, record, frame)):
            self._failed.add(record.overlay)
            self._log.warning("quantised_release_rejected", release=current.release.version, why=why)
            return
        self._put_on(current, record, frame)

    def _explain_unfit(self, current: RunningModel, record: OverlayRecord, frame: Image | None) -> str:
        """Say why a file with 8 bits is not to run here; empty where it is."""
        if self._quantised == "never":
            return "the configuration wants none with 8 bits"
        if self._quantised == "always":
            return ""
        image = np.full((480, 640, 3), 114, np.uint8) if frame is None else frame
        return explain_unfit(self._load(self._path(record)), current.predictor, image)

    def _put_on(self, current: RunningModel, record: OverlayRecord, frame: Image | None) -> None:
        """Let the release run under an overlay, once it has proved to be the same detector and to work.

        Raises:
            InvalidInput: It is another detector, or it fails.
            CorruptData: The file is damaged or not there.
        """
        path = self._path(record)
        if not path.is_file() or digest_of_file(path).digest != record.onnx:
            raise InvalidInput(f"the file of overlay {record.overlay[:19]} is not there: it is fetched again")
        model = self._load(path)
        release = current.release
        if (model.spec.labels.names, model.spec.image_size) != (release.labels.names, release.image_size):
            raise InvalidInput(f"overlay {record.overlay[:19]} is not of release {release.version}: measure it again")
        warm_up(model, frame)

        def on_outcome(error: Exception | None) -> None:
            if error is not None:
                self._failed.add(record.overlay)
                self._log.warning("overlay_failed", overlay=record.overlay, error=str(error))

        new = RunningModel(release, model, record.overlay, ModelFile(path, record.onnx))
        if self._active.replace(current, new, on_outcome):
            atomic_write(self._record_path, record.model_dump_json())
            self._delete_files_except(path)
            self._log.info("overlay_applied", release=release.version, overlay=record.overlay)

    def _take_off(self, current: RunningModel) -> None:
        if self._active.replace(current, self._load_release(current.release)):
            self._record_path.unlink(missing_ok=True)
            self._delete_files_except(None)
            self._log.info("overlay_removed", release=current.release.version, overlay=current.overlay)

    @property
    def _record_path(self) -> Path:
        return self._folder / "overlay.json"

    def _path(self, record: OverlayRecord) -> Path:
        return self._folder / f"{hex_of(record.onnx)}.onnx"

    def _delete_files_except(self, kept: Path | None) -> None:
        for path in self._folder.glob("*.onnx"):
            if path != kept:
                path.unlink()

    def _log_problem(self, error: DirediError) -> None:
        if str(error) != self._last_error:
            self._log.warning("overlay_not_applied", error=str(error))
        self._last_error = str(error)


def explain_unfit(
    new: Predictor, current: Predictor, image: Image, clock: Callable[[], float] = time.perf_counter
) -> str:
    """Say why a file with 8 bits is not fit for this board, on one frame.

    Args:
        new: The file.
        current: The one that it was made from.
        image: The frame.
        clock: Returns seconds.

    Returns:
        A sentence's end; empty where it is at least LEAST_SPEEDUP times as fast and finds about the same.
    """
    taken: dict[str, list[float]] = {"new": [], "current": []}
    found = {}
    for _ in range(PAIRS):
        for name, predictor in (("new", new), ("current", current)):
            started = clock()
            found[name] = predictor.predict([image], REPORTED)[0]
            taken[name].append(1000 * (clock() - started))
    ours, theirs = statistics.median(taken["new"]), statistics.median(taken["current"])
    if ours * LEAST_SPEEDUP > theirs:
        return f"it takes {ours:.1f} ms a frame here, and {theirs:.1f} ms without 8 bits"
    boxes, alone = compare(found["current"], current.labels, found["new"], new.labels)
    return f"{len(alone)} of {boxes} boxes differ on this board" if 2 * len(alone) > boxes else ""


def _record_of(offered: pb.Overlay, release: InstallableRelease) -> OverlayRecord:
    try:
        return OverlayRecord(
            release=release.digest, overlay=offered.digest, onnx=offered.onnx.digest, bytes=offered.onnx.bytes,
            quantised=offered.quantised,
        )  # fmt: skip
    except ValidationError as error:
        raise InvalidInput(f"the user domain names an overlay that is none ({error.errors()[0]['msg']})") from None

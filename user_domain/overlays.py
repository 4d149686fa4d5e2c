"""Overlays for the edge nodes of this site: measured here, judged here, served here, and to nobody else."""

# ruff: noqa: ANN401, D102  (gRPC gives its contexts no type of their own; the contract says what an RPC does)

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from diredi.errors import DirediError, NoRoom, Refused, Unreachable
from diredi.jobs import Executor, job_folder
from diredi.knowledge.jobs.specs import OverlayResult, OverlaySpec
from diredi.progress import Progress
from diredi.rpc import convert
from diredi.rpc.blobs import BlobServicer
from diredi.rpc.caller import require
from diredi.rpc.retry import Backoff
from diredi.rpc.v1 import overlay_pb2 as pb
from diredi.rpc.v1 import overlay_pb2_grpc as stubs
from diredi.store.blobs import Blob, BlobStore, hex_of
from diredi.store.files import no_room_at
from diredi.trust.identity import Identity, Role
from user_domain.cloud import CloudClient
from user_domain.private_data import PrivateData

OVERLAY_JOB: Final = "diredi.knowledge.jobs.overlay"
KEEP: Final = 4
"""Releases whose overlays are kept: that of all nodes, a candidate on canaries, and nodes that are behind."""
_MOST_ENTRIES: Final = 16
AGAIN_S: Final = 300.0
"""After so many seconds what could not be measured is tried again: a candidate may be released by then."""


@dataclass(frozen=True)
class Entry:
    """What has become of the overlay for one release."""

    result: OverlayResult | None = None
    """None until it is measured."""
    onnx: Blob | None = None
    """The release in this site's form as one file; None where it runs as it is."""
    problem: str = ""
    """Why nothing could be measured."""
    again_at: float = math.inf
    """When that is to be tried again, on the event loop's clock."""


class OverlayMaker:
    """Measure an overlay for each release that an edge node asks for, one after the other."""

    def __init__(
        self,
        cloud: CloudClient,
        executor: Executor,
        folder: Path,
        data: Callable[[], PrivateData],
        backoff: Backoff,
        *,
        overlay: bool,
        fit_input: bool,
        quantise: bool,
        confidence: float,
    ) -> None:
        """Make it.

        Args:
            cloud: Where the releases come from. It is told nothing but which release is wanted.
            executor: Runs the measuring.
            folder: Its own folder, for work files and what is served.
            data: Returns the private data set as it was read last.
            backoff: Pauses while the cloud is away or the disk is full.
            overlay: Whether to measure statistics.
            fit_input: Whether to give releases an input of the shape of the site's images.
            quantise: Whether to write releases with 8 bits.
            confidence: At which edge nodes report; 0 to 1.
        """
        self._cloud = cloud
        self._executor = executor
        self._jobs = folder / "jobs"
        self.served = BlobStore(folder / "served")
        self._data = data
        self._backoff = backoff
        self._overlay, self._fit_input, self._quantise, self._confidence = overlay, fit_input, quantise, confidence
        self._changed = asyncio.Event()
        self.entries: dict[str, Entry | None] = {}
        """By release (digest of its ONNX file), those asked for last at the end; None while one is to be measured."""

    def find(self, release: str) -> Entry | None:
        """Return what is known of a release's overlay; None while it is measured, which the first question begins."""
        entry = self.entries.pop(release, None)
        if entry is not None and entry.again_at < asyncio.get_running_loop().time():
            entry = None
        self.entries[release] = entry
        while len(self.entries) > _MOST_ENTRIES:
            del self.entries[next(iter(self.entries))]
        if entry is None:
            self._changed.set()
        return entry

    async def run(self) -> None:
        """Measure what is asked for, for ever."""
        while True:
            wanted = next((release for release, entry in reversed(self.entries.items()) if entry is None), None)
            if wanted is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                entry = await self._make(wanted)
            except (Unreachable, NoRoom) as error:
                structlog.get_logger().warning("overlay_postponed", release=wanted, error=str(error))
                await asyncio.sleep(self._backoff.next_s())
                continue
            except DirediError as error:
                structlog.get_logger().warning("overlay_not_measured", release=wanted, error=str(error))
                entry = Entry(problem=str(error), again_at=asyncio.get_running_loop().time() + AGAIN_S)
            self._backoff.reset()
            if wanted in self.entries:
                self.entries[wanted] = entry
            await self._forget_others()

    async def _make(self, release: str) -> Entry:
        data = self._data()
        # Other images give other statistics, and a job that has ended is not run again.
        folder = job_folder(self._jobs / hex_of(release), str(data.bytes), str(data.train_images))
        student, onnx = await self._cloud.fetch_release(release, self._jobs / hex_of(release))
        spec = OverlaySpec(
            **data.spec, student=student, onnx=onnx, overlay=self._overlay, fit_input=self._fit_input,
            quantise=self._quantise,
            confidence=self._confidence,
        )  # fmt: skip
        with no_room_at(folder):
            result = await self._executor.run(OVERLAY_JOB, spec, OverlayResult, folder, _ignore)
            made = await asyncio.to_thread(self.served.add_file, result.onnx.path) if result.onnx else None
        structlog.get_logger().info(
            "overlay_measured", release=release, used=made is not None, share=result.share,
            map50_before=round(result.before.map50, 4), map50_after=round(result.after.map50, 4),
            input_size=result.input_size, quantised=result.quantised, left_out=result.left_out,
        )  # fmt: skip
        return Entry(result, made)

    async def _forget_others(self) -> None:
        """Delete what belongs to other releases than the last ones that were asked for."""
        kept = list(self.entries)[-KEEP:]
        for release, entry in list(self.entries.items()):
            if release not in kept and entry is not None:
                del self.entries[release]
                if entry.onnx is not None:
                    await asyncio.to_thread(self.served.remove, entry.onnx.digest)
        wanted = {hex_of(release) for release in self.entries}
        for folder in list(self._jobs.iterdir()) if self._jobs.is_dir() else ():
            if folder.name not in wanted:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _ignore(_: Progress) -> None:
    return


class OverlayServicer(stubs.OverlayServiceServicer):
    """Answer as `proto/diredi/v1/overlay.proto` says."""

    def __init__(self, site: str, maker: OverlayMaker | None) -> None:
        """Make it.

        Args:
            site: This site.
            maker: None where the site makes no overlays.
        """
        self._site = site
        self._maker = maker

    async def GetOverlay(self, request: pb.GetOverlayRequest, context: Any) -> pb.GetOverlayResponse:
        require(context, Role.DEVICE, site=self._site)
        hex_of(request.release)
        entry = Entry() if self._maker is None else self._maker.find(request.release)
        return pb.GetOverlayResponse(overlay=_message_of(request.release, entry))

    async def ListOverlays(self, request: pb.ListOverlaysRequest, context: Any) -> pb.ListOverlaysResponse:
        require(context, Role.SITE, Role.DEVICE, site=self._site)
        entries = self._maker.entries if self._maker else {}
        return pb.ListOverlaysResponse(overlays=[_message_of(*item) for item in entries.items()])


def overlay_blobs(site: str, maker: OverlayMaker) -> BlobServicer:
    """Return what serves the files of overlays to the devices of a site; nobody may upload."""

    def may_read(caller: Identity, _digest: str) -> None:
        if caller.role is not Role.DEVICE or caller.site != site:
            raise Refused(f"{caller} may not read what site {site} has measured: it is for its own devices")

    return BlobServicer(maker.served, putters=(), may_read=may_read)


def _message_of(release: str, entry: Entry | None) -> pb.Overlay:
    if entry is None:
        return pb.Overlay(release=release, state=pb.OVERLAY_STATE_PENDING)
    message = pb.Overlay(release=release, state=pb.OVERLAY_STATE_NONE, problem=entry.problem)
    if entry.result is not None:
        message.before.CopyFrom(convert.metrics_to(entry.result.before))
        message.after.CopyFrom(convert.metrics_to(entry.result.after))
        message.quantised, message.left_out = entry.result.quantised, entry.result.left_out
    if entry.onnx is not None and entry.result is not None:
        message.state, message.share = pb.OVERLAY_STATE_READY, entry.result.share
        statistics = entry.result.overlay
        is_file = statistics is None or entry.result.quantised or entry.result.input_size
        message.digest = entry.onnx.digest if is_file or statistics is None else statistics.digest
        if entry.result.input_size is not None:
            message.input_height, message.input_width = entry.result.input_size
        message.onnx.CopyFrom(convert.blob_to(entry.onnx))
    return message

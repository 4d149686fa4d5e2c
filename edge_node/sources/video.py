"""Reads whatever FFmpeg reads, through PyAV: network cameras, cameras at this machine, video files."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from diredi.detectors.predictor import Image
from diredi.errors import InvalidInput, NotFound, Unreachable
from edge_node.sources.base import Frame, SourceOptions
from edge_node.sources.credentials import with_credentials
from edge_node.sources.ffmpeg_errors import explain
from edge_node.sources.onvif import stream_address
from edge_node.sources.reference import SourceSettings, redacted

PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy,hls,crypto,data"
"""What a camera's answer may lead to: no playlist of a camera makes the node read a file."""
FILES = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "flv"})
"""Formats that end where they have a duration, also over HTTP."""
JUMP_S = 2.0
"""By how much a source may be late before its clock is taken to have jumped."""


@dataclass(frozen=True)
class Input:
    """Hold what FFmpeg is told of a source."""

    name: str
    """What the source is called in messages: without a password."""
    address: Callable[[], str]
    """Returns what FFmpeg opens, as the credentials are now."""
    options: dict[str, str] = field(default_factory=dict)
    format: str | None = None
    stream: int = 0
    timeout_s: float = 10.0
    stopped: threading.Event = field(default_factory=threading.Event)


class Video:
    """Decode the frames of one video stream."""

    def __init__(self, source: Input, *, live: bool, repeat: bool = False) -> None:
        """Open a video.

        Args:
            source: What is opened.
            live: Whether it goes on by itself, so that its end means that it is away. What turns out to be a single
                picture is fetched anew for each frame, and what turns out to be a whole file ends as a file does.
            repeat: Whether a file starts again at its end.

        Raises:
            DirediError: It cannot be opened; see `open_source`.
        """
        self._source = source
        self._repeat = repeat
        self._clock = SourceClock()
        self._container: InputContainer | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        container = self._open()
        self._is_picture: bool = live and container.format.name.endswith(("_pipe", "image2"))
        self._is_file: bool = not live or (container.duration is not None and container.format.name in FILES)
        self.live: bool = not self._is_file and not self._is_picture

    def read(self) -> Frame | None:
        """Return the next frame, or None at the end of a file.

        Raises:
            Unreachable: A camera sends nothing, nothing that is a frame, or no more.
            DirediError: What it sends cannot be decoded, or it cannot be opened again.
        """
        if self._container is None:
            self._open()
        frame = self._next()
        if frame is None and self._is_file and self._repeat:
            self.close()
            self._open()
            frame = self._next()
        if self._is_picture:
            self.close()
        if frame is not None:
            return Frame(partial(to_image, frame), self._clock.captured_s(frame.time if self.live else None))
        if self._source.stopped.is_set() or (self._is_file and not self._repeat):
            return None
        if self._is_file:
            raise InvalidInput(f"source {self._source.name} holds no frame that can be decoded: check the file")
        raise Unreachable(f"source {self._source.name} has stopped sending: check the camera")

    def close(self) -> None:
        """Close the file or the connection, and end the threads of the decoder."""
        self._frames = iter(())  # what decodes refers to this object, and would keep it until the garbage is collected
        if self._container is not None:
            self._container.close()
        self._container = None

    def _open(self) -> InputContainer:
        source, started = self._source, time.monotonic()
        try:
            container = av.open(
                source.address(), format=source.format, options=source.options,
                timeout=(source.timeout_s, source.timeout_s),
            )  # fmt: skip
        except av.error.FFmpegError as error:
            # FFmpeg's RTSP calls an answer that never came invalid.
            is_late = time.monotonic() - started >= source.timeout_s
            raise explain(error, source.name, source.timeout_s, is_late=is_late) from None
        self._container, self._frames = container, self._decode(container)
        return container

    def _next(self) -> VideoFrame | None:
        try:
            return next(self._frames, None)
        except av.error.FFmpegError as error:
            raise explain(error, self._source.name, self._source.timeout_s) from None

    def _decode(self, container: InputContainer) -> Iterator[VideoFrame]:
        """Yield frames. A packet that is damaged is left out, a camera that sends no frames for too long is away."""
        stream = self._stream_of(container)
        source, last, has_key_frame = self._source, time.monotonic(), False
        for packet in container.demux(stream):
            has_key_frame = has_key_frame or packet.is_keyframe
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                frames = []
            for frame in frames:
                if not frame.is_corrupt:
                    yield frame
                    last, has_key_frame = time.monotonic(), True
            if source.stopped.is_set():
                return
            if time.monotonic() - last > source.timeout_s:
                raise Unreachable(self._silence(has_key_frame))

    def _silence(self, has_key_frame: bool) -> str:
        for_s = f"for {self._source.timeout_s:g} s"
        if has_key_frame:
            return f"source {self._source.name} sends data, but no frame that can be decoded {for_s}: check the camera"
        return (
            f"source {self._source.name} sends no key frame {for_s}, and without one no video can be decoded: set the "
            f"camera to one every few seconds (I-frame interval, GOP), or wait longer with #timeout=SECONDS"
        )

    def _stream_of(self, container: InputContainer) -> VideoStream:
        streams, name = container.streams.video, self._source.name
        if not streams:
            raise InvalidInput(f"source {name} has no video in it: check the address")
        if self._source.stream >= len(streams):
            raise InvalidInput(f"source {name} has {len(streams)} video streams, from 0: #stream={self._source.stream}")
        stream = streams[self._source.stream]
        if stream.codec_context is None:
            raise InvalidInput(
                f"source {name} sends video in a format that nothing here decodes: set the camera to H.264 or H.265"
            )
        return stream


class SourceClock:
    """Tell when a frame was taken, from the source's own time stamps.

    The stamps say how far frames are apart, whatever the network does to them. What they are relative to, and whether
    either clock is set meanwhile, nobody says, so the frame that was on its way for the shortest time stands for now.
    """

    def __init__(
        self, now_s: Callable[[], float] = time.time, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin without a frame; the clocks are those of this machine."""
        self._now_s = now_s
        self._monotonic_s = monotonic_s
        self._offset_s: float | None = None

    def captured_s(self, stamp_s: float | None) -> float:
        """Return when a frame that has just arrived was taken, in seconds since 1970.

        Args:
            stamp_s: The frame's own time stamp in seconds; None for a frame without.
        """
        if stamp_s is None:
            return self._now_s()
        offset_s = self._monotonic_s() - stamp_s
        if self._offset_s is None or not 0 <= offset_s - self._offset_s <= JUMP_S:
            self._offset_s = offset_s
        return self._now_s() - (offset_s - self._offset_s)


def open_url(url: str, options: SourceOptions) -> Video:
    """Open a network camera. Raises DirediError, see `open_source`."""
    settings, scheme = options.settings, url.partition(":")[0]
    protocol = {"protocol_whitelist": PROTOCOLS}
    address, stream = partial(with_credentials, url, options.credentials), settings.stream
    if scheme == "onvif":
        address, stream = partial(_onvif_stream, address, settings), 0
    if scheme in ("rtsp", "rtsps", "onvif"):
        protocol |= {"rtsp_transport": settings.transport, "allowed_media_types": "video"}
    if scheme in ("rtsps", "https", "onvif"):
        protocol |= {"tls_verify": str(int(settings.verify))}
        authorities = settings.ca or ssl.get_default_verify_paths().cafile
        if settings.ca is not None and not settings.ca.is_file():
            raise NotFound(f"certificate {settings.ca} of source {redacted(url)} does not exist: check #ca=FILE")
        if authorities:
            protocol |= {"ca_file": str(authorities)}
    source = Input(
        name=redacted(url),
        address=address,
        # Cameras do not say how often they send, and FFmpeg would count frames for seconds before it gives the first.
        options={**protocol, "fpsprobesize": "0", "analyzeduration": "1000000"},
        stream=stream,
        timeout_s=settings.timeout,
        stopped=options.stopped,
    )
    return Video(source, live=True, repeat=options.repeat)


def _onvif_stream(address: Callable[[], str], settings: SourceSettings) -> str:
    return stream_address(address(), settings.stream, settings.timeout)


def open_camera(place: str, options: SourceOptions) -> Video:
    """Open a camera at this machine.

    Args:
        place: Its number, or the path of its device.
        options: What all sources are told.

    Raises:
        InvalidInput: The place is neither.
        DirediError: It cannot be opened; see `open_source`.
    """
    path = f"/dev/video{place}" if place.isdecimal() else place
    if not path.startswith("/dev/"):
        raise InvalidInput(f"camera {place!r} is neither an index such as camera:0 nor a device such as /dev/video0")
    if not Path(path).exists():
        raise NotFound(f"camera {path} does not exist: check that it is connected; `ls /dev/v4l/by-id` lists cameras")
    settings = options.settings
    asked = {"video_size": settings.size, "framerate": settings.fps}
    source = Input(
        name=path,
        address=lambda: path,
        options={name: str(value) for name, value in asked.items() if value is not None},
        format="v4l2",
        timeout_s=settings.timeout,
        stopped=options.stopped,
    )
    return Video(source, live=True)


def open_video(place: str, options: SourceOptions) -> Video:
    """Open a video file. Raises NotFound when there is none, InvalidInput when FFmpeg cannot decode it."""
    path = Path(place)
    if not path.is_file():
        raise NotFound(f"source video {path} does not exist: check --source")
    source = Input(
        name=str(path),
        address=lambda: f"file:{path}",
        options={"protocol_whitelist": "file,crypto,data"},
        stream=options.settings.stream,
        stopped=options.stopped,
    )
    return Video(source, live=False, repeat=options.repeat)


def to_image(frame: VideoFrame) -> Image:
    """Return a decoded frame as an image, turned as its camera says that it was held."""
    image = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

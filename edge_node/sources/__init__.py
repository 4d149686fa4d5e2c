"""The sources of frames. A new source is one file in this folder and one line in SOURCES."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from diredi.errors import InvalidInput
from edge_node.sources.base import Frame, OpenSource, Source, SourceOptions
from edge_node.sources.folder import open_folder, open_scenes
from edge_node.sources.reference import NETWORK, Reference, SourceSettings, redacted

__all__ = ["SOURCES", "Frame", "Source", "SourceOptions", "SourceSettings", "check_source", "open_source", "redacted"]


def _with_ffmpeg(opener: str, place: str, options: SourceOptions) -> Source:
    """Open with a function of `video.py`, which loads FFmpeg: a node that reads no video does without."""
    try:
        from edge_node.sources import video
    except ImportError:
        raise InvalidInput("video needs PyAV, which is not installed: pip install 'diredi[video]'") from None
    open_: OpenSource = getattr(video, opener)
    return open_(place, options)


def _open_url(scheme: str, place: str, options: SourceOptions) -> Source:
    return _with_ffmpeg("open_url", f"{scheme}:{place}", options)


def _open_path(place: str, options: SourceOptions) -> Source:
    return open_folder(place, options) if Path(place).is_dir() else _with_ffmpeg("open_video", place, options)


SOURCES: dict[str, OpenSource] = {
    **{scheme: partial(_open_url, scheme) for scheme in NETWORK},
    "camera": partial(_with_ffmpeg, "open_camera"),
    "video": partial(_with_ffmpeg, "open_video"),
    "folder": open_folder,
    "scenes": open_scenes,
    "path": _open_path,
}


def check_source(reference: str) -> Reference:
    """Check how a reference is written, without a look at what it names.

    Args:
        reference: "kind:place" such as "video:gate.mp4", a URL such as "rtsp://10.0.0.7/stream1", or a path such as
            "/dev/video0"; then settings such as "#rotate=90".

    Returns:
        The reference in its parts.

    Raises:
        InvalidInput: It is not written as a reference is.
    """
    parsed = Reference.parse(reference)
    if not parsed.place or parsed.kind not in SOURCES:
        known = ", ".join(f"{kind}://..." if kind in NETWORK else f"{kind}:..." for kind in SOURCES if kind != "path")
        raise InvalidInput(f"source {parsed} is not one that this node can read: use one of {known}, or /dev/video0")
    return parsed


def open_source(reference: str, options: SourceOptions) -> Source:
    """Open a source of frames.

    Args:
        reference: As `check_source` takes it.
        options: What all sources are told; the settings are taken from the reference.

    Raises:
        InvalidInput: There is no such kind, or what is at the place cannot be read.
        NotFound: There is nothing at the place.
        Refused: The camera wants another user name or password.
        Unreachable: The camera does not answer.
    """
    parsed = check_source(reference)
    return SOURCES[parsed.kind](parsed.place, replace(options, settings=parsed.settings))

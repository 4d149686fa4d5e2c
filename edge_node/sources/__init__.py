"""The sources of frames. A new source is one file in this folder and one line in SOURCES."""

from __future__ import annotations

from diredi.errors import InvalidInput
from edge_node.sources.base import OpenSource, Source, SourceOptions
from edge_node.sources.capture import open_camera, open_video
from edge_node.sources.folder import open_folder, open_scenes

__all__ = ["SOURCES", "Source", "SourceOptions", "open_source"]

SOURCES: dict[str, OpenSource] = {
    "folder": open_folder,
    "video": open_video,
    "camera": open_camera,
    "scenes": open_scenes,
}


def open_source(reference: str, options: SourceOptions) -> Source:
    """Open a source of frames.

    Args:
        reference: "kind:place", such as "video:gate.mp4" or "camera:0".
        options: What all sources are told.

    Raises:
        InvalidInput: There is no such kind, or what is at the place cannot be read.
        NotFound: There is nothing at the place.
    """
    kind, colon, place = reference.partition(":")
    if not colon or not place or kind not in SOURCES:
        known = ", ".join(f"{name}:..." for name in SOURCES)
        raise InvalidInput(f"source {reference!r} is not one that this node can read: use one of {known}")
    return SOURCES[kind](place, options)

"""Why an edge node has picked a frame for somebody to label."""

from __future__ import annotations

from enum import StrEnum


class SampleReason(StrEnum):
    """Say why a frame was picked."""

    UNCERTAIN = "uncertain"
    """A detection in it has a low confidence."""
    INCONSISTENT = "inconsistent"
    """An object was missing or had another class in this frame only, between frames that agree about it."""
    RARE = "rare"
    """It shows a class that the camera's node seldom sees."""
    RANDOM = "random"
    """It was drawn at random, so that what the detector is wrongly sure of is looked at, too."""
    DISAGREEMENT = "disagreement"
    """Two releases, or a release and its 8-bit form, found other objects in it."""

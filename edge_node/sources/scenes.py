"""The built-in scenes of a site, so that a node runs where there is no camera."""

from __future__ import annotations

from edge_node.sources.base import SourceOptions
from edge_node.sources.folder import Folder

FRAMES = 24


def open_scenes(place: str, options: SourceOptions) -> Folder:
    """Raises InvalidInput when there is no such built-in site."""
    from diredi.data.dataset import load  # a node with a camera does without the painter of scenes
    from diredi.data.sources import resolve

    path = resolve(f"scenes:{place}", options.cache, seed=options.seed, train=1, val=FRAMES)
    return Folder([sample.image for sample in load(path).val], options.repeat)

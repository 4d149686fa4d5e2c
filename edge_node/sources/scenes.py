"""Shows the built-in scenes of a site, so that a node runs without a camera."""

from __future__ import annotations

from edge_node.sources.base import SourceOptions
from edge_node.sources.folder import Folder

FRAMES = 24


def open_scenes(place: str, options: SourceOptions) -> Folder:
    """Open the scenes of a built-in site. Raises InvalidInput when there is no such site."""
    from diredi.data.dataset import load  # a node with a camera does without the painter of scenes
    from diredi.data.sources import resolve

    path = resolve(f"scenes:{place}", options.cache, seed=options.seed, train=1, val=FRAMES)
    return Folder([sample.image for sample in load(path, ("val",), labelled=False).val], options.repeat)

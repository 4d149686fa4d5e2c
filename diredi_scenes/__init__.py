"""Camera scenes of several sites, rendered from 3D models in perspective and labelled per pixel."""

from diredi_scenes.profiles import PRESUMED, SITES, SiteProfile
from diredi_scenes.write import write_scenes

__all__ = ["PRESUMED", "SITES", "SiteProfile", "write_scenes"]

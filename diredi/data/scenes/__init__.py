"""The built-in data: what fixed cameras at several sites see. Drawn from models in perspective, labelled by pixel."""

from diredi.data.scenes.profiles import PRESUMED, SITES, SiteProfile
from diredi.data.scenes.write import DEFAULT_IMAGES, write_scenes

__all__ = ["DEFAULT_IMAGES", "PRESUMED", "SITES", "SiteProfile", "write_scenes"]

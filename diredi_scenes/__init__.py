"""The built-in data: what fixed cameras at several sites see. Drawn from models in perspective, labelled by pixel."""

from diredi_scenes.profiles import PRESUMED, SITES, SiteProfile
from diredi_scenes.write import write_scenes

__all__ = ["PRESUMED", "SITES", "SiteProfile", "write_scenes"]

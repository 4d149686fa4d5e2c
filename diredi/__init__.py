"""DiReDi: updates the detectors of a fleet of cameras from what each site sees, while no image leaves the site."""

__version__ = "0.1.0"

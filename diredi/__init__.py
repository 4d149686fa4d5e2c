"""DiReDi: updates the detectors of a fleet of cameras from what each site sees, while no image leaves the site."""

from diredi import telemetry_off

__version__ = "0.1.0"

telemetry_off.turn_off()

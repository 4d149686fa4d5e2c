"""Detectors: the `Detector` seam and the families behind it."""

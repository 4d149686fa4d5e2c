"""What the examples stand on: a manufacturer and a site of the built-in scenes, a tutor and a student.

Put your own `diredi.load_dataset("data.yaml")` and `diredi.load("yolo11n.pt")` in their place. With DIREDI_TINY=1
images are few and nothing is learned, so that a test can run every example in seconds.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import diredi
from cloud_server import starter
from diredi_scenes import write_scenes

TINY = os.environ.get("DIREDI_TINY") == "1"
FOLDER = Path(os.environ.get("DIREDI_EXAMPLES", Path(tempfile.gettempdir()) / "diredi-examples"))
SIZE = 64 if TINY else 160
"""Side of the models' input in pixels."""


def quick(**options: Any) -> dict[str, Any]:
    """Return options of a training, which in a tiny world ends after two steps."""
    return {**options, "steps": 2, "batch": 4} if TINY else options


def scenes(site: str) -> diredi.Dataset:
    """Return the images of one site's cameras; they are drawn the first time."""
    train, val = (8, 6) if TINY else (200, 60)
    return diredi.load_dataset(write_scenes(FOLDER / site, site, train, val, seed=0, image_size=128 if TINY else 320))


def models() -> tuple[diredi.Detector, diredi.Detector]:
    """Return a tutor and a student that know the manufacturer's scenes."""
    if TINY:
        names = scenes("presumed").names
        return diredi.create("yolo11-w0.125", SIZE, names, 0), diredi.create("yolo11-w0.0625", SIZE, names, 1)
    files = starter.unpack(FOLDER / "starter")
    return diredi.load(files.tutor), diredi.load(files.student)

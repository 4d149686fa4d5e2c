"""The images of a demo: the user's own, or scenes that are generated into its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diredi_cli.output import Progress, heard_by
from diredi_demo.options import SITE, DemoOptions
from diredi_demo.workspace import Workspace


@dataclass(frozen=True)
class DataPaths:
    """The data.yaml of the manufacturer and that of the site."""

    presumed: Path
    private: Path
    labelled: bool
    """Whether the site has labels: to learn from, or, where an oracle labels its images, for the demo to measure by."""


def provide_data(setting: DemoOptions, folder: Workspace, bar: Progress) -> DataPaths:
    """Return the data sets of a demo, after generating the scenes that are missing.

    The demo generates them itself, so that no service waits for scenes of another.
    """
    tuning = setting.tuning
    presumed = _provided(setting, folder, bar, setting.presumed, "presumed", tuning.presumed_images)
    private = _provided(setting, folder, bar, setting.private, SITE, tuning.site_images)
    return DataPaths(presumed, private, setting.labels == "site" or has_labels(private))


def has_labels(path: Path) -> bool:
    """Return whether any image of a data set has a label file."""
    from diredi.data.dataset import load
    from diredi.data.yolo import label_file_of

    data = load(path, read_labels=False)
    return any(label_file_of(sample.image).is_file() for sample in (*data.train, *data.val))


def _provided(
    setting: DemoOptions,
    folder: Workspace,
    bar: Progress,
    given: Path | None,
    site: str,
    images: tuple[int, int] | None,
) -> Path:
    from diredi.data.sources import resolve

    if given is not None:
        return resolve(str(given), folder.data).resolve()
    step = "Scenes of the manufacturer" if site == "presumed" else f"Scenes of {site}"
    bar.step(step)
    train, val = images or (None, None)
    return resolve(f"scenes:{site}", folder.data, setting.seed, train, val, on_progress=heard_by(bar, step)).resolve()

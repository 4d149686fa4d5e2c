"""Whose images a demo uses: the user's own, or scenes that it generates into its folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diredi_cli.output import Progress
from diredi_demo.options import SITE, Setting
from diredi_demo.workspace import Folder


@dataclass(frozen=True)
class DataPaths:
    """The data.yaml of the manufacturer and that of the site."""

    presumed: Path
    private: Path


def provide(setting: Setting, folder: Folder, bar: Progress) -> DataPaths:
    """Generates what was not given. The demo does it itself, so that no service waits for another's scenes."""
    tuning = setting.tuning
    return DataPaths(
        _provided(setting, folder, bar, setting.presumed, "presumed", tuning.presumed_images),
        _provided(setting, folder, bar, setting.private, SITE, tuning.site_images),
    )


def _provided(
    setting: Setting, folder: Folder, bar: Progress, given: Path | None, site: str, images: tuple[int, int] | None
) -> Path:
    from diredi.data.sources import resolve

    if given is not None:
        return resolve(str(given), folder.data).resolve()
    step = "Scenes of the manufacturer" if site == "presumed" else f"Scenes of {site}"
    bar.step(step)
    train, val = images or (None, None)
    return resolve(f"scenes:{site}", folder.data, setting.seed, train, val, partial(bar.step, step)).resolve()

"""Resolve references to data sets: a `data.yaml`, or "scenes:SITE" for built-in scenes that are rendered once."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from diredi.data.yolo import find_description
from diredi.errors import InvalidInput
from diredi.progress import OnProgress

SCENES = "scenes:"
_RENDERER = "diredi_scenes"
"""An application beside this library, imported only for built-in scenes."""


class _Profile(Protocol):
    @property
    def images(self) -> tuple[int, int]: ...


class _Renderer(Protocol):
    SITES: Mapping[str, _Profile]

    def write_scenes(
        self,
        folder: Path,
        site: str,
        train: int,
        val: int,
        seed: int,
        *,
        on_progress: OnProgress | None = None,
    ) -> Path: ...


def resolve(
    ref: str,
    cache: Path,
    seed: int = 0,
    train: int | None = None,
    val: int | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Path:
    """Resolve a reference to the `data.yaml` of a data set.

    Args:
        ref: Path of a `data.yaml` or its folder, or "scenes:SITE" for built-in scenes.
        cache: Folder for scenes. They appear there whole or not at all, and are rendered once.
        seed: Seed of scenes.
        train: Number of training images of scenes; None takes the site's default.
        val: Number of held-out images of scenes; None takes the site's default.
        on_progress: Called with the progress while scenes are rendered.

    Returns:
        The path of the `data.yaml`.

    Raises:
        InvalidInput: The site is not built in, or the path does not exist.
    """
    if not ref.startswith(SCENES):
        path = find_description(Path(ref).expanduser())
        if not path.is_file():
            raise InvalidInput(f"data set {ref} does not exist: name a data.yaml, or one of {', '.join(_scenes())}")
        return path
    renderer, site = _renderer(), ref.removeprefix(SCENES)
    if site not in renderer.SITES:
        raise InvalidInput(f"{ref} is not a built-in data set: name one of {', '.join(_scenes())}")
    default_train, default_val = renderer.SITES[site].images
    train = default_train if train is None else train
    val = default_val if val is None else val
    folder = cache / f"scenes-{site}-{train}-{val}-seed{seed}"
    if (folder / "data.yaml").is_file():
        return folder / "data.yaml"
    return renderer.write_scenes(folder, site, train, val, seed, on_progress=on_progress)


def _renderer() -> _Renderer:
    return cast(_Renderer, importlib.import_module(_RENDERER))


def _scenes() -> list[str]:
    return [f"{SCENES}{site}" for site in _renderer().SITES]

"""Where a data set comes from: a `data.yaml` of the user's, or "scenes:SITE", generated once into a cache."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, cast

from diredi.errors import InvalidInput

SCENES = "scenes:"
_RENDERER = "diredi_scenes"
"""An application beside this library; imported only where built-in scenes are asked for."""


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
        on_progress: Callable[[float, str], None] | None = None,
    ) -> Path: ...


def resolve(
    ref: str,
    cache: Path,
    seed: int = 0,
    train: int | None = None,
    val: int | None = None,
    on_progress: Callable[[float, str], None] | None = None,
) -> Path:
    """The `data.yaml` that `ref` means. `seed`, `train` and `val` (numbers of images) only concern scenes.

    Scenes appear in `cache` whole or not at all, and are there at once the second time, in whatever process.
    Raises InvalidInput for a site that is not built in, or a path that does not exist.
    """
    if not ref.startswith(SCENES):
        path = Path(ref).expanduser()
        path = path / "data.yaml" if path.is_dir() else path
        if not path.is_file():
            raise InvalidInput(f"data set {ref} does not exist: name a data.yaml, or one of {', '.join(_scenes())}")
        return path
    renderer, site = _renderer(), ref.removeprefix(SCENES)
    if site not in renderer.SITES:
        raise InvalidInput(f"{ref} is not a built-in data set: name one of {', '.join(_scenes())}")
    usual_train, usual_val = renderer.SITES[site].images
    train = usual_train if train is None else train
    val = usual_val if val is None else val
    folder = cache / f"scenes-{site}-{train}-{val}-seed{seed}"
    if (folder / "data.yaml").is_file():
        return folder / "data.yaml"
    return renderer.write_scenes(folder, site, train, val, seed, on_progress=on_progress)


def _renderer() -> _Renderer:
    return cast(_Renderer, importlib.import_module(_RENDERER))


def _scenes() -> list[str]:
    return [f"{SCENES}{site}" for site in _renderer().SITES]

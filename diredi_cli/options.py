"""Options that many commands share, so that they are called the same everywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from diredi.errors import InvalidInput

DEFAULT_CLOUD = "localhost:8443"
DEFAULT_IDENTITY = Path("deploy/pki/operator")

Cloud = Annotated[
    str,
    typer.Option(
        "--cloud",
        metavar="HOST:PORT",
        envvar="DIREDI_CLOUD",
        help="The cloud to talk to.",
        rich_help_panel="Connection",
    ),
]
IdentityFolder = Annotated[
    Path,
    typer.Option(
        "--identity",
        metavar="FOLDER",
        envvar="DIREDI_IDENTITY",
        help="Folder with ca.pem, cert.pem and key.pem (made by `diredi pki issue`).",
        rich_help_panel="Connection",
    ),
]


class LabelSource(StrEnum):
    """Who says what is on a site's images, as a recipe has it."""

    SITE = "site"
    ORACLE = "oracle"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]


def _checked_size(pixels: int | None) -> int | None:
    from diredi.detectors.spec import check_image_size

    if pixels is not None:
        check_image_size(pixels, "--image-size")
    return pixels


def image_size_option(panel: str | None = None) -> Any:  # noqa: ANN401 - typer does not name what it returns
    """Return `--image-size` of a detector; a size that none takes is told before anything begins.

    Args:
        panel: Under which title the help shows it.
    """
    return typer.Option(
        "--image-size",
        min=32,
        max=2048,
        callback=_checked_size,
        help="Pixels, a multiple of 32; by default the model's own.",
        rich_help_panel=panel,
    )


ImageSize = Annotated[int | None, image_size_option()]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads to use; 0 for all cores.")]


def parse_options(items: list[str]) -> dict[str, object]:
    """`["lam=0.5", "layers.head=true"]` as a nested dict with YAML values; raises InvalidInput that names the item."""
    import yaml

    result: dict[str, object] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not all(name.split(".")):
            raise InvalidInput(
                f"option {item!r} is not of the form name=value: write for example --option student_gap=true"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InvalidInput(f"option {name!r} has a value that is not YAML ({text!r}): quote it") from None
        *path, last = name.split(".")
        place = result
        for part in path:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InvalidInput(
                    f"option {name!r} is inside {part!r}, which was given a value of its own: drop one of them"
                )
            place = inner
        place[last] = value
    return result

"""What a box is told at its start, and remembers in its folder for the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from diredi.config import Config
from diredi.errors import InvalidInput

SITE = "site-1"
EDGE = "edge-1"


class BoxConfig(Config):
    """`--config FILE`: what to change in the services of a box; a value there wins over the box's own."""

    cloud: dict[str, Any] = Field(default_factory=dict)
    """Fields of the cloud's configuration."""
    site: dict[str, Any] = Field(default_factory=dict)
    """Fields of the user domain's configuration."""
    edge: dict[str, Any] = Field(default_factory=dict)
    """Fields of the edge node's configuration, such as `mqtt`."""


class BoxOptions(Config):
    """One box."""

    cameras: dict[str, str]
    """The source of each camera by its name, as an edge node takes it."""
    student: str = ""
    tutor: str = ""
    image_size: int | None = None
    credentials: str = ""
    port: int = Field(8480, ge=1, le=65533)
    """The first of three ports: of the site's pages, the console, and the edge node's page."""
    tuning: BoxConfig = BoxConfig()
    has_release: bool = False
    """Whether a box with these options has come to its first release, which was made of these models."""

    @property
    def console_port(self) -> int:
        """The port of the console."""
        return self.port + 1

    @property
    def edge_port(self) -> int:
        """The port of the edge node's page."""
        return self.port + 2


def cameras_in(texts: list[str]) -> dict[str, str]:
    """Return the source of each camera by its name.

    Args:
        texts: Sources, or NAME=SOURCE; a camera without a name is called camera-1, camera-2 and so on.

    Raises:
        InvalidInput: Two cameras have one name.
    """
    cameras: dict[str, str] = {}
    for number, text in enumerate(texts, 1):
        name, equals, source = text.partition("=")
        if not equals or not all(char.isalnum() or char in "._-" for char in name):
            name, source = f"camera-{number}", text
        if name in cameras:
            raise InvalidInput(f"two cameras are called {name}: give each a name of its own with --camera NAME=SOURCE")
        cameras[name] = _absolute_place(source)
    return cameras


def _absolute_place(source: str) -> str:
    """A file or folder as the services need it, when the box is started again from elsewhere."""
    place, hash_, settings = source.partition("#")
    kind, colon, path = place.partition(":")
    if colon and kind in {"folder", "video"} and path:
        return f"{kind}:{Path(path).expanduser().absolute()}{hash_}{settings}"
    if place.startswith(("./", "../", "~/")):
        return f"{Path(place).expanduser().absolute()}{hash_}{settings}"
    return source


def read_config(path: Path) -> BoxConfig:
    """Read the file of `--config`.

    Raises:
        InvalidInput: It cannot be read or used; the message names the file and the field.
    """
    try:
        return BoxConfig.model_validate(yaml.safe_load(path.read_text("utf-8")) or {})
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}): check --config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not YAML ({error}): correct it") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{path}: {name}: {first['msg']}: allowed are {', '.join(BoxConfig.model_fields)}") from None

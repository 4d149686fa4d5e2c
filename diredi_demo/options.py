"""The data and models of a demo, and what differs from the services' own defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from diredi.config import Config
from diredi.errors import InvalidInput

SITE = "site-1"
EDGES = ("edge-1", "edge-2", "edge-3")


class DemoConfig(Config):
    """`--config FILE`: what to change in the demo's services; a value there wins over the demo's own."""

    presumed_images: tuple[int, int] | None = None
    """How many training and held-out images of the manufacturer's built-in scenes to draw."""
    site_images: tuple[int, int] | None = None
    """How many training and held-out images of the site's built-in scenes to draw."""
    cloud: dict[str, Any] = Field(default_factory=dict)
    """Fields of the cloud's configuration."""
    site: dict[str, Any] = Field(default_factory=dict)
    """Fields of the user domain's configuration."""
    edge: dict[str, Any] = Field(default_factory=dict)
    """Fields of the configuration of every edge node."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Options of the recipe that the cycle is started with."""

    @classmethod
    def read(cls, path: Path) -> DemoConfig:
        """Raises InvalidInput that names the file and the field."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text("utf-8")) or {})
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read ({error.strerror}): check --config") from None
        except UnicodeDecodeError:
            raise InvalidInput(f"{path} is not a text file: check --config") from None
        except yaml.YAMLError as error:
            raise InvalidInput(f"{path} is not YAML ({error}): correct it") from None
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise InvalidInput(f"{path}: {name}: {first['msg']}: allowed are {', '.join(cls.model_fields)}") from None


class DemoOptions(Config):
    """One demo. `None` for data means the built-in scenes, for models what the cloud trains by default."""

    out: Path
    presumed: Path | None = None
    private: Path | None = None
    teacher: str = ""
    tutor: str = ""
    student: str = ""
    seed: int = Field(0, ge=0)
    image_size: int | None = None
    from_scratch: bool = False
    labels: Literal["site", "oracle"] = "site"
    keep: bool = False
    tuning: DemoConfig = DemoConfig()
    command: str = "diredi demo"

    @property
    def recipe(self) -> dict[str, Any]:
        """Options of the recipe that the cycle is started with."""
        return self.tuning.recipe | ({"labels": self.labels} if self.labels != "site" else {})

    @property
    def private_is_generated(self) -> bool:
        """Whether pictures of the site may be shown: only where they are nobody's."""
        return self.private is None

"""References to sources, as users write them: a kind or URL, a place, and settings behind `#` signs.

rtsp://admin:{CAMERA_PASSWORD}@10.0.0.7/stream1#transport=udp#rotate=180
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from diredi.config import Config
from diredi.errors import InvalidInput

NETWORK = ("rtsp", "rtsps", "http", "https", "onvif")

_SETTING = re.compile(r"#(?=[a-z_]+=)")
_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_USERINFO = re.compile(r"(?<=://)[^/?#]*@")
_SECRET_ARGUMENT = re.compile(r"(?<=[?&])([^=&#]*(?:pass|pwd|token|secret)[^=&#]*=)([^&#]*)", re.IGNORECASE)

_ZONE_FORM = "a zone is NAME:x,y,x,y,x,y... or NAME:CLASS,CLASS:x,y,x,y,x,y..., with three corners or more"

Share = Annotated[float, Field(ge=0, le=1)]


def _listed(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


class Zone(Config):
    """A named area of a camera's picture, written as `NAME:x,y,x,y,x,y` or `NAME:CLASS,CLASS:x,y,x,y,x,y`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    classes: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """The only classes that count in it; none: all."""
    corners: Annotated[tuple[Share, ...], BeforeValidator(_listed)]
    """x and y of three corners or more, as shares of width and height."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.count(":") not in (1, 2):
            raise ValueError(_ZONE_FORM)
        name, *classes, corners = value.split(":")
        return {"name": name, "corners": corners} | ({"classes": classes[0]} if classes else {})

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if len(self.corners) < 6 or len(self.corners) % 2:
            raise ValueError(_ZONE_FORM)
        if self.name == "all":
            raise ValueError("a zone cannot be called all, which means the whole picture: choose another name")
        return self


class SourceSettings(Config):
    """What can be set behind the place of a source, as `#name=value`, once or several times."""

    transport: Literal["tcp", "udp", "udp_multicast", "http"] = "tcp"
    """How RTSP carries the video. UDP loses packets where the network is not good."""
    stream: Annotated[int, Field(ge=0)] = 0
    """Which video stream of the source, or which profile of an ONVIF camera, from 0."""
    timeout: Annotated[float, Field(gt=0)] = 10.0
    """After how many seconds without a frame the source counts as away and is opened again."""
    verify: bool = True
    """Whether the TLS certificate of `rtsps://` and `https://` must be valid."""
    ca: Path | None = None
    """The file with the certificate by which that of the camera is signed, or with the camera's own."""
    size: Annotated[str | None, Field(pattern=r"^[0-9]+x[0-9]+$")] = None
    """The size that a camera at this machine is asked for, such as `1280x720`."""
    fps: Annotated[float | None, Field(gt=0)] = None
    """The frames a second that a camera at this machine is asked for."""
    watch: bool = False
    """Whether a folder gives the images that are written into it from now on, each once."""
    rate: Annotated[float | None, Field(gt=0, le=1000)] = None
    """The most frames of this source that are looked at in a second, in place of `frames_per_second` of the node."""
    confidence: Annotated[float | None, Field(gt=0, le=1)] = None
    """Detections in this source with a lower confidence are not reported, in place of `confidence` of the node."""
    rotate: Literal["0", "90", "180", "270"] = "0"
    """By how many degrees frames are turned clockwise."""
    crop: Annotated[tuple[Share, Share, Share, Share] | None, BeforeValidator(_listed)] = None
    """The part of the turned frame that is looked at: left, top, right, bottom, as shares of width and height."""
    mask: tuple[tuple[Share, ...], ...] = ()
    """Areas of the cropped frame that are blackened: x,y of three corners or more, as shares. May be given again."""
    classes: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """The only classes that are reported of this source, by their names; none: all."""
    zone: tuple[Zone, ...] = ()
    """Named areas in which objects are counted. May be given again."""
    motion: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of the frame that must have changed since the frame before, else nothing is looked for. 0: always."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.crop is not None and not (self.crop[0] < self.crop[2] and self.crop[1] < self.crop[3]):
            raise ValueError("crop is left,top,right,bottom: right must be beyond left, and bottom beyond top")
        if any(len(corners) < 6 or len(corners) % 2 for corners in self.mask):
            raise ValueError("mask is x,y,x,y,x,y...: three corners or more")
        names = [zone.name for zone in self.zone]
        if len(set(names)) < len(names):
            raise ValueError("zone: each needs a name of its own")
        return self


@dataclass(frozen=True)
class Reference:
    """Hold a reference in its parts. As text it is fit for logs: it shows no password."""

    kind: str
    place: str
    settings: SourceSettings

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a reference apart.

        Args:
            text: "kind:place", a URL, or the path of a device, a file or a folder; then settings.

        Raises:
            InvalidInput: It has no kind, a setting that does not exist, or a password in clear.
        """
        address, *settings = _SETTING.split(text)
        parsed = _settings(settings)
        if address.startswith("/dev/"):
            return cls("camera", address, parsed)
        if address.startswith(("/", "./", "../", "~/")):
            return cls("path", os.path.expanduser(address), parsed)  # noqa: PTH111 - no Path: it drops "./"
        kind, _, place = address.partition(":")
        if kind in NETWORK:
            check_url(address)
        return cls(kind, place, parsed)

    @property
    def address(self) -> str:
        """The reference without settings, and with variables in place of what they stand for."""
        return f"{self.kind}:{self.place}" if self.place and self.kind != "path" else self.place or self.kind

    def __str__(self) -> str:
        """Return the address without user, password and whatever else may be secret."""
        return redacted(self.address)


def redacted(text: str) -> str:
    """Return a reference without what only its camera should know."""
    return _SECRET_ARGUMENT.sub(_hide, _USERINFO.sub("", text))


def _hide(match: re.Match[str]) -> str:
    return match[0] if _VARIABLE.fullmatch(match[2]) else f"{match[1]}***"


def _settings(texts: list[str]) -> SourceSettings:
    try:
        return SourceSettings.model_validate(_collected(texts))
    except ValidationError as error:
        first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(SourceSettings.model_fields)
        raise InvalidInput(f"source setting {name} does not exist: use one of {known}")
    said = first["msg"].removeprefix("Value error, ")
    raise InvalidInput(f"source setting {name} is not usable: {said}" if name else f"source setting {said}")


def _collected(settings: list[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    several: dict[str, tuple[object, ...]] = {}
    for name, _, value in (setting.partition("=") for setting in settings):
        if name == "mask":
            several[name] = (*several.get(name, ()), tuple(value.split(",")))
        elif name == "zone":
            several[name] = (*several.get(name, ()), value)
        elif name in values:
            raise InvalidInput(f"source setting {name} is given twice: keep one")
        else:
            values[name] = value
    return values | several


def check_url(url: str, what: str = "source", example: str = "rtsp://10.0.0.7/stream1") -> None:
    """Check that a URL names a host, holds no password in clear, and that its variables are set.

    Args:
        url: A URL, in which `{NAME}` stands for a variable of the environment.
        what: What it is, for messages.
        example: How such a URL is written, for messages.

    Raises:
        InvalidInput: It is not so.
    """
    match = re.match(r"[a-z]+://(?P<user>[^/?#]*@)?(?P<host>[^/?#]+)", url)
    if match is None:
        raise InvalidInput(f"{what} {redacted(url)} names no host: write it like {example}")
    _, colon, password = (match["user"] or "").rstrip("@").partition(":")
    secrets = [password] if colon else []
    secrets += [argument[2] for argument in _SECRET_ARGUMENT.finditer(url)]
    if any(secret and not _VARIABLE.fullmatch(secret) for secret in secrets):
        raise InvalidInput(
            f"{what} {redacted(url)} holds a password, which others could read in a process list or a log: write "
            f"{{NAME}} in its place and set the variable NAME in the environment, or put it into the file that "
            f"--credentials names"
        )
    for name in _VARIABLE.findall(url):
        _variable(name, what)


def with_variables(url: str, encode: Callable[[str], str] = lambda value: quote(value, safe="")) -> str:
    """Return a URL in which `{NAME}` is replaced by the environment variable of that name.

    Args:
        url: A URL.
        encode: Makes a value fit for a URL.

    Raises:
        InvalidInput: There is no such variable.
    """
    return _VARIABLE.sub(lambda match: encode(_variable(match[1])), url)


def _variable(name: str, what: str = "source") -> str:
    value = os.environ.get(name)
    if not value:
        raise InvalidInput(f"the {what} names the variable {name}, which is not set: set it in the environment")
    return value

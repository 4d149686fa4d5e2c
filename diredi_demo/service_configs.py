"""The configuration of each service of a demo, as it is checked at first and written to a file later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloud_server import starter
from cloud_server.config import CloudConfig
from diredi.knowledge.recipe import CycleRecipe
from diredi.local_services import named
from diredi_demo.options import EDGES, SITE, DemoOptions
from diredi_demo.workspace import Workspace
from edge_node.config import EdgeConfig
from user_domain.config import UserDomainConfig

BUILT_IN = "scenes:presumed"


def cloud_values(setting: DemoOptions, folder: Workspace) -> dict[str, Any]:
    """Return the fields of the cloud's configuration; its data are the user's, or the built-in scenes."""
    models = {"teacher": setting.teacher, "tutor": setting.tutor, "student": setting.student}
    return {
        "listen": "127.0.0.1:0",
        "state_dir": str(folder.state("cloud").resolve()),
        "identity": str(folder.identity("cloud").resolve()),
        "authority": str(folder.identity("ca").resolve()),
        "presumed": BUILT_IN if setting.presumed is None else str(setting.presumed.resolve()),
        **{name: _absolute(model) for name, model in models.items() if model},
        **({"image_size": setting.image_size} if setting.image_size else {}),
        "from_scratch": setting.from_scratch,
        "seed": setting.seed,
        **({"pages": {"listen": "127.0.0.1:0"}} if setting.keep else {}),
        **setting.tuning.cloud,
    }


def site_values(
    setting: DemoOptions, folder: Workspace, cloud: str, data: Path, nodes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the fields of the user domain's configuration; `nodes` are the host:port of web servers of edge nodes."""
    return {
        "site": SITE,
        "cloud": cloud,
        "listen": "127.0.0.1:0",
        "state_dir": str(folder.state(SITE).resolve()),
        "identity": str(folder.identity(SITE).resolve()),
        "token": str(folder.token(SITE).resolve()),
        "data": str(data),
        "seed": setting.seed,
        **({"pages": {"listen": "127.0.0.1:0"}} if setting.keep else {}),
        "nodes": {name: f"http://{address}" for name, address in (nodes or {}).items()},
        "min_held_out": 3,  # all of it is one user's, who wants to see figures of few images, too
        **setting.tuning.site,
    }


def edge_values(
    setting: DemoOptions, folder: Workspace, name: str, cloud: str, user_domain: str, frames: Path, http: str = ""
) -> dict[str, Any]:
    """Return the fields of one edge node's configuration; `http` is the host:port of its web server, if it has one."""
    return {
        "device": name,
        "site": SITE,
        "cloud": cloud,
        "user_domain": user_domain,
        "listen": "127.0.0.1:0",
        "state_dir": str(folder.state(name).resolve()),
        "identity": str(folder.identity(name).resolve()),
        "token": str(folder.token(name).resolve()),
        "source": f"folder:{frames}",
        "frames_per_second": 1.0,  # they share this machine with the training
        "runtime": "onnxruntime",  # to measure others would take time from what the demo shows
        **({"http": http} if http else {}),
        **setting.tuning.edge,
    }


def with_scenes(values: dict[str, Any], presumed: Path, folder: Workspace) -> dict[str, Any]:
    """Let the cloud use scenes that the demo has drawn, and the starter release where it would with its own.

    Args:
        values: The fields of the cloud's configuration.
        presumed: The data.yaml of the scenes, or of the user.
        folder: The demo's folder, which gets the unpacked starter release.

    Returns:
        The fields with the paths of data and models.
    """
    if values["presumed"] != BUILT_IN:
        return values
    drawn = {**values, "presumed": str(presumed)}
    if not CloudConfig.from_values(values).begins_with_starter:
        return drawn
    files = starter.unpack(folder.state("starter"))
    return {**drawn, "tutor": str(files.tutor.resolve()), "student": str(files.student.resolve())}


def check(setting: DemoOptions, folder: Workspace) -> CloudConfig:
    """Validate the configurations of all services and the recipe of the cycle, before anything is made.

    Args:
        setting: What was asked for.
        folder: The demo's folder.

    Returns:
        The cloud's configuration.

    Raises:
        InvalidInput: A field is wrong. The message says of which service, and what is allowed.
    """
    nowhere, frames = "127.0.0.1:1", Path("frames")
    with named("cloud"):
        cloud = CloudConfig.from_values(cloud_values(setting, folder))
    with named("site"):
        UserDomainConfig.from_values(site_values(setting, folder, nowhere, Path("data.yaml")))
    with named("edge"):
        EdgeConfig.from_values(edge_values(setting, folder, EDGES[0], nowhere, nowhere, frames))
    with named("recipe"):
        CycleRecipe.of(setting.recipe)
    return cloud


def _absolute(model: str) -> str:
    """A path as the services need it, whose working folder is another; an architecture stays as it is."""
    path = Path(model)
    return str(path.resolve()) if path.is_file() else model

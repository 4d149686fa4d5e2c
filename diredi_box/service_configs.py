"""The configuration of each service of a box, as it is checked at first and written to a file later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloud_server.config import CloudConfig
from diredi.local_services import named
from diredi_box.folder import BoxFolder
from diredi_box.options import EDGE, SITE, BoxOptions
from edge_node.config import EdgeConfig
from user_domain.config import UserDomainConfig

HOST = "127.0.0.1"


def cloud_values(options: BoxOptions, folder: BoxFolder, listen: str = f"{HOST}:0") -> dict[str, Any]:
    """Return the fields of the cloud's configuration.

    A box with a student of its own, and no tutor, has a tutor of the same weights: then nothing is trained before the
    first release.
    """
    models = {"student": options.student, "tutor": options.tutor or options.student}
    return {
        "listen": listen,
        "state_dir": _path(folder.state("cloud")),
        "identity": _path(folder.identity("cloud")),
        "authority": _path(folder.identity("ca")),
        **{name: model for name, model in models.items() if model},
        **({"image_size": options.image_size} if options.image_size else {}),
        "pages": {"listen": f"{HOST}:{options.console_port}"},
        **options.tuning.cloud,
    }


def site_values(options: BoxOptions, folder: BoxFolder, cloud: str, listen: str = f"{HOST}:0") -> dict[str, Any]:
    """Return the fields of the user domain's configuration: it learns from what its people label."""
    return {
        "site": SITE,
        "cloud": cloud,
        "listen": listen,
        "state_dir": _path(folder.state(SITE)),
        "identity": _path(folder.identity(SITE)),
        "token": _path(folder.token(SITE)),
        "data": "samples",
        "pages": {"listen": f"{HOST}:{options.port}"},
        "nodes": {EDGE: f"http://{HOST}:{options.edge_port}"},
        "min_held_out": 3,  # all of it is one person's, who wants to see figures of few images, too
        **options.tuning.site,
    }


def edge_values(options: BoxOptions, folder: BoxFolder, cloud: str, user_domain: str) -> dict[str, Any]:
    """Return the fields of the edge node's configuration."""
    return {
        "device": EDGE,
        "site": SITE,
        "cloud": cloud,
        "user_domain": user_domain,
        "state_dir": _path(folder.state(EDGE)),
        "identity": _path(folder.identity(EDGE)),
        "token": _path(folder.token(EDGE)),
        "cameras": options.cameras,
        **({"credentials": options.credentials} if options.credentials else {}),
        "http": f"{HOST}:{options.edge_port}",
        "hand_samples_per_minute": 2.0,
        **options.tuning.edge,
    }


def check(options: BoxOptions, folder: BoxFolder) -> None:
    """Validate the configuration of all services, before anything is made.

    Raises:
        InvalidInput: A field is wrong. The message says of which service, and what is allowed.
    """
    nowhere = f"{HOST}:1"
    with named("cloud"):
        CloudConfig.from_values(cloud_values(options, folder))
    with named("site"):
        UserDomainConfig.from_values(site_values(options, folder, nowhere))
    with named("edge"):
        EdgeConfig.from_values(edge_values(options, folder, nowhere, nowhere))


def _path(path: Path) -> str:
    return str(path.absolute())

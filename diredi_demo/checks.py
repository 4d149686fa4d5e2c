"""What can be wrong with a demo's arguments, told in seconds and before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diredi.errors import InvalidInput, NotFound
from diredi.labels import LabelSpace
from diredi_cli.output import note, notes
from diredi_demo import service_configs
from diredi_demo.data import has_labels
from diredi_demo.options import SITE, DemoOptions
from diredi_demo.workspace import Workspace

if TYPE_CHECKING:
    from cloud_server.config import CloudConfig
    from diredi.data.dataset import Dataset


def check(setting: DemoOptions, folder: Workspace) -> None:
    """Look at every argument of a demo; nothing is written but an official checkpoint that has to be downloaded.

    Args:
        setting: What was asked for.
        folder: The demo's folder.

    Raises:
        DirediError: An argument cannot be used. The message names it and says what to do.
    """
    for option, model in (("teacher", setting.teacher), ("tutor", setting.tutor), ("student", setting.student)):
        path = Path(model)
        if path.suffix in {".pt", ".pth", ".safetensors"} and len(path.parts) > 1 and not path.exists():
            raise NotFound(f"--{option} {model} does not exist: check the path")
    cloud = service_configs.check(setting, folder)
    presumed = _data(setting.presumed, "presumed")
    labelled = setting.labels == "site" or setting.private is None or has_labels(setting.private)
    private = _data(setting.private, SITE, labelled=labelled)
    kinds = ("teacher", "tutor", "student")
    models = {kind: getattr(cloud, kind) for kind in kinds if kind in cloud.model_fields_set and getattr(cloud, kind)}
    known = _check_models(models, presumed, cloud) if models or setting.presumed else presumed.names
    if labelled and setting.labels == "oracle":
        LabelSpace.of(known).expand(private.names)
        LabelSpace.of(known).check_shares(private.names, "the manufacturer's models", "the site's labels")
    elif labelled:
        _check_classes(private, known)
    else:
        note("The site's images have no labels: what is measured on them are estimates by the oracle's answers")


def _data(path: Path | None, site: str, *, labelled: bool = True) -> Dataset:
    """The user's set with every label and image read, or what is known of scenes before they are drawn."""
    from diredi.data.dataset import Dataset, load
    from diredi_scenes import SITES

    if path is None:
        return Dataset(Path(f"scenes:{site}"), SITES[site].names, [], [])
    data = load(path, read_labels=labelled, decode=True)
    notes(data)
    return data


def _check_models(models: dict[str, str], presumed: Dataset, cloud: CloudConfig) -> tuple[str, ...]:
    """Reads or builds every model that was named; the classes that release 1 will know."""
    from diredi.detectors import registry
    from diredi.knowledge.jobs.bootstrap import read_models, shared_labels

    given, image_size, why = read_models(models, cloud.image_size)
    note(why)
    labels = shared_labels(presumed, given)
    presumed.with_labels(labels)
    for kind, model in models.items():
        if given[kind] is None:
            registry.create(model, image_size, labels, cloud.seed, device="cpu")
    return labels.names


def _check_classes(private: Dataset, known: tuple[str, ...]) -> None:
    """A site may show nothing but new classes, but not the known ones in another spelling."""
    labels = LabelSpace.of(known)
    labels.expand(private.names)
    for name, meant in labels.proposals(private.names).items():
        raise InvalidInput(f"{private.root}: class {name!r} may be {meant!r}: write it so in data.yaml, or rename it")
    if not set(private.names) & set(known):
        note(
            f"{private.root} has none of the manufacturer's classes ({', '.join(known[:8])}): all of its own "
            f"({', '.join(private.names[:8])}) will be learned as new ones"
        )

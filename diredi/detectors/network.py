"""What every family of torch networks shares: weights in and out, a head that grows, and from images to boxes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from diredi.detectors.base import Detector, Outputs, Router, Targets
from diredi.detectors.families import BRANCHES, ROUTER, family_of
from diredi.detectors.postprocess import InputSize, decode, grid, prepare
from diredi.detectors.predictor import Detections, Image
from diredi.detectors.spec import DetectorSpec, for_each
from diredi.errors import InvalidInput
from diredi.labels import LabelSpace
from diredi.store.blobs import digest_of_file
from diredi.store.weights import WeightMap

PREDICT_BATCH = 32
SILENT = -40.0  # the highest logit of a class that another part speaks for; far below what any threshold asks for
LOUD = 40.0  # the highest logit of one that this part speaks for: no bound at all
HIGHEST_PRIOR = 0.02  # where a small picture has but a few anchors
BATCH_NORM_MOMENTUM = 0.1  # families' own 0.03 needs more steps than a site has to forget the untrained statistics
MOST_GROUPS, LEAST_CHANNELS = 32, 4  # of a group norm: Wu & He, "Group Normalization", ECCV 2018, section 4.1


class NetworkDetector(ABC):
    """One network with its spec. Starts in eval mode; the trainer switches modes. A family adds what is abstract."""

    def __init__(self, spec: DetectorSpec, module: nn.Module, strides: Sequence[int], device: torch.device) -> None:
        """`strides`: of the neck's levels, large maps first."""
        self.spec = spec
        self.module = module.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._strides = list(strides)
        self._family = family_of(spec.architecture)
        self._file: tuple[str, str] | None = None

    def __repr__(self) -> str:
        """Return what a person asks first: architecture, image size, classes, device."""
        names = self.labels.names
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        return (
            f"<{type(self).__name__} {self.spec.architecture}, {self.spec.image_size} px, "
            f"{len(names)} classes ({shown}), {self.device}>"
        )

    @abstractmethod
    def look(self, images: Tensor) -> Sequence[Tensor | None]:
        """The backbone's maps, which all parts read; None for one that nobody asks for."""

    @abstractmethod
    def say(self, part: nn.Module, maps: Sequence[Tensor | None]) -> Outputs:
        """What the neck and the head of one part make of the backbone's maps."""

    @abstractmethod
    def loss_of(self, outputs: Outputs, targets: Targets) -> Tensor:
        """The family's own loss for what one part has said. Raises TypeError for another family's outputs."""

    @abstractmethod
    def class_layers(self, part: nn.Module) -> Mapping[str, nn.Conv2d]:
        """The last convolution of a part for each level's classes, by the name of the module: one row for a class."""

    @abstractmethod
    def reshaped(self, spec: DetectorSpec) -> Self:
        """A copy on the same device with other classes or branches; the bias of each class row is at the prior."""

    def forward(self, images: Tensor) -> Outputs:
        """See `Detector.forward`."""
        maps = self.look(images.contiguous(memory_format=torch.channels_last))
        said = [self.say(part, maps) for part in self._parts]
        return said[0] if len(said) == 1 else _JoinedOutputs.of(said, self._bounds(maps))

    def _bounds(self, maps: Sequence[Tensor | None]) -> list[Tensor]:
        """For each part the highest logit that it may give to each class, [batch or 1, classes].

        The last branch that has a class comes first; where its router says that an image shows another place, what it
        may not say is left to whoever spoke for the class before.
        """
        left = torch.full((1, len(self.labels)), LOUD, device=self.device)
        found = []
        for number in range(len(self._parts) - 1, 0, -1):
            has, routed = self._classes_of_branches[number - 1]
            there, elsewhere = left, torch.full_like(left, SILENT)
            if routed.any():
                place = self._parts[number].get_submodule(ROUTER)(_scene(maps))[:, None]
                there = torch.minimum(left, torch.where(routed, place, LOUD))
                elsewhere = torch.minimum(left, torch.where(routed, -place, SILENT))
            found.append(torch.where(has, there, SILENT))
            left = torch.where(has, elsewhere, left)
        return [left, *reversed(found)]

    @cached_property
    def _classes_of_branches(self) -> list[tuple[Tensor, Tensor]]:
        """For each branch, of all classes, whether it has one, and whether its router decides on it."""
        numbers = torch.arange(len(self.labels), device=self.device)
        routed = for_each(self.spec.routed, self.spec.branches)
        return [
            (torch.isin(numbers, _ids(has, self.device)), torch.isin(numbers, _ids(some, self.device)))
            for has, some in zip(self.spec.branches, routed, strict=True)
        ]

    def scene(self, images: Tensor) -> Tensor:
        """See `Detector.scene`."""
        return _scene(self.look(images.contiguous(memory_format=torch.channels_last)))

    def routers(self) -> list[Router | None]:
        """See `Detector.routers`."""
        state, found = self.module.state_dict(), list[Router | None]()
        for number, ids in enumerate(for_each(self.spec.routed, self.spec.branches)):
            name = f"{BRANCHES}.{number}.{ROUTER}"
            weights = (state[f"{name}.{kind}"].clone() for kind in ("weight", "bias")) if ids else ()
            found.append(Router(ids, *weights) if ids else None)
        return found

    def detection_loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Detector.detection_loss`. Raises TypeError for another family's outputs."""
        if not isinstance(outputs, _JoinedOutputs):
            return self.loss_of(outputs, targets)
        wanted = (_spoken_for(targets, speaks, outputs.class_logits.shape[0]) for speaks in self._speaks)
        return torch.stack([self.loss_of(*pair) for pair in zip(outputs.said, wanted, strict=True)]).sum()

    @property
    def _parts(self) -> list[nn.Module]:
        return [self.module, *getattr(self.module, BRANCHES, ())]

    @cached_property
    def _speaks(self) -> Tensor:
        """Parts x classes: whether a part speaks for a class."""
        numbers = torch.tensor(self.spec.speakers(), device=self.device)
        return torch.stack([numbers == part for part in range(len(self._parts))])

    def parts(self) -> list[Self]:
        """See `Detector.parts`."""
        weights = self.weights()
        main = {name: array for name, array in weights.items() if not name.startswith(f"{BRANCHES}.")}
        found = []
        for number in range(len(self._parts)):
            part = self.reshaped(self.spec.model_copy(update={"branches": (), "routed": ()}))
            prefix = f"{BRANCHES}.{number - 1}."
            own = {
                name.removeprefix(prefix): array
                for name, array in weights.items()
                if name.startswith(prefix) and not name.startswith(f"{prefix}{ROUTER}.")
            }
            part.load_weights(WeightMap(main | own))
            found.append(part)
        return found

    def with_branch(self, taught: Detector, classes: Sequence[int], router: Router | None = None) -> Self:
        """See `Detector.with_branch`."""
        if taught.spec.architecture != self.spec.architecture or taught.spec.branches:
            raise InvalidInput(
                f"a branch of {self.spec.architecture} cannot come from {taught.spec.architecture}"
                f"{' with branches' if taught.spec.branches else ''}: teach a copy of the detector itself"
            )
        grown, learned = self.expand_classes(taught.spec.labels), taught.weights()
        for name, array in self.weights().items():
            if self.section_of(name) == "backbone" and not np.array_equal(array, learned[name]):
                raise InvalidInput(f"the branch has learned on another backbone ({name} differs): hold it still")
        branches = (*self.spec.branches, tuple(sorted(classes)))
        routed = (*for_each(self.spec.routed, self.spec.branches), () if router is None else router.classes)
        new = self.reshaped(self.spec.with_branches(grown.labels, branches, routed))
        prefix = f"{BRANCHES}.{len(self.spec.branches)}."
        own = {prefix + name: learned[name] for name in learned if self.section_of(name) != "backbone"}
        if router is not None:
            for kind, value in (("weight", router.weight), ("bias", router.bias)):
                own[f"{prefix}{ROUTER}.{kind}"] = np.array(value.cpu().numpy(), np.float32)
        new.load_weights(WeightMap({**grown.weights(), **own}))
        return new

    def section_of(self, name: str) -> str:
        """See `Detector.section_of`."""
        return self._family.section_of(name)

    def class_branches(self) -> Mapping[str, nn.Conv2d]:
        """The layers of all parts that have a row for each class, by the name of the module."""
        found = dict(self.class_layers(self.module))
        for number, part in enumerate(self._parts[1:]):
            found |= {f"{BRANCHES}.{number}.{name}": layer for name, layer in self.class_layers(part).items()}
        return found

    @property
    def labels(self) -> LabelSpace:
        """Return the label space of the head."""
        return self.spec.labels

    @property
    def device(self) -> torch.device:
        """Return the device that holds the weights."""
        device: torch.device = next(self.module.parameters()).device
        return device

    def anchors_for(self, size: InputSize) -> tuple[Tensor, Tensor]:
        """Anchors and strides as in `Outputs`, for images of some size in pixels."""
        points, strides = grid(size, self._strides)
        return torch.from_numpy(points).to(self.device), torch.from_numpy(strides).to(self.device)

    def weights(self) -> WeightMap:
        """See `Detector.weights`."""
        state = self.module.state_dict()
        return WeightMap({name: np.array(value.cpu().numpy(), order="C") for name, value in state.items()})

    @property
    def digest(self) -> str:
        """See `Detector.digest`."""
        digest = self.weights().digest(self.spec.to_metadata())
        return self._file[1] if self._file is not None and self._file[0] == digest else digest

    def loaded_from(self, path: Path) -> None:
        """See `Detector.loaded_from`."""
        self._file = self.weights().digest(self.spec.to_metadata()), digest_of_file(path).digest

    def save(self, path: Path | str) -> str:
        """See `Detector.save`."""
        return self.weights().save(Path(path), self.spec.to_metadata())

    def load_weights(self, weights: WeightMap) -> None:
        """See `Detector.load_weights`."""
        state = self.module.state_dict()
        WeightMap({name: value.cpu().numpy() for name, value in state.items()}).check_same_schema(weights)
        weights.check_finite()
        for name, value in state.items():
            value.copy_(torch.from_numpy(np.array(weights[name])))

    def class_rows(self) -> Mapping[str, int]:
        """See `Detector.class_rows`."""
        return {f"{name}.{kind}": 0 for name in self.class_branches() for kind in ("weight", "bias")}

    def expand_classes(self, labels: LabelSpace) -> Self:
        """See `Detector.expand_classes`. Raises InvalidInput when `labels` does not extend this one's.

        A new row starts as the mean of the old ones, which between them tell objects from background, with its bias at
        the prior. It follows from the old weights alone, so a site and the cloud that grow the same tutor get the same
        rows.
        """
        if not labels.extends(self.labels):
            raise InvalidInput(
                f"label space {', '.join(labels.names)} does not extend {', '.join(self.labels.names)}: "
                "ids must keep their meaning, append new names at the end"
            )
        wider = self.reshaped(self.spec.model_copy(update={"labels": labels}))
        rows = self.class_rows()
        if self.spec.branches:
            shared = {name: value for name, value in self.module.state_dict().items() if name not in rows}
            wider.module.load_state_dict(shared, strict=False)
        branches = wider.class_branches()
        with torch.no_grad():
            for name, before in self.class_branches().items():
                after = branches[name]
                assert before.bias is not None and after.bias is not None
                after.weight.copy_(before.weight.mean(0, keepdim=True).expand_as(after.weight))
                after.weight[: before.out_channels] = before.weight
                after.bias[: before.out_channels] = before.bias
        return wider

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        """Boxes in each image, best first; images may have different sizes. Leaves every layer in its mode."""
        found: list[Detections] = []
        size = self.spec.image_size
        points, strides = grid(size, self._strides * len(self._parts))
        with _evaluating(self.module), torch.inference_mode():
            for start in range(0, len(images), PREDICT_BATCH):
                batch, frames = prepare(images[start : start + PREDICT_BATCH], size)
                outputs = self.forward(torch.from_numpy(batch).to(self.device))
                logits = outputs.class_logits.float().cpu().numpy(), outputs.box_logits.float().cpu().numpy()
                found += decode(*logits, points, strides, frames, confidence)
        return found


@dataclass(frozen=True)
class _JoinedOutputs(Outputs):
    """What several parts say, as if they were one: the anchors of all, and no score for others' classes."""

    said: Sequence[Outputs]

    @classmethod
    def of(cls, said: Sequence[Outputs], bounds: Sequence[Tensor]) -> Self:
        heard = [torch.minimum(one.class_logits, most[:, None]) for one, most in zip(said, bounds, strict=True)]
        return cls(
            class_logits=torch.cat(heard, 1),
            box_logits=torch.cat([one.box_logits for one in said], 1),
            anchors=torch.cat([one.anchors for one in said]),
            strides=torch.cat([one.strides for one in said]),
            features=tuple(feature for one in said for feature in one.features),
            said=said,
        )


def _spoken_for(targets: Targets, speaks: Tensor, images: int) -> Targets:
    """The targets of one part: boxes of its classes, and no word of others."""
    mine = speaks[targets.classes]
    labelled = speaks.float().expand(images, -1)
    if targets.labelled is not None:
        labelled = labelled * targets.labelled
    return Targets(targets.image_index[mine], targets.classes[mine], targets.boxes[mine], labelled)


def copied(module: nn.Module) -> nn.Module:
    """The same layers without branches, with weights of their own, all of which may learn.

    It takes a tenth of the time that `deepcopy` takes, which also copies each layer's dozen empty tables of hooks. What
    a layer has beside weights, such as the strides of a head, is shared: families replace it and never change it.
    """
    return _copied(module, {})


def _copied(module: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    """`done`: the copies of layers by the id of the layer, since several may share one."""
    if id(module) not in done:
        copy = done[id(module)] = module.__class__.__new__(module.__class__)
        tables = (dict, list)
        copy.__dict__ = {
            name: value.copy() if isinstance(value, tables) else value for name, value in vars(module).items()
        }
        for name, parameter in module._parameters.items():
            copy._parameters[name] = None if parameter is None else nn.Parameter(parameter.detach().clone())
        for name, buffer in module._buffers.items():
            copy._buffers[name] = None if buffer is None else buffer.clone()
        copy._modules = {
            name: None if layer is None else _copied(layer, done)
            for name, layer in module._modules.items()
            if name != BRANCHES
        }
    return done[id(module)]


def attach_branches(module: nn.Module, spec: DetectorSpec, without_backbone: Callable[[nn.Module], nn.Module]) -> None:
    """Gives a new network the branches of its specification, each a copy of its neck and head."""
    copies = [without_backbone(copied(module)) for _ in spec.branches]
    channels = len(module.get_parameter(family_of(spec.architecture).last_map))
    for branch, routed in zip(copies, spec.routed, strict=False):
        if routed:
            branch.add_module(ROUTER, _RouterLayer(channels).to(next(module.parameters()).device))
    if copies:
        module.add_module(BRANCHES, nn.ModuleList(copies))


class _RouterLayer(nn.Module):
    """A linear layer with one output, whose weight is no matrix: codecs keep a vector in 16 bits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(()))

    def forward(self, scene: Tensor) -> Tensor:
        """[batch, channels] to [batch]."""
        return (scene * self.weight).sum(-1) + self.bias


def _scene(maps: Sequence[Tensor | None]) -> Tensor:
    last = maps[-1]
    assert last is not None  # the neck begins with it
    return last.float().mean((2, 3))


def _ids(ids: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64, device=device)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside. A training that is looked at half-way holds some layers still, and goes on doing so."""
    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        yield
    finally:
        for layer in training:
            layer.training = True


def class_branch(old: nn.Conv2d, classes: int, image_size: int, stride: float) -> nn.Conv2d:
    """What stands in for `old`, with `classes` rows and biases at the prior for images of that size."""
    new = nn.Conv2d(old.in_channels, classes, 1).to(old.weight.device)
    assert new.bias is not None
    nn.init.constant_(new.bias, class_prior(classes, image_size, stride))
    return new


def class_prior(classes: int, image_size: int, stride: float) -> float:
    """Log of the chance that an anchor shows a given class: some 5 objects on a picture, spread over all anchors."""
    return math.log(min(5 / max(classes, 1) / (image_size / stride) ** 2, HIGHEST_PRIOR))


def replace_batch_norms(module: nn.Module) -> None:
    """Puts a group norm in the place, and under the name, of every batch norm of an untrained network.

    It measures each image by itself: no running statistics, so none in a gap, and none that a site's pictures move.
    """
    for name, norm in list(module.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            parent, _, last = name.rpartition(".")
            group_norm = nn.GroupNorm(groups_of(norm.num_features), norm.num_features, norm.eps)
            setattr(module.get_submodule(parent), last, group_norm)


def groups_of(channels: int) -> int:
    """32 groups, fewer where one would have less than 4 channels or `channels` cannot be shared out."""
    groups = math.gcd(channels, MOST_GROUPS)
    while groups > 1 and channels // groups < LEAST_CHANNELS:
        groups //= 2
    return groups

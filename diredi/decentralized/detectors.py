"""Detectors as peers: several that answer as one, so that a detector may learn from all its neighbours; and detectors
as clients of a federation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diredi.data.dataset import Sample
from diredi.decentralized.strategies import Message, Tree
from diredi.detectors.base import Detector, Outputs
from diredi.detectors.spec import DetectorSpec
from diredi.distillation.batches import Batch, Batches, Pool
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import autocast
from diredi.errors import InvalidInput
from diredi.store.weights import WeightMap

_EPSILON = 1e-6


class EnsembleTeacher:
    """The average of what several detectors say, as the holistic scheme has it: the mean of their scores, and of their
    distributions over the bins of a box. What their necks hold is the first one's, for features of several cannot be
    averaged; use no loss that compares features.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        """Raises InvalidInput for none at all, or detectors of other label spaces or image sizes than the first's."""
        if not detectors:
            raise InvalidInput("nobody to learn from: name one detector or more")
        self.detectors = list(detectors)
        for other in self.detectors[1:]:
            if (other.spec.labels, other.spec.image_size) != (self.spec.labels, self.spec.image_size):
                raise InvalidInput("detectors that answer as one need one label space and one image size")

    @property
    def spec(self) -> DetectorSpec:
        return self.detectors[0].spec

    @property
    def device(self) -> torch.device:
        return self.detectors[0].device

    def forward(self, images: Tensor) -> Outputs:
        """Raises InvalidInput where detectors look at different grids or cut boxes into different bins."""
        said = [detector.forward(images) for detector in self.detectors]
        first = said[0]
        if any(one.box_logits.shape != first.box_logits.shape for one in said):
            raise InvalidInput("detectors that answer as one need one grid and as many bins: use one family of them")
        scores = torch.stack([one.class_logits.sigmoid() for one in said]).mean(0)
        boxes = torch.stack([one.box_logits.softmax(-1) for one in said]).mean(0) if _has_bins(first) else None
        return Outputs(
            scores.logit(_EPSILON),
            torch.stack([one.box_logits for one in said]).mean(0) if boxes is None else boxes.clamp(min=_EPSILON).log(),
            first.anchors,
            first.strides,
            first.features,
        )

    def weights(self) -> WeightMap:
        """Of all of them."""
        return WeightMap({f"{n}/{k}": v for n, one in enumerate(self.detectors) for k, v in one.weights().items()})


def _has_bins(outputs: Outputs) -> bool:
    """Families without them regress distances, whose mean is the mean."""
    return outputs.box_logits.shape[-1] > 1


class DetectorClient:
    """A site's images and the detector that learns them: a `Client` of `diredi.decentralized.federation`.

    Of `recipe` it heeds how batches are made, their number, precision and the clipping of a step's gradient; the steps
    are the strategy's.
    """

    def __init__(self, detector: Detector, samples: Sequence[Sample], recipe: TrainRecipe) -> None:
        """`samples` must not be empty; `detector` is changed at will."""
        self._detector, self._pool, self._recipe = detector, Pool(samples), recipe
        self.samples, self.steps = len(samples), self._batches(recipe).steps

    def initial_state(self) -> Message:
        """Weights and buffers of its detector now."""
        module = self._detector.module
        weights = {name: one.detach().clone() for name, one in module.named_parameters() if one.requires_grad}
        return {"weights": weights, "buffers": _buffers(module)}

    def load(self, state: Message) -> Detector:
        """Its detector with these weights and buffers, in eval mode."""
        _load(self._detector.module, state["weights"] | state["buffers"])
        self._detector.module.eval()
        return self._detector

    def learner(self, start: Message, number: int) -> DetectorLearner:
        batches = self._batches(self._recipe.model_copy(update={"seed": self._recipe.seed + number}))
        return DetectorLearner(self._detector, start, batches, self.epoch(number), self._recipe)

    def epoch(self, number: int) -> Batches:
        """All images once, as round `number` changes them."""
        changes = {"steps": None, "epochs": 1, "seed": self._recipe.seed + number}
        return self._batches(self._recipe.model_copy(update=changes))

    def _batches(self, recipe: TrainRecipe) -> Batches:
        return Batches([self._pool], recipe, self._detector.spec.image_size, len(self._detector.spec.labels))


class DetectorLearner:
    """Gradients of a detector's own loss, in train mode, for one round."""

    def __init__(
        self, detector: Detector, start: Message, batches: Batches, epoch: Batches, recipe: TrainRecipe
    ) -> None:
        self.start, self.buffers = start["weights"], start["buffers"]
        self._first_buffers = start["buffers"]
        self._detector, self._batches, self._epoch, self._recipe = detector, batches, epoch, recipe
        self._batch: Batch | None = None

    def full_gradient(self) -> Tree:
        total: Tree = {}
        for batch in self._epoch:
            gradient, _ = self._gradient(self.start, self._first_buffers, batch)
            total = {name: total[name] + one for name, one in gradient.items()} if total else gradient
        return {name: one / self._epoch.steps for name, one in total.items()}

    def minibatch_gradient(self, weights: Tree, step: int) -> Tree:
        gradient, self.buffers = self._gradient(weights, self.buffers, self._of_step(step))
        return gradient

    def reference_gradient(self, step: int) -> Tree:
        gradient, _ = self._gradient(self.start, self._first_buffers, self._of_step(step))
        return gradient

    def _of_step(self, step: int) -> Batch:
        """A step may ask twice, and steps come in their order."""
        if self._batch is None or self._batches.done <= step:
            self._batch = next(self._batches)
        return self._batch

    def _gradient(self, weights: Tree, buffers: Tree, batch: Batch) -> tuple[Tree, Tree]:
        """And the buffers as the batch leaves them. A gradient that is not finite is one of no length."""
        detector, module = self._detector, self._detector.module
        _load(module, weights | buffers)
        module.train()
        batch = batch.to(detector.device)
        with autocast(detector, self._recipe):
            outputs = detector.forward(batch.images)
        parameters = dict(module.named_parameters())
        learning = [parameters[name] for name in weights]
        loss = detector.detection_loss(outputs, batch.targets)
        found = torch.autograd.grad(loss, learning, materialize_grads=True)
        norm = nn.utils.get_total_norm(found)
        scale = (self._recipe.gradient_clip / norm).clamp(max=1) if torch.isfinite(norm) else torch.zeros(())
        gradient = {name: torch.nan_to_num(one) * scale for name, one in zip(weights, found, strict=True)}
        return gradient, _buffers(module)


def _buffers(module: nn.Module) -> Tree:
    return {name: one.detach().clone() for name, one in module.named_buffers()}


def _load(module: nn.Module, state: Tree) -> None:
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if name in state:
                tensor.copy_(state[name])

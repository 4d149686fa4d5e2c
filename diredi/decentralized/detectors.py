"""Detectors in decentralised learning: an ensemble as teacher, and detectors as clients of a federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from diredi.data.dataset import Sample
from diredi.decentralized.strategies import Message, Tree
from diredi.detectors.base import Detector, Outputs
from diredi.detectors.predictor import Detections, Image, Predictor
from diredi.detectors.spec import DetectorSpec
from diredi.distillation.batches import Batch, Batches, Pool
from diredi.distillation.ensemble import FAINTEST, weighted_boxes_fusion
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import autocast
from diredi.errors import InvalidInput
from diredi.labels import LabelSpace, matching_ids
from diredi.store.weights import WeightMap

_EPSILON = 1e-6


class EnsembleTeacher:
    """Several detectors that teach as one, by the average of their outputs.

    This is the holistic scheme of Molo et al., SISAP 2024, for detectors: the mean of the class scores, and of the
    distributions over the bins of a box. Features of several detectors cannot be averaged, so those of the first are
    returned; do not use it with a loss that compares features.

    Args:
        detectors: At least one; all with the label space, the image size and the output shapes of the first.

    Raises:
        InvalidInput: There are no detectors, or their label spaces or image sizes differ.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        if not detectors:
            raise InvalidInput("EnsembleTeacher needs at least one detector")
        self.detectors = list(detectors)
        for other in self.detectors[1:]:
            if (other.spec.labels, other.spec.image_size) != (self.spec.labels, self.spec.image_size):
                raise InvalidInput("all detectors of an EnsembleTeacher need the same label space and image size")

    @property
    def spec(self) -> DetectorSpec:
        """The specification of the first detector."""
        return self.detectors[0].spec

    @property
    def device(self) -> torch.device:
        """The device of the first detector."""
        return self.detectors[0].device

    def forward(self, images: Tensor) -> Outputs:
        """Average the outputs of all detectors.

        Args:
            images: A batch as `Detector.forward` takes it.

        Returns:
            Outputs with the mean scores and box distributions as logits.

        Raises:
            InvalidInput: The detectors have different grids or numbers of bins.
        """
        outputs = [detector.forward(images) for detector in self.detectors]
        first = outputs[0]
        if any(each.box_logits.shape != first.box_logits.shape for each in outputs):
            raise InvalidInput(
                "all detectors of an EnsembleTeacher need the same grid and number of bins: use one family of detectors"
            )
        scores = torch.stack([each.class_logits.sigmoid() for each in outputs]).mean(0)
        if first.box_logits.shape[-1] > 1:
            distributions = torch.stack([each.box_logits.softmax(-1) for each in outputs]).mean(0)
            boxes = distributions.clamp(min=_EPSILON).log()
        else:  # without bins a box is regressed as distances, which are averaged directly
            boxes = torch.stack([each.box_logits for each in outputs]).mean(0)
        return Outputs(scores.logit(_EPSILON), boxes, first.anchors, first.strides, first.features)

    def weights(self) -> WeightMap:
        """Return the weights of all detectors, under "0/...", "1/..." and so on."""
        return WeightMap(
            {
                f"{number}/{name}": array
                for number, detector in enumerate(self.detectors)
                for name, array in detector.weights().items()
            }
        )


class BoxEnsemble:
    """Several detectors that label images as one, by the boxes that they find: a predictor for `diredi.pseudo_label`.

    Boxes are all that the detectors have in common, so their architectures, image sizes and label spaces may differ. A
    box counts by how well its detector finds that class. What a detector was never taught it does not speak of: that it
    finds no such box means nothing (weighted boxes fusion, Solovyev, Wang, Gabruseva, 2021, arXiv 1910.13302).

    Args:
        predictors: Who is asked; at least one.
        qualities: Of each, how well it finds each class that it was taught, by name, from 0 to 1: its average precision
            on held-out images of its own. A class that is missing, or has 0, it does not speak for.
        labels: The label space of the answers; classes of the predictors that it lacks are left out.
        agreeing: How many have to see an object; of a class that fewer speak for, all who do.

    Raises:
        InvalidInput: There are no predictors, or not a quality for each.

    Examples:
        >>> neighbours = BoxEnsemble(peers, qualities, labels)                         # doctest: +SKIP
        >>> seen = diredi.pseudo_label(neighbours, public.train, labels)               # doctest: +SKIP
        >>> diredi.distil(student, [own, Pool(seen, neighbours.taught)])               # doctest: +SKIP
    """

    def __init__(
        self,
        predictors: Sequence[Predictor],
        qualities: Sequence[Mapping[str, float]],
        labels: LabelSpace,
        *,
        agreeing: int = 2,
    ) -> None:
        if not predictors or len(predictors) != len(qualities):
            raise InvalidInput(f"{len(predictors)} predictors with {len(qualities)} qualities: name one for each")
        self.labels, self._predictors = labels, list(predictors)
        self._trust = np.array([[max(one.get(name, 0.0), 0.0) for name in labels.names] for one in qualities])
        for row, predictor in zip(self._trust, self._predictors, strict=True):
            row[[name not in predictor.labels.names for name in labels.names]] = 0
        self._agreeing = agreeing

    @property
    def taught(self) -> frozenset[int]:
        """Ids of the classes that at least one speaks for. Of others an answer does not even say that none is there."""
        return frozenset(np.flatnonzero(self._trust.any(0)).tolist())

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        """Find boxes; a score is the mean over all who speak for the class, weighted by their qualities.

        Args:
            images: As for `Predictor.predict`.
            confidence: Boxes with a lower score are left out.
        """
        floor = max(confidence / 2, FAINTEST)
        answers = []
        for predictor in self._predictors:
            ids = np.array(matching_ids(predictor.labels.names, self.labels.names))
            answers.append([found.with_ids(ids) for found in predictor.predict(images, floor)])
        return [
            weighted_boxes_fusion(several, confidence, trust=self._trust, agreeing=self._agreeing)
            for several in zip(*answers, strict=True)
        ]


class DetectorClient:
    """A detector and its images as a `Client` of `diredi.decentralized.federation`.

    Args:
        detector: Its weights are overwritten in each round.
        samples: The client's images with boxes; at least one.
        recipe: Batches, their number, precision and gradient clipping are used; the optimiser is the strategy's.
    """

    def __init__(self, detector: Detector, samples: Sequence[Sample], recipe: TrainRecipe) -> None:
        self._detector, self._pool, self._recipe = detector, Pool(samples), recipe
        self.samples, self.steps = len(samples), self._batches(recipe).steps

    def initial_state(self) -> Message:
        """Return the "weights" and "buffers" of the detector as it is now."""
        module = self._detector.module
        weights = {name: weight.detach().clone() for name, weight in module.named_parameters() if weight.requires_grad}
        return {"weights": weights, "buffers": _buffers(module)}

    def load(self, state: Message) -> Detector:
        """Load "weights" and "buffers" into the detector and return it in eval mode."""
        _load(self._detector.module, state["weights"] | state["buffers"])
        self._detector.module.eval()
        return self._detector

    def learner(self, start: Message, number: int) -> DetectorLearner:
        """Create the learner of a round.

        Args:
            start: "weights" and "buffers" that the round starts from.
            number: Number of the round, from 0.
        """
        batches = self._batches(self._recipe.model_copy(update={"seed": self._recipe.seed + number}))
        return DetectorLearner(self._detector, start, batches, self.epoch(number), self._recipe)

    def epoch(self, number: int) -> Batches:
        """Return batches of all images once, augmented as in round `number`."""
        changes = {"steps": None, "epochs": 1, "seed": self._recipe.seed + number}
        return self._batches(self._recipe.model_copy(update=changes))

    def _batches(self, recipe: TrainRecipe) -> Batches:
        return Batches([self._pool], recipe, self._detector.spec.image_size, len(self._detector.spec.labels))


class DetectorLearner:
    """Gradients of a detector's own loss in train mode, for one round: a `BufferedLearner`.

    Args:
        detector: Its weights are overwritten for each gradient.
        start: "weights" and "buffers" that the round starts from.
        batches: One batch for each step.
        epoch: All images once, for the full gradient.
        recipe: Precision and gradient clipping.
    """

    def __init__(
        self, detector: Detector, start: Message, batches: Batches, epoch: Batches, recipe: TrainRecipe
    ) -> None:
        self.start, self.buffers = start["weights"], start["buffers"]
        self._first_buffers = start["buffers"]
        self._detector, self._batches, self._epoch, self._recipe = detector, batches, epoch, recipe
        self._batch: Batch | None = None

    def full_gradient(self) -> Tree:
        """Return the mean gradient over all images at `start`."""
        total: Tree = {}
        for batch in self._epoch:
            gradient, _ = self._gradient(self.start, self._first_buffers, batch)
            total = {name: total[name] + part for name, part in gradient.items()} if total else gradient
        return {name: tensor / self._epoch.steps for name, tensor in total.items()}

    def minibatch_gradient(self, weights: Tree, step: int) -> Tree:
        """Return the gradient of the batch of a step at `weights`, and update `buffers`."""
        gradient, self.buffers = self._gradient(weights, self.buffers, self._batch_of_step(step))
        return gradient

    def reference_gradient(self, step: int) -> Tree:
        """Return the gradient of the batch of a step at `start`."""
        gradient, _ = self._gradient(self.start, self._first_buffers, self._batch_of_step(step))
        return gradient

    def _batch_of_step(self, step: int) -> Batch:
        """Return the batch of a step; steps come in order, and a step may ask for its batch twice."""
        if self._batch is None or self._batches.done <= step:
            self._batch = next(self._batches)
        return self._batch

    def _gradient(self, weights: Tree, buffers: Tree, batch: Batch) -> tuple[Tree, Tree]:
        """Return the clipped gradient, zero where it is not finite, and the buffers after the batch."""
        detector, module = self._detector, self._detector.module
        _load(module, weights | buffers)
        module.train()
        batch = batch.to(detector.device)
        with autocast(detector, self._recipe):
            outputs = detector.forward(batch.images)
        parameters = dict(module.named_parameters())
        loss = detector.detection_loss(outputs, batch.targets)
        gradients = torch.autograd.grad(loss, [parameters[name] for name in weights], materialize_grads=True)
        norm = nn.utils.get_total_norm(gradients)
        scale = (self._recipe.gradient_clip / norm).clamp(max=1) if torch.isfinite(norm) else torch.zeros(())
        clipped = {name: torch.nan_to_num(each) * scale for name, each in zip(weights, gradients, strict=True)}
        return clipped, _buffers(module)


def _buffers(module: nn.Module) -> Tree:
    return {name: buffer.detach().clone() for name, buffer in module.named_buffers()}


def _load(module: nn.Module, state: Tree) -> None:
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if name in state:
                tensor.copy_(state[name])

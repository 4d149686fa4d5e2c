"""A learner by multi-headed distillation of a classifier (see `diredi.decentralized.multihead`).

    learner: peer_node.multihead_learner:create_learner
    data: {set: digits, private: 1000, public: 400, partition: {kind: skew, gamma: 15}}
    options: {network: {backbone: mlp}, multihead: {auxiliary: 2}, training: {epochs: 2}}

Peers exchange predictions and embeddings of the public images, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from diredi.config import Config
from diredi.decentralized import multihead
from diredi.decentralized.recipe import MultiHeadRecipe, NetworkRecipe, TrainingRecipe
from peer_node.classification import DataConfig, create_peer, load_data, parse_section, weights_of
from peer_node.learner import LearnerContext, Metrics, PredictionRequest, Predictions, PredictionSpec


class Options(Config):
    """Configure the learner. `network.auxiliary` follows `multihead.auxiliary`."""

    network: NetworkRecipe = NetworkRecipe(backbone="mlp")
    multihead: MultiHeadRecipe = MultiHeadRecipe()
    training: TrainingRecipe = TrainingRecipe(epochs=2, batch=32)


def create_learner(context: LearnerContext) -> MultiheadLearner:
    """Make the learner that the configuration describes.

    Raises:
        InvalidInput: The section `data` or `options` is wrong.
        DirediError: The set cannot be loaded.
    """
    data, options = parse_section(DataConfig, context.data), parse_section(Options, context.options)
    torch.set_num_threads(1)  # peers of one machine would wait for each other's threads at every operator
    return MultiheadLearner(context, data, options)


class MultiheadLearner:
    """Learn own labels in a main head, and what the neighbours predict for public images in auxiliary heads."""

    collects_first = False

    def __init__(self, context: LearnerContext, data: DataConfig, options: Options) -> None:
        self._options, dataset = options, load_data(data)
        self._test = dataset.test
        public = dataset.train.images[data.private : data.private + data.public]
        self._public = torch.from_numpy(public)
        network = options.network.model_copy(update={"auxiliary": options.multihead.auxiliary})
        self._peer = create_peer(context, data, network, dataset)
        self.payload_spec = PredictionSpec(
            public_set=_digest(public),
            samples=data.public,
            classes=len(dataset.classes),
            heads=1 + options.multihead.auxiliary,
            embedding=self._peer.network.backbone.features,
        )

    def fit(self, round_: int) -> Metrics:
        """Learn own labels in round 1; afterwards `learn` learns them beside the neighbours' predictions."""
        if round_ == 1:
            self._peer.learn_labels(self._options.training)
        return self._accuracies()

    def compute_update(self, round_: int) -> Predictions:
        """Predict every public image with every head."""
        outputs = multihead.predict_public(self._peer.network, self._public)
        embeddings = None if outputs.embeddings is None else outputs.embeddings.numpy()
        return Predictions(outputs.probabilities.numpy(), embeddings)

    def build_request(self, round_: int) -> PredictionRequest:
        """Ask for all heads and embeddings on the whole public set."""
        return PredictionRequest(heads=tuple(range(self.payload_spec.heads)), embeddings=True)

    def learn(self, round_: int, answers: Mapping[str, Predictions]) -> Metrics:
        """Distil the answers; in the order of the neighbours' names, so that equal answers teach the same."""
        heard = [_tensors(answers[name]) for name in sorted(answers)]
        recipe, training = self._options.multihead, self._options.training
        multihead.learn(self._peer, self._public, heard, recipe, training, round_)
        return self._accuracies()

    def save(self, path: Path) -> None:
        """Write the backbone and all heads."""
        weights_of(self._peer.network).save(path)

    def _accuracies(self) -> Metrics:
        """Measure the main head and the last one on the set's test images; 0 to 1."""
        outputs = multihead.predict_public(self._peer.network, torch.from_numpy(self._test.images)).probabilities
        right = (outputs.argmax(-1).numpy() == self._test.labels).mean(-1)
        return {"main head": float(right[0]), "last head": float(right[-1])}


def _digest(images: NDArray[np.uint8] | NDArray[np.float32]) -> str:
    """Return a digest of images and their order."""
    return f"sha256:{hashlib.sha256(f'{images.shape}'.encode() + np.ascontiguousarray(images).data).hexdigest()}"


def _tensors(predictions: Predictions) -> multihead.PublicPredictions:
    embeddings = None if predictions.embeddings is None else torch.from_numpy(predictions.embeddings.copy())
    return multihead.PublicPredictions(torch.from_numpy(predictions.probabilities.copy()), embeddings)

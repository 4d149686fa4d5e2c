"""The learner that comes with DiReDi: multi-headed distillation of a classifier (see `diredi.decentralized.multihead`).

    learner: peer_node.multihead_learner:create_learner
    data: {set: digits, private: 1000, public: 400, partition: {kind: skew, gamma: 15}}
    options: {network: {backbone: mlp}, multihead: {auxiliary: 2}, training: {epochs: 2}}

Every peer makes the same partition of the same set and takes its own part of it; what follows the private images is
public, and its labels are never read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from diredi.config import Config
from diredi.data.classification import ClassificationSet
from diredi.decentralized import multihead
from diredi.decentralized.recipe import MultiHeadRecipe, NetworkRecipe, TrainingRecipe
from peer_node.classification import DataConfig, create_peer, load_data, parse_section
from peer_node.learner import LearnerContext, Metrics, PredictionRequest, Predictions, PredictionSpec


class Options(Config):
    """How it is learned. `network.auxiliary` follows `multihead.auxiliary`."""

    network: NetworkRecipe = NetworkRecipe(backbone="mlp")
    multihead: MultiHeadRecipe = MultiHeadRecipe()
    training: TrainingRecipe = TrainingRecipe(epochs=2, batch=32)


def create_learner(context: LearnerContext) -> MultiheadLearner:
    """Raises InvalidInput where `data` or `options` are wrong, and what loading the set raises."""
    data, options = parse_section(DataConfig, context.data), parse_section(Options, context.options)
    torch.set_num_threads(1)  # peers of one machine would wait for each other's threads at every operator
    return MultiheadLearner(context, data, options)


class MultiheadLearner:
    collects_first = False

    def __init__(self, context: LearnerContext, data: DataConfig, options: Options) -> None:
        self._options, found = options, load_data(data)
        self._test = found.test
        self._public = torch.from_numpy(found.train.images[data.private : data.private + data.public])
        network = options.network.model_copy(update={"auxiliary": options.multihead.auxiliary})
        self._peer = create_peer(context, data, network, found)
        self.payload_spec = PredictionSpec(
            public_set=_digest(found, data),
            samples=data.public,
            classes=len(found.classes),
            heads=1 + options.multihead.auxiliary,
            embedding=self._peer.network.backbone.features,
        )

    def fit(self, round_: int) -> Metrics:
        """Labels alone before anybody has said anything; afterwards `learn` learns them beside what neighbours say."""
        if round_ == 1:
            self._peer.learn_labels(self._options.training)
        return self._accuracies()

    def compute_update(self, round_: int) -> Predictions:
        said = multihead.said(self._peer.network, self._public)
        embeddings = None if said.embeddings is None else said.embeddings.numpy()
        return Predictions(said.probabilities.numpy(), embeddings)

    def build_request(self, round_: int) -> PredictionRequest:
        return PredictionRequest(heads=tuple(range(self.payload_spec.heads)), embeddings=True)

    def learn(self, round_: int, answers: Mapping[str, Predictions]) -> Metrics:
        """In the order of the neighbours' names, so that equal answers teach the same."""
        heard = [multihead.Said(*_tensors(answers[name])) for name in sorted(answers)]
        recipe, training = self._options.multihead, self._options.training
        multihead.learn(self._peer, self._public, heard, recipe, training, round_)
        return self._accuracies()

    def _accuracies(self) -> Metrics:
        """Of the main head and the last one, on the set's test images; 0 to 1."""
        said = multihead.said(self._peer.network, torch.from_numpy(self._test.images)).probabilities
        right = (said.argmax(-1).numpy() == self._test.labels).mean(-1)
        return {"main head": float(right[0]), "last head": float(right[-1])}


def _digest(found: ClassificationSet, data: DataConfig) -> str:
    """Of the public images, in their order."""
    images = found.train.images[data.private : data.private + data.public]
    return f"sha256:{hashlib.sha256(f'{images.shape}'.encode() + np.ascontiguousarray(images).data).hexdigest()}"


def _tensors(said: Predictions) -> tuple[torch.Tensor, torch.Tensor | None]:
    embeddings = None if said.embeddings is None else torch.from_numpy(said.embeddings.copy())
    return torch.from_numpy(said.probabilities.copy()), embeddings

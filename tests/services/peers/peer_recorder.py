"""The averaging learner, which saves the weights that it shares and those that it goes on from."""

from __future__ import annotations

from pathlib import Path

from peer_node.classification import DataConfig, parse_section
from peer_node.fedavg_learner import FedAvgLearner, Options
from peer_node.learner import LearnerContext


class RecordingLearner(FedAvgLearner):
    """Writes PEER-ROUND-fitted.safetensors and PEER-ROUND-learned.safetensors."""

    def __init__(self, context, folder, data, options):
        super().__init__(context, data, options)
        self._place = Path(folder) / str(context.peer)

    def fit(self, round_):
        metrics = super().fit(round_)
        self._keep(round_, "fitted")
        return metrics

    def learn(self, round_, answers):
        metrics = super().learn(round_, answers)
        self._keep(round_, "learned")
        return metrics

    def _keep(self, round_, when):
        self.save(self._place.with_name(f"{self._place.name}-{round_}-{when}.safetensors"))


def learner(context: LearnerContext) -> RecordingLearner:
    options = dict(context.options)
    folder = options.pop("folder")
    return RecordingLearner(context, folder, parse_section(DataConfig, context.data), parse_section(Options, options))

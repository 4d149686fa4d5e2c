"""The averaging learner, which keeps what it uploads and what it goes on from."""

from __future__ import annotations

from pathlib import Path

from peer_node.classification import Data, read
from peer_node.fedavg_learner import Averaging, Options
from peer_node.learner import Setting


class Recorder(Averaging):
    """Writes PEER-ROUND-fitted.safetensors and PEER-ROUND-learned.safetensors."""

    def __init__(self, setting, folder, data, options):
        super().__init__(setting, data, options)
        self._place = Path(folder) / str(setting.peer)

    def fit(self, round_):
        figures = super().fit(round_)
        self._keep(round_, "fitted")
        return figures

    def learn(self, round_, answers):
        figures = super().learn(round_, answers)
        self._keep(round_, "learned")
        return figures

    def _keep(self, round_, when):
        self._weights().save(self._place.with_name(f"{self._place.name}-{round_}-{when}.safetensors"))


def learner(setting: Setting) -> Recorder:
    options = dict(setting.options)
    folder = options.pop("folder")
    return Recorder(setting, folder, read(Data, setting.data), read(Options, options))

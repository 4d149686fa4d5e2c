"""Studies that a researcher runs with one command, `diredi peers study --preset NAME`.

A study is one file beside this one and one line in STUDIES: its cells, how one is measured, and what is claimed of
them."""

from __future__ import annotations

from typing import Final

from diredi.decentralized.studies.base import Cell, Options, Study, run_study
from diredi.decentralized.studies.detection import DETECTION
from diredi.decentralized.studies.dissimilarity import DISSIMILARITY
from diredi.decentralized.studies.federated import FEDERATED
from diredi.decentralized.studies.multihead import MULTIHEAD

STUDIES: Final[dict[str, Study]] = {one.name: one for one in (DISSIMILARITY, MULTIHEAD, FEDERATED, DETECTION)}

__all__ = ["STUDIES", "Cell", "Options", "Study", "run_study"]

"""Studies that a researcher runs with one command, `diredi peers study --preset NAME`.

To add a study, write its cells, its measurement and its claims in a file beside this one and add it to STUDIES.
"""

from __future__ import annotations

from typing import Final

from diredi.decentralized.studies.base import Cell, Options, Study, run_study
from diredi.decentralized.studies.detection import DETECTION
from diredi.decentralized.studies.dissimilarity import DISSIMILARITY
from diredi.decentralized.studies.federated import FEDERATED
from diredi.decentralized.studies.multihead import MULTIHEAD

STUDIES: Final[dict[str, Study]] = {study.name: study for study in (DISSIMILARITY, MULTIHEAD, FEDERATED, DETECTION)}

__all__ = ["STUDIES", "Cell", "Options", "Study", "run_study"]

"""The learner for detectors, which is killed in a round of the test's choice."""

from __future__ import annotations

import os
import signal

from peer_node.detection_learner import DetectionData, DetectionLearner, DetectionOptions, parse_section
from peer_node.learner import LearnerContext


class MortalLearner(DetectionLearner):
    killed_in = 0

    def fit(self, round_):
        if round_ == self.killed_in:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(round_)


def learner(context: LearnerContext) -> MortalLearner:
    """The factory; the option `killed` says which peer dies in which round."""
    options = dict(context.options)
    killed = options.pop("killed")
    made = MortalLearner(context, parse_section(DetectionData, context.data), parse_section(DetectionOptions, options))
    made.killed_in = killed.get(context.peer, 0)
    return made

from __future__ import annotations

from datetime import timedelta

import pytest

from cloud_server.cycles.reconciler import find_overdue
from cloud_server.states import State
from tests.unit.cloud_server.samples import later, part

WEEK, HOUR = timedelta(seconds=600), timedelta(seconds=60)
"""Stand for the two deadlines."""


@pytest.mark.parametrize(
    ("heard", "uploaded", "now", "out"),
    [
        (0, None, 599, False),
        (0, None, 601, True),  # nobody waits, but it is silent for too long
        (0, 500, 559, False),  # silent for long, yet the other has not waited long
        (0, 500, 561, True),
        (550, 500, 609, False),  # slow, not silent
        (550, 500, 611, True),
    ],
)
def test_a_silent_site_is_waited_for_less_long_where_another_waits(
    heard: int, uploaded: int | None, now: int, out: bool
) -> None:
    late = part("late", State.EXTRACTING, progressed_at=later(heard))
    others = [part("gone", State.FAILED)]
    if uploaded is not None:
        others.append(part("done", State.UPLOADED, progressed_at=later(uploaded)))
    assert find_overdue([late, *others], later(now), WEEK, HOUR) == ([late] if out else [])

"""The page that leads through the code of one cycle, held against the calls of a real one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.e2e.demo_world import Demo, Diredi
from tests.support.cycle_page import Call, named_calls, traced_calls

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

STARTED = Call("cloud_server/servicers.py", "CycleServicer.StartCycle")
RECORDED = Call("cloud_server/cycles/transitions.py", "start_cycle")


def assert_made_in_order(wanted: Sequence[Call], made: Sequence[Call]) -> None:
    """Each call is made after the one before it, in whichever process; other calls may come between."""
    left = iter(made)
    for number, call in enumerate(wanted):
        assert call in left, f"{call} is not called after {wanted[number - 1]}"


def test_a_cycle_makes_the_calls_that_the_page_names_in_their_order(demo: Demo) -> None:
    wanted = named_calls()
    made = traced_calls(demo.calls)
    assert_made_in_order(wanted[wanted.index(STARTED) :], made[made.index(STARTED) :])


def test_the_command_reaches_the_rules_of_the_cloud_as_the_page_says(demo: Demo, program: Diredi) -> None:
    """The demo asks for its cycle by itself; here the command does, for a site that is not there."""
    before = len(traced_calls(demo.calls))
    said = program("cycle", "start", "--site", "nobody", *demo.at(), calls=demo.calls)
    assert "nobody" in said.error
    wanted = named_calls()
    assert_made_in_order(wanted[: wanted.index(RECORDED) + 1], traced_calls(demo.calls)[before:])

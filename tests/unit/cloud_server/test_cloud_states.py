from __future__ import annotations

import itertools

import pytest

from cloud_server.states import BEFORE_UPLOAD, CLOUD_WORKS, ENDS, NEXT, State, check_transition
from diredi.errors import WrongState
from diredi.rpc.v1 import cycles_pb2

MAIN_LINE = [
    State.REQUESTED, State.OFFERED, State.EXTRACTING, State.UPLOADED, State.APPLIED, State.GATED, State.REDISTILLED,
    State.CANARY, State.RELEASED,
]  # fmt: skip


def test_the_main_line_goes_from_request_to_release() -> None:
    for now, following in itertools.pairwise(MAIN_LINE):
        check_transition(now, following)


def test_no_step_of_the_main_line_can_be_left_out() -> None:
    for i, now in enumerate(MAIN_LINE):
        assert not NEXT[now] & set(MAIN_LINE[i + 2 :])


def test_an_end_is_never_left() -> None:
    assert {State.RELEASED, State.DECLINED, State.REJECTED, State.FAILED, State.ROLLED_BACK} == ENDS
    for end in ENDS:
        for state in State:
            with pytest.raises(WrongState, match=end):
                check_transition(end, state)


def test_every_state_that_is_no_end_reaches_one_without_the_site() -> None:
    for state in State:
        assert state in ENDS or NEXT[state] & {State.FAILED, State.ROLLED_BACK}


def test_a_site_can_decline_only_before_the_upload() -> None:
    assert {state for state in State if State.DECLINED in NEXT[state]} == BEFORE_UPLOAD


def test_a_release_that_is_out_is_taken_back_and_never_merely_failed() -> None:
    assert State.FAILED not in NEXT[State.CANARY]
    assert State.CANARY not in CLOUD_WORKS


def test_the_states_are_those_of_the_wire() -> None:
    assert {f"CYCLE_STATE_{state}" for state in State} == set(cycles_pb2.CycleState.keys()) - {
        "CYCLE_STATE_UNSPECIFIED"
    }

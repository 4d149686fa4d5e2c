from __future__ import annotations

import itertools

import pytest

from cloud_server.states import BEFORE_UPLOAD, CLOUD_WORKS, ENDS, NEXT, State, check_transition, joint_state
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


R, O, E, U, D, F = (  # noqa: E741
    State.REQUESTED, State.OFFERED, State.EXTRACTING, State.UPLOADED, State.DECLINED, State.FAILED,
)  # fmt: skip


@pytest.mark.parametrize(
    ("now", "sites", "after"),
    [
        (R, [R, R], R),
        (R, [O, R], O),
        (O, [E, R], E),
        (E, [U, R], E),
        (E, [U, U], U),
        (E, [U, D], U),
        (E, [U, F, O], E),
        (E, [D, O], E),  # the one that was further dropped out: never back
        (R, [D, R], R),
        (O, [D, D], D),
        (E, [F, F], F),
        (E, [D, F], F),
    ],
)
def test_a_cycle_is_as_far_as_its_furthest_site_and_uploaded_with_the_last(
    now: State, sites: list[State], after: State
) -> None:
    assert joint_state(now, sites) is after
    check_transition(now, after)


def test_a_cycle_of_any_sites_moves_only_as_the_table_allows() -> None:
    """Every step of every one of three sites, from every state of the cycle that leads there."""
    early = [R, O, E, U]
    seen, ahead = set(), {(R, (R, R, R))}
    while ahead:
        now, sites = ahead.pop()
        seen.add((now, sites))
        if now not in BEFORE_UPLOAD:
            continue
        for i, state in enumerate(sites):
            for following in NEXT[state] if state in BEFORE_UPLOAD else ():
                moved = (*sites[:i], following, *sites[i + 1 :])
                after = joint_state(now, moved)
                check_transition(now, after)
                ahead |= {(after, moved)} - seen
    assert {now for now, _ in seen} == {*early, D, F}


def test_the_states_are_those_of_the_wire() -> None:
    assert {f"CYCLE_STATE_{state}" for state in State} == set(cycles_pb2.CycleState.keys()) - {
        "CYCLE_STATE_UNSPECIFIED"
    }

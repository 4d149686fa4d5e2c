"""Reasons that the cloud hears: fixed sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from diredi import errors
from user_domain.failure_reasons import Action, Reason, Stage, action_for, reason_for

SECRET = "/srv/private/gate-0001.jpg"
ERRORS = [
    errors.DatasetError(SECRET, Path(SECRET), 3),
    errors.NoLabels(SECRET, Path(SECRET)),
    *(
        kind(SECRET)
        for kind in (
            errors.DirediError, errors.InvalidInput, errors.CorruptData, errors.NotFound, errors.Refused,
            errors.WrongState, errors.NoRoom, errors.OffsetBeyondEnd,
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_at_every_stage_becomes_a_fixed_sentence(stage: Stage, error: errors.DirediError) -> None:
    assert reason_for(stage, error) in set(Reason)


@pytest.mark.parametrize("stage", [Stage.DATA, Stage.JOB])
def test_whoever_asked_a_site_without_labels_is_told_how_to_ask(stage: Stage) -> None:
    assert "--labels oracle" in reason_for(stage, errors.NoLabels(SECRET))


def test_no_fixed_sentence_holds_a_path() -> None:
    assert not [reason for reason in Reason if "/" in reason or "\\" in reason]


def test_a_defect_in_any_stage_is_a_failed_job() -> None:
    assert {reason_for(stage, ValueError(SECRET)) for stage in Stage} == {Reason.JOB}
    assert {action_for(stage, ValueError(SECRET)) for stage in Stage} == {Action.FAIL}


@pytest.mark.parametrize("error", [errors.Unreachable("away"), errors.RemoteFailure("a defect there")])
@pytest.mark.parametrize("stage", [None, *Stage])
def test_a_cloud_that_is_away_or_fails_costs_no_task(stage: Stage | None, error: errors.DirediError) -> None:
    assert action_for(stage, error) is Action.WAIT


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        (errors.WrongState, Action.DROP), (errors.NotFound, Action.DROP), (errors.Refused, Action.DROP),
        (errors.InvalidInput, Action.DROP), (errors.NoRoom, Action.WAIT), (errors.CorruptData, Action.WAIT),
        (errors.OffsetBeyondEnd, Action.WAIT), (errors.DirediError, Action.WAIT),
    ],
)  # fmt: skip
def test_an_answer_about_the_task_itself_drops_it_and_any_other_error_waits(
    kind: type[errors.DirediError], action: Action
) -> None:
    assert action_for(None, kind("no")) is action


@pytest.mark.parametrize("stage", Stage)
def test_damaged_bytes_are_tried_again_where_they_were_on_their_way(stage: Stage) -> None:
    lies_at_the_site = stage in (Stage.CONSENT, Stage.DATA, Stage.JOB)
    assert action_for(stage, errors.CorruptData("damaged")) is (Action.FAIL if lies_at_the_site else Action.RETRY)
    for kind in (errors.InvalidInput, errors.NotFound, errors.Refused, errors.WrongState, errors.NoRoom):
        assert action_for(stage, kind("no")) is Action.FAIL

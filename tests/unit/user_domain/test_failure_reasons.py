"""Reasons that the cloud hears: fixed sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from diredi import errors
from user_domain.failure_reasons import Reason, Stage, reason_for

SECRET = "/srv/private/gate-0001.jpg"
ERRORS = [
    errors.DatasetError(SECRET, Path(SECRET), 3),
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


def test_no_fixed_sentence_holds_a_path() -> None:
    assert not [reason for reason in Reason if "/" in reason or "\\" in reason]

import random

import pytest

from diredi.errors import InvalidInput, Unreachable
from diredi.rpc.retry import Backoff, retry


def test_pauses_grow_are_jittered_and_stay_bounded():
    backoff = Backoff(first_s=0.2, longest_s=5.0, random=random.Random(0))
    pauses = [backoff.next_s() for _ in range(1000)]

    assert 0.1 <= pauses[0] <= 0.2
    assert all(2.5 <= pause <= 5.0 for pause in pauses[10:])
    assert len(set(pauses)) > 900


def test_a_success_begins_again_with_short_pauses():
    backoff = Backoff(first_s=0.2, longest_s=5.0)
    for _ in range(10):
        backoff.next_s()
    backoff.reset()

    assert backoff.next_s() <= 0.2


class Flaky:
    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.calls = 0

    async def __call__(self):
        self.calls += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


QUICK = {"backoff": Backoff(first_s=0.001, longest_s=0.002)}


async def test_unreachable_is_tried_again():
    operation = Flaky(Unreachable("away"), Unreachable("away"), "here")

    assert await retry(operation, attempts=3, **QUICK) == "here"


async def test_the_last_error_is_raised_after_as_many_attempts_as_asked_for():
    operation = Flaky(Unreachable("1"), Unreachable("2"), Unreachable("3"), "never")

    with pytest.raises(Unreachable, match="3"):
        await retry(operation, attempts=3, **QUICK)
    assert operation.calls == 3


async def test_what_no_retry_cures_is_raised_at_once():
    operation = Flaky(InvalidInput("wrong for ever"), "never")

    with pytest.raises(InvalidInput):
        await retry(operation, attempts=3, **QUICK)
    assert operation.calls == 1

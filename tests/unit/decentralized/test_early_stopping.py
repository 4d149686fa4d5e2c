"""When a peer has had enough of its neighbours: losses worked out by hand, for every reason and for none."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from diredi.decentralized.early_stopping import MetaStopping, StoppingRecipe, StopReason
from diredi.errors import CorruptData

Losses = Sequence[tuple[float, float | None]]
"""The peer's own and its neighbours', round after round."""

# Coarse enough that equal, flat, rising and falling losses all come up often.
some_losses = st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 0.99, 1.0, 1.01, 1.03, 2.0])] * 2), max_size=30)
small = StoppingRecipe(patience=3, n_div=2, n_conv=2, most_rounds=12)


def told(losses: Losses, recipe: StoppingRecipe | None = None) -> MetaStopping:
    stopping = MetaStopping(recipe=recipe or StoppingRecipe())
    for local, neighbours in losses:
        stopping = stopping.after_round(local, neighbours)
    return stopping


def answer(losses: Losses, recipe: StoppingRecipe | None = None) -> tuple[StopReason | None, int]:
    """Why it stopped and after how many rounds."""
    stopping = told(losses, recipe)
    return stopping.reason, stopping.rounds


def falling(rounds: int, share: float = 0.9) -> list[float]:
    return [share**n for n in range(rounds)]


def both(losses: Sequence[float]) -> Losses:
    return [(loss, loss) for loss in losses]


# --- none


def test_the_defaults_are_the_authors() -> None:
    assert StoppingRecipe().model_dump() == {
        "patience": 5,
        "tolerance": 0.02,
        "n_div": 4,
        "n_conv": 4,
        "most_rounds": 40,
    }


def test_a_peer_goes_on_while_its_neighbours_loss_falls() -> None:
    assert told([]).reason is None
    assert answer(both(falling(39))) == (None, 39)


def test_losses_that_go_up_and_down_are_no_reason_before_patience_ends() -> None:
    """Neighbours by round: first, up, up, fallen, up, up, up, fallen; no run is long enough."""
    losses = [(1.0, 1.0), (0.9, 1.1), (1.1, 1.2), (0.9, 0.9), (1.1, 1.0), (1.0, 1.1), (0.9, 1.2), (1.0, 0.8)]
    assert answer(losses) == (None, 8)


# --- patience


def test_patience_ends_with_the_fifth_round_in_which_the_neighbours_loss_has_not_fallen() -> None:
    """The peer's own loss falls all the while, by more than tolerance, so it is neither flat nor apart."""
    local = falling(10)
    neighbours = [1.0, 0.8, 0.81, 0.79, 0.785, 0.9, 0.8]
    losses = list(zip(local, neighbours, strict=False))
    assert answer(losses[:-1]) == (None, 6)
    assert answer(losses) == (StopReason.PATIENCE, 7)


def test_a_fall_that_is_more_than_tolerance_starts_patience_anew() -> None:
    """0.8 less two percent is 0.784: a loss of 0.784 waits on, 0.783 does not."""
    local = falling(12)
    still = [1.0, 0.8, 0.81, 0.82, 0.83, 0.84]
    assert answer(list(zip(local, [*still, 0.7841], strict=False))) == (StopReason.PATIENCE, 7)
    assert answer(list(zip(local, [*still, 0.783], strict=False))) == (None, 7)


def test_small_falls_add_up_to_one() -> None:
    """0.9 percent a round: the third is 2.7 percent under the first, though no round falls by two."""
    neighbours = [0.991**n for n in range(13)]
    assert answer(list(zip(falling(13), neighbours, strict=True)), StoppingRecipe(patience=3)) == (None, 13)
    assert answer(list(zip(falling(13), neighbours, strict=True)), StoppingRecipe(patience=2)) == (
        StopReason.PATIENCE,
        3,
    )


# --- diverging


def test_a_peer_that_loses_what_its_neighbours_gain_stops_at_the_fourth_time_in_a_row() -> None:
    losses = [(0.5, 1.0), (0.4, 0.9), (0.41, 0.8), (0.42, 0.7), (0.45, 0.6), (0.5, 0.5)]
    assert answer(losses[:-1]) == (None, 5)
    assert answer(losses) == (StopReason.DIVERGING, 6)


@pytest.mark.parametrize("between", [(0.41, 0.65), (0.44, 0.72), (0.42, 0.65), (0.44, 0.7)])
def test_one_round_that_is_not_so_breaks_the_row(between: tuple[float, float]) -> None:
    """The peer's own loss falls, or the neighbours' rises, or one of the two stays exactly where it was."""
    losses = [(0.4, 0.9), (0.41, 0.8), (0.42, 0.7), between, (0.5, 0.6), (0.6, 0.5), (0.7, 0.4)]
    assert answer(losses) == (None, 7)
    assert answer([*losses, (0.8, 0.3)]) == (StopReason.DIVERGING, 8)


# --- converged


def test_a_peer_stops_at_the_fourth_change_in_a_row_that_moves_neither_loss() -> None:
    losses = [(1.0, 2.0), (0.5, 1.0), (0.505, 0.99), (0.5, 0.985), (0.495, 0.99), (0.5, 0.995)]
    assert answer(losses[:-1]) == (None, 5)
    assert answer(losses) == (StopReason.CONVERGED, 6)


@pytest.mark.parametrize("moved", [(0.52, 1.0), (0.5, 1.03)])
def test_both_losses_have_to_be_flat(moved: tuple[float, float]) -> None:
    losses = [(1.0, 1.5), (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), moved, moved]
    assert answer(losses) == (None, 6)


def test_a_change_that_moves_a_loss_breaks_the_row() -> None:
    losses = [(1.0, 1.5), (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), (0.5, 0.9), (0.5, 0.9), (0.5, 0.9), (0.5, 0.9)]
    assert answer(losses) == (None, 8)
    assert answer([*losses, (0.5, 0.9)]) == (StopReason.CONVERGED, 9)


def test_a_change_is_flat_up_to_and_with_the_tolerance_of_what_the_loss_was() -> None:
    recipe = StoppingRecipe(tolerance=0.25, n_conv=1)
    assert answer([(4.0, 4.0), (5.0, 3.0)], recipe) == (StopReason.CONVERGED, 2)
    assert answer([(4.0, 4.0), (5.01, 3.0)], recipe) == (None, 2)
    assert answer([(4.0, 4.0), (5.0, 2.99)], recipe) == (None, 2)
    assert answer([(3.0, 4.0), (4.0, 4.0)], recipe) == (None, 2)


def test_losses_of_0_that_stay_so_are_flat() -> None:
    assert answer([(0.0, 0.0)] * 5) == (StopReason.CONVERGED, 5)


# --- rounds


def test_the_most_rounds_end_it_at_last() -> None:
    assert answer(both(falling(40))) == (StopReason.ROUNDS, 40)
    assert answer([(1.0, 1.0)], StoppingRecipe(most_rounds=1)) == (StopReason.ROUNDS, 1)


def test_a_criterion_that_asks_for_most_rounds_is_left_out() -> None:
    """Losses that never move, and losses that move apart in every round."""
    off = StoppingRecipe(patience=40, n_div=40, n_conv=40)
    assert answer([(1.0, 1.0)] * 40, off) == (StopReason.ROUNDS, 40)
    assert answer([(2 - share, share) for share in falling(40)], off) == (StopReason.ROUNDS, 40)


# --- losses that are none


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("whose", ["local", "neighbours", "both"])
def test_a_loss_that_is_no_finite_number_has_a_reason_of_its_own(bad: float, whose: str) -> None:
    pair = {"local": (bad, 0.5), "neighbours": (0.5, bad), "both": (bad, bad)}[whose]
    stopped = told([(1.0, 1.0), (0.9, 0.9), pair])
    assert (stopped.reason, stopped.rounds) == (StopReason.NOT_FINITE, 3)
    assert MetaStopping.from_record(stopped.recipe, json.loads(json.dumps(stopped.to_record()))) == stopped
    assert answer([(1.0, 1.0), pair], StoppingRecipe(most_rounds=2)) == (StopReason.NOT_FINITE, 2)


def test_a_round_without_neighbours_is_a_round_and_says_nothing_else() -> None:
    """Four changes that are flat, with lonely rounds among them, in which the peer's own loss does what it likes."""
    lonely: list[tuple[float, None]] = [(0.1, None), (7.0, None)]
    losses: Losses = [*lonely, (0.5, 1.0), (0.5, 1.0), *lonely, (0.5, 1.0), (0.5, 1.0)]
    assert answer(losses) == (None, 8)
    assert answer([*losses, *lonely]) == (None, 10)
    assert answer([*losses, *lonely, (0.5, 1.0)]) == (StopReason.CONVERGED, 11)
    assert answer([(1.0, None)] * 40) == (StopReason.ROUNDS, 40)
    assert answer([(1.0, None), (math.nan, None)]) == (StopReason.NOT_FINITE, 2)


# --- which comes first, and what comes after


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (StoppingRecipe(patience=1, n_div=1, n_conv=1, most_rounds=2), StopReason.PATIENCE),
        (StoppingRecipe(patience=2, n_div=1, n_conv=1, most_rounds=2), StopReason.DIVERGING),
        (StoppingRecipe(patience=2, n_div=2, n_conv=1, most_rounds=2), StopReason.CONVERGED),
        (StoppingRecipe(patience=2, n_div=2, n_conv=2, most_rounds=2), StopReason.ROUNDS),
        (StoppingRecipe(patience=2, n_div=2, n_conv=2, most_rounds=3), None),
    ],
)
def test_reasons_that_come_together_are_told_in_the_order_of_the_criteria(
    recipe: StoppingRecipe, reason: StopReason | None
) -> None:
    """The second round is all at once: own loss up, neighbours' down, and both within tolerance."""
    assert answer([(1.0, 1.0), (1.01, 0.99)], recipe) == (reason, 2)


def test_who_has_stopped_stays_so() -> None:
    stopped = told([(0.0, 0.0)] * 5)
    assert stopped.after_round(9.0, 0.001) == stopped
    assert stopped.after_round(math.nan, 1.0) == stopped


def test_a_state_is_never_changed_by_what_comes_after() -> None:
    before = told([(1.0, 1.0), (1.0, 1.0)])
    kept = before.to_record()
    assert before.after_round(0.5, 0.5) == before.after_round(0.5, 0.5) != before
    assert before.to_record() == kept


# --- records


@settings(deadline=None, max_examples=200)
@given(losses=some_losses, cut=st.integers(0, 30))
def test_a_resumed_peer_gives_the_same_answers_as_one_that_never_left(
    losses: list[tuple[float, float]], cut: int
) -> None:
    record = json.loads(json.dumps(told(losses[:cut], small).to_record()))
    resumed = MetaStopping.from_record(small, record)
    for local, neighbours in losses[cut:]:
        resumed = resumed.after_round(local, neighbours)
    assert resumed == told(losses, small)


def test_a_record_is_read_with_the_recipe_that_goes_on() -> None:
    record = told(both(falling(10))).to_record()
    assert "recipe" not in record
    assert (
        MetaStopping.from_record(StoppingRecipe(most_rounds=11), record).after_round(0.1, 0.1).reason
        is StopReason.ROUNDS
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"reason": "bored"}, "reason"),
        ({"rounds": -1}, "rounds"),
        ({"waited": "long"}, "waited"),
        ({"last": [1.0]}, "last"),
        ({"fallen": math.nan}, "fallen"),
        ({"mood": 1}, "mood"),
    ],
)
def test_a_record_that_is_none_is_refused_by_the_name_of_what_is_wrong(changed: dict[str, object], named: str) -> None:
    record = told([(1.0, 1.0)]).to_record()
    with pytest.raises(CorruptData, match=rf"not usable \({named}.*: start it anew"):
        MetaStopping.from_record(StoppingRecipe(), record | changed)


@pytest.mark.parametrize(
    "option", [{"patience": 0}, {"tolerance": -0.1}, {"tolerance": 1}, {"n_div": 0}, {"n_conv": 0}, {"most_rounds": 0}]
)
def test_a_recipe_that_would_stop_before_it_began_is_refused(option: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        StoppingRecipe.model_validate(option)


# --- for all losses


@settings(deadline=None, max_examples=300)
@given(losses=some_losses)
def test_the_reason_is_the_first_criterion_that_the_whole_history_meets(losses: list[tuple[float, float]]) -> None:
    """Against the criteria told over the whole history at once, instead of counted as it comes."""

    def flat(was: float, now: float) -> bool:
        return abs(now - was) <= small.tolerance * was

    def met(history: list[tuple[float, float]]) -> StopReason | None:
        changes = list(pairwise(history))
        apart = [b[0] > a[0] and b[1] < a[1] for a, b in changes]
        still = [flat(a[0], b[0]) and flat(a[1], b[1]) for a, b in changes]
        falls = [0]
        for index, (_, loss) in enumerate(history):
            reference = history[falls[-1]][1]
            if loss < reference and not flat(reference, loss):
                falls.append(index)
        if len(history) - 1 - falls[-1] >= small.patience:
            return StopReason.PATIENCE
        if len(apart) >= small.n_div and all(apart[-small.n_div :]):
            return StopReason.DIVERGING
        if len(still) >= small.n_conv and all(still[-small.n_conv :]):
            return StopReason.CONVERGED
        return StopReason.ROUNDS if len(history) >= small.most_rounds else None

    reasons = ((met(losses[:n]), n) for n in range(1, len(losses) + 1))
    expected = next((pair for pair in reasons if pair[0] is not None), (None, len(losses)))
    assert answer(losses, small) == expected


@settings(deadline=None, max_examples=100)
@given(losses=some_losses, power=st.integers(-20, 20))
def test_the_unit_of_the_loss_is_of_no_matter(losses: list[tuple[float, float]], power: int) -> None:
    scaled = [(local * 2.0**power, neighbours * 2.0**power) for local, neighbours in losses]
    assert answer(scaled, small) == answer(losses, small)


@settings(deadline=None, max_examples=100)
@given(losses=st.lists(st.tuples(st.floats(), st.none() | st.floats()), max_size=20))
def test_any_numbers_whatever_are_answered_and_kept(losses: list[tuple[float, float | None]]) -> None:
    stopping = told(losses, small)
    assert stopping.rounds <= small.most_rounds
    assert stopping.reason is not None or stopping.rounds == len(losses)
    assert MetaStopping.from_record(small, json.loads(json.dumps(stopping.to_record(), allow_nan=False))) == stopping

"""Meta early stopping: stop a peer once it gains nothing more from its neighbours. No torch.

    stopping = MetaStopping(recipe=StoppingRecipe())
    while stopping.reason is None:
        ...  # a round
        stopping = stopping.after_round(local_loss, neighbours_loss)

The criteria are those of the program that belongs to "A Meta Stopping Mechanism for a KD-based Decentralized System",
by authors of FGCS 176, 2025. After each round a peer computes two losses: that on its own validation data, and the mean
of those on its neighbours' validation data. The first criterion that is met stops it:

    patience    C1: the neighbours' loss has not fallen for `patience` rounds
    diverging   C2: the peer's own loss has risen and the neighbours' has fallen, `n_div` times in a row
    converged   C3: both have changed by no more than `tolerance`, `n_conv` times in a row
    rounds          `most_rounds` are over
    not finite      a loss is infinite or not a number; this criterion comes before all others

The description leaves details open. They are decided here as follows, not always as in the program:

- Patience watches the neighbours' loss, which shows what a peer gains from them; its own loss is the subject of C2.
  The loss has fallen when it is lower by more than the share `tolerance` than when it last fell, so small steps add up.
  (The program counts rounds in which the peer's own loss is that far above its best, and starts again when either loss
  is its best.)
- C2 compares with the round before, without a tolerance. (The program counts a constant neighbours' loss as a fall.)
- C3 compares with the round before, as a share of the loss then. (The program: as a share of the best loss so far.)
- A round in which no neighbour answered counts as a round and nothing else. (The program has no such rounds.)

Privacy: neighbours must allow the use of their private validation data. No sample leaves a neighbour, but in each
round one number does: the loss of a model that somebody else has made. Someone who may ask often, with models of their
choice, learns about single samples. So this is an option for peers that trust each other that far. Where the topology
changes with the rounds, so do the neighbours, and their loss is noisier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, FiniteFloat, ValidationError

from diredi.config import Config
from diredi.errors import CorruptData


class StoppingRecipe(Config):
    """Choose when a peer stops. The defaults are those of the authors' program when it uses all criteria at once.

    A criterion that needs `most_rounds` rounds or more is switched off in effect.
    """

    patience: int = Field(default=5, ge=1)
    """C1: rounds in a row without a fall of the neighbours' loss."""
    tolerance: float = Field(default=0.02, ge=0, lt=1)
    """Share of a loss up to which a change counts as none, for `patience` and `n_conv`."""
    n_div: int = Field(default=4, ge=1)
    """C2: changes in a row in which the two losses move apart."""
    n_conv: int = Field(default=4, ge=1)
    """C3: changes in a row in which neither loss moves."""
    most_rounds: int = Field(default=40, ge=1)
    """Stop after this many rounds in any case."""


class StopReason(StrEnum):
    """The criterion that has stopped a peer."""

    PATIENCE = "patience"
    DIVERGING = "diverging"
    CONVERGED = "converged"
    ROUNDS = "rounds"
    NOT_FINITE = "not finite"


class MetaStopping(Config):
    """The state of early stopping of one peer, as an immutable value.

    Examples:
        >>> stopping = MetaStopping(recipe=StoppingRecipe(most_rounds=1)).after_round(0.5, 0.7)
        >>> stopping.reason.value
        'rounds'
    """

    recipe: StoppingRecipe
    rounds: int = Field(default=0, ge=0)
    """Rounds so far."""
    fallen: FiniteFloat | None = None
    """The neighbours' loss when it last fell, with which patience compares."""
    last: tuple[FiniteFloat, FiniteFloat] | None = None
    """The peer's own loss and its neighbours' loss in the last round that had both."""
    waited: int = Field(default=0, ge=0)
    """Rounds since the neighbours' loss fell."""
    apart: int = Field(default=0, ge=0)
    """Changes in a row, up to the last, in which the peer's own loss rose and the neighbours' fell."""
    flat: int = Field(default=0, ge=0)
    """Changes in a row, up to the last, within tolerance."""
    reason: StopReason | None = None
    """The criterion that has stopped the peer; None while it goes on. A peer that has stopped stays stopped."""

    @classmethod
    def from_record(cls, recipe: StoppingRecipe, record: Mapping[str, Any]) -> Self:
        """Restore a state from `to_record`.

        Args:
            recipe: The recipe, which the record does not contain.
            record: What `to_record` has returned.

        Raises:
            CorruptData: The record is not one of `to_record`.
        """
        try:
            return cls.model_validate({**record, "recipe": recipe})
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise CorruptData(f"the record of a peer's losses is not usable ({problems}): start it anew") from None

    def to_record(self) -> dict[str, Any]:
        """Return the state without the recipe, as values that JSON can hold."""
        return self.model_dump(mode="json", exclude={"recipe"})

    def after_round(self, local_loss: float, neighbours_loss: float | None) -> Self:
        """Return the state after one more round.

        Args:
            local_loss: Loss on the peer's own validation data, of the head that the round has trained. Any number,
                infinite ones and NaN included.
            neighbours_loss: Mean loss of the same head on the neighbours' validation data; None where no neighbour
                answered.

        Returns:
            A new state. A state that has stopped is returned unchanged.
        """
        if self.reason is not None:
            return self
        state = self.model_copy(update={"rounds": self.rounds + 1})
        if not (math.isfinite(local_loss) and (neighbours_loss is None or math.isfinite(neighbours_loss))):
            return state.model_copy(update={"reason": StopReason.NOT_FINITE})
        if neighbours_loss is not None:
            state = state._observe(float(local_loss), float(neighbours_loss))
        return state.model_copy(update={"reason": state._stop_reason()})

    def _observe(self, local: float, neighbours: float) -> Self:
        falls = self.fallen is None or (neighbours < self.fallen and not self._is_unchanged(self.fallen, neighbours))
        apart = flat = False
        if self.last is not None:
            local_before, neighbours_before = self.last
            apart = local > local_before and neighbours < neighbours_before
            flat = self._is_unchanged(local_before, local) and self._is_unchanged(neighbours_before, neighbours)
        return self.model_copy(
            update={
                "fallen": neighbours if falls else self.fallen,
                "last": (local, neighbours),
                "waited": 0 if falls else self.waited + 1,
                "apart": self.apart + 1 if apart else 0,
                "flat": self.flat + 1 if flat else 0,
            }
        )

    def _is_unchanged(self, before: float, now: float) -> bool:
        return abs(now - before) <= self.recipe.tolerance * abs(before)

    def _stop_reason(self) -> StopReason | None:
        if self.waited >= self.recipe.patience:
            return StopReason.PATIENCE
        if self.apart >= self.recipe.n_div:
            return StopReason.DIVERGING
        if self.flat >= self.recipe.n_conv:
            return StopReason.CONVERGED
        return StopReason.ROUNDS if self.rounds >= self.recipe.most_rounds else None

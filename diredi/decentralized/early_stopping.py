"""Meta early stopping: when a peer has had enough of its neighbours. No torch.

    stopping = MetaStopping(recipe=StoppingRecipe())
    while stopping.reason is None:
        ...  # a round
        stopping = stopping.after_round(local_loss, neighbours_loss)

The criteria are those of the program that goes with "A Meta Stopping Mechanism for a KD-based Decentralized System", by
authors of FGCS 176, 2025. After each round a peer looks at two losses: that on its own validation data, and the mean of
those on its neighbours' validation data. The first criterion that is met stops it:

    patience    C1: the neighbours' loss has not fallen for `patience` rounds
    diverging   C2: the peer's own loss has risen and the neighbours' has fallen, `n_div` times in a row
    converged   C3: both have changed by no more than `tolerance`, `n_conv` times in a row
    rounds          it has had `most_rounds`
    not finite      a loss is infinite or not a number; this one comes before all others

What such a short description leaves open is decided here, and is not always what the program does:

- Patience watches the neighbours' loss: it says what a peer gets out of its neighbours, and its own is what C2 is for.
  It has fallen when it is more than `tolerance`, as a share, below the last one that had; so small steps add up. (The
  program counts rounds in which the peer's own loss is that far above its best, anew when either loss is its best.)
- C2 compares with the round before, without a tolerance. (The program takes a neighbours' loss that stays for a fall.)
- C3 compares with the round before, as a share of what the loss was then. (The program: of the best so far.)
- A round in which no neighbour could be asked counts as a round and as nothing else. (The program has none such.)

Privacy: this assumes that neighbours let their private validation data be used. No sample leaves a neighbour, but in
each round one number does, the loss on them, of a model that somebody else has made. It is not nothing: who may ask
often, with models of their choice, learns about single samples. So it is an option, and its place is among peers that
trust each other that far. Where the topology changes with the rounds, so do the neighbours, and their loss is noisier.
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
    """When a peer stops. The defaults are those of the authors' program where it uses all criteria at once.

    A criterion that asks for `most_rounds` or more is as good as left out.
    """

    patience: int = Field(default=5, ge=1)
    """Rounds in a row that the neighbours' loss may go without falling."""
    tolerance: float = Field(default=0.02, ge=0, lt=1)
    """The share of a loss up to which a change is none, for `patience` and `n_conv`."""
    n_div: int = Field(default=4, ge=1)
    """Changes in a row in which the two losses move apart."""
    n_conv: int = Field(default=4, ge=1)
    """Changes in a row in which neither loss moves."""
    most_rounds: int = Field(default=40, ge=1)


class StopReason(StrEnum):
    """Why a peer has stopped."""

    PATIENCE = "patience"
    DIVERGING = "diverging"
    CONVERGED = "converged"
    ROUNDS = "rounds"
    NOT_FINITE = "not finite"


class MetaStopping(Config):
    """What one peer has seen of its losses so far. It never changes; `after` a round there is another one."""

    recipe: StoppingRecipe
    rounds: int = Field(default=0, ge=0)
    """Rounds that it has been told of."""
    fallen: FiniteFloat | None = None
    """The neighbours' loss when it last fell, which is what patience compares with."""
    last: tuple[FiniteFloat, FiniteFloat] | None = None
    """The peer's own loss and its neighbours', of the last round that had both."""
    waited: int = Field(default=0, ge=0)
    """Rounds since the neighbours' loss fell."""
    apart: int = Field(default=0, ge=0)
    """Changes in a row, up to the last, in which the peer's own loss rose and the neighbours' fell."""
    flat: int = Field(default=0, ge=0)
    """Changes in a row, up to the last, within tolerance."""
    reason: StopReason | None = None
    """Why the peer stops; None: it goes on. Who has stopped stays so."""

    @classmethod
    def from_record(cls, recipe: StoppingRecipe, record: Mapping[str, Any]) -> Self:
        """What `to_record` had said. Raises CorruptData where the record is none."""
        try:
            return cls.model_validate({**record, "recipe": recipe})
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise CorruptData(f"the record of a peer's losses is not usable ({said}): start it anew") from None

    def to_record(self) -> dict[str, Any]:
        """Everything but the recipe, as JSON can hold it."""
        return self.model_dump(mode="json", exclude={"recipe"})

    def after_round(self, local_loss: float, neighbours_loss: float | None) -> Self:
        """What is so after one more round. Losses may be any numbers at all.

        `local_loss` is on the peer's own validation data, `neighbours_loss` the mean of those on its neighbours'; None
        where none could be asked. Both are of the head that the round has taught.
        """
        if self.reason is not None:
            return self
        told = self.model_copy(update={"rounds": self.rounds + 1})
        if not (math.isfinite(local_loss) and (neighbours_loss is None or math.isfinite(neighbours_loss))):
            return told.model_copy(update={"reason": StopReason.NOT_FINITE})
        if neighbours_loss is not None:
            told = told._observe(float(local_loss), float(neighbours_loss))
        return told.model_copy(update={"reason": told._stop_reason()})

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

"""How many steps a training has time for, and the learning rate of each."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final

import numpy as np

from diredi.distillation.recipe import TrainRecipe

Json = dict[str, Any]
RECENT: Final = 5
"""Of so many steps the median is what a step takes: one that waited for something says nothing of the next."""


class Pace:
    """The steps of a training and where on the way of the learning rate each of them is.

    A machine may become slower while it trains. Where `max_seconds` would then not be kept, fewer steps are left, and
    they go the rest of the way in longer strides, so that the last one is at the recipe's floor all the same.
    """

    def __init__(self, recipe: TrainRecipe, planned: int) -> None:
        """Begin a training.

        Args:
            recipe: The learning rate's way, and the limit.
            planned: Steps that are made if there is time for all.
        """
        self.steps = planned
        """How many there are to be, as far as is known."""
        self._recipe, self._planned = recipe, planned
        self._since, self._place = 0, 0.0
        self._ends: deque[float] = deque(maxlen=RECENT + 1)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step: a linear rise, then half a cosine down to the recipe's floor.

        Args:
            step: Its number, from 0.
        """
        recipe, place = self._recipe, self._place_of(step)
        warmup = max(round(recipe.warmup * self._planned), 1)
        if place < warmup:
            return recipe.learning_rate * ((place + 1) / warmup)
        done = (place - warmup) / max(self._planned - warmup, 1)
        floor = recipe.final_learning_rate
        return recipe.learning_rate * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)

    def keep(self, done: int, seconds: float) -> None:
        """Change the number of steps so that the limit is kept.

        Args:
            done: Steps that have been made.
            seconds: What they have taken together.
        """
        self._ends.append(seconds)
        if self._recipe.max_seconds is None or done == self.steps or len(self._ends) < 2:  # the first is always slow
            return
        one = max(float(np.median(np.diff(self._ends))), 1e-9)
        fitting = min(done + max(int((self._recipe.max_seconds - seconds) / one), 1), self._planned)
        if fitting != self.steps:
            self._since, self._place = done, self._place_of(done)
            self.steps = fitting

    def _place_of(self, step: int) -> float:
        """The number that a step would have if all that are planned were made."""
        ahead, room = step - self._since, max(self.steps - 1 - self._since, 1)
        return self._place + ahead * (self._planned - 1 - self._place) / room

    def said(self) -> Json:
        """Return where it stands, in JSON."""
        return {"steps": self.steps, "since": self._since, "place": self._place, "ends": list(self._ends)}

    def go_on(self, said: Json) -> None:
        """Go on from where an equal training stood."""
        self.steps, self._since, self._place = said["steps"], said["since"], said["place"]
        self._ends.extend(said["ends"])

"""A cycle's recipe: the cloud's own, with what the operator wants otherwise."""

from __future__ import annotations

from cloud_server.entities import Json
from diredi.knowledge.recipe import CycleRecipe


def merged(recipe: CycleRecipe, overrides: Json) -> Json:
    """The whole recipe. Raises InvalidInput that names the option which it does not have or cannot be so."""
    return CycleRecipe.of(_over(recipe.model_dump(mode="json"), overrides)).model_dump(mode="json")


def _over(base: Json, overrides: Json) -> Json:
    """`base` with `overrides` laid over it, in nested tables too."""
    both = dict(base)
    for key, value in overrides.items():
        inner = both.get(key)
        both[key] = _over(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both

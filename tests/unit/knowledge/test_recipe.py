"""What a recipe may say, and what it is told when it says something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diredi.errors import InvalidInput
from diredi.knowledge.recipe import BootstrapRecipe, CycleRecipe, Recipe

every_recipe = pytest.mark.parametrize("kind", [CycleRecipe, BootstrapRecipe])


@every_recipe
def test_a_recipe_survives_the_wire_where_every_number_is_a_float(kind: type[Recipe]) -> None:
    told = json.loads(kind().model_dump_json(), parse_int=float)
    assert kind.of(told) == kind()


def test_an_override_inside_a_training_leaves_the_rest_of_that_training() -> None:
    recipe = CycleRecipe.of({"tutor": {"batch": 4, "augment": {"noise": 0}}})
    default = CycleRecipe().tutor
    assert recipe.tutor == default.model_copy(
        update={"batch": 4, "augment": default.augment.model_copy(update={"noise": 0})}
    )
    assert recipe.student == CycleRecipe().student


def test_losses_that_are_named_replace_the_default_ones() -> None:
    assert CycleRecipe.of({"tutor": {"losses": {"fgd": 1}}}).tutor.losses == {"fgd": 1.0}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lambda": 1}, "lambda"),
        ({"lam": -1}, "lam"),
        ({"lam": {"backbone": 0.5}}, "neck"),
        ({"lam": {"backbone": 0.5, "neck": 3, "head": 1}}, "lam"),
        ({"lam": {"body": 1}}, "lam"),
        ({"lam_candidates": []}, "lam_candidates"),
        ({"lam_candidates": [3]}, "lam_candidates"),
        ({"codec": "gzip"}, "int8-row-zstd"),
        ({"tutor": {"epoch": 3}}, r"tutor\.epoch"),
        ({"tutor": {"batch": 0.5}}, r"tutor\.batch"),
        ({"tutor": {"losses": {"boxes": -1}}}, r"tutor\.losses\.boxes"),
        ({"redistil_images": {"presumed": float("inf")}}, r"redistil_images\.presumed"),
        ({"start": "fresh", "reverse_distillations": "one"}, "reverse_distillations=two"),
        ({"layers": ["body"]}, "layers"),
        ({"branch": {"train_only": []}}, r"branch\.train_only"),
        ({"redistil_branch": {"train_only": ["backbone", "head"]}}, r"redistil_branch\.train_only"),
        ({"students": []}, "students"),
        ({"max_harm": 2}, "max_harm"),
    ],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        CycleRecipe.of(options)


def test_lambdas_are_tried_from_the_largest() -> None:
    assert CycleRecipe.of({"lam_candidates": [0.1, 1, 0.5, 1]}).lam_candidates == (1.0, 0.5, 0.1)


@every_recipe
def test_every_option_is_explained(kind: type[Recipe]) -> None:
    page = (Path(__file__).parents[3] / "docs/reference/recipe.md").read_text()
    assert [name for name in kind.model_fields if f"`{name}`" not in page] == []

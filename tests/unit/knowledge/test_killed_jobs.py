"""Jobs that end in the middle, as by a power cut at a site, and are started again in the folder that they left."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from shapes import GROWN, SIZE, TINY, World

from diredi.jobs import call
from diredi.knowledge.jobs import bootstrap, extract
from diredi.progress import Progress

pytestmark = pytest.mark.slow

Json = dict[str, Any]
TWO_EPOCHS = {"epochs": 2, "batch": 16}


class Killed(Exception):
    """What a test does to a job that it wants to end in the middle."""


def bootstrap_spec(world: World) -> Json:
    recipe = {"tutor": TWO_EPOCHS, "student": TWO_EPOCHS, "coreset_images": 0}
    models = {"teacher": None, "tutor": TINY, "student": TINY}
    return {"presumed": str(world.presumed_yaml), **models, "image_size": SIZE, "recipe": recipe}


def extract_spec(world: World) -> Json:
    short = dict.fromkeys(("tutor", "student", "branch"), TWO_EPOCHS)
    recipe = {**short, "lam_candidates": [1], "max_cost": 1e3}  # no clock decides how long the tutor learns
    models = {"tutor": str(world.model), "student": str(world.model), "coreset": None}
    return {"data": str(world.site_yaml), **models, "labels": GROWN.model_dump(), "recipe": recipe}


def run(job: ModuleType, spec: Json, folder: Path, until: tuple[str, float] | None = None) -> tuple[Json, Json]:
    """The result, and the fractions of each step; killed when step `until` gets so far."""
    said: Json = {}
    folder.mkdir(exist_ok=True)

    def heard(progress: Progress) -> None:
        said.setdefault(progress.step, []).append(progress.fraction)
        if until is not None and progress.step == until[0] and progress.fraction > until[1]:
            raise Killed

    try:
        return call(job.main, spec, folder, heard), said
    except Killed:
        return {}, said


@pytest.mark.parametrize(
    ("job", "make", "last", "earlier", "made"),
    [
        (bootstrap, bootstrap_spec, "student", "tutor", ("tutor", "student")),
        (extract, extract_spec, "student-gap", "tutor-2", ("tutor_gap", "student_gap")),
    ],
)
def test_a_killed_job_repeats_no_training_and_makes_the_same(job, make, last, earlier, made, world, tmp_path):
    spec = make(world)
    whole, _ = run(job, spec, tmp_path / "whole")
    nothing, _ = run(job, spec, tmp_path / "killed", until=(last, 0.5))
    assert nothing == {}
    again, said = run(job, spec, tmp_path / "killed")
    assert said[earlier] == [1.0], "a training that was done is not done again"
    assert said[last][0] == 0.5, "progress starts where it was"
    assert [again[kind]["digest"] for kind in made] == [whole[kind]["digest"] for kind in made]
    assert not (tmp_path / "killed" / "training").exists()


def test_a_job_with_another_spec_goes_on_from_nothing(world, tmp_path):
    run(bootstrap, bootstrap_spec(world), tmp_path, until=("tutor", 0.6))
    other = bootstrap_spec(world)
    other["recipe"]["seed"] = 1
    _, said = run(bootstrap, other, tmp_path, until=("tutor", 0.0))
    assert said["tutor"][0] < 0.5

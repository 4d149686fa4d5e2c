"""Nothing but the name of an architecture changes when a fleet is of another detector family, or of two."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from family_cycle import run
from shapes import GROWN, KNOWN, LEARN, SIZE, World

from diredi.data.dataset import Sample
from diredi.detectors import registry
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.spec import DetectorSpec
from diredi.distillation.trainer import train
from diredi.evaluation.detection import evaluate
from diredi.knowledge.gap import apply
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.reverse import SiteData, reverse_distil

pytestmark = pytest.mark.slow

LIBRE_MISSING = find_spec("libreyolo") is None
libre = pytest.mark.skipif(
    LIBRE_MISSING, reason="libreyolo is not installed: python3 deploy/setup.py --groups libreyolo"
)


@pytest.mark.parametrize(("tutor", "student"), [
    pytest.param("yolo11-w0.125", "libreyolo9-w0.0625", marks=libre),
    pytest.param("libreyolo9-w0.0625-gn", "yolo11-w0.0625", marks=libre),
    ("yolo11-w0.125-gn", "yolo11-w0.0625"),
])  # fmt: skip
def test_tutor_and_student_of_a_cycle_may_be_of_two_families(tutor, student, world: World, tmp_path: Path):
    made = run(world.presumed_yaml, world.site_yaml, tutor, student, tmp_path)
    specs = [DetectorSpec.of_file(Path(made[job]["weights"])) for job in ("apply_gap", "redistil")]
    assert [spec.architecture for spec in specs] == [tutor, student]
    assert OnnxPredictor(Path(made["redistil"]["onnx"]["path"])).labels == GROWN


@libre
def test_a_whole_cycle_runs_where_ultralytics_is_not_installed(world: World, tmp_path: Path):
    places = [str(world.presumed_yaml), str(world.site_yaml), str(tmp_path)]
    code = (
        "import sys; from pathlib import Path; sys.modules['ultralytics'] = None; from family_cycle import run; "
        "presumed, site, folder = map(Path, sys.argv[1:]); "
        "run(presumed, site, 'libreyolo9-w0.125', 'libreyolo9-w0.0625', folder)"
    )
    here = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[3]}"}
    done = subprocess.run([sys.executable, "-c", code, *places], env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    predictor = OnnxPredictor(tmp_path / "redistil" / "student.onnx", threads=1)
    assert predictor.spec.architecture == "libreyolo9-w0.0625"


@pytest.mark.parametrize("name", [pytest.param("libreyolo9-w0.0625", marks=libre), "yolo11-w0.125-gn"])
def test_a_detector_of_any_kind_learns_and_a_site_teaches_it_a_new_class(name, world: World):
    learn = LEARN.model_copy(update={"steps": 160, "learning_rate": 4e-3})
    tutor = registry.create(name, SIZE, KNOWN, 0, "cpu")
    train(tutor, world.presumed.train, learn)
    assert evaluate(tutor, world.presumed.val, KNOWN).map50 > 0.7
    data = SiteData.of(world.site, None, GROWN, False)
    recipe = CycleRecipe(tutor=learn.model_copy(update={"losses": {"class_scores": 0.3, "boxes": 0.3}}))
    tutor_2, gap = reverse_distil(tutor, world.detector(), data, recipe)
    assert evaluate(tutor_2, world.site.with_labels(GROWN).val, GROWN).per_class["disc"].ap50 > 0.5
    sums, wanted = apply(tutor.weights(), gap, 1.0), tutor_2.weights()
    floats = [key for key in wanted if wanted[key].dtype == np.float32]
    assert all(np.allclose(sums[key], wanted[key], rtol=1e-4, atol=1e-5) for key in floats)
    assert not (name.endswith("-gn") and any("running_" in key for key in gap))


@libre
def test_a_student_learns_from_a_teacher_of_another_family_without_a_single_label(world: World):
    student = registry.create("libreyolo9-w0.0625", SIZE, KNOWN, 0, "cpu")
    bare = [Sample(sample.image, np.zeros((0, 5), np.float32)) for sample in world.presumed.train]
    report = train(student, bare, LEARN.model_copy(update={"label_weight": 0.0}), teacher=world.detector())
    assert report.losses[-1]["boxes"] < report.losses[0]["boxes"] / 2, "the bins of a box are the same"
    assert evaluate(student, world.presumed.val, KNOWN).map50 > 0.4

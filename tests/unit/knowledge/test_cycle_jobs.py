"""The jobs of a cycle, from bootstrap to the validated release."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from shapes import GROWN, KNOWN, SIZE, TINY, World, write_shapes

from diredi.data.style import SiteStyle
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData, DatasetError, InvalidInput, NotFound
from diredi.evaluation.metrics import DetectionMetrics
from diredi.jobs import call
from diredi.knowledge.check import check_gap_file
from diredi.knowledge.gap import Gap
from diredi.knowledge.jobs import apply_gap, bootstrap, extract, redistil, validate
from diredi.progress import Progress
from diredi.store.blobs import digest_of_file
from diredi.store.weights import WeightMap

QUICK = {"steps": 2, "batch": 4}
BOOTSTRAP = {"teacher": QUICK, "tutor": QUICK, "student": QUICK, "coreset_images": 12}
CYCLE = {"form": "weights", "tutor": QUICK, "student": QUICK, "redistil": QUICK, "max_harm": 1.0}
CYCLE |= {"lam_search": "two-axes", "lam_candidates": [1, 0.5]}
Json = dict[str, Any]


@dataclass
class Shop:
    """Runs jobs in `folder` and keeps what they said."""

    folder: Path
    said: list[Progress] = field(default_factory=list)

    def run(self, job: ModuleType, spec: Json) -> Json:
        return call(job.main, spec, self.folder / job.__name__, self.said.append)


def quiet(progress: Progress) -> None:
    assert 0 <= progress.fraction <= 1


def bootstrap_spec(world: World, **changes: object) -> Json:
    models = {"teacher": None, "tutor": TINY, "student": TINY}
    return {"presumed": str(world.presumed_yaml), **models, "image_size": SIZE, "recipe": BOOTSTRAP, **changes}


def extract_spec(world: World, **changes: object) -> Json:
    models = {"tutor": str(world.model), "student": str(world.model), "coreset": None}
    return {"data": str(world.site_yaml), **models, "labels": GROWN.model_dump(), "recipe": CYCLE, **changes}


def sent(extracted: Json, kind: str, site: str = "site-1") -> Json:
    gap = extracted[kind]
    return {"path": gap["path"], "codec": gap["codec"], "site": site, "images": extracted["train_images"]}


@pytest.fixture(scope="module")
def extracted(world: World, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """What the job of a site says."""
    return call(extract.main, extract_spec(world), tmp_path_factory.mktemp("site-0"), quiet)


@pytest.mark.slow
def test_a_cycle_of_jobs_ends_in_a_file_that_an_edge_node_can_run(world: World, tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    first = shop.run(bootstrap, bootstrap_spec(world))
    tutor, student = first["tutor"]["weights"], first["student"]["weights"]
    models = {"tutor": tutor, "student": student, "coreset": first["coreset"]["path"]}
    gaps = shop.run(extract, extract_spec(world, **models))
    for kind, base in (("tutor_gap", tutor), ("student_gap", student)):
        gap = gaps[kind]
        found = check_gap_file(Path(gap["path"]), gap["codec"], Path(base), digest_of_file(Path(base)).digest, GROWN)
        assert (found.bytes, found.fp32_bytes, found.schema_digest) == tuple(
            gap[name] for name in ("bytes", "fp32_bytes", "schema_digest")
        )
        assert gap["bytes"] < gap["fp32_bytes"] / 4
    assert gaps["boxes"].keys() == set(GROWN.names)
    assert gaps["style"] is None
    assert (gaps["train_images"], gaps["held_out_images"]) == (48, 32)

    cloud = {"presumed": str(world.presumed_yaml), "recipe": CYCLE}
    assert [score["lam"] for score in gaps["scores"]] == [1, 0.5]
    liked = [{**one, "metrics": {**one["metrics"], "map50": 1 - one["lam"]}} for one in gaps["scores"]]
    told = {"gaps": [sent(gaps, "tutor_gap")], "scores": [liked]}
    applied = shop.run(apply_gap, {"tutor": tutor, **told, **cloud})
    assert applied["lam"] == 0.5
    assert DetectorSpec.of_file(Path(applied["weights"])).labels == GROWN
    ours = {"student": student, "student_gaps": [sent(gaps, "student_gap")]}
    cloud["recipe"] = {**CYCLE, "students": ["mean"]}
    made = shop.run(redistil, {"tutor": applied["weights"], **ours, **cloud})
    onnx = Path(made["onnx"]["path"])
    assert OnnxPredictor(onnx).labels == GROWN
    assert digest_of_file(onnx).digest == made["onnx"]["digest"]
    said = shop.run(validate, {"data": str(world.site_yaml), "onnx": str(onnx), "labels": GROWN.model_dump()})
    assert set(DetectionMetrics.model_validate(said["metrics"]).per_class) == set(GROWN.names)
    assert {"tutor", "student", "tutor-2", "student-gap", "apply", "redistil"} <= {one.step for one in shop.said}


@pytest.mark.slow
def test_the_gaps_of_two_sites_end_in_one_tutor_and_student_with_the_classes_of_both(
    world: World, extracted: Json, tmp_path: Path
) -> None:
    both = GROWN.expand(["ring"])
    second = write_shapes(tmp_path / "second", (*KNOWN.names, "ring"), 16, 8, seed=2)
    spec = extract_spec(world, data=str(second), labels=both.model_dump())
    taken = [extracted, call(extract.main, spec, tmp_path / "site-1", quiet)]
    notes = [Gap.from_bytes(Path(one["tutor_gap"]["path"]).read_bytes()).note for one in taken]
    assert [note.taught for note in notes] == [("disc",), ("ring",)]

    def cloud(kind: str, **merge: str) -> Json:
        gaps = [sent(one, f"{kind}_gap", f"site-{i}") for i, one in enumerate(taken)]
        recipe = {**CYCLE, "lam": 1.0, "merge": merge}
        return {"tutor": str(world.model), "gaps": gaps, "presumed": str(world.presumed_yaml), "recipe": recipe}

    sure, kept = (
        WeightMap.load(Path(call(apply_gap.main, cloud("tutor", **merge), tmp_path / name, quiet)["weights"]))
        for name, merge in (("again", {}), ("kept", {"batch_norm": "gap"}))
    )
    differing = {name for name in sure if not np.array_equal(sure[name], kept[name])}
    assert differing
    assert all("running" in name or "tracked" in name for name in differing)  # measured again, nothing else changed
    tutor = str(tmp_path / "again" / "tutor.safetensors")
    spec = {**cloud("student"), "tutor": tutor, "student": str(world.model)}
    spec["student_gaps"] = spec.pop("gaps")
    made = call(redistil.main, spec, tmp_path / "redistil", quiet)
    assert OnnxPredictor(Path(made["onnx"]["path"])).labels == both


@pytest.mark.slow
def test_a_style_that_a_site_has_published_is_what_the_cloud_teaches_in(world: World, tmp_path: Path) -> None:
    told = call(
        extract.main, extract_spec(world, publish_style=True, recipe={**CYCLE, "student_gap": False}), tmp_path, quiet
    )
    assert SiteStyle.model_validate(told["style"]).lightness[3] < 80
    models = {"tutor": str(world.model), "student": str(world.model), "student_gaps": [], "styles": [told["style"]]}
    ours = {"presumed": str(world.presumed_yaml)}
    recipe = {**CYCLE, "redistil_images": {"presumed": 1, "styled": 1}}
    made = call(redistil.main, {**models, **ours, "recipe": recipe}, tmp_path, quiet)
    assert made["images"] == {"presumed": 48, "styled": 48}


@pytest.mark.slow
def test_no_images_are_collected_where_no_student_is_taught(world: World, extracted: Json, tmp_path: Path) -> None:
    models = {"tutor": str(world.model), "student": str(world.model), "student_gaps": [sent(extracted, "student_gap")]}
    ours = {"presumed": str(world.presumed_yaml)}
    made = call(redistil.main, {**models, **ours, "recipe": CYCLE}, tmp_path, quiet)
    assert (made["chosen"], made["images"]) == ("gap", {})


@pytest.mark.slow
def test_a_job_that_was_killed_and_runs_again_in_its_folder_gives_the_same(world: World, tmp_path: Path) -> None:
    pack = call(
        bootstrap.main, bootstrap_spec(world, tutor=str(world.model), student=str(world.model)), tmp_path, quiet
    )
    assert pack["tutor"]["digest"] != pack["student"]["digest"], "equal weights in two files, which are two models"
    spec = extract_spec(world, coreset=pack["coreset"]["path"])
    first, second = (call(extract.main, spec, tmp_path, quiet) for _ in range(2))
    assert first["tutor_gap"] == second["tutor_gap"]
    assert first["student_gap"] == second["student_gap"]
    Gap.from_bytes(Path(first["tutor_gap"]["path"]).read_bytes())


@pytest.mark.slow
def test_a_teacher_that_is_named_is_trained_first_and_teaches_the_tutor(world: World, tmp_path: Path) -> None:
    steps: list[str] = []

    def heard(progress: Progress) -> None:
        steps.append(progress.step)

    alone = call(bootstrap.main, bootstrap_spec(world), tmp_path / "alone", quiet)
    taught = call(bootstrap.main, bootstrap_spec(world, teacher="yolo11-w0.125"), tmp_path / "taught", heard)
    assert list(dict.fromkeys(step for step in steps if step in ("teacher", "tutor", "student"))) == [
        "teacher",
        "tutor",
        "student",
    ]
    assert DetectorSpec.of_file(Path(taught["teacher"]["weights"])).architecture.startswith("yolo11-w0.125")
    assert taught["tutor"]["digest"] != alone["tutor"]["digest"]


@pytest.mark.slow
def test_models_that_are_given_are_not_trained(world: World, tmp_path: Path) -> None:
    spec = bootstrap_spec(world, tutor=str(world.model), student=str(world.model))
    made = call(bootstrap.main, spec, tmp_path, quiet)
    assert made["teacher"] is None
    assert made["student"]["digest"] == digest_of_file(world.model).digest
    tutor, given = WeightMap.load(Path(made["tutor"]["weights"])), WeightMap.load(world.model)
    assert tutor.digest({}) == given.digest({}), "another file with the same weights"


def test_presumed_data_without_the_tutors_classes_is_refused_with_both_named(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(world.presumed_yaml.read_text().replace("box", "cat").replace("bar", "dog"))
    with pytest.raises(InvalidInput, match=r"cat, dog.*box, bar"):
        call(bootstrap.main, bootstrap_spec(world, presumed=str(other), tutor=str(world.model)), tmp_path, quiet)


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"data": "nowhere/data.yaml"}, DatasetError, "nowhere"),
        ({"tutor": "gone.safetensors"}, NotFound, "gone"),
        ({"labels": {"names": ["box", "bar"]}}, InvalidInput, "disc"),
        ({"recipe": {"epochs": 3}}, InvalidInput, "epochs"),
    ],
)
def test_what_a_spec_names_and_cannot_be_used_is_named(
    world: World, tmp_path: Path, changes: Json, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        call(extract.main, extract_spec(world, **changes), tmp_path, quiet)


def test_a_coreset_that_is_none_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "coreset.zip").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(CorruptData, match=r"coreset\.zip"):
        call(extract.main, extract_spec(world, coreset=str(tmp_path / "coreset.zip")), tmp_path, quiet)


def test_a_release_that_is_no_detector_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "student.onnx").write_bytes(b"not a model")
    spec = {"data": str(world.site_yaml), "onnx": str(tmp_path / "student.onnx"), "labels": GROWN.model_dump()}
    with pytest.raises(CorruptData, match=r"student\.onnx"):
        call(validate.main, spec, tmp_path, quiet)

"""The library does what the services do: the ten lines of the README, and the same bytes as the jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

import diredi
from diredi.jobs import call
from diredi.knowledge.jobs import apply_gap, extract
from tests.unit.knowledge.shapes import GROWN, KNOWN, SIZE, TINY, write_shapes

QUICK = {"steps": 2, "batch": 4}
CYCLE = {
    "form": "weights",
    "tutor": QUICK,
    "student": QUICK,
    "lam_candidates": [1.0, 0.5],
    "max_harm": 1.0,
    "lam_search": "two-axes",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets of a site and its manufacturer, and untrained models."""
    folder = tmp_path_factory.mktemp("library")
    write_shapes(folder / "maker", KNOWN.names, 16, 8, seed=0)
    write_shapes(folder / "site", GROWN.names, 12, 8, seed=1, light=0.5)
    for seed, name in enumerate(("tutor", "student")):
        diredi.create(TINY, SIZE, KNOWN, seed, "cpu").save(folder / f"{name}.safetensors")
    return folder


@pytest.mark.slow
def test_ten_lines_are_a_whole_cycle(folder: Path, tmp_path: Path) -> None:
    site, maker = diredi.load_dataset(folder / "site/data.yaml"), diredi.load_dataset(folder / "maker/data.yaml")
    tutor = diredi.load(folder / "tutor.safetensors", device="cpu")
    student = diredi.load(folder / "student.safetensors", device="cpu")
    gaps = diredi.extract_gap(tutor, student, site, coreset=maker.sample(8), recipe=CYCLE)
    updated = diredi.apply_gap(tutor, gaps.tutor, guard=maker, recipe=CYCLE)
    new = diredi.distil(student, teacher=updated.model, data=maker, recipe=QUICK)
    assert "mAP50" in str(diredi.evaluate(new, site))
    diredi.export(new, tmp_path / "student.onnx")

    assert updated.lam in (1.0, 0.5)
    assert updated.before.images == len(maker.val)
    assert updated.model.spec.labels.names == new.spec.labels.names == GROWN.names
    predictor = diredi.OnnxPredictor(tmp_path / "student.onnx")
    assert diredi.evaluate(predictor, site).images == len(site.val)
    assert [model.spec.labels for model in (tutor, student)] == [KNOWN, KNOWN], "what was given is not changed"
    assert tutor.digest == diredi.load(folder / "tutor.safetensors", device="cpu").digest


@pytest.mark.slow
def test_the_library_and_the_job_make_the_same_gap_and_the_same_tutor(folder: Path, tmp_path: Path) -> None:
    paths = {name: folder / f"{name}.safetensors" for name in ("tutor", "student")}
    tutor, student = (diredi.load(path) for path in paths.values())
    site, maker = (diredi.load_dataset(folder / name / "data.yaml") for name in ("site", "maker"))
    gaps = diredi.extract_gap(tutor, student, site, recipe=CYCLE)
    updated = diredi.apply_gap(tutor, gaps.tutor, guard=maker, recipe=CYCLE, scores=[gaps.metrics.scores])

    spec = {"data": str(folder / "site/data.yaml"), **{kind: str(path) for kind, path in paths.items()}}
    spec |= {"labels": GROWN.model_dump(), "recipe": CYCLE}
    told = call(extract.main, spec, tmp_path, lambda progress: None)
    for gap, kind in ((gaps.tutor, "tutor_gap"), (gaps.student, "student_gap")):
        assert gap is not None
        assert gap.to_bytes() == Path(told[kind]["path"]).read_bytes()
    sent = {"path": told["tutor_gap"]["path"], "codec": told["tutor_gap"]["codec"], "site": "site-1", "images": 12}
    spec = {"tutor": spec["tutor"], "gaps": [sent], "scores": [told["scores"]]}
    spec |= {"presumed": str(folder / "maker/data.yaml"), "recipe": CYCLE}
    made = call(apply_gap.main, spec, tmp_path, lambda progress: None)
    assert made["digest"] == updated.model.digest
    assert made["lam"] == updated.lam

"""The starter release: what is shipped, and that its command makes the same of the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_server import starter
from cloud_server.config import CloudConfig
from cloud_server.starter.train import Plan, differences, make_release, measure
from diredi.data.dataset import load
from diredi.data.sources import resolve
from diredi.errors import CorruptData
from diredi.knowledge.recipe import BootstrapRecipe
from diredi.store.weights import WeightMap

ROOT = Path(__file__).parents[3]


def test_both_files_weigh_at_most_8_mib_and_are_the_ones_that_are_named() -> None:
    release = starter.read_release()
    sizes = [(starter.FOLDER / release.model(kind).file).stat().st_size for kind in starter.KINDS]
    assert sizes == [release.model(kind).bytes for kind in starter.KINDS]
    assert sum(sizes) <= 8 * 2**20


def test_unpacked_weights_are_fp32_and_equal_to_the_half_precision_ones(tmp_path: Path) -> None:
    files = starter.unpack(tmp_path)
    for path, kind in ((files.tutor, "tutor"), (files.student, "student")):
        half, full = WeightMap.load(starter.FOLDER / f"{kind}.safetensors"), WeightMap.load(path)
        assert {dtype for dtype, _ in full.schema().values()} == {"float32", "int64"}
        assert all(np.array_equal(half[name].astype(np.float64), full[name].astype(np.float64)) for name in half)


@pytest.mark.parametrize("kind", starter.KINDS)
def test_a_file_that_was_changed_is_refused_before_anything_is_written(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "shipped"
    shutil.copytree(starter.FOLDER, folder)
    path = folder / f"{kind}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptData, match=f"{kind}.safetensors is not the file that starter.json names"):
        starter.unpack(tmp_path / "out", folder)
    path.unlink()
    with pytest.raises(CorruptData, match="install DiReDi again"):
        starter.unpack(tmp_path / "out", folder)
    assert not (tmp_path / "out").exists()


def test_a_wheel_contains_the_release() -> None:
    from setuptools import Distribution

    distribution = Distribution()
    distribution.parse_config_files([str(ROOT / "pyproject.toml")])
    command: Any = distribution.get_command_obj("build_py")
    command.ensure_finalized()
    command.manifest_files = {}
    found = command.find_data_files("cloud_server.starter", "cloud_server/starter")
    assert {Path(path).name for path in found} >= {"starter.json", "tutor.safetensors", "student.safetensors"}


@pytest.mark.slow
def test_the_shipped_weights_have_the_metrics_that_starter_json_says(tmp_path: Path) -> None:
    release, files = starter.read_release(), starter.unpack(tmp_path / "models")
    metrics = release.student.metrics["scenes:presumed"]
    held_out = load(resolve("scenes:presumed", tmp_path / "data", release.seed, 1, metrics.images), ("val",))
    for kind, path in (("tutor", files.tutor), ("student", files.student)):
        said = release.model(kind).metrics["scenes:presumed"]  # type: ignore[arg-type]
        measured = measure(path, {"scenes:presumed": held_out})["scenes:presumed"]
        assert measured.map50 == pytest.approx(said.map50, abs=0.005), kind
        assert measured.map50_95 == pytest.approx(said.map50_95, abs=0.005), kind


@pytest.mark.slow
def test_the_command_makes_the_same_files_and_metrics_again(tmp_path: Path) -> None:
    one_step = {"steps": 2, "batch": 4}
    plan = Plan(
        site="scenes:presumed",
        train_images=8,
        held_out_images=6,
        tutor="yolo11-w0.0625",
        student="yolo11-w0.0625",
        image_size=64,
        recipe=BootstrapRecipe.of({"tutor": one_step, "student": one_step}),
    )
    first = make_release(plan, tmp_path / "a", tmp_path / "work")
    second = make_release(plan, tmp_path / "b", tmp_path / "work")
    assert first == second and differences(first, second) == []
    assert (tmp_path / "a" / "starter.json").read_bytes() == (tmp_path / "b" / "starter.json").read_bytes()
    starter.unpack(tmp_path / "c", tmp_path / "b")
    other = second.model_copy(update={"seed": 1})
    assert differences(first, other) == ["seed is 0 here and 1 in starter.json"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"presumed_train": 8, "bootstrap": {"coreset_images": 8}, "max_harm": 1.0}, True),
        ({"from_scratch": True}, False),
        ({"presumed": "maker/data.yaml"}, False),
        ({"student": "yolo11n"}, False),
        ({"teacher": "yolo11s"}, False),
        ({"image_size": 192}, False),
        ({"bootstrap": {"tutor": {"epochs": 3}}}, False),
        ({"seed": 1}, False),
    ],
)
def test_the_starter_is_for_the_built_in_scenes_and_the_default_recipe(changes: dict[str, Any], expected: bool) -> None:
    assert CloudConfig(**changes).begins_with_starter is expected

"""Faults in a demo's arguments: each is told in one sentence, before anything is made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cloud_server.starter import FOLDER as SHIPPED
from diredi.data.images import encode_jpeg
from diredi.detectors import registry
from diredi.errors import CorruptData, DatasetError, InvalidInput, NotFound
from diredi.labels import LabelSpace
from diredi_demo.checks import check
from diredi_demo.options import DemoConfig, DemoOptions
from diredi_demo.service_configs import cloud_values, with_scenes
from diredi_demo.workspace import Workspace

ROOT = Path(__file__).parents[3]
Told = Callable[..., None]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    """told(student="none.pt") checks a demo with these arguments; its folder must not appear."""

    def run(**arguments: Any) -> None:
        out = tmp_path / "out"
        try:
            check(DemoOptions(out=out, **arguments), Workspace(out))
        finally:
            assert not out.exists()

    return run


def data_set(folder: Path, names: list[str], val_label: str = "0 0.5 0.5 0.2 0.2\n") -> Path:
    for split, label in (("train", "0 0.5 0.5 0.2 0.2\n"), ("val", val_label)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        (folder / "images" / split / "a.jpg").write_bytes(encode_jpeg(np.zeros((32, 32, 3), np.uint8)))
        (folder / "labels" / split / "a.txt").write_text(label)
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": names}))
    return path


def test_a_demo_without_arguments_has_no_fault(told: Told):
    told()


def test_without_models_the_check_loads_no_torch():
    program = (
        "import sys; from pathlib import Path; from diredi_demo import checks, options, workspace; out = Path('none'); "
        "checks.check(options.DemoOptions(out=out), workspace.Workspace(out)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        ({"cloud": {"tutr": "yolo11n"}}, "cloud: .*tutr"),
        ({"cloud": {"bootstrap": {"tutor": {"epoch": 1}}}}, "cloud: .*bootstrap.tutor.epoch"),
        ({"site": {"aproval": "ask"}}, "site: .*aproval"),
        ({"edge": {"frames_per_second": 0}}, "edge: .*frames_per_second"),
        ({"recipe": {"lamda": 1}}, "recipe: .*lamda"),
    ],
)
def test_a_wrong_field_in_the_config_file_is_named_with_its_part(told: Told, tuning: dict[str, Any], said: str):
    with pytest.raises(InvalidInput, match=said):
        told(tuning=DemoConfig.model_validate(tuning))


def test_an_unknown_architecture_is_told(told: Told):
    with pytest.raises(InvalidInput, match="yolo12000"):
        told(tutor="yolo12000")
    with pytest.raises(InvalidInput, match="yolo11nn"):
        told(tuning=DemoConfig(cloud={"student": "yolo11nn"}))


def test_a_file_of_weights_that_is_missing_or_damaged_is_told(told: Told, tmp_path: Path):
    with pytest.raises(NotFound, match="--student"):
        told(student="models/none.pt")
    with pytest.raises(NotFound, match="no checkpoint"):
        told(tutor="no-such-model.pt")
    with pytest.raises(CorruptData, match="is a folder: name the file of weights in it"):
        told(student=f"{tmp_path}/")
    for name in ("bad.pt", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(CorruptData, match=name):
            told(student=str(tmp_path / name))


def test_faults_of_data_are_told_also_those_in_val(told: Told, tmp_path: Path):
    with pytest.raises(DatasetError):
        told(private=tmp_path / "data.yaml")
    path = data_set(tmp_path / "bad", ["car"], val_label="7 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DatasetError, match=r"labels/val/a.txt, line 1"):
        told(presumed=path)
    empty = data_set(tmp_path / "empty", ["car"], val_label="")
    with pytest.raises(DatasetError, match="`val:` has no labelled box"):
        told(private=empty)


def test_classes_in_another_spelling_are_told_and_new_ones_alone_are_no_fault(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(InvalidInput, match="write 'Person' as 'person', 'CAR' as 'car'"):
        told(private=data_set(tmp_path / "shouted", ["Person", "CAR"]))
    with pytest.raises(InvalidInput, match=r"write 'Person' as 'person' in data\.yaml"):
        told(private=data_set(tmp_path / "one of them", ["car", "Person"]))
    with pytest.raises(InvalidInput, match="'persons' may be 'person'"):
        told(private=data_set(tmp_path / "many", ["car", "persons"]))
    told(private=data_set(tmp_path / "new", ["crane"]))
    assert "learned as new ones" in capsys.readouterr().err


def test_a_model_of_other_classes_than_the_data_is_told(told: Told, tmp_path: Path):
    model = tmp_path / "model.safetensors"
    registry.create("yolo11-w0.0625", 160, LabelSpace(names=("Car", "Bus")), 0).save(model)
    with pytest.raises(InvalidInput, match=r"the student .* have no class in common"):
        told(student=str(model))
    with pytest.raises(InvalidInput, match="write 'car' as 'Car'"):
        told(student=str(model), presumed=data_set(tmp_path / "maker", ["car"]))


def test_the_image_size_is_the_models_own_and_told_with_the_reason(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = tmp_path / "model.safetensors"
    registry.create("yolo11-w0.0625", 640, LabelSpace(names=("car",)), 0).save(model)
    presumed = data_set(tmp_path / "maker", ["car"])
    told(tutor=str(model), presumed=presumed)
    assert "images of 640 pixels, the tutor's own" in capsys.readouterr().err
    told(tutor=str(model), presumed=presumed, image_size=320)
    assert "images of 320 pixels, as image_size says; the tutor was trained at 640" in capsys.readouterr().err
    student = tmp_path / "student.safetensors"
    registry.create("yolo11-w0.0625", 320, LabelSpace(names=("car",)), 0).save(student)
    told(tutor=str(model), student=str(student), presumed=presumed)
    assert "320 pixels, the student's own because devices run it" in (said := capsys.readouterr().err)
    assert "the tutor was trained at 640" in said
    told(presumed=presumed)
    assert "160 pixels, the default of models that are trained from nothing" in capsys.readouterr().err


def test_an_out_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="--out"):
        Workspace(tmp_path / "file" / "out").check()
    with pytest.raises(InvalidInput, match="--out"):
        Workspace(Path("/proc/diredi-demo")).prepare()


def test_release_1_of_built_in_scenes_is_the_starter_release_unless_it_is_to_be_trained(tmp_path: Path):
    def models(**arguments: Any) -> list[str]:
        setting, folder = DemoOptions(out=tmp_path / "out", **arguments), Workspace(tmp_path / "out")
        values = with_scenes(cloud_values(setting, folder), Path("scenes/data.yaml"), folder)
        return [values.get("tutor", ""), values.get("student", "")]

    tutor, student = models()
    assert Path(tutor).is_file() and Path(student).is_file()
    assert Path(tutor).stat().st_size > 1.9 * (SHIPPED / "tutor.safetensors").stat().st_size  # fp32
    assert models(from_scratch=True) == models(seed=1) == models(presumed=Path("data.yaml")) == ["", ""]
    assert models(student="yolo11n") == ["", "yolo11n"]


def test_with_an_oracle_the_site_needs_neither_labels_nor_class_names(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = data_set(tmp_path / "site", ["car"])
    shutil.rmtree(tmp_path / "site" / "labels")
    path.write_text("train: images/train\nval: images/val\n")
    with pytest.raises(DatasetError, match="names"):
        told(private=path)
    told(private=path, labels="oracle")
    assert "no labels: what is measured on them are estimates" in capsys.readouterr().err


def test_with_an_oracle_labels_that_are_there_must_be_right_because_the_demo_measures_by_them(
    told: Told, tmp_path: Path
):
    with pytest.raises(DatasetError, match="line 1"):
        told(private=data_set(tmp_path / "site", ["car"], val_label="7 0.5 0.5 0.2 0.2\n"), labels="oracle")

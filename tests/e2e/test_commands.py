"""Commands that need no fleet."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from diredi import __version__
from tests.e2e.demo_world import Diredi, environment


def test_help_answers_in_well_under_a_second(program: Diredi):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = program("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.code == 0 and "Exit codes" in said.out
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert spent < 0.8, "processor time, so that a busy machine does not matter"


def test_the_command_line_itself_needs_nothing_heavy():
    heavy = {"torch", "grpc", "cv2", "numpy", "pydantic", "onnxruntime", "sqlalchemy", "matplotlib"}
    code = f"import sys, diredi_cli.main; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.strip() == "[]"


def test_version(diredi: Diredi):
    assert diredi("--version").out.strip() == f"diredi {__version__}"


@pytest.mark.usefixtures("quick_processes")
@pytest.mark.parametrize("service", ["cloud", "site", "edge"])
def test_serve_hands_its_flags_to_the_service(program: Diredi, service: str):
    said = program("serve", service, "--help")
    assert said.code == 0 and "--state-dir" in said.out
    wrong = program("serve", service, "--state-dirr", "x")
    assert wrong.code != 0 and "Traceback" not in wrong.err


def test_a_cloud_that_is_away_is_code_8_with_a_remedy(diredi: Diredi, identity: Path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        for command in (("cycle", "list"), ("device", "list"), ("cycle", "watch", "c"), ("model", "list", "--json")):
            said = diredi(*command, "--cloud", address, "--identity", identity)
            assert said.code == 8 and "nothing listens there" in said.error and said.out == ""


@pytest.fixture(scope="module")
def identity(diredi: Diredi, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    assert diredi("pki", "init", folder / "ca", "--json").json()["authority"] == str(folder / "ca")
    said = diredi(
        "pki", "issue", "operator", "alice", "--ca", folder / "ca", "--out", folder / "alice", "--json"
    ).json()
    assert said["identity"] == "operator/alice"
    return folder / "alice"


def test_an_authority_is_not_replaced(diredi: Diredi, identity: Path):
    said = diredi("pki", "init", identity.parent / "ca")
    assert said.code == 6 and "holds an authority already" in said.error


@pytest.mark.usefixtures("quick_processes")
def test_a_port_in_use_is_named(diredi: Diredi, program: Diredi, identity: Path, tmp_path: Path):
    authority = identity.parent / "ca"
    assert (
        diredi(
            "pki", "issue", "cloud", "cloud", "--ca", authority, "--host", "localhost", "--out", tmp_path / "id"
        ).code
        == 0
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ("--identity", tmp_path / "id", "--state-dir", tmp_path / "state", "--listen", f"127.0.0.1:{port}")
        said = program("serve", "cloud", *flags)
    assert said.code in {2, 6} and str(port) in said.err and "Traceback" not in said.err


@pytest.fixture(scope="module")
def scenes(diredi: Diredi, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "site-1"
    said = diredi(
        "data", "synth", "site-1", "--out", folder, "--train", "8", "--val", "4", "--image-size", "96", "--json"
    )
    assert said.json()["train_images"] == 8
    return folder / "data.yaml"


def test_scenes_are_checked_and_not_overwritten(diredi: Diredi, scenes: Path):
    found = diredi("data", "check", scenes, "--json").json()
    assert found["ok"] and found["splits"]["val"]["images"] == 4 and found["problems"] == []
    assert "forklift" in diredi("data", "check", scenes).out
    again = diredi("data", "synth", "site-1", "--out", scenes.parent)
    assert again.code == 6 and "not empty" in again.error
    assert diredi("data", "synth", "site-99", "--out", scenes.parent / "x").code == 2


def broken(scenes: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy with a box outside the image on line 2 of a label file."""
    import shutil

    copy = tmp_path / "broken"
    shutil.copytree(scenes.parent, copy)
    label = min((copy).rglob("train/**/*.txt"))
    label.write_text("0 0.5 0.5 0.1 0.1\n0 1.5 0.5 0.1 0.1\n")
    return copy / "data.yaml", label


def test_a_bad_label_is_named_with_file_and_line(diredi: Diredi, scenes: Path, tmp_path: Path):
    data, label = broken(scenes, tmp_path)
    for command in (("data", "check", data), ("eval", "x.onnx", "--data", data, "--split", "train")):
        said = diredi(*command)
        assert said.code == 2 and f"{label}, line 2" in said.error
    report = diredi("data", "check", data, "--json")
    assert report.code == 2 and json.loads(report.out)["ok"] is False


def test_a_file_that_is_no_model_is_told_as_such(diredi: Diredi, scenes: Path, tmp_path: Path):
    for name in ("model.pt", "model.safetensors", "model.onnx"):
        (tmp_path / name).write_text("this is not a model\n" * 20)
        said = diredi("eval", tmp_path / name, "--data", scenes)
        assert said.code in {2, 3} and name in said.error
    assert diredi("eval", tmp_path / "none.onnx", "--data", scenes).code == 4


def test_a_file_that_is_no_gap_is_told_as_such(diredi: Diredi, tmp_path: Path):
    (tmp_path / "gap.bin").write_text("this is not a gap\n" * 20)
    assert diredi("gap", "inspect", tmp_path / "gap.bin").code == 3


def test_a_bad_data_set_stops_a_demo_before_it_begins(diredi: Diredi, scenes: Path, tmp_path: Path):
    data, label = broken(scenes, tmp_path)
    said = diredi("demo", "--out", tmp_path / "out", "--private", data)
    assert said.code == 2 and f"{label}, line 2" in said.error
    assert not (tmp_path / "out").exists()


def test_a_set_without_labels_is_told_by_every_command_before_it_begins(diredi: Diredi, scenes: Path, tmp_path: Path):
    data = broken(scenes, tmp_path)[0]
    (data.parent / "labels").rename(data.parent / "annotations")
    out = ("--out", tmp_path / "out" / "m.safetensors")
    for command in (
        ("data", "check", data),
        ("train", "student", "--data", data, *out),
        ("eval", "x.onnx", "--data", data, "--split", "train"),
        ("demo", "--out", tmp_path / "demo", "--private", data),
    ):
        said = diredi(*command)
        assert said.code == 2 and "`train:` has no labelled box in 8 images" in said.error
        assert f"their label files are in {data.parent / 'annotations/train'}" in said.error


@pytest.mark.slow
def test_what_is_left_out_is_said_before_a_training(diredi: Diredi, scenes: Path, tmp_path: Path):
    data = broken(scenes, tmp_path)[0]
    min(data.parent.rglob("train/**/*.txt")).write_text("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0 0.1\n")
    (data.parent / "images/train/phone.heic").write_bytes(b"x")
    shown = diredi("data", "check", data)
    assert "note: " in shown.out and "1 .heic" in shown.out
    assert len(diredi("data", "check", data, "--json").json()["notes"]) == 2
    short = ("--image-size", "64", "--epochs", "0.01")
    said = diredi("train", "student", "--data", data, "--out", tmp_path / "m.safetensors", *short)
    before, training, _ = said.err.partition("Training ...")
    assert said.code == 0 and training
    assert "1 .heic" in before and "1 box without width or height" in before


@pytest.mark.usefixtures("quick_processes")
def test_a_demo_leaves_a_folder_of_somebody_else_alone(program: Diredi, tmp_path: Path):
    (tmp_path / "thesis.txt").touch()
    said = program("demo", "--out", tmp_path)
    assert said.code == 2 and "--out" in said.error


@pytest.mark.usefixtures("quick_processes")
def test_stopping_a_demo_that_is_not_there_says_so(program: Diredi, tmp_path: Path):
    said = program("demo", "--out", tmp_path / "out", "--stop", "--json")
    assert said.json() == {"stopped": []}


@pytest.mark.slow
def test_a_model_is_trained_taught_and_measured(diredi: Diredi, scenes: Path, tmp_path: Path):
    flags = ("--data", scenes, "--image-size", "64", "--epochs", "1", "-o", "batch=4", "--threads", "1", "--json")
    tutor, student = tmp_path / "tutor.safetensors", tmp_path / "student.safetensors"
    made = diredi("train", "tutor", "--architecture", "yolo11-w0.125", "--out", tutor, *flags).json()
    assert made["architecture"] == "yolo11-w0.125" and tutor.exists()
    taught = diredi(
        "train", "student", "--architecture", "yolo11-w0.0625", "--teacher", tutor, "--out", student, *flags
    ).json()
    assert Path(taught["onnx"]).exists() and 0 <= taught["metrics"]["map50"] <= 1
    grown = tmp_path / "grown.safetensors"
    assert diredi("train", "teacher", "--start", tutor, "--out", grown, *flags).code == 0


@pytest.mark.usefixtures("quick_processes")
@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_when_the_command_is_given_again(
    diredi: Diredi, scenes: Path, tmp_path: Path
):
    flags = ("--data", scenes, "--image-size", "64", "--epochs", "12", "-o", "batch=4", "--threads", "1", "--json")
    flags += ("--architecture", "yolo11-w0.0625")
    whole = diredi("train", "tutor", "--out", tmp_path / "whole.safetensors", *flags).json()
    killed = ["train", "tutor", "--out", tmp_path / "killed.safetensors", *flags]
    place = tmp_path / "killed.training" / "progress.json"
    with subprocess.Popen([sys.executable, "-m", "diredi_cli", *map(str, killed)], env=environment()) as process:
        while process.poll() is None and not place.exists():
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL and place.exists()
    assert diredi(*killed).json()["digest"] == whole["digest"]
    assert not place.parent.exists()


def test_training_refuses_what_it_cannot_do_in_one_sentence(diredi: Diredi, scenes: Path, tmp_path: Path):
    out = ("--data", scenes, "--out", tmp_path / "m.safetensors")
    assert "epoks" in diredi("train", "tutor", *out, "-o", "epoks=1").error
    assert "yolo99" in diredi("train", "tutor", *out, "--architecture", "yolo99").error
    assert ".safetensors" in diredi("train", "tutor", "--data", scenes, "--out", tmp_path / "m.pt").error

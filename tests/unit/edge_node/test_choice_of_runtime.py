"""Which runtime is chosen, how a choice is remembered, and what happens to one that fails."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diredi.detectors.predictor import Detections, Image
from diredi.detectors.spec import DetectorSpec
from diredi.labels import LabelSpace
from edge_node.active_model import FAILURES_IN_A_ROW, ActiveModel, ModelFile, RunningModel
from edge_node.runtime_trial import Measurement
from edge_node.runtimes import MAX_UNCLEAN_ENDS, Choice, RuntimeChooser, choose
from edge_node.update_states import InstallableRelease

LABELS = LabelSpace(names=("car",))
FRAME = np.zeros((8, 8, 3), np.uint8)
NOTHING = Detections.of(np.zeros((0, 4)), [], [])


class Model:
    labels = LABELS
    spec = DetectorSpec(architecture="of-a-test", image_size=64, labels=LABELS)
    breaks = False

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        if self.breaks:
            raise RuntimeError("broken")
        return [NOTHING] * len(images)


def measured(runtime: str, speedup: float, problem: str = "") -> Measurement:
    return Measurement(runtime=runtime, ms=20 / speedup, reference_ms=20, speedup=speedup, problem=problem)


@pytest.mark.parametrize(
    ("found", "is_asked", "runtime", "why"),
    [
        ([measured("openvino", 2)], False, "openvino", "openvino takes 10.0 ms a frame and onnxruntime 20.0 ms"),
        ([measured("openvino", 2), measured("onnxruntime:CUDA", 4)], False, "onnxruntime:CUDA", "takes 5.0 ms"),
        ([measured("openvino", 1.04)], False, "onnxruntime", "openvino takes 19.2 ms a frame and onnxruntime 20.0 ms"),
        ([measured("openvino", 0.5)], True, "openvino", "openvino takes 40.0 ms"),
        ([measured("openvino", 9, "it crashed")], False, "onnxruntime", "it crashed"),
        ([measured("a", 9, "one"), measured("b", 9, "two")], False, "onnxruntime", "one; two"),
        ([], False, "onnxruntime", "no other runtime can be used"),
    ],
)
def test_the_fastest_is_chosen_that_finds_the_same_and_is_worth_a_change(
    found: list[Measurement], is_asked: bool, runtime: str, why: str
) -> None:
    chosen, said = choose(found, is_asked=is_asked)
    assert chosen == runtime
    assert why in said


class Node:
    """What outlives a process of a node: its disk. Each `start` is a process."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "runtime.json"
        path = folder / "release.onnx"
        path.write_bytes(b"a model")
        self.file = ModelFile(path, "sha256:" + hashlib.sha256(b"a model").hexdigest())
        self.loaded: list[str] = []
        self.fast = Model()

    def start(self, asked: str = "auto") -> tuple[ActiveModel, RuntimeChooser]:
        active = ActiveModel()
        release = InstallableRelease(version=1, digest=self.file.digest, bytes=7, labels=LABELS, image_size=64)
        active.swap(RunningModel(release, Model(), file=self.file))
        active.accept()
        nowhere: Any = None  # these tests measure nothing
        chooser = RuntimeChooser(
            self.record, active, asked=asked, threads=1, load=self._load, find_runtimes=nowhere, measure=nowhere
        )
        chooser.start_from_disk()
        return active, chooser

    def _load(self, model: bytes, *, runtime: str) -> Model:
        assert model == b"a model"
        self.loaded.append(runtime)
        return self.fast

    def remember(self, runtime: str = "openvino", **more: Any) -> None:
        from diredi.detectors.runtimes import installed_runtimes

        choice = {
            "digest": self.file.digest, "asked": "auto", "threads": 1, "versions": installed_runtimes(),
            "runtime": runtime, "why": "it is fast", **more,
        }  # fmt: skip
        self.record.write_text(Choice.model_validate(choice).model_dump_json())


def runs(active: ActiveModel) -> str:
    assert active.current is not None
    return active.current.runtime


def test_a_restart_takes_the_runtime_that_was_chosen_for_this_very_file(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.remember()
    assert runs(node.start()[0]) == "openvino"
    for other in ({"digest": "sha256:" + "0" * 64}, {"threads": 2}, {"asked": "openvino"}, {"versions": {}}):
        node.remember(**other)
        assert runs(node.start()[0]) == "onnxruntime"
    node.record.write_text("{")
    assert runs(node.start()[0]) == "onnxruntime"


def test_a_runtime_with_which_the_node_ends_again_and_again_is_left_alone(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.remember()
    for _ in range(MAX_UNCLEAN_ENDS):
        assert runs(node.start()[0]) == "openvino"  # and then the process is gone, with no call of `close`
    active, chooser = node.start()
    assert runs(active) == "onnxruntime"
    assert chooser.why == "the node ended 3 times in a row with openvino, without being told to"
    assert runs(node.start()[0]) == "onnxruntime"


def test_a_node_that_is_stopped_as_it_should_be_keeps_its_runtime(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.remember()
    for _ in range(2 * MAX_UNCLEAN_ENDS):
        active, chooser = node.start()
        assert runs(active) == "openvino"
        chooser.close()


def test_a_file_that_has_changed_on_disk_is_not_given_to_a_runtime(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.remember()
    node.file.path.write_bytes(b"another")
    active, chooser = node.start()
    assert (runs(active), node.loaded) == ("onnxruntime", [])
    assert "does not match its digest" in chooser.why


def test_a_runtime_that_fails_on_frames_costs_no_frame_and_no_release(tmp_path: Path) -> None:
    node, blamed = Node(tmp_path), []
    node.remember()
    active, _ = node.start()
    active.on_failing = lambda *failed: blamed.append(failed)
    node.fast.breaks = True
    found = [active.detect(FRAME, 0.25)[0].runtime for _ in range(FAILURES_IN_A_ROW)]
    assert found == ["onnxruntime"] * FAILURES_IN_A_ROW
    assert (runs(active), blamed) == ("onnxruntime", [])

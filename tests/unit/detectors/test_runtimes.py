"""Other runtimes find what ONNX Runtime finds, and refuse what it refuses."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from diredi.detectors import registry
from diredi.detectors.agreement import explain_disagreement
from diredi.detectors.export import export_onnx
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.predictor import Detections, Image
from diredi.errors import CorruptData, InvalidInput
from diredi.labels import LabelSpace

LABELS = LabelSpace(names=("car", "person"))
NONE = Detections.of(np.zeros((0, 4)), [], [])
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "small.onnx"
    export_onnx(registry.create("yolo11-w0.0625", 64, LABELS, seed=0, device="cpu"), path)
    return path


def one(score: float = 0.9, class_id: int = 0, right: float = 80) -> Detections:
    return Detections.of([[0, 0, right, 40]], [score], [class_id])


@pytest.mark.parametrize(
    ("reference", "other", "said"),
    [
        (one(), one(), ""),
        (one(0.9), one(0.87), ""),
        (one(0.9), one(0.8), "2 of 2 reported boxes differ"),
        (one(class_id=0), one(class_id=1), "2 of 2 reported boxes differ"),
        (one(right=80), one(right=70), "2 of 2 reported boxes differ"),
        (one(), NONE, "1 of 1 reported boxes differ"),
        (NONE, one(), "1 of 1 reported boxes differ"),
        (one(0.26), one(0.24), ""),
        (one(0.2), NONE, "1 of 1 compared boxes differ"),
        (NONE, NONE, "nothing was found on 1 frames, so nothing could be compared"),
    ],
)
def test_runtimes_agree_where_a_user_would_see_no_difference(
    reference: Detections, other: Detections, said: str
) -> None:
    assert explain_disagreement([reference], [other], 0.25) == said


def test_openvino_finds_what_onnx_runtime_finds_in_any_number_of_images_and_from_several_threads(
    file: Path, images: list[Image]
) -> None:
    pytest.importorskip("openvino")
    reference, other = (OnnxPredictor(file, 1, name) for name in ("onnxruntime", "openvino"))
    expected = reference.predict(images, 0.0001)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda _: other.predict(images, 0.0001), range(4)):
            assert explain_disagreement(expected, found, 0.25) == ""
    assert explain_disagreement(expected[:1], other.predict(images[:1], 0.0001), 0.25) == ""
    assert sum(map(len, expected))
    with pytest.raises(InvalidInput, match=r"no device GPU7: it has .* beside the processor"):
        OnnxPredictor(file, 1, "openvino:GPU7")


def test_a_file_with_a_part_that_no_digest_covers_is_refused_though_openvino_would_read_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    model = onnx.load(file)
    outside = next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 64)
    (tmp_path / "part.bin").write_bytes(outside.raw_data)
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="part.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorruptData):
        OnnxPredictor(model.SerializeToString(), 1, "openvino")


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("ncnn", "there is no runtime 'ncnn': choose onnxruntime, openvino"),
        ("onnxruntime:CUDA", "this ONNX Runtime has no device CUDA"),
    ],
)
def test_a_runtime_that_is_not_there_is_named(file: Path, runtime: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        OnnxPredictor(file, 1, runtime)


def test_openvino_tells_nobody_of_its_import_where_diredi_was_imported_before(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    (package / "__init__.py").write_text("import sys\nsys.exit('it was loaded')\n")
    by_itself, ours = (
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {program}"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )
        for program in ("import openvino", "import diredi, openvino; openvino.convert_model")
    )  # fmt: skip
    assert "it was loaded" in by_itself.stderr, "or this test would not see it"
    assert (ours.returncode, ours.stderr) == (0, "")

"""An exported detector on ONNX Runtime: what an edge node runs and what the gate judges. No torch.

The file holds raw outputs, `class_logits` (batch x a x classes) and `box_logits` (batch x a x 4 x r); boxes are decoded
by `postprocess`, as a torch detector's are. Its metadata holds the `DetectorSpec`, so the file describes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from diredi.detectors import foreign_file
from diredi.detectors.postprocess import decode, grid, prepare
from diredi.detectors.predictor import Detections, Image
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData, NotFound
from diredi.labels import LabelSpace

# It was off from the start, unless somebody loaded the library before ours.
onnxruntime.disable_telemetry_events()

INPUT, OUTPUTS = "images", ["class_logits", "box_logits"]
STRIDES_KEY = "diredi.strides"
PREDICT_BATCH = 8
_NOWHERE = Path(__file__).with_name("no-such-folder")


class OnnxPredictor:
    """Finds boxes with an exported file, on ONNX Runtime: what an edge node runs. Needs no torch.

    It may be used from several threads.

    Args:
        model: The file that `export` wrote, or its bytes.
        threads: Threads for one image; 0 takes one for each core.

    Raises:
        NotFound: There is no such file.
        CorruptData: It is no exported detector.

    Example:
        >>> import diredi
        >>> camera = diredi.OnnxPredictor("student.onnx", threads=1)          # doctest: +SKIP
        >>> [found] = camera.predict([frame], confidence=0.25)                # doctest: +SKIP
    """

    def __init__(self, model: Path | str | bytes, threads: int = 0) -> None:
        model = Path(model) if isinstance(model, str) else model
        self._name = str(model) if isinstance(model, Path) else f"a model of {len(model)} bytes"
        self._session = self._opened(model, threads)
        metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.spec = DetectorSpec.from_metadata(metadata)
        self._check_signature()
        try:
            strides = [int(stride) for stride in metadata[STRIDES_KEY].split(",")]
            self._anchors, self._strides = grid(self.spec.image_size, strides)
        except (KeyError, ValueError, ZeroDivisionError):
            raise CorruptData(f"{self._name} does not say its strides: export it again") from None

    def _opened(self, model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
        if isinstance(model, Path):
            if not model.is_file():
                raise NotFound(f"there is no model file {model}: check the path")
            if said := foreign_file.explain(model):
                raise CorruptData(f"{model} {said}")
            model = model.read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        # Threads that wait by spinning take a core from whatever else the board does between two frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A file that names others as parts of itself is refused: they are in no digest.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(_NOWHERE))
        providers = [name for name in onnxruntime.get_available_providers() if name != "AzureExecutionProvider"]
        # The failures of ONNX Runtime have no common root below RuntimeError and Exception.
        failures = tuple(getattr(onnxruntime.capi.onnxruntime_pybind11_state, name) for name in _FAILURES)
        try:
            return onnxruntime.InferenceSession(model, options, providers=providers)
        except (*failures, RuntimeError, ValueError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CorruptData(f"{self._name} is not an ONNX model ({said}): download it again") from None

    def _check_signature(self) -> None:
        inputs = [value.name for value in self._session.get_inputs()]
        outputs = {value.name: value.shape for value in self._session.get_outputs()}
        rows = outputs.get("class_logits", [None])[-1]
        if inputs != [INPUT] or sorted(outputs) != sorted(OUTPUTS) or rows != len(self.labels):
            raise CorruptData(
                f"{self._name} is an ONNX model but no detector of DiReDi's: export it with `model export`"
            )

    @property
    def labels(self) -> LabelSpace:
        """The label space of the classes that it finds."""
        return self.spec.labels

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        """Find boxes; see `Predictor.predict`.

        Args:
            images: height x width x 3, uint8, BGR; sizes may differ.
            confidence: Boxes with a lower score are left out.

        Returns:
            What was found in each image, best first.
        """
        found: list[Detections] = []
        for start in range(0, len(images), PREDICT_BATCH):
            batch, frames = prepare(images[start : start + PREDICT_BATCH], self.spec.image_size)
            classes, boxes = self._session.run(OUTPUTS, {INPUT: batch})
            found += decode(np.asarray(classes), np.asarray(boxes), self._anchors, self._strides, frames, confidence)
        return found


_FAILURES = (
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NotImplemented",
    "RuntimeException",
    "EPFail",
    "NoModel",
    "NoSuchFile",
    "ModelRequiresCompilation",
    "EngineError",
)

"""An exported detector: what an edge node runs and what the gate judges. No torch.

The file holds raw outputs, `class_logits` (batch x a x classes) and `box_logits` (batch x a x 4 x r); boxes are decoded
by `postprocess`, as a torch detector's are. Its metadata holds the `DetectorSpec`, so the file describes itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from diredi.cores import usable_cores
from diredi.detectors import foreign_file
from diredi.detectors.postprocess import decode, grid, prepare, sides
from diredi.detectors.predictor import Detections, Image
from diredi.detectors.runtimes import REFERENCE, load_runtime, onnx_runtime, split_name
from diredi.detectors.runtimes.base import Network
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData, NotFound
from diredi.labels import LabelSpace

STRIDES_KEY = "diredi.strides"
SIZE_KEY = "diredi.input"
"""Height and width of an input that is no square, as "384x640"."""
GOLDEN_KEY = "diredi.golden"
"""Pictures with the boxes that the file must find there; see `diredi.detectors.golden`."""
PREDICT_BATCH = 8


class OnnxPredictor:
    """Finds boxes with an exported file: what an edge node runs. Needs no torch.

    It may be used from several threads.

    Args:
        model: The file that `export` wrote, or its bytes.
        threads: Threads for one image; 0 takes one for each core that this process may use.
        runtime: What runs the network: "onnxruntime", "openvino", or one of these with a device, as "openvino:GPU" and
            "onnxruntime:CUDA".

    Raises:
        NotFound: There is no such file.
        CorruptData: It is no exported detector, or the runtime cannot read it.
        InvalidInput: There is no such runtime here.

    Example:
        >>> import diredi
        >>> camera = diredi.OnnxPredictor("student.onnx", threads=1)          # doctest: +SKIP
        >>> [found] = camera.predict([frame], confidence=0.25)                # doctest: +SKIP
    """

    def __init__(self, model: Path | str | bytes, threads: int = 0, runtime: str = REFERENCE) -> None:
        model = Path(model) if isinstance(model, str) else model
        self._name = str(model) if isinstance(model, Path) else f"a model of {len(model)} bytes"
        package, device = split_name(runtime)
        data, threads = self._read(model), threads or usable_cores()
        try:
            # It says what the file is, and refuses one with parts outside, which another runtime would read.
            reference = onnx_runtime.open_network(data, "", threads)
        except CorruptData as error:
            raise CorruptData(f"{self._name} is not an ONNX model ({error}): download it again") from None
        metadata = reference.metadata
        self.spec = DetectorSpec.from_metadata(metadata)
        self.golden = metadata.get(GOLDEN_KEY, "")
        if not reference.has_signature(len(self.labels)):
            raise CorruptData(
                f"{self._name} is an ONNX model but no detector of DiReDi's: export it with `model export`"
            )
        try:
            strides = [int(stride) for stride in metadata[STRIDES_KEY].split(",")]
            self.input_size = input_size_of(metadata, self.spec)
            self._anchors, self._strides = grid(self.input_size, strides)
        except (KeyError, ValueError, ZeroDivisionError):
            raise CorruptData(f"{self._name} does not say its strides and input: export it again") from None
        self._network: Network = reference
        if runtime != REFERENCE:
            try:
                self._network = load_runtime(package).open_network(data, device, threads)
            except CorruptData as error:
                raise CorruptData(f"{runtime} cannot read {self._name} ({error}): use {REFERENCE}") from None

    def _read(self, model: Path | bytes) -> bytes:
        if isinstance(model, bytes):
            return model
        if not model.is_file():
            raise NotFound(f"there is no model file {model}: check the path")
        if said := foreign_file.explain(model):
            raise CorruptData(f"{model} {said}")
        return model.read_bytes()

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
            batch, frames = prepare(images[start : start + PREDICT_BATCH], self.input_size)
            with self._network.run(batch) as (classes, boxes):
                found += decode(classes, boxes, self._anchors, self._strides, frames, confidence)
        return found


def input_size_of(metadata: Mapping[str, str], spec: DetectorSpec) -> tuple[int, int]:
    """Return height and width of a file's input, in pixels. Raises ValueError where it says nonsense."""
    if SIZE_KEY not in metadata:
        return sides(spec.image_size)
    height, width = (int(side) for side in metadata[SIZE_KEY].split("x"))
    if not 0 < min(height, width) <= max(height, width) <= spec.image_size:
        raise ValueError("no input that fits the detector")
    return height, width

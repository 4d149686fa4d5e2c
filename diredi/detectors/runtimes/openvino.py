"""OpenVINO, on the processor or on an Intel GPU or NPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import openvino
from openvino import properties

from diredi.detectors.runtimes.base import INPUT, OUTPUTS, Floats
from diredi.errors import CorruptData, InvalidInput

_PROCESSOR = "CPU"


class OpenVinoNetwork:
    """Run a network with OpenVINO, compiled for each size of batch that occurs."""

    def __init__(self, model: bytes, device: str, threads: int) -> None:
        """Load a network; see `Runtime.open_network`."""
        if device and device not in devices():
            have = ", ".join(devices()) or "none"
            raise InvalidInput(f"this OpenVINO has no device {device}: it has {have} beside the processor")
        self._model = model
        self._device = device or _PROCESSOR
        self._settings = {properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY}
        if not device:
            self._settings |= {
                properties.inference_num_threads(): threads,
                # Some processors would calculate in 16 bits and find other boxes.
                properties.hint.inference_precision(): openvino.Type.f32,
                # A pinned thread waits for its own core while others are idle.
                properties.hint.enable_cpu_pinning(): False,
            }
        self._lock = threading.Lock()
        self._compiled: dict[int, openvino.CompiledModel] = {}
        self._idle: dict[int, list[openvino.InferRequest]] = {}
        self._compile(1)

    def _compile(self, images: int) -> openvino.CompiledModel:
        with self._lock:
            if images not in self._compiled:
                try:
                    model = _core().read_model(self._model)
                    _, *rest = model.input(INPUT).partial_shape
                    model.reshape({INPUT: openvino.PartialShape([images, *rest])})
                    self._compiled[images] = _core().compile_model(model, self._device, self._settings)
                except RuntimeError as error:
                    raise CorruptData(" ".join(str(error).split())[-200:]) from None
                self._idle[images] = []
            return self._compiled[images]

    @contextmanager
    def run(self, batch: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Run the network; see `Network.run`."""
        compiled, idle = self._compile(len(batch)), self._idle[len(batch)]
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            answers = request.infer({INPUT: batch}, share_inputs=True, share_outputs=True)
            class_logits, box_logits = (answers[name] for name in OUTPUTS)
            yield class_logits, box_logits
        finally:
            idle.append(request)


@cache
def _core() -> openvino.Core:
    return openvino.Core()


def devices() -> Sequence[str]:
    """Return the devices beside the processor, such as "GPU" and "NPU"."""
    return [name for name in _core().available_devices if name != _PROCESSOR]


def open_network(model: bytes, device: str, threads: int) -> OpenVinoNetwork:
    """Load a network; see `Runtime.open_network`."""
    return OpenVinoNetwork(model, device, threads)

"""ONNX Runtime, on the processor or with another of its execution providers; it opens every exported file first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from diredi.detectors.runtimes.base import INPUT, OUTPUTS, Floats
from diredi.errors import CorruptData, InvalidInput

# It was off from the start, unless somebody loaded the library before ours.
onnxruntime.disable_telemetry_events()

_SUFFIX = "ExecutionProvider"
_NOWHERE = Path(__file__).with_name("no-such-folder")


class OnnxRuntimeNetwork:
    """Run a network with ONNX Runtime, and say what the file says of itself."""

    def __init__(self, model: bytes, device: str, threads: int) -> None:
        """Load a network; see `Runtime.open_network`."""
        if device and device not in devices():
            have = ", ".join(devices()) or "none"
            raise InvalidInput(f"this ONNX Runtime has no device {device}: it has {have} beside the processor")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        # Threads that wait by spinning take a core from whatever else the board does between two frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A file that names others as parts of itself is refused: they are in no digest.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(_NOWHERE))
        providers = [*([device + _SUFFIX] if device else []), "CPUExecutionProvider"]
        # The failures of ONNX Runtime have no common root below RuntimeError and Exception.
        failures = tuple(getattr(onnxruntime.capi.onnxruntime_pybind11_state, name) for name in _FAILURES)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=providers)
        except (*failures, RuntimeError, ValueError) as error:
            raise CorruptData(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
        if self._session.get_providers()[0] != providers[0]:  # it says nothing and takes the processor
            raise InvalidInput(f"ONNX Runtime cannot use {device} here: install the driver that it needs")

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def has_signature(self, classes: int) -> bool:
        """Return whether inputs and outputs are those of a detector with so many classes."""
        inputs = [value.name for value in self._session.get_inputs()]
        outputs = {value.name: value.shape for value in self._session.get_outputs()}
        return inputs == [INPUT] and sorted(outputs) == sorted(OUTPUTS) and outputs[OUTPUTS[0]][-1] == classes

    @contextmanager
    def run(self, batch: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Run the network; see `Network.run`."""
        class_logits, box_logits = self._session.run(OUTPUTS, {INPUT: batch})
        yield class_logits, box_logits


def devices() -> Sequence[str]:
    """Return the execution providers beside the processor's, by the names that `device` takes, such as "CUDA"."""
    names = [name.removesuffix(_SUFFIX) for name in onnxruntime.get_available_providers()]
    return [name for name in names if name not in ("CPU", "Azure")]  # Azure's sends images to a service


def open_network(model: bytes, device: str, threads: int) -> OnnxRuntimeNetwork:
    """Load a network; see `Runtime.open_network`."""
    return OnnxRuntimeNetwork(model, device, threads)


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

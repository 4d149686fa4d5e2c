"""What runs an exported detector: ONNX Runtime everywhere, and others where they are installed.

A name is that of a runtime for the processor ("openvino"), or has a device of it behind a colon ("openvino:GPU",
"onnxruntime:CUDA"). ONNX Runtime on the processor is the reference: every file is opened by it first, the gate measures
with it, and the others must agree with it. Another runtime is a module with the functions of `base.Runtime` and a line
in `RUNTIMES`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final, cast

from diredi.detectors.runtimes.base import Runtime
from diredi.errors import InvalidInput

REFERENCE: Final = "onnxruntime"
RUNTIMES: Final = {
    REFERENCE: "diredi.detectors.runtimes.onnx_runtime",
    "openvino": "diredi.detectors.runtimes.openvino",
}
"""The module of each runtime, by the name of the package that it needs."""


def installed_runtimes() -> dict[str, str]:
    """Return the versions of the runtimes that are installed. None is loaded: one that crashes does no harm here."""
    return {name: _version(name) for name in RUNTIMES if find_spec(name) is not None}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a build of its own, such as onnxruntime-gpu
        return "unknown"


def split_name(name: str) -> tuple[str, str]:
    """Return the runtime and the device of a name, which is empty for the processor.

    Raises:
        InvalidInput: There is no runtime of that name.
    """
    package, _, device = name.partition(":")
    if package not in RUNTIMES:
        raise InvalidInput(f"there is no runtime {package!r}: choose {', '.join(RUNTIMES)}")
    return package, device


def load_runtime(package: str) -> Runtime:
    """Load the library of a runtime, which may end this process where the library does not fit the processor.

    Args:
        package: One of `RUNTIMES`.

    Raises:
        InvalidInput: It is not installed, or cannot be loaded.
    """
    try:
        return cast(Runtime, import_module(RUNTIMES[package]))
    except ModuleNotFoundError:
        raise InvalidInput(f"{package} is not installed: run `pip install --no-deps {package}`") from None
    except (ImportError, OSError, RuntimeError) as error:
        raise InvalidInput(f"{package} cannot be loaded ({error}): install a version for this processor") from None

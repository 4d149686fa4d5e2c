"""The interface of a runtime: what runs the network of an exported detector."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

INPUT = "images"
OUTPUTS = ["class_logits", "box_logits"]


class Network(Protocol):
    """Run a network, from any thread."""

    def run(self, batch: Floats) -> AbstractContextManager[tuple[Floats, Floats]]:
        """Run the network.

        Args:
            batch: float32, [batch, 3, size, size], RGB in 0..1.

        Returns:
            A context with the class logits and the box logits, float32. They may be overwritten after it.
        """
        ...


class Runtime(Protocol):
    """Open networks on the devices of one library, which is loaded by the module that has these functions."""

    def devices(self) -> Sequence[str]:
        """Return the devices beside the processor that the library can use here, such as "GPU"."""
        ...

    def open_network(self, model: bytes, device: str, threads: int) -> Network:
        """Load a network.

        Args:
            model: The ONNX file. The caller has checked that it names no other file as a part of itself.
            device: One of `devices`; empty for the processor.
            threads: How many threads run it on the processor; at least 1.

        Raises:
            CorruptData: The library cannot read it.
            InvalidInput: There is no such device.
        """
        ...

"""int8-row-zstd: a byte a value, one scale a row. A quarter of fp32, and nothing measurable is lost.

Convolutions are int8. Biases, norms, batch-norm statistics and short rows are float16, which costs little there and
hurts where it is missing. Integers, and what float16 cannot hold, stay as they are.
"""

import numpy as np

from diredi.codecs.container import Storage
from diredi.codecs.packed import PackedCodec
from diredi.store.weights import Array

_SHORTEST_ROW = 8
_LARGEST_FLOAT16 = 60_000.0


def _storage(array: Array) -> Storage:
    if array.dtype != np.float32:
        return "raw"
    if array.ndim > 1 and array[:1].size >= _SHORTEST_ROW:
        return "int8-row"
    return "float16" if np.abs(array).max(initial=0) < _LARGEST_FLOAT16 else "raw"


INT8_ROW = PackedCodec("int8-row-zstd", _storage)

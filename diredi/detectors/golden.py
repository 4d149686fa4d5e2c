"""Golden frames: a few pictures in an exported file with the boxes that its maker found there with that very file.

Whoever gets the file can see whether it finds the same: another processor or another version of a runtime may not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from diredi.data.images import encode_jpeg
from diredi.detectors.agreement import explain_disagreement
from diredi.detectors.onnx import GOLDEN_KEY, OnnxPredictor
from diredi.detectors.predictor import Detections, Image
from diredi.errors import CorruptData
from diredi.store.files import atomic_write

FRAMES: Final = 2
CANDIDATES: Final = 8
"""So many pictures are looked at for those that are fit."""
CONFIDENCE: Final = 0.25
"""Boxes with a lower score count less."""
_MOST_BYTES: Final = 100_000
_NOISE: Final = 2


def add_golden_frames(path: Path, images: Iterable[Image]) -> int:
    """Put golden frames into an exported file.

    A picture is fit if something is found there, and a little noise changes no box: then only a real difference does.

    Args:
        path: The file that `export_onnx` wrote; it is replaced.
        images: height x width x 3, uint8, BGR; the first that are fit are taken.

    Returns:
        How many were fit, at most FRAMES. Without any the file is left as it was.
    """
    import onnx  # only here: a device reads golden frames without it

    detector, frames, random = OnnxPredictor(path), [], np.random.default_rng(0)
    for _, image in zip(range(CANDIDATES), images, strict=False):
        jpeg = encode_jpeg(_shrunk(image, detector.spec.image_size))
        frame = _decoded(jpeg)
        noise = random.integers(-_NOISE, _NOISE + 1, frame.shape)
        noisy = np.clip(frame.astype(np.int64) + noise, 0, 255).astype(np.uint8)
        found, again = (detector.predict([one])[0] for one in (frame, noisy))
        if len(jpeg) > _MOST_BYTES or not (found.scores >= CONFIDENCE).any():
            continue
        if not explain_disagreement([found], [again], CONFIDENCE):
            frames.append({"jpeg": base64.b64encode(jpeg).decode(), **_to_json(found)})
        if len(frames) == FRAMES:
            break
    if frames:
        model = onnx.load(path)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        onnx.helper.set_model_props(model, {**properties, GOLDEN_KEY: json.dumps(frames)})
        atomic_write(path, model.SerializeToString(deterministic=True))
    return len(frames)


def explain_golden_difference(detector: OnnxPredictor) -> str:
    """Say how a detector differs, here and now, from what its maker found on the golden frames of its file.

    Args:
        detector: A detector that was read from a file.

    Returns:
        A part of a sentence; empty where nothing differs, or the file has no golden frames.

    Raises:
        CorruptData: The golden frames of the file cannot be read.
    """
    if not detector.golden:
        return ""
    try:
        frames = json.loads(detector.golden)
        wanted = [Detections.of(frame["boxes"], frame["scores"], frame["classes"]) for frame in frames]
        images = [_decoded(base64.b64decode(frame["jpeg"], validate=True)) for frame in frames]
    except (ValueError, KeyError, TypeError, IndexError, cv2.error):
        raise CorruptData("the golden frames of the model cannot be read: export it again") from None
    return explain_disagreement(wanted, [detector.predict([image])[0] for image in images], CONFIDENCE)


def _to_json(found: Detections) -> dict[str, list[object]]:
    return {
        "boxes": [[round(float(side), 2) for side in box] for box in found.boxes],
        "scores": [round(float(score), 4) for score in found.scores],
        "classes": [int(class_id) for class_id in found.classes],
    }


def _shrunk(image: Image, side: int) -> Image:
    share = side / max(image.shape[:2])
    if share >= 1:
        return image
    shrunk: Image = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return shrunk


def _decoded(jpeg: bytes) -> Image:
    image: Image | None = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("no picture")
    return image

"""What Frigate needs beside the file of a detector."""

from __future__ import annotations

import yaml

from diredi.detectors.spec import DetectorSpec

MODEL, LABELS, CONFIG = "model.onnx", "labelmap.txt", "config.yaml"
FOLDER = "/config/model_cache"


def label_map(spec: DetectorSpec) -> str:
    """Return the classes as Frigate reads them: a line for each, with its id."""
    return "".join(f"{class_id} {name}\n" for class_id, name in enumerate(spec.labels.names))


def configuration(spec: DetectorSpec) -> str:
    """Return the lines for Frigate's own configuration, for files in its folder /config/model_cache."""
    licence = "MIT" if spec.architecture.startswith("libreyolo") else "AGPL-3.0, as Ultralytics'"
    lines = {
        "detectors": {"onnx": {"type": "onnx"}},
        "model": {
            "model_type": "yolo-generic",
            "path": f"{FOLDER}/{MODEL}",
            "labelmap_path": f"{FOLDER}/{LABELS}",
            "width": spec.image_size,
            "height": spec.image_size,
            "input_tensor": "nchw",
            "input_pixel_format": "rgb",
            "input_dtype": "float",
        },
        "objects": {"track": list(spec.labels.names)},
    }
    head = f"# Copy {MODEL} and {LABELS} to {FOLDER} of Frigate, and these lines into its configuration.\n"
    return f"{head}# Licence of the architecture {spec.architecture}: {licence}.\n" + yaml.safe_dump(
        lines, sort_keys=False, allow_unicode=True
    )

"""A small data set on disk that a test can spoil."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from made_data_sets import NAMES, Builder, write_image


@pytest.fixture
def data_set(tmp_path: Path) -> Builder:
    """`data_set(labels={"train/a": "0 .5 .5 .1 .1"}, **data_yaml)`: an image each, a label file unless None."""

    def build(labels: dict[str, str | None] | None = None, **described: object) -> Path:
        labels = labels or {"train/a": "0 0.5 0.5 0.2 0.2\n1 0.3 0.3 0.1 0.4\n", "val/b": "1 0.5 0.5 0.5 0.5\n"}
        for number, (name, text) in enumerate(labels.items()):
            write_image(tmp_path / "images" / f"{name}.jpg", number)
            if text is not None:
                label = tmp_path / "labels" / f"{name}.txt"
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text(text)
        values = {"train": "images/train", "val": "images/val", "names": NAMES, **described}
        path = tmp_path / "data.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
        return path

    return build

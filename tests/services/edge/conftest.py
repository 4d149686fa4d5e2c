from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from edge_doubles import EdgeCloud

from diredi.detectors.spec import DetectorSpec
from diredi.labels import LabelSpace
from tests.support.pki import Pki

LABELS = LabelSpace(names=("car", "person"))
GROWN = LabelSpace(version=2, names=("car", "person", "forklift"))


@pytest.fixture(scope="session")
def students(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, DetectorSpec]]:
    """Three real ONNX files: two with two classes, the third with one more."""
    from diredi.detectors.export import export_onnx
    from diredi.detectors.registry import create

    folder = tmp_path_factory.mktemp("students")
    students = []
    for seed, labels in enumerate((LABELS, LABELS, GROWN)):
        detector = create("yolo11-w0.125", 64, labels, seed)
        export_onnx(detector, folder / f"{seed}.onnx")
        students.append((folder / f"{seed}.onnx", detector.spec))
    return students


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def cloud(tmp_path: Path, pki: Pki) -> AsyncIterator[EdgeCloud]:
    fake = EdgeCloud(tmp_path / "cloud", pki)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def frames(tmp_path: Path) -> str:
    """A source: a folder with five images."""
    folder = tmp_path / "frames"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for index in range(5):
        cv2.imwrite(str(folder / f"{index}.png"), noise.integers(0, 255, (48, 64, 3), np.uint8))
    return f"folder:{folder}"


@pytest.fixture
def jpeg() -> bytes:
    return cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from site_doubles import Models, SiteCloud, write_data_set

from diredi.labels import LabelSpace
from tests.support.pki import Pki

LABELS = LabelSpace(names=("car", "person"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    from diredi.data.archive import pack
    from diredi.data.dataset import load
    from diredi.detectors.export import export_onnx
    from diredi.detectors.registry import create

    folder = tmp_path_factory.mktemp("models")
    made = Models(
        folder / "tutor.safetensors", folder / "student.safetensors", folder / "student.onnx", folder / "coreset.zip"
    )
    create("yolo11-w0.125", 64, LABELS, 1).save(made.tutor)
    student = create("yolo11-w0.125", 64, LABELS, 2)
    student.save(made.student)
    export_onnx(student, made.onnx)
    pack(load(write_data_set(folder / "presumed", 4, 2)), made.coreset)
    return made


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private data set: its data.yaml."""
    return write_data_set(tmp_path_factory.mktemp("private") / "set")


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def cloud(tmp_path: Path, pki: Pki) -> AsyncIterator[SiteCloud]:
    peer = SiteCloud(tmp_path / "cloud", pki)
    await peer.start()
    yield peer
    await peer.stop()


@pytest.fixture
def jpeg() -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1])

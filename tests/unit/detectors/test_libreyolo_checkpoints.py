"""Checkpoints that LibreYOLO has written: read, never run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diredi.detectors import registry
from diredi.errors import CorruptData, InvalidInput
from diredi.labels import LabelSpace

pytestmark = pytest.mark.slow

pytest.importorskip("libreyolo", reason="libreyolo is not installed: python3 deploy/setup.py --groups libreyolo")

NAMES = ("car", "person")


def checkpoint(path: Path, name: str = "libreyolo9t", **changes) -> Path:
    """As `libreyolo.utils.serialization.wrap_libreyolo_checkpoint` lays one out, in half precision."""
    network = registry.create(name, 64, LabelSpace(names=NAMES), seed=3, device="cpu").module
    state = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    said = {"schema_version": "1.0", "libreyolo_version": "1.6.0", "model_family": "yolo9", "size": "t"}
    named = {"task": "detect", "nc": len(NAMES), "names": dict(enumerate(NAMES)), "imgsz": 640}
    torch.save({"model": state, **said, **named, **changes}, path)
    return path


@pytest.mark.parametrize("name", ["libreyolo9t", "libreyolo9t-h64"])
def test_a_checkpoint_becomes_a_detector_with_its_weights(name, tmp_path):
    detector = registry.load(checkpoint(tmp_path / "best.pt", name), image_size=64, device="cpu")
    assert (detector.spec.architecture, detector.spec.labels.names) == (name, NAMES)
    wanted = torch.load(tmp_path / "best.pt", weights_only=True)["model"]
    weights = detector.weights()
    assert weights.keys() == wanted.keys()
    assert all(np.array_equal(weights[key], value.float().numpy()) for key, value in wanted.items())


def test_the_branch_that_only_training_uses_is_left_out(tmp_path):
    path = checkpoint(tmp_path / "best.pt")
    content = torch.load(path, weights_only=True)
    content["model"]["aux.spp.cv1.conv.weight"] = torch.zeros(1)
    torch.save(content, path)
    assert not [name for name in registry.load(path, image_size=64, device="cpu").weights() if name.startswith("aux")]


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (exec, (f"open({str(self.trace)!r}, 'w').write('run')",))


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    path = checkpoint(tmp_path / "evil.pt", metrics=Malicious(tmp_path / "trace"))
    with pytest.raises(CorruptData, match=r"evil\.pt cannot be read"):
        registry.load(path, image_size=64)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("changes", [{"model_family": "yolox"}, {"size": "s"}, {"size": "x"}])
def test_a_network_of_another_kind_is_refused_by_name(changes, tmp_path):
    with pytest.raises(InvalidInput, match=r"other\.pt is no plain detector"):
        registry.load(checkpoint(tmp_path / "other.pt", **changes), image_size=64)


@pytest.mark.parametrize("changes", [{"names": {}}, {"names": ["car"]}, {"nc": 3}, {"model": 5}])
def test_a_file_that_is_not_whole_is_said_so(changes, tmp_path):
    with pytest.raises(CorruptData, match=r"bad\.pt"):
        registry.load(checkpoint(tmp_path / "bad.pt", **changes), image_size=64)

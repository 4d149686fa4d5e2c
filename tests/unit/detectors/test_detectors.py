from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch

from diredi.detectors import registry
from diredi.detectors.base import Outputs, Targets
from diredi.detectors.families import family_of
from diredi.detectors.network import groups_of
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData, InvalidInput, NotFound
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap
from tests.unit.detectors.families import SMALL, of_families

FAMILY = of_families(
    "yolo11n", "yolo26n", "yolov8n", "yolo11-w0.125", "yolo26-w0.125", "yolov8-w0.125-d0.33", "yolo11-w0.125-gn",
    "libreyolo9t", "libreyolo9-w0.125", "libreyolo9-w0.0625-gn",
)  # fmt: skip
WHERE = {
    "yolov8": {"backbone": "model.0.conv.weight", "neck": "model.12.cv1.conv.weight"},
    "yolo": {"backbone": "model.0.conv.weight", "neck": "model.13.cv1.conv.weight"},
    "libreyolo9": {"backbone": "backbone.conv0.conv.weight", "neck": "neck.elan_up1.cv1.conv.weight"},
}
"""By the beginning of an architecture's name: a weight that is known to stand in a section."""
BOXES = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.4, 0.5, 0.5, 0.3], [0.7, 0.6, 0.3, 0.4]])
TARGETS = Targets(torch.tensor([1, 0, 1]), torch.tensor([2, 0, 1]), BOXES)


def same(a: WeightMap, b: WeightMap) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(params=FAMILY)
def detector(request, labels):
    return _made(request.param, labels).expand_classes(labels)  # a copy, made in no time


@cache
def _made(name, labels):
    return registry.create(name, 64, labels, seed=0, device="cpu")


@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_raw_logits_on_one_grid_in_both_modes(detector, training):
    detector.module.train(training)
    outputs = detector.forward(torch.rand(2, 3, 64, 64))
    bins = 1 if detector.spec.architecture.startswith("yolo26") else 16
    assert outputs.class_logits.shape == (2, 84, 3)
    assert outputs.box_logits.shape == (2, 84, 4, bins)
    assert (outputs.anchors.shape, outputs.strides.tolist()[:1]) == ((84, 2), [8])
    assert [f.shape[-1] for f in outputs.features] == [8, 4, 2]
    assert outputs.class_logits.max() < 0, "logits at the prior, not scores"


@pytest.mark.parametrize("training", [True, False])
def test_the_detection_loss_reaches_every_weight(detector, training):
    detector.module.train(training)
    loss = detector.detection_loss(detector.forward(torch.rand(2, 3, 64, 64)), TARGETS)
    loss.backward()
    silent = [n for n, p in detector.module.named_parameters() if p.grad is None and ".dfl." not in n]
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    assert silent == []


def test_an_image_without_boxes_has_a_loss(detector):
    none = Targets(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    loss = detector.detection_loss(detector.forward(torch.rand(2, 3, 64, 64)), none)
    loss.backward()
    assert torch.isfinite(loss)


def test_the_order_of_the_boxes_does_not_matter(small):
    order = torch.tensor([2, 0, 1])
    shuffled = Targets(TARGETS.image_index[order], TARGETS.classes[order], TARGETS.boxes[order])
    outputs = small.forward(torch.rand(2, 3, 64, 64))
    losses = [small.detection_loss(outputs, targets).item() for targets in (TARGETS, shuffled)]
    assert losses[0] == pytest.approx(losses[1])


def test_a_class_that_an_image_was_not_labelled_for_is_neither_right_nor_wrong(small):
    known = torch.tensor([[1.0, 0, 1], [1, 0, 1]])
    targets = Targets(TARGETS.image_index[:2], TARGETS.classes[:2], TARGETS.boxes[:2], known)
    rows = [weight for name, weight in small.module.named_parameters() if name in small.class_rows()]
    loss = small.detection_loss(small.forward(torch.rand(2, 3, 64, 64)), targets)
    for gradient in torch.autograd.grad(loss, rows):
        by_class = gradient.abs().flatten(1).sum(1) if gradient.ndim > 1 else gradient.abs()
        assert by_class[1] == 0
        assert (by_class[[0, 2]] > 0).all()


@pytest.mark.parametrize("name", SMALL)
def test_equal_seeds_give_equal_weights_and_others_do_not(name, labels):
    a, b, c = (registry.create(name, 64, labels, seed=s, device="cpu").weights() for s in (1, 1, 2))
    assert same(a, b)
    assert not same(a, c)


@pytest.mark.parametrize("name", SMALL)
def test_creating_a_detector_leaves_the_callers_random_state_alone(name, labels):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    registry.create(name, 64, labels, seed=1, device="cpu")
    assert torch.equal(torch.rand(3), wanted)


def test_a_saved_detector_comes_back_bit_for_bit_and_describes_itself(small, tmp_path, images):
    digest = small.save(tmp_path / "a.safetensors")
    back = registry.load(tmp_path / "a.safetensors", device="cpu")
    assert digest.startswith("sha256:")
    assert DetectorSpec.of_file(tmp_path / "a.safetensors") == small.spec == back.spec
    assert same(small.weights(), back.weights())
    assert back.save(tmp_path / "b.safetensors") == digest
    for a, b in zip(small.predict(images), back.predict(images), strict=True):
        assert np.array_equal(a.boxes, b.boxes)


def test_weights_are_float32_and_counters_are_integers(detector):
    kinds = {name: str(array.dtype) for name, array in detector.weights().items()}
    assert {kind for name, kind in kinds.items() if "num_batches" not in name} == {"float32"}
    assert {kind for name, kind in kinds.items() if "num_batches" in name} <= {"int64"}


def test_weights_are_a_copy(small, first):
    taken = small.weights()
    before = taken[first].copy()
    with torch.no_grad():
        small.module.get_parameter(first).add_(1)
    assert np.array_equal(taken[first], before)
    small.load_weights(taken)
    assert np.array_equal(small.weights()[first], before)


def test_weights_of_another_schema_or_with_a_nan_are_refused_and_change_nothing(small, first):
    before = small.weights()
    with pytest.raises(InvalidInput, match="do not fit together at"):
        small.load_weights(before.selected(lambda name: name != first))
    bad = before.mapped(lambda n, a: np.full_like(a, np.nan) if n == first else a)
    with pytest.raises(InvalidInput, match=re.escape(first)):
        small.load_weights(bad)
    assert same(before, small.weights())


def test_a_grown_head_keeps_old_rows_bit_for_bit_and_every_other_shape(detector, labels):
    grown = detector.expand_classes(labels.expand(["forklift", "cat"]))
    old, new = detector.weights(), grown.weights()
    rows = detector.class_rows()
    assert rows == grown.class_rows()
    assert old.keys() == new.keys()
    for name in old:
        if name in rows:
            assert new[name].shape[0] == 5
            assert np.array_equal(new[name][:3], old[name])
        else:
            assert np.array_equal(new[name], old[name]), name
    assert grown.spec.labels.names == ("car", "person", "dog", "forklift", "cat")


def test_a_grown_head_answers_as_before_for_old_classes_and_is_silent_on_new_ones(small, labels):
    grown = small.expand_classes(labels.expand(["forklift"]))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before, after = small.forward(images).class_logits, grown.forward(images).class_logits
    assert torch.allclose(after[..., :3], before, atol=1e-6)
    assert after[..., 3].max() < -2


def test_two_detectors_that_grow_alike_have_equal_new_rows(small, labels):
    wider = labels.expand(["forklift"])
    assert same(small.expand_classes(wider).weights(), small.expand_classes(wider).weights())


def test_a_grown_schema_is_that_of_a_detector_made_for_those_classes(detector, labels):
    wider = labels.expand([f"class {i}" for i in range(90)])
    made = registry.create(detector.spec.architecture, 64, wider, seed=3, device="cpu")
    assert detector.expand_classes(wider).weights().schema_digest() == made.weights().schema_digest()


def test_a_label_space_that_changes_the_meaning_of_an_id_is_refused(small):
    with pytest.raises(InvalidInput, match="does not extend"):
        small.expand_classes(LabelSpace(names=("person", "car", "dog", "cat")))


def test_sections_and_class_rows_cover_the_network(detector):
    sections = {name: detector.section_of(name) for name in detector.weights()}
    assert set(sections.values()) == {"backbone", "neck", "head"}
    assert all(sections[name] == "head" for name in detector.class_rows())
    family = family_of(detector.spec.architecture)
    assert {name for name in sections if family.has_class_rows(name)} == set(detector.class_rows())
    known = next(where for start, where in WHERE.items() if detector.spec.architecture.startswith(start))
    assert {section: sections[name] for section, name in known.items()} == {s: s for s in known}
    branched = detector.reshaped(detector.spec.with_branches(detector.labels, [[0]])).weights()
    without_backbone = {f"branches.0.{name}" for name in sections if sections[name] != "backbone"}
    assert branched.keys() == sections.keys() | without_backbone


def test_predicting_does_not_depend_on_the_company_of_an_image(small, images):
    together = small.predict(images, 0.0001)
    for image, expected in zip(images, together, strict=True):
        (alone,) = small.predict([image], 0.0001)
        assert len(alone) == len(expected)
        assert np.allclose(alone.boxes, expected.boxes, atol=1e-2)


def test_predicting_keeps_the_mode_and_the_statistics(small, images):
    still, before = next(layer for layer in small.module.modules() if not list(layer.children())), small.weights()
    small.module.train()
    still.eval()  # as a training with frozen statistics holds it
    small.predict(images)
    assert [layer for layer in small.module.modules() if not layer.training] == [still]
    assert same(before, small.weights())
    small.module.eval()


@pytest.mark.parametrize(
    "name",
    ["yolo11q", "yolo11-w1.5", "yolo5n", "yolo11n-h0", "yolo11-w0.001", "resnet", "", "yolo11n; x", "yolo11n-bn"],
)
def test_an_unknown_architecture_is_named_with_the_known_ones(name, labels):
    with pytest.raises(InvalidInput, match=r"architecture .*yolo11n|architecture .*(width|head)"):
        registry.create(name, 64, labels, seed=0)


@pytest.mark.parametrize("name", of_families("libreyolo9x", "libreyolo9-w0.25", "libreyolo9-w0.001", "libreyolo9t-bn"))
def test_an_architecture_that_libreyolo_does_not_have_is_named_with_those_it_has(name, labels):
    with pytest.raises(InvalidInput, match=r"architecture .*libreyolo9t"):
        registry.create(name, 64, labels, seed=0)


@pytest.mark.parametrize("name", SMALL)
def test_a_detector_of_group_norms_has_no_statistics(name, labels):
    detector = registry.create(name, 64, labels, seed=0, device="cpu")
    statistics = [name for name in detector.weights() if "running_" in name or "num_batches" in name]
    assert bool(statistics) != name.endswith("-gn")


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (16, 4), (20, 4), (64, 16), (128, 32), (1024, 32), (7, 1)])
def test_a_group_has_four_channels_or_more_and_shares_them_out(channels, groups):
    assert groups_of(channels) == groups


@pytest.mark.parametrize("name", of_families("yolo11-w0.0625", "libreyolo9-w0.0625"))
def test_weights_of_batch_norms_are_refused_by_a_detector_of_group_norms(name, labels):
    taken = registry.create(name, 64, labels, seed=0, device="cpu").weights()
    with pytest.raises(InvalidInput, match="do not fit together at"):
        registry.create(f"{name}-gn", 64, labels, seed=0, device="cpu").load_weights(taken)


def test_outputs_of_another_family_are_no_ground_for_a_loss(small):
    outputs = small.forward(torch.rand(1, 3, 64, 64))
    plain = Outputs(outputs.class_logits, outputs.box_logits, outputs.anchors, outputs.strides, outputs.features)
    with pytest.raises(TypeError, match="another detector family"):
        small.detection_loss(plain, TARGETS)


def test_an_empty_label_space_is_refused():
    with pytest.raises(InvalidInput, match="at least one class"):
        registry.create("yolo11n", 64, LabelSpace(names=()), seed=0)


def test_a_file_that_is_missing_or_no_model_is_said_so(tmp_path):
    with pytest.raises(NotFound, match="nowhere"):
        registry.load(tmp_path / "nowhere.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(CorruptData):
        registry.load(tmp_path / "bad.safetensors")
    WeightMap({"a": np.zeros(2, np.float32)}).save(tmp_path / "other.safetensors")
    with pytest.raises(CorruptData, match="not one of DiReDi's"):
        registry.load(tmp_path / "other.safetensors")


def test_loading_with_more_labels_grows_and_with_a_size_resizes(small, tmp_path, labels):
    small.save(tmp_path / "a.safetensors")
    back = registry.load(tmp_path / "a.safetensors", labels=labels.expand(["cat"]), image_size=96, device="cpu")
    assert (len(back.labels), back.spec.image_size) == (4, 96)
    assert back.forward(torch.rand(1, 3, 96, 96)).class_logits.shape == (1, 189, 4)


def test_what_the_edge_imports_does_not_pull_in_torch():
    code = (
        "import sys; import diredi.detectors.onnx, diredi.detectors.predictor, diredi.detectors.postprocess, "
        "diredi.evaluation.metrics, diredi.distillation.recipe, diredi.evaluation.detection; "
        "sys.exit('torch' in sys.modules or 'ultralytics' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 0


WITHOUT_A_PACKAGE = """
import sys

name, other, absent = sys.argv[1:]
sys.modules[absent] = None

from diredi.detectors import registry

registry.create(name, 64, ["car"], device="cpu")
print("torchvision" in sys.modules)
registry.create(other, 64, ["car"], device="cpu")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "other", "absent"),
    [
        *((param.values[0], "yolo11n", "ultralytics") for param in of_families("libreyolo9-w0.0625")),
        ("yolo11-w0.0625", "libreyolo9t", "libreyolo"),
    ],
)
def test_a_family_needs_only_its_own_package_and_says_how_to_get_it_where_it_is_missing(name, other, absent):
    """Nor does it need torchvision."""
    command = [sys.executable, "-c", WITHOUT_A_PACKAGE, name, other, absent]
    done = subprocess.run(command, timeout=300, capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
    assert f"InvalidInput: {other} needs the package {absent}, which is not installed: run" in done.stderr

"""The algebra of gaps, the policy for each kind of key, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diredi.errors import CorruptData, InvalidInput
from diredi.knowledge.gap import Gap, GapNote, apply, compute, selected
from diredi.knowledge.weight_kinds import KeyKind, kind_of
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

seeds = st.integers(0, 2**32 - 1)
lambdas = st.floats(-3, 3)


ROWS, BIASES = "model.23.cv3.0.2.weight", "model.23.cv3.0.2.bias"
"""What a YOLO11 calls weights that have a row for each class."""


def weights(seed: int, classes: int = 2) -> WeightMap:
    """What a detector has, in small: a convolution, its batch norm, a classifying head."""
    rng = np.random.default_rng(seed)
    return WeightMap(
        {
            "0.conv.weight": rng.normal(0, 1, (4, 3, 3, 3)).astype(np.float32),
            "0.bn.running_mean": rng.normal(0, 1, 4).astype(np.float32),
            "0.bn.running_var": rng.uniform(0, 2, 4).astype(np.float32) ** 8,
            "0.bn.num_batches_tracked": np.array(seed % 1000, np.int64),
            ROWS: rng.normal(0, 1, (classes, 4, 1, 1)).astype(np.float32),
            BIASES: rng.normal(0, 1, classes).astype(np.float32),
        }
    )


@settings(deadline=None, max_examples=50)
@given(seed=seeds, lam=lambdas)
def test_identical_tutors_leave_a_gap_of_exactly_zero(seed: int, lam: float) -> None:
    gap = compute(weights(seed), weights(seed), weights(seed + 1))
    assert gap.norm() == 0.0
    moved = apply(weights(seed + 1), gap, lam)
    for name, array in weights(seed + 1).items():
        np.testing.assert_allclose(moved[name], array, rtol=1e-6, atol=1.1e-8)


@settings(deadline=None, max_examples=50)
@given(seed=seeds)
def test_one_reverse_distillation_at_lambda_one_gives_tutor_2(seed: int) -> None:
    base, tutor_2 = weights(seed), weights(seed + 1, classes=3)
    again = apply(base, compute(tutor_2, base, base), 1.0)
    for name, array in tutor_2.items():
        if array.dtype == np.float32:
            np.testing.assert_allclose(again[name], array, rtol=1e-4, atol=1e-6)
    assert again["0.bn.num_batches_tracked"] == base["0.bn.num_batches_tracked"]


@settings(deadline=None, max_examples=50)
@given(seed=seeds, lam=st.floats(-100, 100))
def test_a_variance_is_above_zero_whatever_the_gap_and_lambda(seed: int, lam: float) -> None:
    gap = compute(weights(seed), weights(seed + 1), weights(seed + 2)).selected(lambda n: n.endswith("running_var"))
    try:
        moved = apply(weights(seed + 2), gap, lam)
    except InvalidInput:
        return  # beyond what float32 holds is refused, never kept
    assert (moved["0.bn.running_var"] > 0).all()


@settings(deadline=None, max_examples=50)
@given(seed=seeds, lam=st.floats(0, 1))
def test_applying_in_two_steps_is_applying_once(seed: int, lam: float) -> None:
    base = weights(seed)
    gap = compute(weights(seed + 1), base, base)
    twice = apply(apply(base, gap, lam), gap, 1 - lam)
    for name, array in apply(base, gap, 1.0).items():
        np.testing.assert_allclose(twice[name], array, rtol=1e-3, atol=1e-5)


@given(lam=lambdas)
def test_rows_of_a_new_class_are_set_whole_whatever_lambda_is(lam: float) -> None:
    base, tutor_2 = weights(1), weights(2, classes=3)
    moved = apply(base, compute(tutor_2, weights(3, classes=3), base), lam)
    assert np.array_equal(moved[ROWS][2:], tutor_2[ROWS][2:])
    assert np.array_equal(moved[BIASES][2:], tutor_2[BIASES][2:])
    assert np.array_equal(apply(base, compute(tutor_2, base, base), 0.0)[ROWS][:2], base[ROWS])


def test_counters_are_never_in_a_gap_and_statistics_can_be_left_out() -> None:
    assert "0.bn.num_batches_tracked" not in compute(weights(1), weights(2), weights(3))
    kept = compute(weights(1), weights(2), weights(3), statistics=False)
    assert set(kept) == {"0.conv.weight", ROWS, BIASES}
    assert np.array_equal(apply(weights(3), kept)["0.bn.running_var"], weights(3)["0.bn.running_var"])


def test_only_the_selected_layers_change_but_a_new_class_stays() -> None:
    base, tutor_2 = weights(1), weights(2, classes=3)
    gap = selected(compute(tutor_2, base, base), base, {n: n.startswith("0.") for n in base})
    moved = apply(base, gap)
    assert np.array_equal(moved[ROWS][:2], base[ROWS])
    assert np.array_equal(moved[ROWS][2:], tutor_2[ROWS][2:])
    np.testing.assert_allclose(moved["0.conv.weight"], tutor_2["0.conv.weight"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "dtype", "kind"),
    [
        ("model.3.conv.weight", "float32", KeyKind.PARAMETER),
        ("model.3.bn.running_mean", "float32", KeyKind.MEAN),
        ("model.3.bn.running_var", "float32", KeyKind.VARIANCE),
        ("model.3.bn.num_batches_tracked", "int64", KeyKind.COUNTER),
    ],
)
def test_every_kind_of_key_has_a_policy(name: str, dtype: str, kind: KeyKind) -> None:
    assert kind_of(name, dtype) is kind


def test_a_helper_layer_is_refused_by_name() -> None:
    helped = WeightMap({**weights(1), "fgd.align.weight": np.zeros((1, 1), np.float32)})
    with pytest.raises(InvalidInput, match=r"fgd\.align\.weight"):
        compute(helped, weights(1), weights(1))


def test_a_fused_model_is_refused_by_name() -> None:
    fused = weights(1).selected(lambda name: "bn" not in name)
    with pytest.raises(InvalidInput, match=r"0\.bn\.running_mean"):
        compute(fused, weights(1), weights(1))


def test_half_precision_is_refused() -> None:
    half = weights(1).mapped(lambda _, array: array.astype(np.float16))
    with pytest.raises(InvalidInput, match="float16"):
        compute(half, weights(1), weights(1))


def test_a_gap_for_another_architecture_is_refused_and_the_base_is_as_it_was() -> None:
    base, before = weights(1), weights(1)
    with pytest.raises(InvalidInput, match="another"):
        apply(base, WeightMap({"other.weight": np.zeros(3, np.float32)}))
    with pytest.raises(InvalidInput, match=r"0\.conv\.weight"):
        apply(base, WeightMap({"0.conv.weight": np.zeros((4, 3, 1, 1), np.float32)}))
    for name, array in before.items():
        assert np.array_equal(base[name], array)


def test_a_gap_with_a_nan_is_refused_by_name() -> None:
    bad = WeightMap({BIASES: np.array([0, np.nan], np.float32)})
    with pytest.raises(InvalidInput, match=BIASES):
        apply(weights(1), bad)


@pytest.mark.parametrize("codec", ["fp32-zstd", "int8-row-zstd"])
def test_a_gap_file_says_what_it_is_for(codec: str) -> None:
    base = weights(1)
    note = GapNote(base_id="sha256:" + "0" * 64, labels=LabelSpace(names=("a", "b", "c")), base_classes=2)
    gap = Gap(compute(weights(2, classes=3), base, base), note)
    again = Gap.from_bytes(gap.to_bytes(codec))
    assert again.note == note
    assert again.weights.schema() == gap.weights.schema()
    again.check_fits(base.schema())


def test_weights_that_are_no_gap_are_refused() -> None:
    from diredi.codecs import codec_named

    with pytest.raises(CorruptData, match="not a gap"):
        Gap.from_bytes(codec_named("fp32-zstd").encode(weights(1)))

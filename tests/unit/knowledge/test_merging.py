"""Several sites' gaps as one: a contract over every method, what each one promises, and rows of classes that differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gap import BIASES, ROWS, weights

from diredi.errors import InvalidInput
from diredi.knowledge.gap import Gap, GapNote, apply, compute
from diredi.knowledge.merging import MERGES, Contribution, MergeRecipe, merge_gaps
from diredi.knowledge.weight_kinds import kind_of
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

BASE = weights(0)
KNOWN = LabelSpace(names=("car", "person"))
FAITHFUL = {"ties": {"keep": 1.0}, "dare": {"drop": 0.0}}
"""What makes a method that thins gaps out keep all of them."""
seeds = st.integers(1, 2**31)


def contribution(
    site: str, seed: int, new: Sequence[str] = (), taught: Sequence[str] | None = None, images: int = 100
) -> Contribution:
    labels = KNOWN.expand(new)
    gap = compute(weights(seed, classes=len(labels)), BASE, BASE)
    note = GapNote(base_id="sha256:0", labels=labels, base_classes=2, taught=None if taught is None else tuple(taught))
    return Contribution(site, Gap(gap, note), images)


def five(seed: int = 1) -> list[Contribution]:
    """Sites of different sizes, two of which have a class of their own."""
    new: list[Sequence[str]] = [(), ("forklift",), (), ("forklift", "excavator"), ()]
    return [contribution(f"site-{i}", seed + i, new[i], images=50 + 30 * i) for i in range(5)]


def changed(one: Contribution, change: Callable[[str, np.ndarray], np.ndarray]) -> Contribution:
    return Contribution(one.site, Gap(one.gap.weights.mapped(change), one.gap.note), one.images)


def assert_equal(a: WeightMap, b: WeightMap, rtol: float = 0, atol: float = 0) -> None:
    a.check_same_schema(b)
    for name, array in a.items():
        np.testing.assert_allclose(array, b[name], rtol=rtol, atol=atol, err_msg=name)


def by_hand(gaps: Sequence[Sequence[float]], recipe: MergeRecipe) -> np.ndarray:
    """The merge of gaps of one weight, sites of equal size."""
    note = GapNote(base_id="", labels=KNOWN, base_classes=2)
    maps = [WeightMap({"w": np.array(gap, np.float32)}) for gap in gaps]
    ours = [Contribution(f"site-{i}", Gap(gap, note), 10) for i, gap in enumerate(maps)]
    return merge_gaps(ours, WeightMap({"w": np.zeros(len(gaps[0]), np.float32)}), recipe).weights["w"]


def known(gap: Gap) -> WeightMap:
    """What the gap says of weights that the base has too."""
    return gap.weights.mapped(lambda name, array: array[: len(BASE[name])])


@pytest.fixture(params=sorted(MERGES))
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_merged_gap_is_a_gap_for_the_base_in_a_label_space_with_all_classes(method: str) -> None:
    gap = merge_gaps(five(), BASE, MergeRecipe(method=method))
    assert gap.note.labels.names == ("car", "person", "forklift", "excavator")
    gap.check_fits(BASE.schema())
    assert apply(BASE, gap.weights)[BIASES].shape == (4,)


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(5)), seed=seeds)
def test_the_order_in_which_sites_report_is_of_no_matter(order: list[int], seed: int) -> None:
    ours = five(seed)
    for name in MERGES:
        recipe = MergeRecipe(method=name)
        expected, found = merge_gaps(ours, BASE, recipe), merge_gaps([ours[i] for i in order], BASE, recipe)
        assert found.note == expected.note
        assert_equal(found.weights, expected.weights)


def test_gaps_that_are_all_the_same_merge_to_themselves(method: str) -> None:
    one = contribution("site-0", 1, ["forklift"])
    alike = [Contribution(f"site-{i}", one.gap, 10 * i) for i in range(1, 6)]
    gap = merge_gaps(alike, BASE, MergeRecipe(method=method, **FAITHFUL.get(method, {})))
    assert_equal(gap.weights, one.gap.weights, rtol=1e-6)


@pytest.mark.parametrize("method", sorted(MERGES.keys() - {"krum"}))
def test_one_gap_alone_is_itself(method: str) -> None:
    one = contribution("site-0", 1, ["forklift"])
    gap = merge_gaps([one], BASE, MergeRecipe(method=method, **FAITHFUL.get(method, {})))
    assert gap.note == one.gap.note.model_copy(update={"taught": ("forklift",)})
    assert_equal(gap.weights, one.gap.weights, rtol=1e-6)


def test_what_goes_in_is_never_changed(method: str) -> None:
    ours, before = five(), five()
    merge_gaps(ours, BASE, MergeRecipe(method=method))
    for one, other in zip(ours, before, strict=True):
        assert_equal(one.gap.weights, other.gap.weights)
    assert_equal(BASE, weights(0))


def test_one_site_with_a_nan_is_refused_by_the_name_of_the_weight(method: str) -> None:
    *ours, bad = five()
    spoiled = changed(bad, lambda name, a: np.full_like(a, np.nan) if name == "0.conv.weight" else a)
    with pytest.raises(InvalidInput, match=r"0\.conv\.weight"):
        merge_gaps([*ours, spoiled], BASE, MergeRecipe(method=method))


def test_a_sum_beyond_what_float32_holds_is_refused() -> None:
    huge = [changed(one, lambda _, a: np.full_like(a, 3e38)) for one in five()]
    with pytest.raises(InvalidInput, match="infinite"), np.errstate(over="ignore"):
        merge_gaps(huge, BASE, MergeRecipe(method="task_arithmetic", scale=1.0))


@settings(deadline=None, max_examples=25)
@given(seed=seeds, size=st.floats(-1e6, 1e6), liar=st.integers(0, 4))
def test_one_liar_in_five_moves_no_weight_further_than_some_honest_site_did(seed: int, size: float, liar: int) -> None:
    ours = [contribution(f"site-{i}", seed + i) for i in range(5)]
    honest = [one.gap.weights for i, one in enumerate(ours) if i != liar]
    ours[liar] = changed(ours[liar], lambda _, a: a * np.float32(size))
    for name in ("median", "trimmed_mean"):
        for key, array in merge_gaps(ours, BASE, MergeRecipe(method=name)).weights.items():
            stacked = np.stack([one[key] for one in honest])
            assert (array >= stacked.min(0) - 1e-5).all(), (name, key)
            assert (array <= stacked.max(0) + 1e-5).all(), (name, key)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, size=st.floats(100, 1e6), sign=st.sampled_from([-1, 1]), liar=st.integers(0, 4))
def test_krum_never_picks_a_liar_who_is_far_from_all_others(seed: int, size: float, sign: int, liar: int) -> None:
    ours = [contribution(f"site-{i}", seed + i) for i in range(5)]
    ours[liar] = changed(ours[liar], lambda _, a: a * np.float32(sign * size))
    picked = merge_gaps(ours, BASE, MergeRecipe(method="krum")).weights
    assert picked.norm() < ours[liar].gap.weights.norm()


@settings(deadline=None, max_examples=25)
@given(seed=seeds, size=st.floats(1, 1e6))
def test_a_clipped_mean_is_no_longer_than_the_middle_gap(seed: int, size: float) -> None:
    ours = [contribution(f"site-{i}", seed + i) for i in range(5)]
    ours[0] = changed(ours[0], lambda _, a: a * np.float32(size))
    for statistic in (True, False):

        def norm(gap: WeightMap, statistic: bool = statistic) -> float:
            return gap.selected(lambda name: kind_of(name, "float32").is_statistic is statistic).norm()

        middle = float(np.median([norm(one.gap.weights) for one in ours]))
        assert norm(merge_gaps(ours, BASE, MergeRecipe(method="clipped_mean")).weights) <= middle * (1 + 1e-5)


def test_a_liar_moves_a_mean_as_far_as_he_likes() -> None:
    *ours, bad = five()
    spoiled = changed(bad, lambda _, a: a * np.float32(1e6))
    ratio = known(merge_gaps([*ours, spoiled], BASE, MergeRecipe(method="mean"))).norm() / known(bad.gap).norm()
    assert ratio > 1e5


def test_krum_is_refused_below_2f_plus_3_gaps_and_says_how_many_it_needs() -> None:
    with pytest.raises(InvalidInput, match=r"needs 5 gaps and there are 4"):
        merge_gaps(five()[:4], BASE, MergeRecipe(method="krum"))
    with pytest.raises(InvalidInput, match=r"needs 7 gaps and there are 5"):
        merge_gaps(five(), BASE, MergeRecipe(method="krum", byzantine=2))
    assert merge_gaps(five()[:3], BASE, MergeRecipe(method="krum", byzantine=0)).note.base_classes == 2


def test_krum_takes_the_gap_in_the_middle_of_the_crowd() -> None:
    middle = contribution("site-2", 1)
    near = [changed(middle, lambda _, a, by=by: a + np.float32(by)) for by in (-0.04, -0.01, 0.02, 5.0)]
    crowd = [middle, *(Contribution(f"site-{i}", one.gap, 9) for i, one in zip((0, 1, 3, 4), near, strict=True))]
    picked = merge_gaps(crowd, BASE, MergeRecipe(method="krum")).weights
    assert_equal(picked, middle.gap.weights)


def test_an_unknown_method_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"'fedavg'.*clipped_mean.*trimmed_mean"):
        merge_gaps(five(), BASE, MergeRecipe(method="fedavg"))


def test_the_mean_is_weighted_by_images() -> None:
    a, b = contribution("a", 1, images=300), contribution("b", 2, images=100)
    expected = a.gap.weights * 0.75 + b.gap.weights * 0.25
    assert_equal(merge_gaps([a, b], BASE, MergeRecipe(method="mean")).weights, expected, rtol=1e-5, atol=1e-6)


def test_task_arithmetic_adds_and_scales() -> None:
    a, b = contribution("a", 1), contribution("b", 2)
    gap = merge_gaps([a, b], BASE, MergeRecipe(method="task_arithmetic", scale=0.7)).weights
    assert_equal(gap, (a.gap.weights + b.gap.weights) * 0.7, rtol=1e-5, atol=1e-6)


def test_the_union_takes_what_is_shared_once_what_is_not_whole_and_adds_what_disagrees() -> None:
    gaps = [[3, 0, -5, 4, -1], [2, 7, -1, -3, -1]]
    np.testing.assert_allclose(by_hand(gaps, MergeRecipe(method="union")), [3, 7, -5, 1, -1])
    assert by_hand([[1.0], [1.0], [-2.0], [-1.0]], MergeRecipe(method="union")) == [-1.0]


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_task_arithmetic_without_a_scale_goes_as_far_as_the_sites_did(seed: int) -> None:
    a, b = contribution("a", seed), contribution("b", seed + 1)

    def norm(gap: WeightMap) -> float:
        return gap.selected(lambda name: not kind_of(name, "float32").is_statistic).norm()

    found = norm(merge_gaps([a, b], BASE, MergeRecipe(method="task_arithmetic")).weights)
    assert found == pytest.approx((norm(a.gap.weights) + norm(b.gap.weights)) / 2, rel=1e-5)


def test_ties_trims_elects_and_averages_what_agrees() -> None:
    """By hand: of eight weights a site the four largest stay; in each place the heavier sign wins."""
    gaps = [[9, -8, 7, 1, 0.5, -6, 0, 0], [3, 8.5, -9, 0.5, 7, 0, 0, 0.1]]
    found = by_hand(gaps, MergeRecipe(method="ties", keep=0.5))
    np.testing.assert_allclose(found, [6, 8.5, -9, 0, 7, -6, 0, 0])


def test_dare_drops_its_share_and_is_right_on_average() -> None:
    ours = [contribution("a", 1), contribution("b", 2)]
    alone = [
        merge_gaps(ours[:1], BASE, MergeRecipe(method="dare", drop=0.75, scale=1.0, seed=seed)).weights["0.conv.weight"]
        for seed in range(400)
    ]
    assert np.mean([np.mean(one == 0) for one in alone]) == pytest.approx(0.75, abs=0.01)
    truth = ours[0].gap.weights["0.conv.weight"]
    assert np.abs(np.mean(alone, axis=0) - truth).max() < 0.4 * np.abs(truth).max()
    recipe = MergeRecipe(method="dare", seed=7)
    assert_equal(merge_gaps(ours, BASE, recipe).weights, merge_gaps(ours, BASE, recipe).weights)


def test_two_sites_with_a_class_each_keep_the_rows_that_each_has_taught(method: str) -> None:
    a, b = contribution("a", 1, ["forklift"]), contribution("b", 2, ["excavator"])
    rest = [contribution(f"rest-{i}", 3 + i) for i in range(3)]
    gap = merge_gaps([a, b, *rest], BASE, MergeRecipe(method=method))
    for name, label, one in (("forklift", "forklift", a), ("excavator", "excavator", b)):
        row = gap.note.labels.id_of(label)
        for key in (ROWS, BIASES):
            assert np.array_equal(gap.weights[key][row], one.gap.weights[key][2]), name


def test_a_site_that_knows_a_class_by_name_alone_has_no_say_in_its_row() -> None:
    a = contribution("a", 1, ["forklift"], taught=["forklift"], images=10)
    b = contribution("b", 2, ["forklift", "excavator"], taught=["excavator"], images=1000)
    gap = merge_gaps([a, b], BASE, MergeRecipe())
    assert gap.note.labels == b.gap.note.labels
    assert gap.note.taught == ("forklift", "excavator")
    assert np.array_equal(gap.weights[ROWS][2], a.gap.weights[ROWS][2])
    assert np.array_equal(gap.weights[ROWS][3], b.gap.weights[ROWS][3])


def test_a_class_that_two_sites_were_taught_has_the_mean_of_their_rows_by_images() -> None:
    a, b = contribution("a", 1, ["forklift"], images=100), contribution("b", 2, ["forklift"], images=300)
    rows = [one.gap.weights[ROWS][2] for one in (a, b)]
    found = merge_gaps([a, b], BASE, MergeRecipe()).weights[ROWS][2]
    np.testing.assert_allclose(found, rows[0] / 4 + rows[1] * 3 / 4, rtol=1e-5)


def test_a_liar_among_three_who_were_taught_a_class_does_not_own_its_row() -> None:
    ours = [contribution(f"site-{i}", 1 + i, ["forklift"] if i < 3 else []) for i in range(5)]
    honest = np.stack([one.gap.weights[ROWS][2] for one in ours[1:3]])
    ours[0] = changed(ours[0], lambda _, a: a * np.float32(-1e6))
    for method in ("median", "trimmed_mean", "clipped_mean", "krum"):
        row = merge_gaps(ours, BASE, MergeRecipe(method=method)).weights[ROWS][2]
        assert ((row >= honest.min(0)) & (row <= honest.max(0))).all(), method


def test_ids_that_the_cloud_gave_out_are_kept_whoever_reports_first() -> None:
    cloud = KNOWN.expand(["forklift", "crane", "excavator"])
    early = contribution("z", 1, ["forklift"])
    late = contribution("a", 2, ["forklift", "crane", "excavator"], taught=["excavator"])
    assert merge_gaps([early, late], BASE, MergeRecipe()).note.labels.names == cloud.names


def test_a_key_that_a_site_left_out_is_no_change_there() -> None:
    a, b = contribution("a", 1), contribution("b", 2)
    less = Contribution("b", Gap(b.gap.weights.selected(lambda name: "running" not in name), b.gap.note), 100)
    found = merge_gaps([a, less], BASE, MergeRecipe(method="mean")).weights["0.bn.running_mean"]
    np.testing.assert_allclose(found, a.gap.weights["0.bn.running_mean"] / 2, rtol=1e-6)


def other_base(one: Contribution) -> Contribution:
    return Contribution(one.site, Gap(one.gap.weights, one.gap.note.model_copy(update={"base_id": "sha256:1"})), 1)


@pytest.mark.parametrize(
    ("ours", "named"),
    [
        ([], "no gap to merge"),
        ([contribution("a", 1), contribution("a", 2)], "'a' has two gaps"),
        ([contribution("a", 1, images=0)], "'a' gives no number"),
        ([contribution("a", 1), other_base(contribution("b", 2))], "'a' and 'b' have gaps for different bases"),
        (
            [
                contribution("a", 1, ["crane"]),
                Contribution("b", Gap(WeightMap({"other": np.zeros(1, np.float32)}), contribution("b", 2).gap.note), 1),
            ],
            "'other'",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused_with_the_site_or_weight_named(ours: list[Contribution], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        merge_gaps(ours, BASE, MergeRecipe())


def test_a_class_whose_rows_are_not_all_there_is_refused_with_the_site_named() -> None:
    a, b = contribution("a", 1, ["forklift"]), contribution("b", 2, ["forklift"])
    short = Contribution("b", Gap(b.gap.weights.selected(lambda name: name != BIASES), b.gap.note), 100)
    with pytest.raises(InvalidInput, match=rf"'b' has no row of 'forklift' in '{BIASES}'"):
        merge_gaps([a, short], BASE, MergeRecipe())

from __future__ import annotations

import pytest

from cloud_server import gate
from diredi.labels import LabelSpace
from tests.unit.cloud_server.samples import GROWN, LABELS, metrics

NAN = float("nan")


@pytest.mark.parametrize(("after", "passed"), [(0.6, True), (0.5, True), (0.49, True), (0.489, False)])
def test_harm_on_presumed_images_is_allowed_up_to_the_limit(after: float, passed: bool) -> None:
    verdict = gate.check_presumed(metrics(0.5), metrics(after), max_harm=0.01)
    assert verdict.passed is passed
    assert f"{after:.3f}" in verdict.reason
    assert verdict.metrics["before"]["map50"] == 0.5
    assert verdict.metrics["after"]["map50"] == after


@pytest.mark.parametrize(("before", "after"), [(0.5, NAN), (NAN, 0.5), (0.5, float("inf"))])
def test_a_figure_that_is_no_number_never_passes(before: float, after: float) -> None:
    assert not gate.check_presumed(metrics(before), metrics(after), 0.01).passed
    assert not gate.check_site(metrics(before), metrics(after), []).passed


@pytest.mark.parametrize(("count", "passed"), [(0.0, True), (5.0, True), (5.5, False), (NAN, False)])
def test_new_classes_may_seldom_be_found_on_images_that_do_not_show_them(count: float, passed: bool) -> None:
    verdict = gate.check_false_alarms(count, most=5.0)
    assert verdict.passed is passed
    assert "100 presumed images" in verdict.reason
    assert verdict.metrics["max_false_alarms"] == 5.0


def test_a_candidate_whose_old_ids_mean_something_else_never_passes() -> None:
    swapped = LabelSpace(names=("person", "car"))
    assert not gate.check_labels(swapped, LABELS, swapped).passed


def test_a_candidate_with_a_class_that_the_cloud_gave_no_id_never_passes() -> None:
    assert not gate.check_labels(GROWN, LABELS, LABELS).passed
    assert gate.check_labels(GROWN, LABELS, GROWN).passed


@pytest.mark.parametrize(("after", "passed"), [(0.7, True), (0.4, True), (0.399, False)])
def test_at_the_site_a_candidate_may_not_be_worse_than_what_runs(after: float, passed: bool) -> None:
    assert gate.check_site(metrics(0.4), metrics(after), []).passed is passed


def test_what_a_new_class_reached_is_on_record() -> None:
    verdict = gate.check_site(metrics(0.4, car=0.8, forklift=0), metrics(0.7, car=0.8, forklift=0.6), ["forklift"])
    assert verdict.metrics["new_classes_ap50"] == {"forklift": 0.6}
    assert "forklift AP50 0.600" in verdict.reason


def test_a_verdict_on_estimates_says_that_they_are_and_never_compares_them_with_measurements() -> None:
    before, after = (metrics(value).model_copy(update={"judged_by": "oracle"}) for value in (0.4, 0.5))
    verdict = gate.check_site(before, after, [])
    assert verdict.passed
    assert verdict.reason.startswith("estimated by an oracle's answers, without labels: mAP50 on the site's images")
    assert not gate.check_site(after, before, []).passed
    for pair in ((metrics(0.4), after), (before, metrics(0.5))):
        mixed = gate.check_site(*pair, [])
        assert not mixed.passed and "not by the same labels" in mixed.reason


@pytest.mark.parametrize(
    ("map50", "crane", "reason"),
    [
        (0.72, 0.6, ""),
        (0.69, 0.56, ""),
        (0.68, 0.6, "at most"),
        (0.72, 0.54, "crane AP50 0.600 to 0.540"),
        (0.72, NAN, "lost"),
        (NAN, 0.6, "not a number"),
    ],
)
def test_a_rebase_may_cost_a_site_little_and_not_its_own_class(map50: float, crane: float, reason: str) -> None:
    before, after = metrics(0.7, car=0.8, crane=0.6), metrics(map50, car=0.8, crane=crane, truck=0.5)
    verdict = gate.check_rebase(before, after, ["crane"], max_harm=0.01)
    assert verdict.passed is not bool(reason)
    assert reason in verdict.reason


def test_a_rebase_without_the_sites_own_class_never_passes() -> None:
    verdict = gate.check_rebase(metrics(0.7, crane=0.6), metrics(0.7, car=0.9), ["crane"], max_harm=0.01)
    assert not verdict.passed
    other_judge = metrics(0.7, crane=0.6).model_copy(update={"judged_by": "oracle"})
    assert not gate.check_rebase(metrics(0.7, crane=0.6), other_judge, ["crane"], max_harm=0.01).passed


def test_a_site_that_has_too_few_images_to_say_anything_decides_nothing() -> None:
    from diredi.evaluation.disclosure import WITHHELD

    for before, after in ((metrics(0.9), WITHHELD), (WITHHELD, WITHHELD), (WITHHELD, metrics(0.1))):
        for verdict in (gate.check_site(before, after, ["forklift"]), gate.check_rebase(before, after, [], 0.0)):
            assert (verdict.passed, verdict.reason) == (True, gate.TOO_FEW_IMAGES)

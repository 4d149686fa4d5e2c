"""What of a job's result becomes part of the manifest, and what stays at the site."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from diredi.detectors.spec import DetectorSpec
from diredi.evaluation.disclosure import counts_for_disclosure
from diredi.knowledge.jobs.specs import ExtractResult
from diredi.labels import LabelSpace
from diredi.rpc.convert import Model
from diredi.store.blobs import Blob
from user_domain.manifest import build_manifest
from user_domain.tasks import Task, TaskKind

LABELS = LabelSpace(names=("car", "forklift"))
DIGEST = "sha256:" + "a" * 64
STYLE = {
    "lightness": [10, 40, 70, 100.5, 140, 190, 240], "lightness_spread": 4, "colour": [120.25, 131],
    "colour_spread": [9, 11], "sharpness": 0.5, "noise": 0.02,
}  # fmt: skip


def metrics(map50: float) -> dict[str, Any]:
    parts = dict.fromkeys(("map50", "map50_95", "precision", "recall", "f1"), map50)
    return {**parts, "per_class": {}, "images": 4, "path": "/srv/private/gate.jpg"}


def result(**more: Any) -> ExtractResult:
    gap = {"path": "/srv/jobs/tutor.gap", "digest": DIGEST, "bytes": 7, "codec": "fp32-zstd", "fp32_bytes": 9}
    values = {
        "tutor_gap": gap | {"schema_digest": DIGEST}, "train_images": 8, "held_out_images": 4, "boxes": {"car": 3},
        "student_before": metrics(0.2), "tutor_after": metrics(0.6), "student_gap": None, "style": None, **more,
    }  # fmt: skip
    return ExtractResult.model_validate(values)


@pytest.fixture
def task() -> Task:
    spec = DetectorSpec(architecture="yolo11n", image_size=64, labels=LABELS)
    tutor, student = (Model(DIGEST, kind, spec, Blob(DIGEST, 9)) for kind in ("tutor", "student"))
    return Task("c1/extract", TaskKind.EXTRACT, "c1", True, tutor=tutor, student=student)


def test_scores_travel_as_metrics_and_nothing_beside_them(task: Task) -> None:
    scores = [{"lam": 0.2, "metrics": metrics(0.3)}]
    manifest = build_manifest(task, LABELS, result(scores=scores), publish_style=False)
    assert [(score.lam, score.metrics.map50) for score in manifest.scores] == [(0.2, 0.3)]
    assert b"/srv" not in manifest.SerializeToString()


def test_what_the_site_decided_travels_with_its_reason(task: Task) -> None:
    decisions = [{"subject": "form", "choice": "branch", "because": "mAP50 went from 47.7 to 0.9"}]
    manifest = build_manifest(task, LABELS, result(decisions=decisions), publish_style=False)
    assert [(one.subject, one.choice, one.because) for one in manifest.decisions] == [tuple(decisions[0].values())]


def test_a_recipe_without_scores_sends_none(task: Task) -> None:
    assert not build_manifest(task, LABELS, result(), publish_style=False).scores


def test_style_travels_only_where_the_policy_publishes_it(task: Task) -> None:
    assert not build_manifest(task, LABELS, result(style=STYLE), publish_style=False).HasField("style")
    assert not build_manifest(task, LABELS, result(style=None), publish_style=True).HasField("style")
    published = build_manifest(task, LABELS, result(style=STYLE), publish_style=True)
    assert published.style["colour"][0] == 120.25


@pytest.mark.parametrize(
    "more",
    [
        {"worst_image": "/srv/private/gate.jpg"},
        {"style": STYLE | {"thumbnail": "/9j/4AAQ"}},
        {"boxes": {"car": "many"}},
    ],
)
def test_a_result_with_more_than_its_contract_is_refused_before_anything_is_sent(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(more))):
        result(**more)


def test_numbers_of_boxes_leave_to_the_next_ten_and_not_below_ten() -> None:
    assert counts_for_disclosure({"car": 9, "bus": 10, "van": 14, "cat": 16, "dog": 1234}) == {
        "bus": 10, "van": 10, "cat": 20, "dog": 1230,
    }  # fmt: skip

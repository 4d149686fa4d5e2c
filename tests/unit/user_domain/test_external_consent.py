"""What a site measures for cycles that it takes no part in, and how a cloud might misuse that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diredi.detectors.spec import DetectorSpec
from diredi.labels import LabelSpace
from diredi.rpc.convert import Model
from diredi.store.blobs import Blob
from tests.support.pki import Pki
from user_domain.consent import Answer, Consent, ConsentJournal
from user_domain.policy import Bounds, Policy
from user_domain.tasks import Task, TaskKind

CLASSES = ("car", "person")


def model(digit: str, *more: str, size: int = 64) -> Model:
    blob = Blob(f"sha256:{digit * 64}", 1000)
    spec = DetectorSpec(architecture="yolo11n", image_size=size, labels=LabelSpace.of([*CLASSES, *more]))
    return Model(blob.digest, "student", spec, None, blob)


TASK = Task(
    "c/validate-external", TaskKind.VALIDATE_EXTERNAL, "c", student=model("1", "crane"), deployed=model("2"),
    scope="fleet",
)  # fmt: skip


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def site(pki: Pki, folder: Path, **policy: Any) -> Consent:
    journal = ConsentJournal(folder / "consent.jsonl", pki.credentials("site", "site-1"))
    values: dict[str, Any] = {"approval": "bounds", "bounds": Bounds(), "site": "site-1"} | policy
    return Consent(journal, Policy(**values), lambda: pytest.fail("the data set is not looked at"), publish_style=False)


def refusal(consent: Consent, task: Task = TASK) -> str:
    verdict = consent.judge(task)
    assert (verdict.answer is Answer.YES) == (not verdict.reason)
    return verdict.reason


@pytest.mark.parametrize("approval", ["always", "bounds", "ask", "never"])
def test_a_cloud_that_asks_a_site_which_never_said_so_gets_nothing_measured(
    pki: Pki, tmp_path: Path, approval: str
) -> None:
    assert refusal(site(pki, tmp_path, approval=approval)) != ""
    assert (refusal(site(pki, tmp_path, approval=approval, external_validation="bounds")) == "") == (
        approval != "never"
    )


def test_a_candidate_of_a_cycle_that_the_site_approved_or_declined_is_not_measured_as_somebody_elses(
    pki: Pki, tmp_path: Path
) -> None:
    for event in ("approved", "declined", "uploaded"):
        consent = site(pki, tmp_path / event, external_validation="bounds")
        consent.journal.record(event, "c", {})  # type: ignore[arg-type]
        assert "has decided about this cycle" in refusal(consent)


def test_a_second_candidate_under_the_name_of_the_first_is_not_measured(pki: Pki, tmp_path: Path) -> None:
    consent = site(pki, tmp_path, external_validation="bounds")
    assert refusal(consent) == ""
    consent.record_validation(TASK, {"map50": 0.5}, {"map50": 0.6})
    for changed in (replace(TASK, student=model("3")), replace(TASK, deployed=model("3"))):
        assert "another candidate of this cycle" in refusal(consent, changed)
    again = site(pki, tmp_path, external_validation="bounds")
    assert refusal(again) == "", "after a restart the same question has the same answer"
    assert (again.submitted_figures(TASK), again.submitted_before(TASK)) == ({"map50": 0.5}, {"map50": 0.6})


def test_a_cloud_that_makes_up_cycles_to_ask_again_and_again_meets_the_bound_of_a_week(
    pki: Pki, tmp_path: Path
) -> None:
    consent = site(pki, tmp_path, external_validation="bounds", bounds=Bounds(max_external_per_week=2))
    for name in ("c1", "c2"):
        task = replace(TASK, cycle_id=name)
        assert refusal(consent, task) == ""
        consent.record_validation(task, {}, {})
    assert "bounds.max_external_per_week" in refusal(consent)
    assert refusal(consent, replace(TASK, cycle_id="c2")) == "", "what was measured may be submitted again"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"scope": "site:site-2"}, "another site alone"),
        ({"scope": "site:site-1"}, "another site alone"),
        ({"scope": ""}, "does not say for whom"),
        ({"scope": "group:south"}, "bounds.scopes"),
        ({"student": model("1", size=128)}, "another input"),
        ({"deployed": model("2", "forklift")}, "other classes"),
        ({"student": model("1", size=2048), "deployed": model("2", size=2048)}, "bounds.max_image_size"),
    ],
)
def test_what_is_outside_of_the_bounds_is_refused_before_a_download(
    pki: Pki, tmp_path: Path, changed: dict[str, Any], why: str
) -> None:
    bounds = Bounds(scopes=("fleet", "site"))
    assert why in refusal(site(pki, tmp_path, external_validation="bounds", bounds=bounds), replace(TASK, **changed))

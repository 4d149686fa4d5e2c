import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import pytest
from rich.console import Console

from diredi.evaluation.metrics import ClassMetrics, DetectionMetrics
from diredi.rpc.message_texts import egress_name
from diredi_demo.charts import Change, changes, is_loss, signed
from diredi_demo.html_report import write_html_report
from diredi_demo.report import CycleSummary, Pair, Report
from diredi_demo.table import render_report
from diredi_demo.texts import estimate_text, headline, lead, step_name

MakeReport = Callable[..., Report]


def page(report: Report, tmp_path: Path, **changes: object) -> str:
    path = tmp_path / "report.html"
    write_html_report(report.model_copy(update=changes), path)
    return path.read_text()


class Tags(HTMLParser):
    VOID: ClassVar = {"meta", "link", "img", "line", "circle", "rect", "image", "use", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_for_programs_has_the_promised_keys(make_report: MakeReport, tmp_path: Path):
    make_report().write(tmp_path / "report.json")
    said = json.loads((tmp_path / "report.json").read_text())
    assert said["cycle"]["state"] == "RELEASED"
    for when in ("before", "after"):
        for where in ("presumed", "site"):
            metrics = said[when][where]
            assert metrics.keys() >= {"map50", "map50_95", "precision", "recall", "f1", "per_class"}
            assert all(entry.keys() >= {"ap50", "ap50_95"} for entry in metrics["per_class"].values())
    assert said["new_classes"] == ["forklift"]
    assert said["gap"].keys() >= {"bytes", "tutor_fp32_bytes"}
    assert said.keys() >= {"egress", "private_bytes", "seconds", "releases"}
    assert "pictures" not in said


def test_of_eighty_classes_only_those_are_told_of_which_there_is_something_to_tell(make_report: MakeReport) -> None:
    known = make_report()
    many = {f"thing {number}": ClassMetrics(ap50=0.5, ap50_95=0.3, boxes=3) for number in range(74)}
    changed = {**many, "thing 7": ClassMetrics(ap50=0.4, ap50_95=0.2, boxes=3)}

    def with_classes(pair: Pair, more: dict[str, ClassMetrics]) -> Pair:
        per_class = {**pair.presumed.per_class, **more}
        return pair.model_copy(update={"presumed": pair.presumed.model_copy(update={"per_class": per_class})})

    report = known.model_copy(
        update={
            "labels": (*known.labels, *many),
            "before": with_classes(known.before, many),
            "after": with_classes(known.after, changed),
        }
    )
    assert set(report.told_classes) == {*known.labels, "thing 7"}
    assert report.told_classes[0] == "forklift"
    assert report.unchanged_classes == 73


def test_the_page_needs_no_network(make_report: MakeReport, tmp_path: Path):
    text = page(make_report(), tmp_path)
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert all(link.startswith(("data:", "#")) for link in tags.links)
    assert not re.search(r"https?://|@import|<script", text)


def test_the_page_shows_the_metrics_of_the_report(make_report: MakeReport, tmp_path: Path):
    text = page(make_report(), tmp_path)
    for figure in ("+35.2", "71.0", "9.42 MiB", "2.42 MiB", "edge-3", "2 min 43 s", "RELEASED"):
        assert figure in text


def test_text_from_data_is_escaped(make_report: MakeReport, tmp_path: Path):
    text = page(make_report(new_class="<script>alert(1)</script>"), tmp_path)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_no_picture_of_a_users_private_data_is_in_the_page(make_report: MakeReport, tmp_path: Path):
    text = page(make_report(built_in=False), tmp_path)
    assert text.count("<image ") == 1
    assert "no image of the site is in this page" in text


def test_a_page_without_pictures_or_new_class_is_whole(make_report: MakeReport, tmp_path: Path):
    tags = Tags()
    tags.feed(page(make_report(), tmp_path, pictures=(), new_classes=(), spans=(), devices=()))
    assert tags.open == []


@pytest.mark.parametrize("state", ["DECLINED", "ROLLED_BACK"])
def test_the_headline_does_not_celebrate_what_was_not_released(make_report: MakeReport, state: str):
    said = headline(make_report().model_copy(update={"cycle": CycleSummary(id="c", site="site-1", state=state)}))
    assert "not released" in said


def test_the_headline_claims_no_class_that_is_not_found(make_report: MakeReport):
    before = make_report()
    forgot = before.model_copy(update={"after": before.before})
    assert headline(before) == "3 devices learned forklift. No image left site-1."
    assert headline(forgot) == "3 devices run release 2. No image left site-1."


def test_the_terminal_shows_before_and_after_bytes_seconds_and_devices(
    make_report: MakeReport, capsys: pytest.CaptureFixture[str]
):
    from diredi_cli.output import emit

    emit({}, False, *render_report(make_report()))
    said = capsys.readouterr().out
    for word in ("AP50 forklift (new)", "+71.0", "PutChunkRequest", "private data that stayed", "edge-2", "Forgetting"):
        assert word in said


def test_signed_points_have_no_negative_zero():
    assert [signed(value) for value in (0.04, -0.04, 1.26, -1.26)] == ["0.0", "0.0", "+1.3", "\N{MINUS SIGN}1.3"]


def test_a_loss_of_a_point_is_within_the_promise():
    assert not is_loss(-1.0000001) and is_loss(-1.1)


def test_a_chart_has_a_row_for_each_class():
    svg = changes([Change("all", 0.1, 0.2, is_total=True), Change("a & b", 0.0, 0.5, is_new=True)], "x")
    assert svg.count('class="dot before"') == 2 and "a &amp; b" in svg


def test_an_unknown_step_or_message_is_called_as_it_is():
    assert step_name("extract/tutor-2") == "tutor-2"
    assert step_name("bake") == "bake"
    assert egress_name("NewRequest") == "NewRequest"


def estimated(metrics: DetectionMetrics, map50: float) -> DetectionMetrics:
    return metrics.model_copy(update={"map50": map50, "judged_by": "oracle"})


def test_a_report_of_a_site_without_labels_says_how_far_off_its_estimates_were(make_report: MakeReport, tmp_path: Path):
    report = make_report()
    assert estimate_text(report) == ""
    before, after = report.before.site, report.after.site
    told = {"estimate": (estimated(before, 0.40), estimated(after, 0.70))}
    text = estimate_text(report.model_copy(update=told))
    assert "estimated an mAP50 of 40.0 before and 70.0 after" in text
    assert "it is 32.0 and 67.2: the estimates are +8.0 and +2.8 points off" in text
    assert text in page(report, tmp_path, **told)
    left_out = estimate_text(report.model_copy(update=told | {"left_out": ("forklift",)}))
    assert left_out == f"{text} Boxes of forklift, which no release knows, are left out."
    assert "Estimated" not in lead(report.model_copy(update=told)), "the report itself has measured by labels"


def test_a_report_without_any_labels_calls_every_figure_of_the_site_an_estimate(
    make_report: MakeReport, tmp_path: Path
):
    report = make_report()
    pair = estimated(report.before.site, 0.40), estimated(report.after.site, 0.70)
    sides = {
        "before": report.before.model_copy(update={"site": pair[0]}),
        "after": report.after.model_copy(update={"site": pair[1]}),
    }
    told = report.model_copy(update={"estimate": pair, "new_classes": (), **sides})
    assert "There are no labels to compare with" in estimate_text(told)
    assert lead(told).startswith("Estimated mAP50 at the site changed by +30.0 points")
    assert headline(told) == "3 devices see better at site-1, as far as an oracle can tell. No image left site-1."
    console = Console(width=200, file=io.StringIO())
    for renderable in render_report(told):
        console.print(renderable)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "site-1 (estimates): release 1" in printed and "There are no labels" in printed
    assert "points of estimated mAP50, 40.0 to 70.0" in page(told, tmp_path)

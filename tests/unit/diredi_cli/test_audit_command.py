"""`diredi data audit`: what it prints, its page in a browser, and that the data set stays as it was."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from diredi.data.dataset import load
from diredi.evaluation.label_findings import LabelAudit, LabelFinding
from diredi_cli.main import run
from tests.unit.diredi_cli.test_models import model
from tests.unit.diredi_demo.test_checks import data_set

Output = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A set in which the label of the first image stands twice, with a hair between them."""
    path = data_set(tmp_path / "data", ["car", "<b>crane"])
    image = load(path).train[0].image
    label = image.parent.parent.parent / "labels" / "train" / f"{image.stem}.txt"
    label.write_text("0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.51\n")
    return path


def digests(folder: Path) -> dict[str, str]:
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def test_it_tells_what_it_found_and_changes_nothing(tmp_path: Path, data: Path, capsys: Output):
    before, page = digests(data.parent), tmp_path / "audit.html"
    assert run(["data", "audit", str(data), "--model", str(model(tmp_path, "car")), "--out", str(page)]) == 0
    said = capsys.readouterr()
    assert "duplicate" in said.out and f"pictures: {page}" in said.out
    assert "no model knows <b>crane" in said.err
    assert digests(data.parent) == before


def test_json_is_the_audit_with_what_it_was_made_from(tmp_path: Path, data: Path, capsys: Output):
    weights = model(tmp_path, "car")
    assert run(["data", "audit", str(data), "--model", str(weights), "--split", "train", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["data"] == str(data) and said["models"] == [str(weights)]
    assert "duplicate" in [found["kind"] for found in said["findings"]]
    assert {found["split"] for found in said["findings"]} == {"train"}


def test_faults_in_arguments_are_told_before_anything_is_read(tmp_path: Path, data: Path, capsys: Output):
    weights = str(model(tmp_path, "boat"))
    assert run(["data", "audit", str(data), "--model", weights]) == 2
    assert "no class in common" in capsys.readouterr().err
    assert run(["data", "audit", str(data), "--model", "none.pt"]) == 4
    assert run(["data", "audit", "none.yaml", "--model", weights, "--out", str(tmp_path / "none" / "a.html")]) == 4
    assert "--out" in capsys.readouterr().err
    assert run(["data", "audit", str(data), "--model", weights, "--out", str(data)]) == 2
    assert "end it in .html" in capsys.readouterr().err
    assert run(["data", "audit", str(data)]) == 2


_PROBE = """<script>document.title = JSON.stringify({
  width: document.documentElement.scrollWidth, window: innerWidth,
  crops: [...document.querySelectorAll("figure.crop svg")].map(s => s.getBoundingClientRect().width),
  outlines: document.querySelectorAll("figure.crop rect").length,
  bold: document.querySelectorAll("td b").length, heading: document.querySelector("h1").textContent })</script>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_shows_every_finding_in_a_browser_without_a_network(tmp_path: Path, data: Path, width: int):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    image, page = load(data).train[0].image, tmp_path / "audit.html"
    box = (16.0, 16.0, 48.0, 48.0)
    more = {"score": 0.6, "image": image, "split": "train", "image_size": (32, 32)}
    findings = (
        LabelFinding(kind="wrong class", label="<b>crane", box=box, number=1, seen="car", seen_box=box, **more),
        LabelFinding(kind="missing", seen="car", seen_box=(-3.0, 0.0, 900.0, 900.0), **more),
        LabelFinding(kind="nothing there", label="car", box=box, number=0, **more),
    )
    LabelAudit(findings=findings, per_class={}, images=2, boxes=2, models=1).write_html(page, "<b>data")
    page.write_text(page.read_text().replace("</body>", f"{_PROBE}</body>"))
    seen = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},2000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", seen.stdout)
    assert title is not None
    said = json.loads(title[1])
    assert said["width"] <= said["window"] and said["heading"] == "3 findings in 2 labels"
    assert len(said["crops"]) == 3 and min(said["crops"]) > 100 and said["outlines"] == 4
    assert said["bold"] == 0 and ":CONSOLE" not in seen.stderr


def test_of_many_findings_the_page_shows_the_surest_of_each_kind(tmp_path: Path, data: Path):
    image = load(data).train[0].image
    more = {"image": image, "split": "train", "image_size": (32, 32), "seen": "car", "seen_box": (0, 0, 9, 9)}
    findings = tuple(LabelFinding(kind="missing", score=0.9 - n / 100, **more) for n in range(5))
    LabelAudit(findings=findings, per_class={}, images=2, boxes=2, models=1).write_html(tmp_path / "a.html", most=2)
    page = (tmp_path / "a.html").read_text()
    assert page.count("<figure") == 2 and "score 90" in page and "The surest 2 are shown" in page


def test_of_many_classes_those_with_findings_and_those_that_nobody_knows_are_shown(tmp_path: Path, capsys: Output):
    names = [f"class-{n:02}" for n in range(20)]
    path = data_set(tmp_path / "data", names)
    label = tmp_path / "data" / "labels" / "train" / "a.txt"
    rows = [f"{n} {(n + 0.5) / 20:.3f} 0.5 0.04 0.9" for n in range(20)]
    label.write_text("\n".join([*rows, "7 0.375 0.5 0.041 0.9"]))
    weights, page = model(tmp_path, *names[:19]), tmp_path / "a.html"
    assert run(["data", "audit", str(path), "--model", str(weights), "--split", "train", "--out", str(page)]) == 0
    for shown in (capsys.readouterr().out, page.read_text()):
        assert "class-07" in shown and "class-19" in shown and "class-03" not in shown
        assert "left out" in shown

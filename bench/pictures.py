"""One picture for each question of docs/results.md, drawn from the committed JSON: `python bench/pictures.py`.

It reads `bench/results/NAME.json`, or the output on the page of a demo, and writes `docs/results/NAME.svg`. It trains
and measures nothing. Equal numbers give an equal picture, byte for byte; a test holds the committed pictures to that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("Agg")
import matplotlib.pyplot as plt
from trade_picture import draw_trades

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGES = ROOT / "bench" / "results", ROOT / "docs" / "results"

Rows = Mapping[tuple[str, str], Any]
"""The rows of a benchmark by table and form."""

OURS, OTHERS, BOUND = "#00796b", "#b0bec5", "#eceff1"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "diredi",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Bars:
    """One panel of horizontal bars: some forms of a table, by one column of it.

    Attributes:
        title: What the panel shows.
        table: The table in the JSON.
        column: The column of that table.
        forms: Which rows, in order; each with the label that it gets, or with its own name.
        unit: The label of the axis.
        log: Whether the axis is logarithmic.
    """

    title: str
    table: str
    column: str
    forms: Mapping[str, str]
    unit: str = "mAP50, percent"
    log: bool = False


@dataclass(frozen=True)
class Picture:
    """The picture of one question: its panels, and which labels are ours or only a bound."""

    panels: Sequence[Bars]
    ours: Sequence[str] = ("DiReDi",)
    bounds: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Trades:
    """A picture of what each method learns against what it forgets, with a panel for each scenario of the JSON."""


def _same(*forms: str) -> dict[str, str]:
    return {form: form for form in forms}


_RIVALS = {
    "release 1": "before",
    "DiReDi": "DiReDi",
    "fine-tuning with presumed images": "fine-tuning, shipped images",
    "fine-tuning at the site": "fine-tuning at the site",
    "FedAvg, 5 rounds": "FedAvg",
    "FedAvg, neck (UltraFlwr)": "FedAvg of the neck",
    "together (no privacy)": "all images in one place",
}
_SITE_1 = "site-1, new light and class"
_STUDENTS = {"direct": "labels alone", "DiReDi": "DiReDi", "Ultralytics, distill_model": "Ultralytics"}
_CAMERAS = {
    "student": "shipped student",
    "teacher": "teacher",
    "paper": "published form",
    "ours": "DiReDi",
    "looks": "teacher, several looks",
    "labels": "student with labels",
}
_COSTS = {
    f"{tutor}, {epochs} epochs": f"{tutor}, {epochs}{' (default)' if (tutor, epochs) == ('yolo11n', 12) else ''}"
    for tutor in ("yolo11-w0.125", "yolo11n", "yolo11-w0.375")
    for epochs in (4, 12)
}
_RUNTIMES = {
    "network alone, fp32, onnxruntime": "network alone, fp32",
    "node, fp32, onnxruntime": "DiReDi, fp32",
    "network alone, INT8, openvino": "network alone, INT8, OpenVINO",
    "node, INT8, openvino": "DiReDi, INT8, OpenVINO",
    "ultralytics predict": "Ultralytics, fp32",
}
_MERGES = {
    "each site alone": "each site alone",
    "default": "union (default)",
    "mean": "mean",
    "task arithmetic, length kept": "sum, length kept",
    "TIES, keep all": "TIES",
    "DARE, drop 0.5": "DARE",
}
_WITHOUT = {
    "the deployed student": "before",
    "presumed": "presumed images",
    "styled": "restyled images",
    "pool": "public images",
    "pool, forklifts": "public images with the class",
    "presumed and chosen, forklifts": "presumed and chosen images",
}
_GAPS = {
    "the cloud's tutor": "before",
    "one, lambda 1": "one, lambda 1 (default)",
    "one, lambda 0.5": "one, lambda 0.5",
    "two, lambda 1, statistics re-estimated": "two, lambda 1",
    "two, lambda 0.5, statistics re-estimated": "two, lambda 0.5",
}
_SECOND = _same("the whole coreset", "another order", "two sites, one tutor 1", "the cloud's tutor is tutor 1")
_MEASURES = {f"{name}, pairwise": name.upper() for name in ("ce", "kl", "js", "sed", "td", "msed")}
_HEADS = _same("main head", "auxiliary head 1", "auxiliary head 2", "auxiliary head 3")
_STRATEGIES = _same("fedavg", "fedprox", "scaffold", "mime", "fednova", "fedlin", "fedshuffle", "alone")
_CLIENTS = {f"{who}, {n} clients": f"{who}, {n}" for n in (10, 100, 1000) for who in ("DiReDi", "Flower")}
_ROUNDS = {
    f"{who}, {n} clients": f"{who}, {n}"
    for n in (2, 8, 32)
    for who in ("DiReDi", "Flower", "bare stream")
    if (who, n) != ("Flower", 32)
}

_FAULTS = _same(*(f"{k}, {n} %" for k in ("wrong class", "missing", "misplaced", "nothing there") for n in (10, 30)))

_BEFORE_AND_AFTER = [
    Bars(
        "at the site", "site", "percent", _same("all classes, before", "all classes, after", "forklift, after"), "AP50"
    ),
    Bars(
        "on the manufacturer's images",
        "manufacturer",
        "percent",
        _same("all classes, before", "all classes, after"),
        "AP50",
    ),
]

PICTURES: dict[str, Picture | Trades] = {
    "demo": Picture(_BEFORE_AND_AFTER, ours=["all classes, after", "forklift, after"]),
    "demo-real-images": Picture(_BEFORE_AND_AFTER, ours=["all classes, after", "forklift, after"]),
    "update": Picture(
        [
            Bars("the manufacturer's images", f"{_SITE_1}: presumed", "mAP50", _RIVALS),
            Bars("old classes at the site", f"{_SITE_1}: old classes at the site", "mAP50", _RIVALS),
            Bars("the new class", f"{_SITE_1}: new classes at the site", "mAP50", _RIVALS),
        ],
        bounds=["all images in one place", "before"],
    ),
    "real": Trades(),
    "kd": Picture(
        [
            Bars(title, f"{data}, {width}", "mAP50-95", _STUDENTS, "mAP50-95, percent")
            for title, data, width in (
                ("scenes, width 0.0625", "scenes", "yolo11-w0.0625"),
                ("scenes, width 0.125", "scenes", "yolo11-w0.125"),
                ("scenes, width 0.1875", "scenes", "yolo11-w0.1875"),
                ("forklifts (real)", "forklift", "yolo11-w0.125"),
                ("traffic (real)", "traffic_cams", "yolo11-w0.125"),
            )
        ]
    ),
    "parking": Picture(
        [
            Bars("nine built-in cameras", "built-in: all cameras", "mAP50", _CAMERAS),
            Bars("six real cameras", "real: all cameras", "mAP50", _CAMERAS),
        ],
        bounds=["student with labels"],
    ),
    "sites": Picture(
        [
            Bars(f"{title}, {column}", f"{table}: both", column, _FAULTS, "percent")
            for column in ("recall", "precision")
            for title, table in (("traffic cameras", "traffic_cams"), ("coco128", "coco128"), ("built-in", "presumed"))
        ],
        ours=list(_FAULTS.values()),
    ),
    "cost": Picture(
        [
            Bars("what it gains at the site", "cost", "gained", _COSTS, "points of mAP50"),
            Bars("what it costs the site", "cost", "seconds", _COSTS, "seconds on one thread"),
        ],
        ours=["yolo11n, 12 (default)"],
    ),
    "merging": Picture(
        [
            Bars("weaker new class, tutor", "tutor", "left", _MERGES, "percent of one site alone"),
            Bars("weaker new class, student gap", "student gap", "left", _MERGES, "percent of one site alone"),
            Bars(
                "five sites, one of which lies",
                "liars",
                "one liar",
                _same("no gap", "union", "mean", "ties", "median", "trimmed_mean", "clipped_mean", "krum"),
            ),
        ],
        ours=["union (default)", "union"],
        bounds=["each site alone", "no gap"],
    ),
    "sources": Picture(
        [
            Bars("the manufacturer's images", "without the student gap", "presumed", _WITHOUT),
            Bars("new class, no student gap", "without the student gap", "site, new", _WITHOUT),
            Bars(
                "new class, a student gap",
                "with the student gap",
                "site, new",
                {"the gap alone": "the gap alone (default)", "presumed": "presumed images", "styled": "restyled images"}
                | {name: _WITHOUT[name] for name in ("pool, forklifts", "presumed and chosen, forklifts")},
            ),
        ],
        ours=["the gap alone (default)"],
        bounds=["before"],
    ),
    "gap_forms": Picture(
        [
            Bars("the manufacturer's images", "gap", "presumed", _GAPS),
            Bars("the site's images", "gap", "site", _GAPS),
            Bars("the new class", "gap", "forklift", _GAPS),
        ],
        ours=["one, lambda 1 (default)"],
        bounds=["before"],
    ),
    "second_rd": Picture(
        [
            Bars("one reverse distillation", "one", "site at lambda 1", _SECOND),
            Bars("two reverse distillations", "two", "site at lambda 1", _SECOND),
        ],
        ours=["the whole coreset"],
    ),
    "dissimilarity": Picture(
        [
            Bars(f"{title}, {how}", f"{data}, skewed, {how}: in short", "above labels alone", _MEASURES, "points")
            for how in ("gradients matched", "temperature 1")
            for title, data in (("digits", "digits"), ("Fashion-MNIST", "fashion_mnist"))
        ],
        ours=[],
    ),
    "multihead": Picture(
        [
            Bars(title, table, "global", _HEADS, "accuracy, percent")
            for title, table in (("complete graph", "complete"), ("ring", "ring"), ("two islands", "islands"))
        ],
        ours=["auxiliary head 1", "auxiliary head 2", "auxiliary head 3"],
    ),
    "federated": Picture(
        [
            Bars(
                "accuracy after 60 rounds",
                "digits, ten clients, gamma 15",
                "accuracy",
                _STRATEGIES,
                "accuracy, percent",
            ),
            Bars("sent until 90 percent", "digits, ten clients, gamma 15", "MB until then", _STRATEGIES, "MB"),
        ],
        ours=[],
        bounds=["alone"],
    ),
    "detection": Picture(
        [
            Bars(
                "all sites' images",
                "four sites",
                "all sites: mAP50-95",
                _same("after their own labels", "alone", "FedAvg", "ce", "kl", "js", "sed", "td", "msed"),
                "mAP50-95, percent",
            )
        ],
        ours=["ce", "kl", "js", "sed", "td", "msed"],
        bounds=["after their own labels"],
    ),
    "simulation": Picture(
        [
            Bars(f"{title}, clients", table, "round s", _CLIENTS, "seconds a round", log=True)
            for title, table in (("dense network", "mlp"), ("convolutional network", "cnn"))
        ]
    ),
    "edge": Picture(
        [
            Bars(f"YOLOv8n, {size} px", f"yolov8n, {size} px", "frames/s of a core", _RUNTIMES, "frames/s of a core")
            for size in (320, 640)
        ],
        ours=("DiReDi, fp32", "DiReDi, INT8, OpenVINO"),
    ),
    "peers": Picture(
        [
            Bars(
                "what a peer sends in a round",
                "what travels",
                "KB sent",
                _same(
                    *(
                        f"{net}: {what}"
                        for net in ("cnn, 3 peers", "resnet18, 3 peers")
                        for what in ("predictions", "weights")
                    )
                ),
                "KB",
                log=True,
            ),
            Bars("weights of YOLO11n, clients", "weights of YOLO11n", "round s", _ROUNDS, "seconds a round", log=True),
        ],
        ours=[f"{net}, 3 peers: predictions" for net in ("cnn", "resnet18")] + ["DiReDi"],
    ),
}


def draw(name: str, folder: Path) -> Path:
    """Draw the picture of one benchmark.

    Args:
        name: The name of the benchmark, a key of `PICTURES`.
        folder: Where to write NAME.svg.

    Returns:
        The path of the picture.
    """
    picture, rows, path = PICTURES[name], _rows(name), folder / f"{name}.svg"
    with mpl.rc_context(_STYLE):
        figure = draw_trades(list(rows.values())) if isinstance(picture, Trades) else _bars(picture, rows)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return path


def _bars(picture: Picture, rows: Rows) -> Figure:
    across = min(len(picture.panels), 3 if len(picture.panels) != 4 else 2)
    down = -(-len(picture.panels) // across)
    height = down * (0.9 + 0.3 * max(len(panel.forms) for panel in picture.panels))
    figure, axes = plt.subplots(down, across, figsize=(4.2 * across, height), layout="constrained", squeeze=False)
    for axis in axes.flat[len(picture.panels) :]:
        axis.remove()
    for panel, axis in zip(picture.panels, axes.flat, strict=False):
        _panel(axis, panel, picture, rows)
    return figure


def _rows(name: str) -> Rows:
    """Return the rows of a benchmark by table and form; those of a demo are in the output that its page shows."""
    file = RESULTS / f"{name}.json"
    if file.is_file():
        return {(row["table"], row["form"]): row for row in json.loads(file.read_text())["rows"]}
    page = (PAGES / f"{name}.md").read_text()
    rows = {}
    for label, line in (("all classes", r"^ mAP50 .*$"), ("forklift", r"^ AP50 forklift .*$")):
        numbers = [float(text) for text in re.findall(r"(?<=\s)\d+\.\d+", re.findall(line, page, re.M)[0])]
        for table, found in (("site", numbers[:2]), ("manufacturer", numbers[2:])):
            for when, value in zip(("before", "after"), found, strict=False):
                rows[table, f"{label}, {when}"] = {"percent": {"mean": value, "low": value, "high": value}}
    return rows


def _panel(axis: Any, panel: Bars, picture: Picture, rows: Rows) -> None:  # noqa: ANN401
    labels = list(panel.forms.values())
    found = [rows[panel.table, form][panel.column] for form in panel.forms]
    middle = [one["mean"] for one in found]
    spread = [[max(0, one["mean"] - one["low"]) for one in found], [max(0, one["high"] - one["mean"]) for one in found]]
    axis.barh(labels, middle, color=[_colour(label, picture) for label in labels], xerr=spread, capsize=2)
    axis.invert_yaxis()
    axis.set_title(panel.title, loc="left", fontsize=10)
    axis.set_xlabel(panel.unit)
    if panel.log:
        axis.set_xscale("log")


def _colour(label: str, picture: Picture) -> str:
    if label in picture.ours or label.partition(",")[0] in picture.ours:
        return OURS
    return BOUND if label in picture.bounds else OTHERS


if __name__ == "__main__":
    for benchmark in PICTURES:
        print(draw(benchmark, PAGES))

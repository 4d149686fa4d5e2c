"""`report.html`: one file that needs no network, for a reader who was not there."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from diredi.evaluation.audit_page import STYLE
from diredi.rpc.message_texts import egress_name
from diredi.store.files import atomic_write
from diredi.text import bytes_text
from diredi_cli.output import seconds_text
from diredi_demo import charts
from diredi_demo.charts import Change, Stretch, Volume, is_loss, signed
from diredi_demo.report import Box, Picture, Report
from diredi_demo.texts import estimate_text, headline, lead, step_name

if TYPE_CHECKING:
    from markupsafe import Markup

    from diredi.evaluation.metrics import DetectionMetrics

SHOWN_CONFIDENCE = 0.25
_SHOWN_PART_S = 1.0
"""Steps inside steps that were shorter are left out of the timeline."""


def write_html_report(report: Report, path: Path) -> None:
    """Write the page, complete or not at all; every text that came from data is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("diredi_demo", "."), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("report.html").render(
        r=report,
        css=Markup(STYLE.read_text()),
        headline=headline(report),
        lead=lead(report),
        estimate=estimate_text(report),
        made=report.made[:16].replace("T", " ") + " UTC",
        tiles=_tiles(report),
        charts={name: Markup(svg) for name, svg in _charts(report).items()},
        metrics=_figure_rows(report),
        pictures=[_picture(report, picture, index) for index, picture in enumerate(report.pictures)],
        confidence=SHOWN_CONFIDENCE,
        cycle_time=seconds_text(report.seconds.get("cycle", 0.0)),
        how=_how(report),
    )
    atomic_write(path, text, durable=False)


def _tiles(report: Report) -> list[dict[str, str]]:
    gain, kept = report.points("site"), report.points("presumed")
    tiles = [
        {
            "what": f"Better at {report.cycle.site}",
            "value": signed(gain),
            "note": f"points of {'estimated ' if report.after.site.estimated else ''}mAP50, "
            f"{100 * report.before.site.map50:.1f} to {100 * report.after.site.map50:.1f}",
            "style": "after" if gain > 0 else "bad",
        }
    ]
    for name in report.new_classes[:1]:
        metrics = report.after.site.per_class.get(name)
        value = metrics.ap50 if metrics else 0.0
        note = "AP50 of a class that its maker never trained, from 0"
        tiles.append({"what": f"New: {name}", "value": f"{100 * value:.1f}", "note": note, "style": "new"})
    note = f"points of mAP50 on the manufacturer's data, now {100 * report.after.presumed.map50:.1f}"
    tiles.append(
        {"what": "Old knowledge", "value": signed(kept), "note": note, "style": "bad" if is_loss(kept) else ""}
    )
    note = f"left the site; {bytes_text(report.private_bytes)} of private data stayed"
    tiles.append({"what": "Sent by the site", "value": bytes_text(report.bytes_left), "note": note, "style": ""})
    return tiles


def _charts(report: Report) -> dict[str, str]:
    return {
        "site": charts.changes(_changes(report, report.before.site, report.after.site), "AP50 by class at the site"),
        "presumed": charts.changes(
            _changes(report, report.before.presumed, report.after.presumed), "AP50 by class on the manufacturer's data"
        ),
        "volumes": charts.volumes(_volumes(report), "Bytes that left the site beside those that stayed"),
        "timeline": charts.timeline(
            [
                Stretch(step_name(s.name), s.start, s.seconds, seconds_text(s.seconds), s.part_of, "/" in s.name)
                for s in report.spans
                if "/" not in s.name or s.seconds >= _SHOWN_PART_S
            ],
            "Seconds of each step",
        ),
    }


def _changes(report: Report, before: DetectionMetrics, after: DetectionMetrics) -> list[Change]:
    rows = [Change("all classes", before.map50, after.map50, is_total=True)]
    for name in report.told_classes:
        if name in after.per_class:
            old = before.per_class.get(name)
            rows.append(
                Change(name, old.ap50 if old else 0.0, after.per_class[name].ap50, is_new=name in report.new_classes)
            )
    return rows


def _volumes(report: Report) -> list[Volume]:
    rows = [
        Volume("private images and labels", report.private_bytes, bytes_text(report.private_bytes), "kept"),
        Volume(
            "tutor's weights as fp32", report.gap.tutor_fp32_bytes, bytes_text(report.gap.tutor_fp32_bytes), "reference"
        ),
    ]
    sent = sorted(report.egress.items(), key=lambda item: -item[1])
    return rows + [Volume(egress_name(kind), n, bytes_text(n), "sent", kind) for kind, n in sent if n]


def _figure_rows(report: Report) -> list[dict[str, object]]:
    sides = ((report.before.site, report.after.site), (report.before.presumed, report.after.presumed))
    totals = (
        ("mAP50", "map50"),
        ("mAP50-95", "map50_95"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("F1", "f1"),
    )
    rows: list[dict[str, object]] = []
    for name, field in totals:
        cells = [cell for old, new in sides for cell in _cells(getattr(old, field), getattr(new, field))]
        rows.append({"name": name, "total": True, "is_new": False, "cells": cells})
    for name in report.told_classes:
        cells = []
        for old, new in sides:
            values = [side.per_class[name].ap50 if name in side.per_class else None for side in (old, new)]
            cells += _cells(0.0 if values[1] is not None and values[0] is None else values[0], values[1])
        rows.append({"name": f"AP50 {name}", "total": False, "is_new": name in report.new_classes, "cells": cells})
    if report.unchanged_classes:
        nothing = [cell for _ in sides for cell in _cells(None, None)]
        name = f"AP50 of {report.unchanged_classes} other classes: unchanged"
        rows.append({"name": name, "total": False, "is_new": False, "cells": nothing})
    return rows


def _cells(before: float | None, after: float | None) -> list[dict[str, object]]:
    if before is None or after is None:
        return [{"text": "\N{EN DASH}", "bad": False}] * 3
    gain = 100 * (after - before)
    return [
        {"text": f"{100 * before:.1f}", "bad": False},
        {"text": f"{100 * after:.1f}", "bad": False},
        {"text": signed(gain), "bad": is_loss(gain)},
    ]


def _picture(report: Report, picture: Picture, index: int) -> Markup:
    from markupsafe import Markup

    where = report.cycle.site if picture.origin == "site" else "the manufacturer's data"
    image = f"data:image/jpeg;base64,{picture.jpeg_base64}"
    parts = ['<figure class="pair">']
    for version, boxes, first in (
        (report.before_version, picture.before, True),
        (report.after_version, picture.after, False),
    ):
        use = f'<image id="p{index}" width="{picture.width}" height="{picture.height}" href="{image}"/>'
        inner = use if first else f'<use href="#p{index}"/>'
        parts.append(
            f'<div><div class="head">release {version}</div>'
            f'<svg viewBox="0 0 {picture.width} {picture.height}" role="img" '
            f'aria-label="What release {version} detects">'
            f"{inner}{_outlines(picture.truth)}{_detections(boxes, report.new_classes, picture.width)}</svg></div>"
        )
    lines = {
        "labelled": picture.truth,
        f"release {report.before_version}": picture.before,
        f"release {report.after_version}": picture.after,
    }
    said = "".join(f"<dt>{name}</dt><dd>{escape(_counts(boxes))}</dd>" for name, boxes in lines.items())
    parts.append(f"<figcaption>Held-out image of {escape(where)}<dl>{said}</dl></figcaption></figure>")
    return Markup("".join(parts))


def _counts(boxes: Sequence[Box]) -> str:
    names = sorted({box.name for box in boxes})
    counted = [f"{sum(box.name == name for box in boxes)} {name}" for name in names]
    return ", ".join(counted) if counted else "nothing"


def _outlines(boxes: Sequence[Box]) -> str:
    return "".join(_rectangle(box, "box truth") for box in boxes)


def _rectangle(box: Box, style: str) -> str:
    x1, y1, x2, y2 = box.box
    return f'<rect class="{style}" x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"/>'


def _detections(boxes: Sequence[Box], new_classes: Sequence[str], width: int) -> str:
    """Boxes with name and confidence; the text is as large on every page, however large the picture."""
    size = 10 * width / 320
    parts = []
    for box in boxes:
        style = " new" if box.name in new_classes else ""
        text = f"{box.name} {100 * box.confidence:.0f}"
        x, y = box.box[0], max(box.box[1], 1.2 * size)
        parts.append(
            f'{_rectangle(box, "box" + style)}<rect class="tag-back{style}" x="{x:.1f}" y="{y - 1.2 * size:.1f}" '
            f'width="{size * (0.58 * len(text) + 0.6):.1f}" height="{1.2 * size:.1f}"/>'
            f'<text class="tag" font-size="{size:.1f}" x="{x + 0.3 * size:.1f}" y="{y - 0.3 * size:.1f}">'
            f"{escape(text)}</text>"
        )
    return "".join(parts)


def _how(report: Report) -> list[tuple[str, str]]:
    rows = [("Command", report.command), ("Machine", report.machine)]
    for name, data in report.data.items():
        where = "Manufacturer's data" if name == "presumed" else "The site's data"
        images = f"{data.train_images} training and {data.held_out_images} held-out images"
        rows.append((where, f"{data.source}: {images}, {bytes_text(data.bytes)}"))
    for name, model in report.models.items():
        rows.append((name.capitalize(), f"{model.architecture}, {bytes_text(model.weights_bytes)} of weights as fp32"))
    gap = report.gap
    share = f"{100 * gap.bytes / gap.tutor_fp32_bytes:.0f} % of the tutor's weights" if gap.tutor_fp32_bytes else ""
    rows.append(("Gap", f"{bytes_text(gap.bytes)} as {gap.codec}, {share}"))
    if gap.student_bytes:
        rows.append(("Student-sized gap", f"{bytes_text(gap.student_bytes)} as {gap.codec}"))
    for one in gap.decisions:
        rows.append((f"Decided: {one.subject}", f"{one.choice}, because {one.because}"))
    rows.append(("Metrics", "mAP as COCO defines it; precision, recall and F1 at the confidence that maximises F1"))
    return rows

"""The report on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diredi.rpc.message_texts import egress_name
from diredi.text import bytes_text, percent
from diredi_cli.output import seconds_text, table
from diredi_demo.charts import is_loss, signed
from diredi_demo.report import Report
from diredi_demo.texts import estimate_text, headline, step_name

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from diredi.evaluation.metrics import DetectionMetrics


def render_report(report: Report) -> list[RenderableType]:
    """Return what is printed at the end of a demo."""
    from rich.text import Text

    return [
        Text(f"\n{headline(report)}\n", style="bold"),
        _quality(report),
        *([f"{estimate_text(report)}\n"] if report.estimate else []),
        _forgetting(report),
        *_decisions(report),
        _bytes(report),
        _seconds(report),
        _devices(report),
    ]


def _quality(report: Report) -> RenderableType:
    rows: list[tuple[object, ...]] = []
    sides = ((report.before.site, report.after.site), (report.before.presumed, report.after.presumed))
    for name, field in (
        ("mAP50", "map50"),
        ("mAP50-95", "map50_95"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("F1", "f1"),
    ):
        rows.append((name, *(cell for old, new in sides for cell in _cells(getattr(old, field), getattr(new, field)))))
    for name in report.told_classes:
        label = f"AP50 {name}{' (new)' if name in report.new_classes else ''}"
        rows.append((label, *(cell for old, new in sides for cell in _class_cells(name, old, new))))
    if report.unchanged_classes:
        rows.append((f"AP50 of {report.unchanged_classes} others", *[""] * 5, "unchanged"))
    old, new = f"release {report.before_version}", f"release {report.after_version}"
    site = f"{report.cycle.site}{' (estimates)' if report.after.site.estimated else ''}"
    columns = ("percent", f"{site}: {old}", new, "points", f"manufacturer: {old}", f"{new} ", "points ")
    return table(columns, rows, title="On held-out images", right=columns[1:])


def _class_cells(name: str, old: DetectionMetrics, new: DetectionMetrics) -> tuple[object, ...]:
    if name not in new.per_class:
        return ("", "", "")
    before = old.per_class[name].ap50 if name in old.per_class else 0.0
    return _cells(before, new.per_class[name].ap50)


def _cells(before: float, after: float) -> tuple[object, ...]:
    gain = 100 * (after - before)
    return percent(before), percent(after), _points(gain)


def _points(gain: float) -> Text:
    from rich.text import Text

    return Text(signed(gain), style="green" if gain >= 0.05 else "red" if is_loss(gain) else "")


def _forgetting(report: Report) -> str:
    worst = report.most_forgotten()
    lost = f"most lost: {worst[0]}, {worst[1]:.1f} points of AP50" if worst else "no class lost anything"
    return f"Forgetting on the manufacturer's data: mAP50 {signed(report.points('presumed'))} points; {lost}.\n"


def _decisions(report: Report) -> list[RenderableType]:
    rows = [(one.subject, one.choice, one.because) for one in report.gap.decisions]
    return (
        [table(("", "decided", "because"), rows, title=f"What {report.cycle.site} decided for itself")] if rows else []
    )


def _bytes(report: Report) -> RenderableType:
    gap = report.gap
    rows: list[tuple[object, ...]] = [
        (name, egress_name(name), f"{n:,}", bytes_text(n)) for name, n in report.egress.items()
    ]
    rows.append(("all that left the site", "", f"{report.bytes_left:,}", bytes_text(report.bytes_left)))
    rows.append(("private data that stayed", "", f"{report.private_bytes:,}", bytes_text(report.private_bytes)))
    share = 100 * gap.bytes / gap.tutor_fp32_bytes if gap.tutor_fp32_bytes else 0
    title = (
        f"What left {report.cycle.site} (the gap: {bytes_text(gap.bytes)}, {share:.0f} % of the tutor's fp32 weights)"
    )
    return table(("message", "what it says", "bytes", ""), rows, title=title, right=("bytes", ""))


def _seconds(report: Report) -> RenderableType:
    spans = [span for span in report.spans if span.name.count("/") == 0]
    rows: list[tuple[object, ...]] = [(step_name(span.name), seconds_text(span.seconds)) for span in spans]
    rows.append(("the cycle, from request to last device", seconds_text(report.seconds.get("cycle", 0.0))))
    rows.append(("in all", seconds_text(report.seconds.get("total", 0.0))))
    return table(("step", "time"), rows, title="Where the time went", right=("time",))


def _devices(report: Report) -> RenderableType:
    rows = [(d.name, d.release, f"{d.frames:,}", d.dropped_frames, f"{d.latency_ms:.1f} ms") for d in report.devices]
    columns = ("device", "release", "frames", "dropped", "latency")
    return table(columns, rows, title="What each device runs", right=columns[1:])

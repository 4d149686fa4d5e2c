"""A report as a demo writes it, made by hand."""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np
import pytest

from diredi.data.images import encode_jpeg
from diredi.evaluation.metrics import ClassMetrics, DetectionMetrics
from diredi_demo.report import (
    Box,
    CycleSummary,
    DataSummary,
    DeviceSummary,
    GapSummary,
    ModelSummary,
    Pair,
    Picture,
    Report,
    Span,
    StepTaken,
)

KNOWN = ("car", "truck", "bus", "bicycle", "person")


def metrics(aps: dict[str, float], images: int) -> DetectionMetrics:
    mean = sum(aps.values()) / len(aps)
    per_class = {name: ClassMetrics(ap50=ap, ap50_95=0.62 * ap, boxes=40) for name, ap in aps.items()}
    return DetectionMetrics(
        map50=mean,
        map50_95=0.62 * mean,
        precision=0.8 * mean + 0.1,
        recall=mean,
        f1=0.9 * mean,
        per_class=per_class,
        images=images,
    )


def picture(origin: str, new_class: str) -> Picture:
    image = np.full((200, 320, 3), 90, np.uint8)
    image[110:, :] = (70, 76, 80)
    image[60:130, 40:150] = (150, 60, 40)
    image[80:150, 200:260] = (40, 140, 220)
    car, new = (40.0, 60.0, 150.0, 130.0), (200.0, 80.0, 260.0, 150.0)
    return Picture(
        origin="site" if origin == "site" else "presumed",
        jpeg_base64=base64.b64encode(encode_jpeg(image)).decode(),
        width=320,
        height=200,
        truth=(Box(box=car, name="car"), Box(box=new, name=new_class)),
        before=(Box(box=(44.0, 58.0, 140.0, 128.0), name="truck", confidence=0.41),),
        after=(
            Box(box=(41.0, 61.0, 149.0, 129.0), name="car", confidence=0.88),
            Box(box=(199.0, 82.0, 262.0, 149.0), name=new_class, confidence=0.76),
        ),
    )


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """make_report(new_class="forklift", built_in=True)."""
    return report


def report(new_class: str = "forklift", built_in: bool = True) -> Report:
    labels = (*KNOWN, new_class)
    before_site = dict(zip(labels, (0.52, 0.31, 0.44, 0.28, 0.37, 0.0), strict=True))
    after_site = dict(zip(labels, (0.78, 0.61, 0.72, 0.55, 0.66, 0.71), strict=True))
    before_presumed = dict(zip(KNOWN, (0.81, 0.74, 0.79, 0.62, 0.7), strict=True))
    after_presumed = dict(zip(KNOWN, (0.81, 0.73, 0.8, 0.615, 0.7), strict=True))
    steps = {
        "data": (0.0, 14.2, "set-up"),
        "start": (14.2, 3.1, "set-up"),
        "bootstrap": (17.3, 171.0, "set-up"),
        "request": (188.4, 0.2, "cycle"),
        "approve": (188.6, 0.4, "cycle"),
        "extract": (189.0, 96.0, "cycle"),
        "extract/tutor-2": (189.4, 61.0, "cycle"),
        "extract/student": (250.4, 33.0, "cycle"),
        "apply": (285.0, 12.0, "cycle"),
        "gate": (297.0, 4.0, "cycle"),
        "redistil": (301.0, 38.0, "cycle"),
        "release": (339.0, 3.0, "cycle"),
        "validate": (342.0, 7.0, "cycle"),
        "rollout": (349.0, 2.4, "cycle"),
        "evaluate": (352.0, 18.0, "after"),
    }
    spans = tuple(
        Span(name=name, start=start, seconds=seconds, part_of=part)  # type: ignore[arg-type]
        for name, (start, seconds, part) in steps.items()
    )
    sent = {
        "PutChunkRequest": 3_412_345,
        "SubmitGapRequest": 4_210,
        "ReportProgressRequest": 18_440,
        "HeartbeatRequest": 2_112,
    }
    return Report(
        diredi="0.1.0",
        made="2026-01-31T12:34:56+00:00",
        command="diredi demo --out demo-out",
        machine="2 cores, Linux x86_64, Python 3.11.7",
        cycle=CycleSummary(
            id="c-0001",
            site="site-1",
            state="RELEASED",
            recipe={"reverse_distillations": "one", "student_gap": True},
            history=(
                StepTaken(state="REQUESTED", at="2026-01-31T12:30:00+00:00", actor="operator/operator"),
                StepTaken(
                    state="RELEASED", at="2026-01-31T12:33:00+00:00", actor="cloud", reason="the site is better off"
                ),
            ),
        ),
        before=Pair(presumed=metrics(before_presumed, 200), site=metrics(before_site, 100)),
        after=Pair(presumed=metrics(after_presumed, 200), site=metrics(after_site, 100)),
        new_classes=(new_class,),
        labels=labels,
        gap=GapSummary(
            bytes=2_540_123,
            tutor_fp32_bytes=10_540_000,
            codec="int8-row-zstd",
            student_bytes=812_000,
            student_fp32_bytes=3_240_000,
        ),
        egress=sent,
        egress_by_sender={"site-1": sent},
        private_bytes=9_876_543,
        seconds={**{name: seconds for name, (_, seconds, _) in steps.items()}, "cycle": 163.0, "total": 371.0},
        spans=spans,
        releases={"edge-1": 2, "edge-2": 2, "edge-3": 2},
        devices=tuple(
            DeviceSummary(name=f"edge-{i}", release=2, frames=340 + i, frames_per_second=1.0, latency_ms=11.2 + i)
            for i in (1, 2, 3)
        ),
        models={
            "tutor": ModelSummary(architecture="yolo11n", weights_bytes=10_540_000),
            "student": ModelSummary(architecture="yolo11-w0.125", weights_bytes=3_240_000),
        },
        data={
            "presumed": DataSummary(source="built-in scenes", train_images=800, held_out_images=200, bytes=30_000_000),
            "site": DataSummary(source="built-in scenes", train_images=200, held_out_images=100, bytes=9_876_543),
        },
        built_in_scenes=built_in,
        pictures=(picture("site", new_class), picture("presumed", new_class))
        if built_in
        else (picture("presumed", new_class),),
    )

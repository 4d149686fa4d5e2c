"""How near an edge node comes to the network alone, and how far it is ahead of others: `make bench-edge`.

One process, one thread, and everything by turns in the same run, because other work on the machine slows whatever runs
beside it. Times are the processor's (user and system), so "frames a second" are those of one core that does nothing
else. A node's frame goes all the way: H.264 file, camera, letterbox, network, boxes, non-maximum suppression, and the
result handed to readers. `network alone` is given the same batch again and again. Ultralytics' own is `predict` of the
checkpoint on the same file, as `yolo predict` does it. It takes wide frames as rectangles, and a node as squares.

INT8 is calibrated with the site's own images (`diredi.quantise`), and judged on its held-out ones. Weights and images
are those of `DIREDI_BENCH_DATA`; without them, a detector that has learned nothing looks at drawn frames, and
accuracies are left out. `QUICK=1` does that with a tiny one.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from types import ModuleType, SimpleNamespace

import av
import cv2
import matplotlib.pyplot as plt
import numpy as np
from environment import QUICK, REAL, use_one_thread
from harness import folder_of, parser_of, write_results
from report import COMMIT, Json, cached, rows_of, target

import diredi
from diredi.data.images import read_image
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.postprocess import decode, prepare
from diredi.detectors.predictor import Image, Predictor
from diredi.detectors.quantisation import quantise
from diredi.detectors.runtimes import installed_runtimes
from diredi.detectors.spec import DetectorSpec
from diredi.rpc.retry import Backoff
from edge_node.active_model import ActiveModel, RunningModel
from edge_node.camera import Camera
from edge_node.inference import InferenceLoop, Result
from edge_node.sources import SourceOptions, check_source, open_source
from edge_node.telemetry import Telemetry
from edge_node.update_states import InstallableRelease

ULTRALYTICS = "ultralytics predict"
SITE = "traffic_cams"
CONFIDENCE = 0.25
TURNS = (0, 1, 2, 3, 4)
SHARE, TIMES = "of the best network alone, %", "times ultralytics"
Segment = Callable[[], float]
"""Detects on some frames and returns the processor's seconds for one."""


@dataclass(frozen=True)
class Case:
    """One detector at one size."""

    weights: Path | None
    size: int
    frames: int
    """In each segment."""

    @property
    def name(self) -> str:
        return f"{self.weights.stem if self.weights else 'yolo11-w0.125'}, {self.size} px"


def cases() -> list[Case]:
    weights = REAL / "weights" / "yolov8n.pt"
    if QUICK or not weights.is_file():
        return [Case(None, 64 if QUICK else size, 4) for size in ((64,) if QUICK else (320, 640))]
    return [Case(weights, size, frames) for size, frames in ((320, 12), (640, 4))]


def site_images(split: str) -> list[Image]:
    """Frames of a site with fixed cameras, or drawn ones."""
    folder = REAL / "detection" / SITE / "images" / split
    if not QUICK and folder.is_dir():
        return [read_image(path) for path in sorted(folder.glob("*.jpg"))]
    small = np.random.default_rng(split == "train").integers(0, 255, (24, 12, 16, 3), np.uint8)
    return [np.asarray(cv2.resize(one, (640, 360), interpolation=cv2.INTER_CUBIC), np.uint8) for one in small]


def write_video(path: Path, images: list[Image]) -> Path:
    """A camera's stream: H.264, 640 x 360, a key frame a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10, options={"g": "10", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(cv2.resize(image, (640, 360))), format="bgr24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def of_node(predictor: Predictor, spec: DetectorSpec, video: Path, frames: int) -> Segment:
    """The node's own camera, loop and readers' queue, from its first result to the one `frames` later."""

    def segment() -> float:
        active, times, done = ActiveModel(), list[float](), threading.Event()
        release = InstallableRelease(
            version=1, digest="sha256:" + "0" * 64, bytes=1, labels=spec.labels, image_size=spec.image_size
        )
        active.swap(RunningModel(release, predictor))
        active.accept()

        def on_result(result: Result | None) -> None:
            times.append(time.process_time())
            if len(times) > frames:
                done.set()

        stopped, changed, reference = threading.Event(), threading.Condition(), f"video:{video}"
        camera = Camera(
            "camera", partial(open_source, reference, SourceOptions(video.parent, stopped=stopped)),
            check_source(reference).settings, frames_per_second=1000, pauses=Backoff(1, 1), stopped=stopped,
            changed=changed,
        )  # fmt: skip
        loop = InferenceLoop(
            [camera], active, Telemetry(), on_result, confidence=CONFIDENCE, stopped=stopped, changed=changed
        )
        loop.start()
        if not done.wait(600):
            raise SystemExit(f"edge: the node gave {len(times)} frames in 600 s: {loop.last_error}")
        loop.stop(60)
        return (times[frames] - times[0]) / frames

    return segment


def of_network(predictor: OnnxPredictor, image: Image, frames: int) -> Segment:
    batch, _ = prepare([image], predictor.spec.image_size)

    def segment() -> float:
        begun = time.process_time()
        for _ in range(frames):
            with predictor._network.run(batch):
                pass
        return (time.process_time() - begun) / frames

    return segment


def of_ultralytics(weights: Path, size: int, video: Path, frames: int) -> Segment:
    from ultralytics import YOLO
    from ultralytics.utils.nms import TorchNMS

    try:
        import_module("torchvision")
    except RuntimeError:  # its operators do not load beside every torch; Ultralytics has the one that it needs itself
        stand_in = ModuleType("torchvision")
        stand_in.ops = SimpleNamespace(nms=TorchNMS.nms)  # type: ignore[attr-defined]
        sys.modules["torchvision"] = stand_in
    model = YOLO(str(weights))

    def answers() -> Iterator[object]:
        while True:
            yield from model.predict(
                source=str(video), stream=True, imgsz=size, conf=CONFIDENCE, device="cpu", verbose=False
            )

    def segment() -> float:
        ahead = answers()
        next(ahead)  # what it prepares at its first frame
        begun = time.process_time()
        for _ in islice(ahead, frames):
            pass
        return (time.process_time() - begun) / frames

    return segment


def stages(predictor: OnnxPredictor, video: Path, images: list[Image], frames: int) -> dict[str, float]:
    """Processor's milliseconds of each step of one frame."""
    size, taken = predictor.spec.image_size, dict.fromkeys(("decode H.264", "letterbox", "network", "boxes, NMS"), 0.0)
    source = open_source(f"video:{video}", SourceOptions(video.parent, stopped=threading.Event()))
    last = time.process_time()

    def note(stage: str) -> None:
        nonlocal last
        now = time.process_time()
        taken[stage] += 1000 * (now - last) / frames
        last = now

    for image in islice(cycle(images), frames):
        last = time.process_time()
        frame = source.read()
        assert frame is not None and frame.image.size
        note("decode H.264")
        batch, letterboxes = prepare([image], size)
        note("letterbox")
        with predictor._network.run(batch) as (classes, boxes):
            note("network")
            decode(classes, boxes, predictor._anchors, predictor._strides, letterboxes, CONFIDENCE)
            note("boxes, NMS")
    source.close()
    return taken


class Bench:
    """One case: its files, its accuracies, and its segments by name."""

    def __init__(self, case: Case, folder: Path, video: Path) -> None:
        self.case, self.files = case, dict[str, Path]()
        detector = (
            diredi.load(case.weights, image_size=case.size)
            if case.weights
            else diredi.create("yolo11-w0.125", case.size, ["car", "person"], seed=0)
        )
        stem = folder / case.name.replace(", ", "-").replace(" ", "")
        self.files = {"fp32": stem.with_suffix(".fp32.onnx"), "INT8": stem.with_suffix(".int8.onnx")}
        diredi.export(detector, self.files["fp32"])
        train, shown = site_images("train"), site_images("val")[0]
        quantise(self.files["fp32"], train[:: max(1, len(train) // 64)][:64], self.files["INT8"])
        self.segments: dict[str, Segment] = {}
        for precision, file in self.files.items():
            for runtime in installed_runtimes():
                predictor = OnnxPredictor(file, 1, runtime)
                what = f"{precision}, {runtime}"
                self.segments[f"network alone, {what}"] = of_network(predictor, shown, case.frames)
                self.segments[f"node, {what}"] = of_node(predictor, predictor.spec, video, case.frames)
        if case.weights:
            self.segments[ULTRALYTICS] = of_ultralytics(case.weights, case.size, video, case.frames)
        self.stages = stages(OnnxPredictor(self.files["fp32"], 1), video, site_images("val"), 3 * case.frames)

    def measure(self, turn: int) -> dict[str, float]:
        """The processor's milliseconds of a frame, everything once."""
        names = list(self.segments)
        order = names if turn % 2 else names[::-1]
        taken = {name: 1000 * self.segments[name]() for name in order}
        return {name: taken[name] for name in names}

    def accuracies(self) -> dict[str, float]:
        """mAP50-95 in percent over the known classes, on the site's held-out images, as ONNX Runtime finds it."""
        data, found = diredi.load_dataset(REAL / "detection" / SITE / "data.yaml"), {}
        for precision, file in self.files.items():
            predictor = OnnxPredictor(file, 1)
            by_class = diredi.evaluate(predictor, data).per_class
            known = [metrics.ap50_95 for name, metrics in by_class.items() if name in predictor.labels.names]
            found[precision] = 100 * statistics.mean(known)
        return found


def speeds(taken_ms: dict[str, float]) -> dict[str, dict[str, float]]:
    """Of one turn: frames a second of one core, and each as a share of the best network alone and of Ultralytics'."""
    found: dict[str, dict[str, float]] = {}
    for name, ms in taken_ms.items():
        precision = "INT8" if "INT8" in name else "fp32"
        best = min(ms for other, ms in taken_ms.items() if other.startswith(f"network alone, {precision}"))
        found[name] = {"frames/s of a core": 1000 / ms, SHARE: 100 * best / ms}
        if ULTRALYTICS in taken_ms:
            found[name][TIMES] = taken_ms[ULTRALYTICS] / ms
    return found


def best_of(found: list[dict[str, dict[str, float]]], what: str, column: str) -> float:
    """The median over the turns, of the best runtime."""
    names = [name for name in found[0] if name.startswith(what)]
    return max(statistics.median(turn[name][column] for turn in found) for name in names)


def draw(rows: list[Json], title: str, path: Path) -> None:
    tables = list(dict.fromkeys(row["table"] for row in rows if "frames/s of a core" in row))
    figure, axes = plt.subplots(1, len(tables), figsize=(5.5 * len(tables), 4.2), layout="constrained", squeeze=False)
    for axis, table in zip(axes.flat, tables, strict=True):
        ours = [row for row in rows if row["table"] == table][::-1]
        speed = [row["frames/s of a core"] for row in ours]
        reach = np.array([[s["mean"] - s["low"], s["high"] - s["mean"]] for s in speed]).T
        colours = ["#00796b" if row["form"].startswith("node") else "#9e9e9e" for row in ours]
        axis.barh([row["form"] for row in ours], [s["mean"] for s in speed], xerr=np.maximum(reach, 0), color=colours)
        axis.set_xlabel("frames a second of one core; whiskers: turns")
        axis.set_title(table)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def measured(case: Case, turns: Sequence[int], folder: Path, video: Path) -> Json:
    """All of one case: what was found in each turn, the steps of a frame, and accuracies."""

    def made() -> Json:
        bench = Bench(case, folder, video)
        found = [speeds(bench.measure(turn)) for turn in turns]
        accuracies = bench.accuracies() if case.weights else {}
        return {"turns": found, "steps": bench.stages, "mAP50-95 at the site": accuracies}

    return cached(folder / f"{case.name}.json", {"case": asdict(case), "turns": list(turns)}, made)


def judged(case: Case, cell: Json) -> list[Json]:
    """The targets of one case."""
    found, made = cell["turns"], list[Json]()
    for precision in ("fp32", "INT8"):
        share = best_of(found, f"node, {precision}", SHARE)
        made.append(target(f"{case.name}, {precision}: node, % of the best network alone", share, ">", 90))
    if case.weights:
        for precision, wanted in (("fp32", 2.5), ("INT8", 4.0)):
            times = best_of(found, f"node, {precision}", TIMES)
            made.append(target(f"{case.name}, {precision}: node, times ultralytics predict", times, ">", wanted))
        reached = cell["mAP50-95 at the site"]
        lost = reached["fp32"] - reached["INT8"]
        made.append(target(f"{case.name}: points of mAP50-95 lost by INT8", lost, "<", 1.0))
    return made


def main() -> None:
    turns = parser_of(__doc__, (0, 1), TURNS).parse_args().seeds
    use_one_thread()
    cv2.setNumThreads(1)
    folder = folder_of("edge")
    folder.mkdir(parents=True, exist_ok=True)
    video = write_video(folder / "camera.mp4", site_images("val"))
    cells = {case: measured(case, turns, folder, video) for case in cases()}
    tables = [
        {case.name: cell["turns"][index] for case, cell in cells.items()}
        | {
            f"steps of a frame, {case.name}": {step: {"ms": ms} for step, ms in cell["steps"].items()}
            for case, cell in cells.items()
        }
        for index in range(len(turns))
    ]
    targets = [one for case, cell in cells.items() for one in judged(case, cell)]
    more = {"mAP50-95 at the site": {case.name: cell["mAP50-95 at the site"] for case, cell in cells.items()}}
    whole = tuple(turns) == TURNS
    write_results("edge", turns, rows_of(tables), targets, [COMMIT], draw, whole=whole, more=more)


if __name__ == "__main__":
    main()

"""Does an edge node notice a change of its camera, and leave an unchanged one in peace? `make bench-drift`.

Frames of fixed cameras, as YOLOv8n sees them at 640 pixels, become streams: each frame is held for a random time, as
slow traffic and parked cars do, so that windows of a stream differ as those of a camera do. A stream that goes on
must give no alarm. One that becomes the stream of another camera must give one. The cameras are those of
`DIREDI_BENCH_DATA`, one of them at night; a seed draws the streams. Beside it: how many of the frames the sampler takes
for scenes of their own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from environment import QUICK, REAL, use_one_thread
from harness import folder_of, parser_of, write_results
from report import COMMIT, Json, rows_of, target

import diredi
from diredi.data.images import read_image
from diredi.detectors.onnx import OnnxPredictor
from edge_node.drift import CameraDrift, FrameSignals
from edge_node.sample_picker import grey_of, is_alike
from edge_node.thumbnail import thumbnail_of

SETS = ("parking_cam", "traffic_cams", "car_stream_unlabelled")
SEEDS = (0, 1, 2)
HOLDS = (5, 20, 40)
"""Mean number of frames for which a frame is held."""
LENGTH = 4_320 if QUICK else 28_800
"""Frames of an unchanged stream: eight hours at one frame a second."""
BEFORE, AFTER = 4000, 400


def look(folder: Path) -> tuple[dict[str, list[FrameSignals]], Json]:
    """What a node measures of each frame by camera, and how many scenes each camera has."""
    model = folder / "yolov8n.onnx"
    diredi.export(diredi.load(REAL / "weights" / "yolov8n.pt"), model)
    predictor, cameras, scenes = OnnxPredictor(model, 1), defaultdict(list), dict[str, dict[str, float]]()
    kept: dict[str, list[np.ndarray]] = defaultdict(list)
    for name in SETS:
        for path in sorted((REAL / "detection" / name / "images").rglob("*.jpg")):
            camera = f"{name} {re.sub(r'[_0-9]+$', '', path.stem)}"
            image = read_image(path)
            scores = predictor.predict([image], 0.25)[0].scores
            doubtful = int((scores < 0.5).sum())
            cameras[camera].append(FrameSignals(thumbnail_of(image), len(scores), float(scores.sum()), doubtful))
            grey = grey_of(image)
            if not kept[camera] or not is_alike(grey, np.stack(kept[camera])).any():
                kept[camera].append(grey)
    for camera, signals in cameras.items():
        scenes[camera] = {"frames": len(signals), "scenes": len(kept[camera])}
    return dict(cameras), scenes


def stream(
    frames: Sequence[FrameSignals], length: int, hold: int, random: np.random.Generator
) -> Iterator[FrameSignals]:
    while length > 0:
        frame, held = frames[int(random.integers(len(frames)))], min(length, int(random.geometric(1 / hold)))
        length -= held
        yield from [frame] * held


class Watched:
    """A camera that is watched, one frame a second."""

    def __init__(self) -> None:
        self.camera, self.now_s, self.alarms = CameraDrift(), 1.7e9, 0

    def see(self, frames: Iterator[FrameSignals], *, until_alarm: bool = False) -> int | None:
        """Return after how many frames there was an alarm, where that ends it."""
        for number, frame in enumerate(frames, start=1):
            before, self.now_s = self.camera.drift, self.now_s + 1
            self.camera.add(frame, self.now_s, "1")
            if self.camera.drift and not before:
                self.alarms += 1
                if until_alarm:
                    return number
        return None


def measure(cameras: dict[str, list[FrameSignals]], seed: int) -> Json:
    random, unchanged, changed = np.random.default_rng(seed), dict[str, Json](), dict[str, Json]()
    for name, frames in cameras.items():
        unchanged[name] = {}
        for hold in HOLDS:
            watched = Watched()
            watched.see(stream(frames, LENGTH, hold, random))
            unchanged[name][f"alarms in a day, held {hold}"] = watched.alarms * 86_400 / LENGTH
        taken = []
        for other, theirs in cameras.items():
            if other != name:
                watched = Watched()
                watched.see(stream(frames, BEFORE, HOLDS[0], random))
                taken.append(watched.see(stream(theirs, AFTER, HOLDS[0], random), until_alarm=True))
        noticed = [number for number in taken if number is not None]
        changed[name] = {"changes": len(taken), "noticed": len(noticed), "frames, at most": max(noticed, default=0)}
    return {"no change": unchanged, "another camera from then on": changed}


def draw(rows: list[Json], title: str, path: Path) -> None:
    ours = [row for row in rows if "frames, at most" in row][::-1]
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    axis.barh([row["form"] for row in ours], [row["frames, at most"]["high"] for row in ours], color="#00796b")
    axis.axvline(200, color="#c62828")
    axis.set_xlabel("frames from a change to the alarm, at most")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def main() -> None:
    seeds = parser_of(__doc__, SEEDS[:1], SEEDS).parse_args().seeds
    use_one_thread()
    folder = folder_of("drift")
    folder.mkdir(parents=True, exist_ok=True)
    if not (REAL / "detection" / SETS[0]).is_dir():
        raise SystemExit(f"drift: {REAL} has no frames of cameras: name a folder with DIREDI_BENCH_DATA")
    cameras, scenes = look(folder)
    found = [measure(cameras, seed) | {"scenes": scenes} for seed in seeds]
    days = len(found) * len(cameras) * len(HOLDS)
    alarms = sum(sum(one.values()) for cell in found for one in cell["no change"].values())
    changes = [one for cell in found for one in cell["another camera from then on"].values()]
    targets = [
        target("alarms in a day of an unchanged stream", alarms / days, "<", 1.0),
        target("changes that were noticed, %",
               100 * sum(c["noticed"] for c in changes) / sum(c["changes"] for c in changes), ">", 99.0),
        target("frames from a change to the alarm, at most", max(c["frames, at most"] for c in changes), "<", 201),
    ]  # fmt: skip
    write_results("drift", seeds, rows_of(found), targets, [COMMIT], draw, whole=tuple(seeds) == SEEDS)


if __name__ == "__main__":
    main()

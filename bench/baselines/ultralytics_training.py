"""Ultralytics' own training, of our networks on our images, judged by us.

`trained` is `YOLO.train`: its augmentation (mosaic included), its optimizer chosen by itself, its EMA, which is the
network that it ends with; with a teacher it is `distill_model`, its own distillation: score-weighted L2 on the neck.
Left as they are, its settings are made for COCO: it steps once in 64 images and warms up for three epochs, and of a few
hundred images it learns next to nothing. So it is also given settings that suit short runs (`SHORT`), which are ours
where the two differ; a bench takes whichever did better.

`refined` is the idea of its `RefineDetectionTrainer` (pull request 25609 of ultralytics/ultralytics). That is in no
release, so it is built here from its description: everything is frozen but the rows of the new classes and a small
branch beside each level of the head, which starts at zero, changes their scores, and moves a box as far as one of them
is seen there.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from environment import BenchSite, Environment
from report import HERE, Json, seconds

os.environ.setdefault("YOLO_CONFIG_DIR", str(HERE.parent / "runs" / "ultralytics"))

import torch
from torch import Tensor, nn

from diredi.data.dataset import Sample
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.ultralytics_family import UltralyticsDetector  # before its library: it sets what that reads
from diredi.distillation.recipe import TrainRecipe
from diredi.store.weights import WeightMap

# isort: split
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.modules.conv import Conv, DWConv
from ultralytics.nn.modules.head import Detect

OnEpoch = Callable[[int, Detector], None]
"""on_epoch(epochs done, the network as it would be taken now); its time is not counted."""

ITS_OWN: Json = {}
BATCH_NORM_MOMENTUM = 0.03  # its own


def short(recipe: TrainRecipe) -> Json:
    """A step a batch, and the optimizer, rate and schedule of `recipe`."""
    rate = {"lr0": recipe.learning_rate, "cos_lr": True, "lrf": recipe.final_learning_rate}
    return {"nbs": recipe.batch, "warmup_epochs": 1.0, "optimizer": "AdamW", **rate}


@dataclass(frozen=True)
class UltralyticsResult:
    detector: Detector
    seconds: float
    """Of the processor, of an epoch in the middle: the first one also sets up, where there is another. Without
    anything before the first and after the last step of the epoch."""


def train_ultralytics(
    start: Detector,
    samples: Sequence[Sample],
    recipe: TrainRecipe,
    folder: Path,
    *,
    teacher: Detector | None = None,
    settings: Json = ITS_OWN,
    on_epoch: OnEpoch | None = None,
) -> UltralyticsResult:
    """From the weights of `start`, which is not changed; `recipe` gives epochs, batch, seed and precision."""
    trainer = _Trainer(start, _staged(folder / "data", start.labels.names, samples), recipe, folder, settings)
    trainer.model = _network(start)
    if teacher is not None:
        trainer.args.distill_model = _network(teacher)
    trainer.on_epoch = on_epoch
    trainer.train_quietly()
    return UltralyticsResult(trainer.found(), median(trainer.spent[1:] or trainer.spent))


def train_refinement(environment: Environment, site: BenchSite, recipe: TrainRecipe, folder: Path) -> Detector:
    """The deployed student with the site's new classes added, from their labels alone; the old ones do not change."""
    new = site.labels.ids_of(site.new)
    samples = [
        replace(sample, boxes=sample.boxes[[int(c) in new for c in sample.boxes[:, 0]]]) for sample in site.data.train
    ]
    student = environment.student.expand_classes(site.labels)
    data = _staged(folder / "data", site.labels.names, samples)
    trainer = _RefineTrainer(student, data, recipe.model_copy(update={"seed": environment.seed}), folder, short(recipe))
    trainer.model = _with_branches(_network(student), new)
    trainer.train_quietly()
    return UltralyticsDetector(student.spec, trainer.ema.ema, student.device)


class _Trainer(DetectionTrainer):  # type: ignore[misc]  # Ultralytics is not typed
    """No validation, no plots, no files: it is measured here. What it trains is what it would train."""

    def __init__(self, start: Detector, data: Path, recipe: TrainRecipe, folder: Path, settings: Json) -> None:
        self._spec = start.spec
        self.on_epoch: OnEpoch | None = None
        self.spent: list[float] = []
        given = {
            "model": "yolo11n.yaml",  # only a name: the network is set by the caller
            "data": str(data),
            "epochs": max(round(recipe.epochs), 1),
            "batch": recipe.batch,
            "imgsz": start.spec.image_size,
            "seed": recipe.seed,
            "device": str(start.device),
            "project": str(folder),
            "name": "run",
            "exist_ok": True,
            "cache": "ram",
            "workers": 0,
            "amp": recipe.precision == "bf16" and torch.cuda.is_available() and "bf16",  # it refuses on a processor
            "deterministic": False,  # which is faster
            "val": False,
            "plots": False,
            "verbose": False,
        }
        threads = torch.get_num_threads()
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            super().__init__(overrides={**given, **settings})
        torch.set_num_threads(threads)  # it takes one a core, of all that is trained after it too
        self.add_callback("on_train_epoch_start", _Trainer._begin)
        self.add_callback("on_train_epoch_end", _Trainer._end)

    def train_quietly(self) -> None:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            self.train()

    def found(self) -> Detector:
        """What it would save as its last and best: the moving average, here in full precision."""
        state = getattr(self.ema.ema, "student_model", self.ema.ema).state_dict()
        arrays = {name: value.detach().cpu().contiguous().numpy().copy() for name, value in state.items()}
        return registry.from_weights(self._spec, WeightMap(arrays), self.device)

    def _begin(self) -> None:
        self._began = seconds()

    def _end(self) -> None:
        self.spent.append(seconds() - self._began)
        if self.on_epoch is not None:
            self.on_epoch(self.epoch + 1, self.found())

    def get_validator(self) -> Any:  # noqa: ANN401
        return SimpleNamespace(metrics=SimpleNamespace(keys=[]))

    def validate(self) -> tuple[Json, float]:
        return {}, 0.0

    def final_eval(self) -> None: ...

    def save_model(self) -> bool:
        return False

    def save_metrics(self, metrics: Json) -> None: ...


class _RefineTrainer(_Trainer):
    def _setup_train(self) -> None:
        """What is frozen keeps its batch-norm statistics too."""
        last = len(self.model.model) - 1
        parts = [name for name, _ in self.model.model[-1].named_children() if not name.endswith("branches")]
        self.args.freeze = [*map(str, range(last)), *(f"{last}.{name}" for name in parts)]
        super()._setup_train()


class _Branch(nn.Module):
    """What is learned beside one level of a head: rows for the new classes, and what refines scores and boxes."""

    def __init__(self, box: nn.Sequential, scores: nn.Sequential, channels: int, new: Sequence[int]) -> None:
        super().__init__()
        last: Any = scores[-1]
        last_box: Any = box[-1]
        self._new = list(new)
        self.rows = nn.Conv2d(last.in_channels, len(new), 1)
        hidden = max(last.in_channels // 4, 8)
        self.refine = nn.Sequential(
            DWConv(channels, channels, 3), Conv(channels, hidden, 1),
            *(layer for _ in range(3) for layer in (DWConv(hidden, hidden, 3), Conv(hidden, hidden, 1))),
            nn.Conv2d(hidden, len(new) + last_box.out_channels, 1),
        )  # fmt: skip
        zeroed: list[Any] = [self.rows, self.refine[-1]]
        for layer in zeroed:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            zeroed[0].bias.copy_(last.bias[self._new])  # a grown head's prior

    def forward(self, x: Tensor, box: nn.Sequential, scores: nn.Sequential) -> tuple[Tensor, Tensor]:
        """Maps of box and class logits."""
        features, changes = scores[:-1](x), self.refine(x)
        mine = self.rows(features) + changes[:, : len(self._new)]
        every = scores[-1](features).index_copy(1, torch.tensor(self._new, device=x.device), mine)
        seen = mine.detach().sigmoid().amax(1, keepdim=True)
        return box(x) + seen * changes[:, len(self._new) :], every


class _RefinedHead(Detect):  # type: ignore[misc]  # Ultralytics is not typed
    def forward_head(self, x: list[Tensor], box_head: nn.ModuleList, cls_head: nn.ModuleList) -> Json:
        branches = self.branches if box_head is self.cv2 else self.one2one_branches
        pairs = [branch(*level) for branch, *level in zip(branches, x, box_head, cls_head, strict=True)]
        boxes, scores = (torch.cat([level.flatten(2) for level in kind], -1) for kind in zip(*pairs, strict=True))
        return {"boxes": boxes, "scores": scores, "feats": x}


def _with_branches(network: nn.Module, new: Sequence[int]) -> nn.Module:
    layers: Any = network.model
    head = layers[-1]
    channels = [branch[0].conv.in_channels for branch in head.cv2]
    for prefix in ("", "one2one_"):
        boxes: Any = getattr(head, f"{prefix}cv2", None)
        if boxes is not None:
            levels = zip(boxes, getattr(head, f"{prefix}cv3"), channels, strict=True)
            setattr(head, f"{prefix}branches", nn.ModuleList(_Branch(*level, new) for level in levels))
    head.__class__ = _RefinedHead
    return network


def _network(detector: Detector) -> nn.Module:
    """A copy of the network as Ultralytics would have built it."""
    network: nn.Module = copy.deepcopy(detector.module)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = BATCH_NORM_MOMENTUM
    return network


def _staged(folder: Path, names: Sequence[str], samples: Sequence[Sample]) -> Path:
    """A data.yaml with these samples as Ultralytics reads them: images linked, labels written anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    for number, sample in enumerate(samples):
        stem = f"{number:06}"
        (folder / "images" / "train" / (stem + sample.image.suffix)).symlink_to(sample.image.resolve())
        rows = "".join(f"{int(c)} " + " ".join(f"{v:.6f}" for v in box) + "\n" for c, *box in sample.boxes.tolist())
        (folder / "labels" / "train" / f"{stem}.txt").write_text(rows)
    listed = "".join(f"  {i}: {name}\n" for i, name in enumerate(names))
    (folder / "data.yaml").write_text(
        f"path: {folder.resolve()}\ntrain: images/train\nval: images/train\nnames:\n{listed}"
    )
    return folder / "data.yaml"

"""A learner for detectors, which teach each other by the boxes that they find on public images.

    learner: peer_node.detection_learner:create_learner
    data: {own: ["scenes:site-1", "scenes:site-2"], public: "scenes:presumed"}
    options: {models: [yolo11n.pt], recipe: {epochs: 4}}

Peers exchange boxes on the public images and how well they find each class, and nothing else. So their architectures,
image sizes and classes may differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import structlog
import torch
from pydantic import Field

from diredi.config import Config
from diredi.data import dataset
from diredi.data.classification.download import cache_folder
from diredi.data.dataset import Dataset, Sample
from diredi.data.images import find_images, read_image
from diredi.data.sources import SCENES, resolve
from diredi.data.yolo import find_description
from diredi.decentralized.averaging import average
from diredi.decentralized.detectors import BoxEnsemble
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.predictor import Detections, Image, Predictor
from diredi.distillation.batches import Pool
from diredi.distillation.distil import distil
from diredi.distillation.ensemble import FAINTEST, pseudo_label
from diredi.distillation.recipe import TrainRecipe
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap
from peer_node.classification import parse_section
from peer_node.detections import DetectionsSpec, PublicDetections
from peer_node.learner import LearnerContext, Metrics

_AT_ONCE = 32  # images in memory
_MODEL_FILES = (".safetensors", *registry.CHECKPOINT_SUFFIXES)

Share = Annotated[float, Field(ge=0, le=1)]
Each = TypeVar("Each")


class DetectionData(Config):
    """Configure what a peer learns from. A list has an entry for each peer; a shorter one starts over."""

    own: tuple[str, ...] = Field(min_length=1)
    """Own labelled images: a `data.yaml`, its folder, or "scenes:SITE" for built-in scenes, of which each peer has
    others."""
    classes: tuple[tuple[str, ...], ...] = Field(default=((),), min_length=1)
    """The classes whose labels a peer reads of its own images; with none, all of them."""
    public: str
    """Images that all peers have, in files of the same bytes: a folder of images, a `data.yaml`, or "scenes:SITE". No
    label of them is read."""
    scenes: tuple[int, int] = (100, 50)
    """How many own scenes there are to learn from and to measure on, where own images are built-in scenes."""
    public_scenes: int = Field(default=200, ge=1)
    """How many public scenes there are, where public images are built-in scenes."""
    folder: Path | None = None
    """The folder for scenes that were rendered. None takes the cache."""


class DetectionOptions(Config):
    """Configure the learner. A list has an entry for each peer; a shorter one starts over."""

    models: tuple[str, ...] = Field(default=("yolo11n",), min_length=1)
    """The detectors: files, or architectures that start from nothing."""
    image_sizes: tuple[int, ...] = Field(default=(320,), min_length=1)
    """The sides of the square inputs in pixels."""
    device: str | None = "cpu"
    """Where peers compute. None takes CUDA where there is one."""
    recipe: TrainRecipe = TrainRecipe(epochs=4)
    """How a peer learns in each round; `epochs` are those of one round."""
    confidence: float = Field(default=0.25, gt=0, lt=1)
    """Boxes that all together are less sure of are not learned."""
    agreeing: int = Field(default=2, ge=1)
    """How many have to see an object on a public image; of a class that fewer speak for, all who do."""
    public_share: float = Field(default=0.5, gt=0, lt=1)
    """The largest share of public images among those that a peer learns in a round. They are drawn anew in each. Many
    public images would keep a peer with few own ones from learning its place."""
    own_ema: float | None = Field(default=0.5, ge=0, lt=1)
    """How much a mean of the own weights keeps of its past in each round. This mean is what speaks to the neighbours,
    and also one of those whom the peer itself learns from. With 0 it is the weights of the last round. With None the
    peer learns from its neighbours alone, and they hear the newest weights."""
    min_quality: Share = 0.1
    """A peer does not speak for a class that it finds with a lower average precision (AP50) on its own held-out
    images."""
    learns: tuple[str, ...] = ()
    """Classes that peers learn from their neighbours alone. Other classes of neighbours are left out."""
    max_boxes: int = Field(default=100, ge=1, le=1000)
    """The most boxes for an image."""


def create_learner(context: LearnerContext) -> DetectionLearner:
    """Make the learner that the configuration describes.

    Raises:
        InvalidInput: The section `data` or `options` is wrong, or names what is not there.
        DirediError: Images or the model cannot be read.
    """
    torch.set_num_threads(1)  # peers of one machine would wait for each other's threads at every operator
    data, options = parse_section(DetectionData, context.data), parse_section(DetectionOptions, context.options)
    return DetectionLearner(context, data, options)


class DetectionLearner:
    """Learn own labels, and on public images what the neighbours' detectors and the own one find together."""

    collects_first = False

    def __init__(self, context: LearnerContext, data: DetectionData, options: DetectionOptions) -> None:
        self._options, self._log = options, structlog.get_logger()
        self._seed = context.seed * context.peers + context.peer
        own = _own_images(context, data)
        self.public = _public_images(context, data)
        """Images that all peers have."""
        self.detector = _create_detector(context, options, own.names, self._seed)
        """As it is after the last step of learning."""
        labels = self.detector.spec.labels
        mapped = own.with_labels(labels)
        self.own = Pool(mapped.train, frozenset(labels.ids_of(own.names)))
        """Own images to learn from, in the detector's label space."""
        self.held_out = mapped.val
        """Own images to measure on."""
        self._voice, self._qualities = self.detector, dict.fromkeys(labels.names, 0.0)
        self.payload_spec = DetectionsSpec(
            self.public.digest, len(self.public.samples), labels.names, options.max_boxes
        )

    def fit(self, round_: int) -> Metrics:
        """Learn own labels in round 1; afterwards `learn` learns them beside what the neighbours find."""
        if round_ == 1:
            self._learn_from([self.own], round_)
            self._voice = self.detector
        return self._metrics()

    def compute_update(self, round_: int) -> PublicDetections:
        """Find boxes on all public images, and measure how well each class is found on own held-out images."""
        labels, measured = (
            self._voice.spec.labels,
            evaluate(self._voice, self.held_out, self._voice.spec.labels).per_class,
        )
        found = {name: measured[name].ap50 if name in measured else 0.0 for name in labels.names}
        least = self._options.min_quality
        self._qualities = {name: ap50 if ap50 >= least else 0.0 for name, ap50 in found.items()}
        return self.public.detect(self._voice, self._qualities, self._faintest, self._options.max_boxes)

    def build_request(self, round_: int) -> None:
        """Ask for the detections of all public images."""

    def learn(self, round_: int, answers: Mapping[str, PublicDetections]) -> Metrics:
        """Distil own labels, and on public images what all find together.

        A class that nobody speaks for is silence: that no such box was found does not say that none is there.
        """
        labels, options = self.detector.spec.labels, self._options
        heard = [answers[name] for name in sorted(answers)]
        self._log_unknown_classes(round_, answers)
        predictors: list[Predictor] = [self.public.replay(answer) for answer in heard]
        qualities = [answer.qualities for answer in heard]
        pools, boxes = [self.own], 0
        if predictors:
            if options.own_ema is not None:
                predictors, qualities = [*predictors, self._voice], [*qualities, self._qualities]
            ensemble = BoxEnsemble(predictors, qualities, labels, agreeing=options.agreeing)
            if ensemble.taught:
                seen = pseudo_label(ensemble, self.draw_public(round_), labels, options.confidence)
                boxes = sum(len(sample.boxes) for sample in seen)
                pools.append(Pool(seen, ensemble.taught))
        self._learn_from(pools, round_ + 1)
        self._voice = self._mean_of_weights()
        return {**self._metrics(), "boxes": float(boxes)}

    def draw_public(self, round_: int) -> Sequence[Sample]:
        """Return the public images of a round: as many as the own images and `public_share` allow, drawn anew."""
        everything, share = self.public.samples, self._options.public_share
        most = max(round(len(self.own.samples) * share / (1 - share)), 1)
        drawn = np.random.default_rng([self._seed, round_]).permutation(len(everything))[:most]
        return [everything[index] for index in sorted(drawn.tolist())]

    def save(self, path: Path) -> None:
        """Write the detector, which `diredi.load` reads."""
        self.detector.save(path)

    @property
    def _faintest(self) -> float:
        return max(self._options.confidence / 2, FAINTEST)

    def _learn_from(self, pools: Sequence[Pool], number: int) -> None:
        recipe = self._options.recipe.model_copy(update={"seed": self._seed + 1000 * number})
        self.detector = distil(self.detector, pools, recipe=recipe)

    def _mean_of_weights(self) -> Detector:
        if not self._options.own_ema:
            return self.detector
        past = self._options.own_ema
        mean = average([self.detector.weights(), self._voice.weights()], [1 - past, past])
        return registry.from_weights(self.detector.spec, WeightMap(mean), self.detector.device)

    def _metrics(self) -> Metrics:
        """Measure on own held-out images, the mean over classes; 0 to 1."""
        return {"AP50": evaluate(self.detector, self.held_out, self.detector.spec.labels).map50}

    def _log_unknown_classes(self, round_: int, answers: Mapping[str, PublicDetections]) -> None:
        known = set(self.detector.spec.labels.names)
        for name, answer in answers.items():
            if strange := sorted(answer.qualities.keys() - known):
                self._log.info("classes_left_out", round=round_, neighbour=name, classes=strange[:20])


class PublicImages:
    """Images that all peers have. Their order is that of their files' digests, whatever the files are called."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read all images once, so that one that cannot be read is told before long work begins.

        Raises:
            DatasetError: An image cannot be read.
        """
        by_digest = {hashlib.sha256(path.read_bytes()).digest(): path for path in sorted(paths)}
        empty = np.zeros((0, 5), np.float32)
        self.digest = f"sha256:{hashlib.sha256(b''.join(sorted(by_digest))).hexdigest()}"
        self.samples = [Sample(path, empty) for _, path in sorted(by_digest.items())]
        self._position = {_pixels_digest(read_image(sample.image)): index for index, sample in enumerate(self.samples)}

    def detect(
        self, detector: Detector, qualities: Mapping[str, float], confidence: float, max_boxes: int
    ) -> PublicDetections:
        """Find the best boxes of the classes that the detector speaks for on every image."""
        speaks = np.array([qualities[name] > 0 for name in detector.spec.labels.names])
        counts, boxes, scores, classes = [], [], [], []
        for start in range(0, len(self.samples), _AT_ONCE):
            images = [read_image(sample.image) for sample in self.samples[start : start + _AT_ONCE]]
            for image, found in zip(images, detector.predict(images, confidence), strict=True):
                corners = np.clip(found.boxes / _scale(image), 0, 1).astype(np.float32)
                kept = np.flatnonzero(speaks[found.classes] & (corners[:, 2:] > corners[:, :2]).all(1))[:max_boxes]
                counts.append(len(kept))
                boxes.append(corners[kept])
                scores.append(found.scores[kept])
                classes.append(found.classes[kept])
        return PublicDetections(
            np.array(counts, np.int64),
            np.concatenate(boxes),
            np.concatenate(scores),
            np.concatenate(classes),
            qualities,
        )

    def replay(self, detections: PublicDetections) -> ReplayedDetections:
        """Return a predictor that finds in each public image what was received for it."""
        return ReplayedDetections(detections, self._position)


class ReplayedDetections:
    """A predictor for public images alone: it says of each what a neighbour's detector has found in it."""

    def __init__(self, detections: PublicDetections, position: Mapping[bytes, int]) -> None:
        self.labels = LabelSpace.of(detections.qualities)
        self._detections, self._position = detections, position
        self._ends = np.cumsum(detections.counts)

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        """Return the boxes that were received for each image; see `Predictor.predict`."""
        return [self._found(image, confidence) for image in images]

    def _found(self, image: Image, confidence: float) -> Detections:
        index, said = self._position[_pixels_digest(image)], self._detections
        rows = np.arange(self._ends[index] - said.counts[index], self._ends[index])
        rows = rows[said.scores[rows] >= confidence]
        return Detections.of(said.boxes[rows] * _scale(image), said.scores[rows], said.classes[rows])


def _own_images(context: LearnerContext, data: DetectionData) -> Dataset:
    ref, names = _of_peer(data.own, context), _of_peer(data.classes, context)
    path = resolve(ref, _cache(data), _scenes_seed(context, 1 + context.peer), *data.scenes)
    own = dataset.load(path)
    return _with_classes(own, names) if names else own


def _with_classes(own: Dataset, names: Sequence[str]) -> Dataset:
    """Return the same images with the labels of some classes alone."""
    if strange := [name for name in names if name not in own.names]:
        raise InvalidInput(f"own images have no class {strange[0]!r}: they have {', '.join(own.names)}")
    ids = np.full(len(own.names), -1, np.float32)
    for new, name in enumerate(names):
        ids[own.names.index(name)] = new

    def changed(sample: Sample) -> Sample:
        boxes = sample.boxes.copy()
        boxes[:, 0] = ids[boxes[:, 0].astype(np.int64)]
        return Sample(sample.image, boxes[boxes[:, 0] >= 0])

    few = Dataset(own.root, tuple(names), [changed(s) for s in own.train], [changed(s) for s in own.val], own.notes)
    for split in dataset.SPLITS:
        if not any(few.counts(split).values()):
            raise InvalidInput(f"own images for {split} show no {', '.join(names)}: name other classes or images")
    return few


def _public_images(context: LearnerContext, data: DetectionData) -> PublicImages:
    place = Path(data.public).expanduser()
    if place.is_dir() and not find_description(place).is_file():
        paths = find_images(place).images
    else:
        path = resolve(data.public, _cache(data), _scenes_seed(context, 0), data.public_scenes, 1)
        found = dataset.load(path, ("train",), labelled=False, read_labels=False)
        paths = [sample.image for sample in found.train]
    if not paths:
        raise InvalidInput(f"there is no public image in {data.public}: name a folder of images or a data.yaml")
    return PublicImages(paths)


def _create_detector(context: LearnerContext, options: DetectionOptions, names: Sequence[str], seed: int) -> Detector:
    model, size = _of_peer(options.models, context), _of_peer(options.image_sizes, context)
    if model.endswith(_MODEL_FILES):
        detector = registry.load(model, image_size=size, device=options.device)
        return detector.expand_classes(detector.spec.labels.expand(names).expand(options.learns))
    labels = LabelSpace.of(names).expand(options.learns)
    return registry.create(model, size, labels, seed, options.device)


def _of_peer(values: Sequence[Each], context: LearnerContext) -> Each:
    return values[context.peer % len(values)]


def _cache(data: DetectionData) -> Path:
    return cache_folder(SCENES.rstrip(":")) if data.folder is None else data.folder


def _scenes_seed(context: LearnerContext, number: int) -> int:
    """Return a seed of scenes: 0 stands for those that all have, the next numbers for those of each peer."""
    return context.seed * (context.peers + 1) + number


def _scale(image: Image) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    height, width = image.shape[:2]
    return np.array([width, height, width, height], np.float32)


def _pixels_digest(image: Image) -> bytes:
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).data).digest()

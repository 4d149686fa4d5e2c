"""What the jobs of a cycle are told and what they answer, shared by a job and the service that starts it. No torch.

bootstrap   BootstrapSpec -> BootstrapResult   cloud   the first models
extract     ExtractSpec   -> ExtractResult     site    reverse distillation, the gaps
apply_gap   ApplySpec     -> ApplyResult       cloud   the gaps of all sites meet the tutor
redistil    RedistilSpec  -> RedistilResult    cloud   the next student
transport   TransportSpec -> GapFile           cloud   what a scope has learned, for a newer release
validate    ValidateSpec  -> ValidateResult    site    the candidate, as the file that edge nodes run
overlay     OverlaySpec   -> OverlayResult     site    the site's own batch-norm statistics for a release
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from diredi.config import Config
from diredi.data.style import SiteStyle
from diredi.evaluation.label_findings import FindingKind
from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.gaps import ExtractionMetrics
from diredi.knowledge.lambda_search import Score, TriedLambda
from diredi.knowledge.recipe import BootstrapRecipe, CycleRecipe, ImageSource, Lam, StudentKind
from diredi.labels import LabelSpace

UNTRAINED_IMAGE_SIZE = 160
"""Side in pixels of the input of models that are trained from nothing, where nobody says another."""

NoLabelFile = Literal["background", "unlabelled"]
"""What an image without a label file is: one that shows nothing, or one that nobody has labelled."""
Seconds = dict[str, float]
"""Wall-clock seconds of each step, in the order of the steps."""


class File(Config):
    """A file that a job has written."""

    path: Path
    digest: str
    """ "sha256:..." """
    bytes: int


class WeightsFile(Config):
    """A safetensors file that a job has written."""

    weights: Path
    digest: str
    """ "sha256:..." """
    bytes: int

    def to_record(self) -> dict[str, Any]:
        """Return what a service keeps of a result: all but the files, in JSON."""
        return self.model_dump(mode="json", exclude={"weights", "digest", "bytes", "onnx"})


class GapFile(File):
    """An encoded gap that a job has written."""

    codec: str
    fp32_bytes: int
    """What the base weighs as fp32: what would have travelled without a codec."""
    schema_digest: str


class SiteGap(Config):
    """An encoded gap that a site has sent."""

    path: Path
    codec: str
    site: str
    images: int
    """Images that taught it."""


class BootstrapSpec(Config):
    """The first models: each an architecture to train, a file of weights, or None for the default (teacher: none)."""

    presumed: Path
    """A data.yaml."""
    teacher: str | None = None
    tutor: str | None = None
    student: str | None = None
    image_size: int | None = None
    """Side of the square input of all models, in pixels; None: the student's own, or that of what is given."""
    recipe: BootstrapRecipe = BootstrapRecipe()


class FirstModel(WeightsFile):
    """A model of the bootstrap, and its quality on held-out presumed images."""

    architecture: str
    metrics: DetectionMetrics
    onnx: File | None = None
    """The file that edge nodes run; only of the student."""


class BootstrapResult(Config):
    """The first models, and the coreset that sites may mix in."""

    teacher: FirstModel | None
    tutor: FirstModel
    student: FirstModel
    coreset: File | None
    seconds: Seconds


class OracleSpec(Config):
    """Who says what is on a site's images in place of labels."""

    detector: Path
    """A file that `diredi.load` reads."""
    labels: LabelSpace
    """The classes that it may find; of others it says nothing."""
    looks: tuple[float, ...]
    """Sizes as multiples of its own input."""
    confidence: float
    """Answers with a lower one are left out."""
    kept: Path
    """A file of the site in which its answers are kept for the cycle: an image is looked at once."""


class SiteDataSpec(Config):
    """A site's data set, and how the site wants it to be read."""

    data: Path
    """The site's data.yaml."""
    class_names: dict[str, str] = Field(default_factory=dict)
    """Classes of the data that are called otherwise everywhere else, with the other name."""
    no_label_file: NoLabelFile = "background"


class ExtractSpec(SiteDataSpec):
    """Reverse distillation at a site."""

    tutor: Path
    student: Path
    coreset: Path | None = None
    """A zip of presumed images."""
    labels: LabelSpace
    """The label space that the cloud gave out."""
    recipe: CycleRecipe = CycleRecipe()
    oracle: OracleSpec | None = None
    """Who labels the images; None: the site has."""
    filling: OracleSpec | None = None
    """Who says what is on images of which the site's labels say nothing; None: nobody."""
    least_images: int = 1
    """With fewer held-out images, no figure of a model is told."""
    publish_style: bool = False
    """Whether the site's operator agrees to publish how its images look."""
    audit_images: int = 0
    """Of how many training images the deployed models doubt the labels first; 0: of none."""


class AuditCounts(Config):
    """What the deployed models said of a site's labels. It stays at the site, in its log and on a page."""

    images: int
    labels: int
    findings: dict[FindingKind, int]
    """How many of each kind, in fives."""
    not_audited: tuple[str, ...]
    """Classes that no model knows."""
    page: Path
    """The findings with pictures."""


class ExtractResult(ExtractionMetrics):
    """The gaps as files, and what the site measured."""

    tutor_gap: GapFile
    student_gap: GapFile | None
    style: SiteStyle | None
    audit: AuditCounts | None = None
    """For the site's own log."""


class ApplySpec(Config):
    """The gaps of a cycle's sites, merged and added to what receives them."""

    tutor: Path
    """Whatever receives the gap."""
    gaps: tuple[SiteGap, ...]
    scores: tuple[tuple[Score, ...], ...] = ()
    """Of each site that has sent some."""
    presumed: Path
    """A data.yaml."""
    recipe: CycleRecipe = CycleRecipe()


class ApplyResult(WeightsFile):
    """The updated tutor."""

    lam: Lam
    harmless: bool
    before: DetectionMetrics
    after: DetectionMetrics
    silenced: tuple[str, ...] = ()
    """Known classes for which a new branch does not speak after all, because that would do harm."""
    tried: tuple[TriedLambda, ...]
    seconds: Seconds


class RedistilSpec(Config):
    """The next student."""

    tutor: Path
    """The updated one."""
    student: Path
    """The deployed one."""
    student_gaps: tuple[SiteGap, ...] = ()
    styles: tuple[SiteStyle, ...] = ()
    """Of the sites that have published theirs."""
    presumed: Path
    """A data.yaml."""
    pool: Path | None = None
    """The data.yaml of a public pool, where this cloud has one."""
    recipe: CycleRecipe = CycleRecipe()


class RedistilResult(WeightsFile):
    """The next student, measured as the file that edge nodes run."""

    onnx: File
    chosen: StudentKind
    harmless: bool
    lam: Lam | None
    """The share of the student gap, where there was one."""
    before: DetectionMetrics
    after: DetectionMetrics
    candidates: dict[StudentKind, DetectionMetrics]
    false_alarms: float = 0.0
    """How often it finds new classes on 100 held-out presumed images."""
    quieted: float = 0.0
    """By how many logits its scores of new classes were lowered, because of presumed training images."""
    images: dict[ImageSource, int]
    """How many of each source taught it; empty where no student was taught."""
    seconds: Seconds


class TransportSpec(Config):
    """What one model has learned since another, to be a gap for a third (`diredi.knowledge.transport`)."""

    learned: Path
    origin: Path
    target: Path


class ValidateSpec(SiteDataSpec):
    """A candidate release, to be measured on a site's held-out images."""

    onnx: Path
    labels: LabelSpace
    oracle: OracleSpec | None = None
    """Who labels the images; None: the site has."""
    least_images: int = 1
    """With fewer held-out images, no figure of a model is told."""
    image_size: int = 0
    """The input that the task says the candidate has, in pixels; 0: not told."""
    classes: tuple[str, ...] | None = None
    """Only boxes of these classes count, and others are left out; None: the candidate has to know all classes."""


class ValidateResult(Config):
    """Its quality there."""

    metrics: DetectionMetrics
    seconds: Seconds


class OverlaySpec(SiteDataSpec):
    """A release, for which a site measures batch-norm statistics of its own (`diredi.knowledge.overlay`)."""

    student: Path
    """The release's weights."""
    onnx: Path
    """The release as edge nodes run it."""
    overlay: bool = True
    """Whether to measure statistics."""
    fit_input: bool = False
    """Whether to give the file an input of the shape of the site's images."""
    quantise: bool = False
    """Whether to write the file with 8 bits, calibrated with the site's training images."""
    confidence: float = 0.25
    """What edge nodes report: with 8 bits a class must be found as well as without, at this confidence."""
    calibration_images: int = 64
    """With how many training images to calibrate."""
    max_loss: float = 0.01
    """The most mAP50-95 that 8 bits or another input may cost."""
    max_class_loss: float = 0.05
    """The most AP50-95 or F1 that these may cost one class."""


class OverlayResult(Config):
    """What they do on the site's held-out images, and the files where that is good."""

    before: DetectionMetrics
    """The release alone."""
    after: DetectionMetrics
    """In the form that edge nodes run; equal to `before` where that is the release as it is."""
    share: float = 0.0
    """How much of the statistics is the site's."""
    overlay: File | None = None
    """The statistics; None: the release is better without."""
    onnx: File | None = None
    """The release in this form as one file that edge nodes run; None: they run it as it is."""
    input_size: tuple[int, int] | None = None
    """Height and width of its input in pixels; None: the square of the release."""
    quantised: bool = False
    """Whether that file has 8 bits."""
    left_out: str = ""
    """Why it has no other input or no 8 bits, where the site wants it to."""
    seconds: Seconds

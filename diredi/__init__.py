"""DiReDi updates detectors from what a site sees, while no image, label or feature leaves the site.

One update cycle in ten lines: a site's images become a knowledge gap, the difference between two weight vectors; the
manufacturer adds the gap to its tutor, as much of it as does its own data no harm, and the tutor teaches the next
student:

    import diredi

    site, maker = diredi.load_dataset("site/data.yaml"), diredi.load_dataset("maker/data.yaml")
    tutor, student = diredi.load("yolo11s.pt"), diredi.load("yolo11n.pt")

    gaps = diredi.extract_gap(tutor, student, site, coreset=maker.sample(200))    # at the site
    updated = diredi.apply_gap(tutor, gaps.tutor, guard=maker)                    # at the manufacturer
    new = diredi.distil(student, maker, teacher=updated.model)

    print(diredi.evaluate(new, site))
    diredi.export(new, "student.onnx")                                            # what a camera runs

The services' own jobs call the same functions; there is no second way. `examples/` has a script for each thing that
people want to change: a loss, a merging rule, a video source, learning without labels, peers, federated averaging.

What this module exports is the library, and stays what it is from one minor version to the next. Every other module is
internal and may change at any time. Nothing is imported before it is used, so that an edge node, which has no torch,
can import `diredi` too.

Every error that is raised on purpose is a `DirediError` and says what is wrong, where, and what to do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from diredi import telemetry_off

if TYPE_CHECKING:
    from diredi.data.dataset import Dataset as Dataset
    from diredi.data.dataset import Sample as Sample
    from diredi.data.dataset import load as load_dataset
    from diredi.decentralized.detectors import DetectorClient as DetectorClient
    from diredi.decentralized.detectors import EnsembleTeacher as EnsembleTeacher
    from diredi.decentralized.federation import Federation as Federation
    from diredi.decentralized.strategies import StrategyRecipe as StrategyRecipe
    from diredi.decentralized.strategies import create_strategy as create_strategy
    from diredi.detectors.base import Detector as Detector
    from diredi.detectors.base import Outputs as Outputs
    from diredi.detectors.base import Targets as Targets
    from diredi.detectors.base import Teacher as Teacher
    from diredi.detectors.export import export_onnx as export
    from diredi.detectors.onnx import OnnxPredictor as OnnxPredictor
    from diredi.detectors.predictor import Detections as Detections
    from diredi.detectors.predictor import Predictor as Predictor
    from diredi.detectors.quantisation import quantise as quantise
    from diredi.detectors.registry import create as create
    from diredi.detectors.registry import load as load
    from diredi.detectors.spec import DetectorSpec as DetectorSpec
    from diredi.distillation.batches import Pool as Pool
    from diredi.distillation.dissimilarity import MEASURES as MEASURES
    from diredi.distillation.distil import distil as distil
    from diredi.distillation.ensemble import TTAPredictor as TTAPredictor
    from diredi.distillation.ensemble import pseudo_label as pseudo_label
    from diredi.distillation.losses import LOSSES as LOSSES
    from diredi.distillation.losses.base import DistillationBatch as DistillationBatch
    from diredi.distillation.losses.base import Loss as Loss
    from diredi.distillation.recipe import Augment as Augment
    from diredi.distillation.recipe import TrainRecipe as TrainRecipe
    from diredi.distillation.trainer import TrainReport as TrainReport
    from diredi.distillation.trainer import train as train
    from diredi.errors import CorruptData as CorruptData
    from diredi.errors import DatasetError as DatasetError
    from diredi.errors import DirediError as DirediError
    from diredi.errors import InvalidInput as InvalidInput
    from diredi.errors import NoRoom as NoRoom
    from diredi.errors import NotFound as NotFound
    from diredi.errors import Refused as Refused
    from diredi.errors import Unreachable as Unreachable
    from diredi.errors import WrongState as WrongState
    from diredi.evaluation.detection import evaluate as evaluate
    from diredi.evaluation.label_audit import audit_labels as audit_labels
    from diredi.evaluation.label_findings import ClassAudit as ClassAudit
    from diredi.evaluation.label_findings import LabelAudit as LabelAudit
    from diredi.evaluation.label_findings import LabelFinding as LabelFinding
    from diredi.evaluation.metrics import ClassMetrics as ClassMetrics
    from diredi.evaluation.metrics import DetectionMetrics as DetectionMetrics
    from diredi.knowledge.extraction import extract_gap as extract_gap
    from diredi.knowledge.gap import Gap as Gap
    from diredi.knowledge.gap import GapNote as GapNote
    from diredi.knowledge.gap_application import AppliedGap as AppliedGap
    from diredi.knowledge.gap_application import apply_gap as apply_gap
    from diredi.knowledge.gaps import ExtractionMetrics as ExtractionMetrics
    from diredi.knowledge.gaps import Gaps as Gaps
    from diredi.knowledge.lambda_search import TriedLambda as TriedLambda
    from diredi.knowledge.merging import MERGES as MERGES
    from diredi.knowledge.merging import Contribution as Contribution
    from diredi.knowledge.merging import MergeRecipe as MergeRecipe
    from diredi.knowledge.merging import merge_gaps as merge_gaps
    from diredi.knowledge.overlay import FittedOverlay as FittedOverlay
    from diredi.knowledge.overlay import Overlay as Overlay
    from diredi.knowledge.overlay import OverlayNote as OverlayNote
    from diredi.knowledge.overlay import fit_overlay as fit_overlay
    from diredi.knowledge.recipe import CycleRecipe as CycleRecipe
    from diredi.knowledge.redistil import RedistilledStudent as RedistilledStudent
    from diredi.knowledge.redistil import redistil as redistil
    from diredi.labels import LabelSpace as LabelSpace
    from diredi.progress import OnProgress as OnProgress
    from diredi.progress import Progress as Progress
    from diredi.store.weights import WeightMap as WeightMap

__version__ = "0.1.0"

telemetry_off.turn_off()

_EXPORTS = {
    "AppliedGap": ("diredi.knowledge.gap_application", "AppliedGap"),
    "Augment": ("diredi.distillation.recipe", "Augment"),
    "ClassAudit": ("diredi.evaluation.label_findings", "ClassAudit"),
    "ClassMetrics": ("diredi.evaluation.metrics", "ClassMetrics"),
    "Contribution": ("diredi.knowledge.merging", "Contribution"),
    "CorruptData": ("diredi.errors", "CorruptData"),
    "CycleRecipe": ("diredi.knowledge.recipe", "CycleRecipe"),
    "Dataset": ("diredi.data.dataset", "Dataset"),
    "DatasetError": ("diredi.errors", "DatasetError"),
    "DetectionMetrics": ("diredi.evaluation.metrics", "DetectionMetrics"),
    "Detections": ("diredi.detectors.predictor", "Detections"),
    "Detector": ("diredi.detectors.base", "Detector"),
    "DetectorClient": ("diredi.decentralized.detectors", "DetectorClient"),
    "DetectorSpec": ("diredi.detectors.spec", "DetectorSpec"),
    "DirediError": ("diredi.errors", "DirediError"),
    "DistillationBatch": ("diredi.distillation.losses.base", "DistillationBatch"),
    "EnsembleTeacher": ("diredi.decentralized.detectors", "EnsembleTeacher"),
    "ExtractionMetrics": ("diredi.knowledge.gaps", "ExtractionMetrics"),
    "Federation": ("diredi.decentralized.federation", "Federation"),
    "FittedOverlay": ("diredi.knowledge.overlay", "FittedOverlay"),
    "Gap": ("diredi.knowledge.gap", "Gap"),
    "GapNote": ("diredi.knowledge.gap", "GapNote"),
    "Gaps": ("diredi.knowledge.gaps", "Gaps"),
    "InvalidInput": ("diredi.errors", "InvalidInput"),
    "LOSSES": ("diredi.distillation.losses", "LOSSES"),
    "LabelAudit": ("diredi.evaluation.label_findings", "LabelAudit"),
    "LabelFinding": ("diredi.evaluation.label_findings", "LabelFinding"),
    "LabelSpace": ("diredi.labels", "LabelSpace"),
    "Loss": ("diredi.distillation.losses.base", "Loss"),
    "MEASURES": ("diredi.distillation.dissimilarity", "MEASURES"),
    "MERGES": ("diredi.knowledge.merging", "MERGES"),
    "MergeRecipe": ("diredi.knowledge.merging", "MergeRecipe"),
    "NoRoom": ("diredi.errors", "NoRoom"),
    "NotFound": ("diredi.errors", "NotFound"),
    "OnProgress": ("diredi.progress", "OnProgress"),
    "OnnxPredictor": ("diredi.detectors.onnx", "OnnxPredictor"),
    "Outputs": ("diredi.detectors.base", "Outputs"),
    "Overlay": ("diredi.knowledge.overlay", "Overlay"),
    "OverlayNote": ("diredi.knowledge.overlay", "OverlayNote"),
    "Pool": ("diredi.distillation.batches", "Pool"),
    "Predictor": ("diredi.detectors.predictor", "Predictor"),
    "Progress": ("diredi.progress", "Progress"),
    "RedistilledStudent": ("diredi.knowledge.redistil", "RedistilledStudent"),
    "Refused": ("diredi.errors", "Refused"),
    "Sample": ("diredi.data.dataset", "Sample"),
    "StrategyRecipe": ("diredi.decentralized.strategies", "StrategyRecipe"),
    "TTAPredictor": ("diredi.distillation.ensemble", "TTAPredictor"),
    "Targets": ("diredi.detectors.base", "Targets"),
    "Teacher": ("diredi.detectors.base", "Teacher"),
    "TrainRecipe": ("diredi.distillation.recipe", "TrainRecipe"),
    "TrainReport": ("diredi.distillation.trainer", "TrainReport"),
    "TriedLambda": ("diredi.knowledge.lambda_search", "TriedLambda"),
    "Unreachable": ("diredi.errors", "Unreachable"),
    "WeightMap": ("diredi.store.weights", "WeightMap"),
    "WrongState": ("diredi.errors", "WrongState"),
    "apply_gap": ("diredi.knowledge.gap_application", "apply_gap"),
    "audit_labels": ("diredi.evaluation.label_audit", "audit_labels"),
    "create": ("diredi.detectors.registry", "create"),
    "create_strategy": ("diredi.decentralized.strategies", "create_strategy"),
    "distil": ("diredi.distillation.distil", "distil"),
    "evaluate": ("diredi.evaluation.detection", "evaluate"),
    "export": ("diredi.detectors.export", "export_onnx"),
    "extract_gap": ("diredi.knowledge.extraction", "extract_gap"),
    "fit_overlay": ("diredi.knowledge.overlay", "fit_overlay"),
    "load": ("diredi.detectors.registry", "load"),
    "load_dataset": ("diredi.data.dataset", "load"),
    "merge_gaps": ("diredi.knowledge.merging", "merge_gaps"),
    "pseudo_label": ("diredi.distillation.ensemble", "pseudo_label"),
    "quantise": ("diredi.detectors.quantisation", "quantise"),
    "redistil": ("diredi.knowledge.redistil", "redistil"),
    "train": ("diredi.distillation.trainer", "train"),
}
"""Each exported name with its module and its name there; the imports above say the same to type checkers."""

__all__ = [
    "AppliedGap",
    "Augment",
    "ClassAudit",
    "ClassMetrics",
    "Contribution",
    "CorruptData",
    "CycleRecipe",
    "Dataset",
    "DatasetError",
    "DetectionMetrics",
    "Detections",
    "Detector",
    "DetectorClient",
    "DetectorSpec",
    "DirediError",
    "DistillationBatch",
    "EnsembleTeacher",
    "ExtractionMetrics",
    "Federation",
    "FittedOverlay",
    "Gap",
    "GapNote",
    "Gaps",
    "InvalidInput",
    "LOSSES",
    "LabelAudit",
    "LabelFinding",
    "LabelSpace",
    "Loss",
    "MEASURES",
    "MERGES",
    "MergeRecipe",
    "NoRoom",
    "NotFound",
    "OnProgress",
    "OnnxPredictor",
    "Outputs",
    "Overlay",
    "OverlayNote",
    "Pool",
    "Predictor",
    "Progress",
    "RedistilledStudent",
    "Refused",
    "Sample",
    "StrategyRecipe",
    "TTAPredictor",
    "Targets",
    "Teacher",
    "TrainRecipe",
    "TrainReport",
    "TriedLambda",
    "Unreachable",
    "WeightMap",
    "WrongState",
    "apply_gap",
    "audit_labels",
    "create",
    "create_strategy",
    "distil",
    "evaluate",
    "export",
    "extract_gap",
    "fit_overlay",
    "load",
    "load_dataset",
    "merge_gaps",
    "pseudo_label",
    "quantise",
    "redistil",
    "train",
]


def __getattr__(name: str) -> object:
    """Import an exported name when it is first asked for (PEP 562)."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    globals()[name] = found = getattr(import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    """List what a person may want to complete to."""
    return [*__all__, "__version__"]

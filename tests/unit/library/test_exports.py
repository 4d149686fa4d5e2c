"""What `import diredi` offers: a list that changes on purpose, documented, and free of torch until it is used."""

from __future__ import annotations

import ast
import doctest
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import diredi

ROOT = Path(__file__).resolve().parents[3]
EXPORTED = {
    "AppliedGap", "Augment", "ClassAudit", "ClassMetrics", "Contribution", "CorruptData", "CycleRecipe", "Dataset",
    "DatasetError", "Detections", "Detector", "DetectorClient", "DetectorSpec", "DetectionMetrics", "DirediError",
    "DistillationBatch", "EnsembleTeacher", "ExtractionMetrics", "Federation", "FittedOverlay", "Gap", "GapNote",
    "Gaps", "InvalidInput", "LOSSES", "LabelAudit", "LabelFinding", "LabelSpace", "Loss", "MEASURES", "MERGES",
    "MergeRecipe", "NoRoom", "NotFound", "OnProgress", "OnnxPredictor", "Outputs", "Overlay", "OverlayNote", "Pool",
    "Predictor", "Progress", "RedistilledStudent", "Refused", "Sample", "StrategyRecipe", "TTAPredictor", "Targets",
    "Teacher", "TrainRecipe", "TrainReport", "TriedLambda", "Unreachable", "WeightMap", "WrongState", "apply_gap",
    "audit_labels", "create", "create_strategy", "distil", "evaluate", "export", "extract_gap", "fit_overlay", "load",
    "load_dataset", "merge_gaps", "pseudo_label", "quantise", "redistil", "train",
}  # fmt: skip
LEAST_LINES = 4
CONSTANTS = {"LOSSES", "MEASURES", "MERGES", "OnProgress"}
OBJECTS = {name: getattr(diredi, name) for name in sorted(EXPORTED - CONSTANTS)}


def public_functions() -> dict[str, Any]:
    """Exported functions, and the public methods of exported classes of ours, by dotted name."""
    found: dict[str, Any] = {}
    for name, exported in OBJECTS.items():
        if inspect.isfunction(exported):
            found[name] = exported
        for key, member in vars(exported).items() if inspect.isclass(exported) else ():
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            function = function.fget if isinstance(function, property) else function
            if inspect.isfunction(function) and not key.startswith("_"):
                found[f"{name}.{key}"] = function
    return found


def test_the_library_exports_these_names_and_no_others() -> None:
    assert set(diredi.__all__) == EXPORTED
    assert len(diredi.__all__) == len(EXPORTED)
    assert set(dir(diredi)) >= EXPORTED


def test_type_checkers_see_the_names_that_are_imported_at_run_time() -> None:
    tree = ast.parse(Path(diredi.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: (node.module, alias.name) for node in imports for alias in node.names}
    assert seen == vars(diredi)["_EXPORTS"]


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'extract_gaps'"):
        _ = diredi.extract_gaps  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "program",
    [
        "import diredi",
        "import diredi, edge_node.__main__",
        "import diredi; diredi.Detections, diredi.Gaps, diredi.CycleRecipe, diredi.DirediError, diredi.load_dataset",
        "import diredi.knowledge.jobs.specs",
    ],
)
def test_torch_is_not_loaded_before_it_is_used(program: str) -> None:
    code = f"import sys; {program}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("package", ["diredi", "cloud_server", "user_domain", "edge_node", "peer_node"])
def test_packages_say_that_they_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def test_every_public_function_is_documented_and_every_one_of_several_arguments_explains_them() -> None:
    lacking = []
    for name, function in public_functions().items():
        text = inspect.getdoc(function) or ""
        arguments = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
        if not text or (len(arguments) > 1 and "Args:" not in text):
            lacking.append(name)
    assert not lacking


def test_docstrings_are_long_enough_to_help() -> None:
    lines = {name: len((inspect.getdoc(exported) or "").splitlines()) for name, exported in OBJECTS.items()}
    assert min(lines.values()) >= 1
    assert median(lines.values()) >= LEAST_LINES, lines


@pytest.mark.parametrize("module", sorted({module for module, _ in vars(diredi)["_EXPORTS"].values()}))
def test_examples_in_docstrings_are_right(module: str) -> None:
    found = doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.failed == 0

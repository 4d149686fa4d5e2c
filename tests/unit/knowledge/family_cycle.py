"""A cycle of jobs between two architectures, whatever their families; runs in a process of its own too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shapes import GROWN, SIZE

from diredi.jobs import call
from diredi.knowledge.jobs import apply_gap, bootstrap, extract, redistil
from diredi.progress import Progress

QUICK = {"steps": 2, "batch": 4}
Json = dict[str, Any]


def run(presumed: Path, site: Path, tutor: str, student: str, folder: Path) -> Json:
    """Results of the jobs by their names."""
    taught = {"tutor": QUICK, "student": QUICK, "coreset_images": 12}
    named = {"teacher": None, "tutor": tutor, "student": student, "image_size": SIZE}
    first = call(bootstrap.main, {"presumed": str(presumed), **named, "recipe": taught}, folder, quiet)
    models = {kind: first[kind]["weights"] for kind in ("tutor", "student")}
    trainings = dict.fromkeys(("tutor", "student", "redistil", "redistil_branch"), QUICK)
    few = {**trainings, "probe_steps": 2, "max_harm": 1.0, "students": ["mean"]}
    shared = {"presumed": str(presumed), "recipe": few}
    given = {
        "data": str(site),
        "coreset": first["coreset"]["path"],
        **models,
        "labels": GROWN.model_dump(),
        "recipe": few,
    }
    gaps = call(extract.main, given, folder, quiet)
    sent = {
        kind: [{"path": gaps[kind]["path"], "codec": gaps[kind]["codec"], "site": "site-1", "images": 48}]
        for kind in ("tutor_gap", "student_gap")
    }
    applied = call(
        apply_gap.main, {"tutor": models["tutor"], "gaps": sent["tutor_gap"], **shared}, folder / "apply", quiet
    )
    ours = {"tutor": applied["weights"], "student": models["student"], "student_gaps": sent["student_gap"]}
    made = call(redistil.main, {**ours, **shared}, folder / "redistil", quiet)
    return {"bootstrap": first, "extract": gaps, "apply_gap": applied, "redistil": made}


def quiet(progress: Progress) -> None:
    """A test does not watch."""

"""The sentences of a report; the page and the terminal have the same."""

from __future__ import annotations

from diredi.text import bytes_text
from diredi_demo.charts import signed
from diredi_demo.report import Report

_STEPS = {
    "data": "Scenes and identities",
    "start": "Five services start",
    "bootstrap": "Release 1 is made",
    "request": "The request reaches the site",
    "approve": "The site agrees",
    "extract": "The site extracts the gap",
    "apply": "The gap joins the tutor",
    "gate": "The gate tests the tutor",
    "redistil": "A new student is made",
    "release": "The first device gets it",
    "validate": "The site validates it",
    "rollout": "Every device swaps",
    "evaluate": "Both releases are measured",
}


def step_name(step: str) -> str:
    """Return the name of a step for people; a step that this version does not know keeps its own name."""
    return _STEPS.get(step, step.rpartition("/")[2])


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is_learned(report: Report, name: str) -> bool:
    """A class that is found at least now and then; below that nobody should claim it."""
    metrics = report.after.site.per_class.get(name)
    return metrics is not None and metrics.ap50 >= 0.1


def headline(report: Report) -> str:
    """Return what happened, in one line."""
    if report.cycle.state != "RELEASED":
        return f"The update from {report.cycle.site} was not released: {report.cycle.state.lower().replace('_', ' ')}"
    devices = len(report.devices) or len(report.releases)
    site = report.cycle.site
    learned = tuple(name for name in report.new_classes if _is_learned(report, name))
    if learned:
        did = f"learned {_listed(learned)}"
    elif report.points("site") > 0:
        did = f"see better at {site}" + (", as far as an oracle can tell" if report.after.site.estimated else "")
    else:
        did = f"run release {report.after_version}"
    return f"{devices} devices {did}. No image left {site}."


def estimate_text(report: Report) -> str:
    """Return what stood for labels at the site, and how far off it was where they are known; empty with labels."""
    if report.estimate is None:
        return ""
    site = report.cycle.site
    before, after = (100 * metrics.map50 for metrics in report.estimate)
    said = (
        f"An oracle, a detector that looks at each image several times, stood for labels at {site}. By its answers "
        f"{site} estimated an mAP50 of {before:.1f} before and {after:.1f} after."
    )
    if report.after.site.estimated:
        return f"{said} There are no labels to compare with: every figure of {site} here is such an estimate."
    real_before, real_after = (100 * pair.site.map50 for pair in (report.before, report.after))
    unknown = f" Boxes of {_listed(report.left_out)}, which no release knows, are left out." if report.left_out else ""
    return (
        f"{said} By its labels, which only this report has read, it is {real_before:.1f} and {real_after:.1f}: the "
        f"estimates are {signed(before - real_before)} and {signed(after - real_after)} points off.{unknown}"
    )


def lead(report: Report) -> str:
    """Return the numbers that matter, in two sentences."""
    site, presumed = report.points("site"), report.points("presumed")
    gap = report.gap
    share = f", {100 * gap.bytes / gap.tutor_fp32_bytes:.0f} % of the tutor's weights" if gap.tutor_fp32_bytes else ""
    quality = "Estimated mAP50" if report.after.site.estimated else "mAP50"
    return (
        f"{quality} at the site changed by {signed(site)} points and on the manufacturer's own data by "
        f"{signed(presumed)}. "
        f"The site sent {bytes_text(report.bytes_left)} in all: the knowledge gap ({bytes_text(gap.bytes)}{share}), "
        f"its manifest and progress."
    )

"""Reads what a service tells Prometheus, with the tools of Prometheus itself, and what the docs promise of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

DOCS = Path(__file__).parents[2] / "docs"
Values = dict[tuple[object, ...], float]


def values_of(metrics: bytes) -> Values:
    """Return each figure by its name and labels; promtool, where it is installed, finds nothing wrong with them."""
    if (promtool := shutil.which("promtool")) is not None:
        checked = subprocess.run([promtool, "check", "metrics"], input=metrics, capture_output=True, check=False)
        assert (checked.returncode, checked.stderr + checked.stdout) == (0, b"")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.decode())
        for sample in family.samples
    }


def documented(prefix: str) -> set[str]:
    """Return the names of figures that the docs have, which begin with a prefix."""
    pages = (DOCS / "how-to" / "metrics.md", DOCS / "reference" / "outputs.md")
    return {name for page in pages for name in re.findall(rf"`({prefix}\w+)`", page.read_text(encoding="utf-8"))}

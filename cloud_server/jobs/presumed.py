"""Job: makes the presumed data set where it has to be generated, in a process that may be busy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diredi.data.sources import resolve
from diredi.jobs import Report


def main(spec: dict[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    """Spec: presumed, cache, seed, train, val. Result: data, the path of a data.yaml."""
    path = resolve(
        spec["presumed"], Path(spec["cache"]), spec["seed"], spec["train"], spec["val"],
        on_progress=lambda fraction, message: report("presumed", fraction, message),
    )  # fmt: skip
    return {"data": str(path.resolve())}

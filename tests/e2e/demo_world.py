"""A small demo, what a command of the line said, and which processes belong to a demo."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from diredi_demo.workspace import Workspace
from tests.e2e.recorder import Recorder

# Models that learn next to nothing, in a minute: what is tested is the trip, not its profit.
SMALL = {
    "presumed_images": [48, 16],
    "site_images": [24, 12],
    "cloud": {
        "image_size": 64,
        "tutor": "yolo11-w0.125",
        "student": "yolo11-w0.0625",
        "max_harm": 1.0,
        "bootstrap": {"coreset_images": 12, "tutor": {"epochs": 1}, "student": {"epochs": 1}},
        "recipe": {
            "form": "weights",
            "coreset_images": 12,
            "tutor": {"epochs": 1},
            "student": {"epochs": 1},
            "redistil": {"epochs": 1},
            "max_false_alarms": 1e9,
        },
    },
}


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one sentence of an error."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in self.err, self.err
        assert self.err.strip().splitlines()[-1] == lines[0]
        return lines[0]


Diredi = Callable[..., Said]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("DIREDI_")}


def small_demo(path: Path, **changes: dict[str, Any]) -> Path:
    """The `--config` of a small demo; `changes` go into its cloud, site and edge."""
    values = {**SMALL, **{name: {**SMALL.get(name, {}), **change} for name, change in changes.items()}}  # type: ignore[dict-item]
    path.write_text(yaml.safe_dump(values))
    return path


def processes_of(out: Path) -> list[psutil.Process]:
    """Every process on this machine that has a demo's folder in its command line."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if any(str(out) in word for word in process.info["cmdline"] or [])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@dataclass(frozen=True)
class Demo:
    """A demo that went well and still runs, with all that its site sent to the cloud."""

    folder: Workspace
    said: Said
    sent: Recorder
    calls: Path
    """Log of the calls that the page on the code of a cycle names."""

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads(self.folder.report.read_text()))

    def at(self, identity: str = "operator") -> tuple[str, ...]:
        """Options that make a command talk to this demo's cloud."""
        return ("--cloud", self.folder.addresses()["cloud"], "--identity", str(self.folder.identity(identity)))

"""The folder of a demo: `DIR/fleet/` is the demo's own, and the rest of DIR is for people."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from diredi.errors import InvalidInput, WrongState
from diredi.local_services import ServiceFolder

_MARK = ".diredi-demo"


class Workspace(ServiceFolder):
    """The places in a demo's folder."""

    def __init__(self, out: Path) -> None:
        """Name the folder; nothing is made."""
        super().__init__(out / "fleet")
        self.out = out

    @property
    def data(self) -> Path:
        """Return the folder of generated scenes; equal seeds give equal files, so a second demo uses them again."""
        return self.root / "data"

    @property
    def report(self) -> Path:
        """Return the path of report.json."""
        return self.out / "report.json"

    @property
    def page(self) -> Path:
        """Return the path of report.html."""
        return self.out / "report.html"

    def release(self, version: int) -> Path:
        """Return the path of a release's ONNX file."""
        return self.out / f"release-{version}.onnx"

    def check(self) -> None:
        """Find out whether a demo may use the folder; nothing is changed.

        Raises:
            InvalidInput: The folder is somebody else's, or cannot be written.
            WrongState: Another demo still runs in it.
        """
        if self.out.exists() and not self.out.is_dir():
            raise InvalidInput(f"{self.out} is a file: name a folder with --out")
        if self.out.exists() and any(self.out.iterdir()) and not (self.out / _MARK).exists():
            raise InvalidInput(f"{self.out} is not empty and no demo made it: name another folder with --out")
        if self.running():
            raise WrongState(f"the demo in {self.out} still runs: stop it with `diredi demo --out {self.out} --stop`")
        there = next(folder for folder in (self.out, *self.out.absolute().parents) if folder.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise InvalidInput(f"{self.out} cannot be made or written, because of {there}: name another with --out")

    def prepare(self) -> None:
        """Make the folder ready for a new demo; what an earlier one left is replaced, but for the scenes.

        Raises:
            InvalidInput: The folder is somebody else's, or cannot be written.
            WrongState: Another demo still runs in it.
        """
        self.check()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / _MARK).touch()
        except OSError as error:
            raise InvalidInput(f"{self.out} cannot be written ({error.strerror}): name another with --out") from None
        for old in (self.report, self.page, *self.out.glob("release-*.onnx")):
            old.unlink(missing_ok=True)
        for old in self.root.glob("*"):
            if old != self.data:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        self.root.mkdir(exist_ok=True)

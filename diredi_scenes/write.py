"""Scenes as a data set on disk, drawn by several processes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from diredi.data import yolo
from diredi.errors import DirediError, InvalidInput, NoRoom
from diredi.progress import OnProgress, report
from diredi_scenes.profiles import SITES
from diredi_scenes.scene import render

_FEW = 24
"""Images for which starting processes is not worth while."""


def write_scenes(
    folder: Path,
    site: str,
    train: int,
    val: int,
    seed: int,
    image_size: int = 320,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Writes a data set of a built-in site and returns its `data.yaml`. The folder appears whole or not at all.

    The same arguments give the same bytes, however many `workers` (default: one for each core that may be used) there
    are. When the folder is there already it is kept if it is a data set. Raises InvalidInput for an unknown site, a
    number below 1 or a folder that holds something else, NoRoom when the disk is full.
    """
    if site not in SITES:
        raise InvalidInput(f"no built-in site {site!r}: choose one of {', '.join(SITES)}")
    if min(train, val) < 1 or image_size < 64:
        raise InvalidInput(f"{train} and {val} images of {image_size} pixels: ask for at least 1, 1 and 64")
    if (folder / "data.yaml").is_file():
        return folder / "data.yaml"
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"folder {folder} holds something that is no data set: name another or empty it")
    part: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        _fill(part, site, {"train": train, "val": val}, seed, image_size, workers, on_progress)
        (part / "data.yaml").write_text(yolo.description_text(SITES[site].names), encoding="utf-8")
        part.chmod(0o755)
        _publish(part, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom(f"no room on the disk for scenes in {folder}: free some and try again") from None
        raise InvalidInput(f"scenes cannot be written to {folder} ({error.strerror}): name another folder") from None
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    return folder / "data.yaml"


def write_images(folder: Path, site: str, split: str, numbers: range, seed: int, image_size: int) -> None:
    """Draws some images of a split into `folder`, with their label files."""
    for number in numbers:
        scene = render(site, split, number, seed, image_size)
        stem = f"{site}-cam{scene.camera}-{number:06}"
        (folder / "images" / split / f"{stem}.jpg").write_bytes(scene.jpeg)
        (folder / "labels" / split / f"{stem}.txt").write_text(yolo.labels_text(scene.boxes), encoding="utf-8")


def _fill(
    folder: Path,
    site: str,
    splits: dict[str, int],
    seed: int,
    image_size: int,
    workers: int | None,
    on_progress: OnProgress | None,
) -> None:
    for split in splits:
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
    total = sum(splits.values())
    if total <= _FEW and workers is None:
        for split, count in splits.items():
            write_images(folder, site, split, range(count), seed, image_size)
        return
    workers = min(workers or len(os.sched_getaffinity(0)), total)
    # Children of their own and not a pool: nothing is forked from a process that may hold gRPC channels, and the
    # caller's main module is not imported again, as a spawned pool would.
    command = [
        sys.executable,
        "-m",
        "diredi_scenes.worker",
        str(folder),
        site,
        str(seed),
        str(image_size),
        str(workers),
    ]
    command += [f"{split}={count}" for split, count in splits.items()]
    children = [
        subprocess.Popen([*command, str(which)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for which in range(workers)
    ]
    try:
        _follow(children, folder, total, on_progress)
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _follow(children: list[subprocess.Popen[str]], folder: Path, total: int, on_progress: OnProgress | None) -> None:
    """All children draw about as fast: the first one's lines stand for all."""
    done = 0
    for child in children:
        assert child.stdout is not None
        for _ in child.stdout:
            done += 1
            report(on_progress, "scenes", min(1.0, done / total), f"{done} of {total} images")
        _, said = child.communicate()
        if child.returncode == NoRoom.exit_code:
            raise NoRoom(f"no room on the disk for scenes in {folder}: free some and try again")
        if child.returncode != 0:
            reason = (said.strip().splitlines() or ["no reason given"])[-1]
            raise DirediError(f"drawing scenes into {folder} ended with {child.returncode} ({reason}): try again")


def _publish(part: Path, folder: Path) -> None:
    """When somebody else was faster, theirs has the same bytes and stays."""
    try:
        part.replace(folder)
    except OSError:
        if not (folder / "data.yaml").is_file():
            raise

"""Render the scenes of a site into a data set on disk, in several processes."""

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
"""Up to this many images are rendered in this process, because starting others takes longer."""


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
    """Render a data set of a built-in site. The folder appears whole or not at all.

    Args:
        folder: Folder to write. A data set that it already has is kept.
        site: Name in SITES.
        train: Number of training images, 1 or more.
        val: Number of held-out images, 1 or more.
        seed: Equal arguments give equal bytes, with any number of workers.
        image_size: Side of the square images, 64 pixels or more.
        workers: Number of processes; None takes one for each available core.
        on_progress: Called with the progress while images are rendered.

    Returns:
        The path of the `data.yaml`.

    Raises:
        InvalidInput: The site is unknown, a number is too small, or the folder has other content.
        NoRoom: The disk is full.
    """
    if site not in SITES:
        raise InvalidInput(f"no built-in site {site!r}: choose one of {', '.join(SITES)}")
    if min(train, val) < 1 or image_size < 64:
        raise InvalidInput(f"{train} and {val} images of {image_size} pixels: ask for at least 1, 1 and 64")
    if (folder / "data.yaml").is_file():
        return folder / "data.yaml"
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"folder {folder} has content that is not a data set: name another or empty it")
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
    """Render some images of a split into a folder, with their label files."""
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
    # Programs of their own and not a pool: a process that may have gRPC channels must not fork, and a spawned pool
    # would import the caller's main module again.
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
    """Report progress from the lines that the children write, and raise if one fails."""
    done = 0
    for child in children:
        assert child.stdout is not None
        for _ in child.stdout:
            done += 1
            report(on_progress, "scenes", min(1.0, done / total), f"{done} of {total} images")
        _, errors = child.communicate()
        if child.returncode == NoRoom.exit_code:
            raise NoRoom(f"no room on the disk for scenes in {folder}: free some and try again")
        if child.returncode != 0:
            reason = (errors.strip().splitlines() or ["no reason given"])[-1]
            raise DirediError(f"rendering scenes into {folder} ended with {child.returncode} ({reason}): try again")


def _publish(part: Path, folder: Path) -> None:
    """Move the finished folder into place; if another process was faster, keep its folder, which has the same bytes."""
    try:
        part.replace(folder)
    except OSError:
        if not (folder / "data.yaml").is_file():
            raise

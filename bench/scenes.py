"""How long the built-in scenes take: `python bench/scenes.py [--images 1000] [--out DIR]`.

Each site in turn, in as many processes as there are cores; wall seconds, and processor seconds of all workers. The time
includes the start of the workers and each camera's backdrop.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import matplotlib as mpl

from diredi.data.dataset import load
from diredi_scenes import SITES, write_scenes

mpl.use("Agg")
import matplotlib.pyplot as plt


def measure(site: str, images: int) -> dict[str, float | str]:
    """Draws `images` of a site into a folder that is deleted again."""
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        path = write_scenes(Path(folder) / site, site, images - images // 5, images // 5, seed=0)
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        found = load(path)
        boxes = sum(found.counts("train").values()) + sum(found.counts("val").values())
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {
            "site": site,
            "wall_s": wall,
            "cpu_s": cpu,
            "mib": found.bytes_on_disk() / 2**20,
            "boxes": boxes / images,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    wanted = parser.parse_args()
    wanted.out.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0))
    rows = [measure(site, wanted.images) for site in SITES]
    print(f"{wanted.images} images, {cores} cores\nsite       wall s   cpu s     MiB  boxes an image")
    for row in rows:
        print(f"{row['site']:9} {row['wall_s']:7.1f} {row['cpu_s']:7.1f} {row['mib']:7.1f} {row['boxes']:7.1f}")
    (wanted.out / "scenes.json").write_text(
        json.dumps({"images": wanted.images, "cores": cores, "sites": rows}, indent=1)
    )
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.bar([str(row["site"]) for row in rows], [float(row["wall_s"]) for row in rows])
    axes.set_ylabel(f"seconds for {wanted.images} images")
    figure.savefig(wanted.out / "scenes.svg")


if __name__ == "__main__":
    main()

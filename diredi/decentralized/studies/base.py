"""What every study is: cells that are measured apart, kept on disk, and judged together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch

from diredi.data import classification
from diredi.data.classification import ClassificationSet
from diredi.evaluation.findings import Json, commit, kept, machine

Measure = Callable[[Json, Path], Json]
"""measure(what a cell is made from, the study's folder): its figures. A function of a module, for other processes call
it."""


@dataclass(frozen=True)
class Options:
    """What the one who runs a study may choose."""

    quick: bool = False
    """Ten minutes at most, and little is learned."""
    data: Path | None = None
    """Folder with a folder for each data set; None: the cache of downloads."""
    workers: int = 1

    def folder_of(self, data: str) -> str | None:
        return None if self.data is None else str(self.data / data)


@dataclass(frozen=True)
class Cell:
    key: str
    """Also its file's name, below the study's folder."""
    spec: Json
    """All that its figures depend on."""


@dataclass(frozen=True)
class Study:
    name: str
    about: str
    cells: Callable[[Options], list[Cell]]
    """In an order in which one that others need comes before them."""
    measure: Measure
    rows: Callable[[dict[str, Json], Options], list[Json]]
    """From the figures of all cells, by key."""
    targets: Callable[[list[Json]], list[Json]]
    """Claims of the papers and of ours, met or not, from the rows alone."""
    draw: Callable[[list[Json], str, Path], None]
    """draw(rows, title, path of the picture)."""


def conducted(study: Study, options: Options, folder: Path, finished: Callable[[int, int], None]) -> Json:
    """Measures every cell that `folder` does not hold yet, and gives what was found in the project's one shape.

    `finished(cells that are finished, all cells)` is called after each. Stopped at any point, the next call goes on
    with the first cell that is missing.
    """
    cells = study.cells(options)
    figures: dict[str, Json] = {}
    for key, found in _measured(study, cells, folder, options.workers):
        figures[key] = found
        finished(len(figures), len(cells))
    rows = study.rows({cell.key: figures[cell.key]["figures"] for cell in cells}, options)
    commits = sorted({str(found["commit"]) for found in figures.values()})
    said = f"diredi peers study --preset {study.name}{' --quick' if options.quick else ''}"
    shape = {"command": said, "machine": machine(), "commit": ", ".join(commits), "quick": options.quick}
    return {**shape, "rows": rows, "targets": study.targets(rows)}


def _measured(study: Study, cells: Sequence[Cell], folder: Path, workers: int) -> Iterator[tuple[str, Json]]:
    if workers == 1:
        one_thread()
        for cell in cells:
            yield _one(study.measure, cell, folder)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=one_thread) as processes:
        waiting = [processes.submit(_one, study.measure, cell, folder) for cell in cells]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            processes.shutdown(wait=False, cancel_futures=True)


def _one(measure: Measure, cell: Cell, folder: Path) -> tuple[str, Json]:
    def make() -> Json:
        return {"commit": commit(), "figures": measure(cell.spec, folder)}

    return cell.key, kept(folder / f"{cell.key}.json", cell.spec, make)


def data_of(spec: Json) -> ClassificationSet:
    """The data set that a cell names as "data", from its "folder"; read once a process."""
    return _read(spec["data"], spec["folder"])


@cache
def _read(name: str, folder: str | None) -> ClassificationSet:
    return classification.load(name, None if folder is None else Path(folder))


def one_thread() -> None:
    """So that figures do not depend on the number of cores, and workers do not wait for each other."""
    torch.set_num_threads(1)

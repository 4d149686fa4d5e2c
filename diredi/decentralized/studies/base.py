"""What every study is: cells that are measured apart, kept on disk, and judged together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from diredi.data import classification
from diredi.data.classification import ClassificationSet
from diredi.decentralized.executors import process_pool, ray_cluster, use_one_thread
from diredi.evaluation.study_results import Json, cached, commit, machine

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
    """Processes of one thread each, on this machine."""
    ray: str | None = None
    """Address of a Ray cluster that measures instead, as many cells at once as it has processors; "local" starts one.
    `data` and the study's folder are then paths on each of its nodes."""

    def folder_of(self, data: str) -> str | None:
        return None if self.data is None else str((self.data / data).absolute())


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


def run_study(study: Study, options: Options, folder: Path, finished: Callable[[int, int], None]) -> Json:
    """Measures every cell that `folder` does not hold yet, and gives what was found in the project's one shape.

    `finished(cells that are finished, all cells)` is called after each. Stopped at any point, the next call goes on
    with the first cell that is missing.
    """
    cells = study.cells(options)
    figures: dict[str, Json] = {}
    for key, found in _measure_cells(study, cells, folder, options):
        figures[key] = found
        finished(len(figures), len(cells))
    rows = study.rows({cell.key: figures[cell.key]["figures"] for cell in cells}, options)
    commits = sorted({str(found["commit"]) for found in figures.values()})
    said = f"diredi peers study --preset {study.name}{' --quick' if options.quick else ''}"
    shape = {"command": said, "machine": machine(), "commit": ", ".join(commits), "quick": options.quick}
    return {**shape, "rows": rows, "targets": study.targets(rows)}


def _measure_cells(study: Study, cells: Sequence[Cell], folder: Path, options: Options) -> Iterator[tuple[str, Json]]:
    """Key and figures of each cell, as they come. Finished cells are kept here, wherever they were measured."""
    folder = folder.absolute()
    if options.ray is not None:
        with ray_cluster(options.ray) as ray:
            remote = ray.remote(num_cpus=1)(_run_measure)

            def on_ray(cell: Cell) -> Json:
                there = remote.options(num_gpus=int(cell.spec.get("device") == "cuda"))
                return dict(ray.get(there.remote(study.measure, cell.spec, folder)))

            yield from _measure_concurrently(on_ray, cells, folder, int(ray.cluster_resources()["CPU"]))
    elif options.workers > 1:
        with process_pool(options.workers) as pool:

            def in_a_process(cell: Cell) -> Json:
                return pool.submit(_run_measure, study.measure, cell.spec, folder).result()

            yield from _measure_concurrently(in_a_process, cells, folder, options.workers)
    else:
        for cell in cells:
            yield _measure_cell(lambda cell: _run_measure(study.measure, cell.spec, folder), folder, cell)


def _measure_concurrently(
    ask: Callable[[Cell], Json], cells: Sequence[Cell], folder: Path, workers: int
) -> Iterator[tuple[str, Json]]:
    """A thread waits for each worker."""
    with ThreadPoolExecutor(workers) as threads:
        waiting = [threads.submit(_measure_cell, ask, folder, cell) for cell in cells]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _measure_cell(ask: Callable[[Cell], Json], folder: Path, cell: Cell) -> tuple[str, Json]:
    return cell.key, cached(folder / f"{cell.key}.json", cell.spec, partial(ask, cell))


def _run_measure(measure: Measure, spec: Json, folder: Path) -> Json:
    use_one_thread()
    return {"commit": commit(), "figures": measure(spec, folder)}


def data_of(spec: Json) -> ClassificationSet:
    """The data set that a cell names as "data", from its "folder"; read once a process."""
    return _read(spec["data"], spec["folder"])


@cache
def _read(name: str, folder: str | None) -> ClassificationSet:
    return classification.load(name, None if folder is None else Path(folder))

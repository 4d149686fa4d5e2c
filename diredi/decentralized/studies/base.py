"""The parts of a study: cells that are measured independently, cached on disk, and judged together."""

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
"""Called as measure(spec of a cell, folder of the study); returns the cell's figures.

It must be a function of a module, because other processes import and call it.
"""


@dataclass(frozen=True)
class Options:
    """Options of a run."""

    quick: bool = False
    """Run for ten minutes at most, with models that learn little."""
    data: Path | None = None
    """Folder with a folder for each data set; None for the cache of downloads."""
    workers: int = 1
    """Worker processes of one thread each on this machine."""
    ray: str | None = None
    """Address of a Ray cluster that measures instead, as many cells at once as it has processors. "local" starts one.
    `data` and the study's folder are then paths on each of its nodes."""

    def folder_of(self, data: str) -> str | None:
        """Return the absolute folder of a data set by name; None for the cache of downloads."""
        return None if self.data is None else str((self.data / data).absolute())


@dataclass(frozen=True)
class Cell:
    """One measurement of a study."""

    key: str
    """Name of the cell, and of its file below the study's folder."""
    spec: Json
    """Everything that its figures depend on."""


@dataclass(frozen=True)
class Study:
    """A study: its cells, and how they are measured, judged and drawn."""

    name: str
    about: str
    cells: Callable[[Options], list[Cell]]
    """Returns the cells; those that others depend on come first."""
    measure: Measure
    rows: Callable[[dict[str, Json], Options], list[Json]]
    """Called as rows(figures by key of the cell, options); returns the rows of the result."""
    targets: Callable[[list[Json]], list[Json]]
    """Judges the claims of the papers and our own from the rows."""
    draw: Callable[[list[Json], str, Path], None]
    """Called as draw(rows, title, path of the picture)."""


def run_study(study: Study, options: Options, folder: Path, finished: Callable[[int, int], None]) -> Json:
    """Run a study: measure the cells that are not cached yet, and judge the claims.

    A run that was stopped continues with the cells that are missing.

    Args:
        study: The study.
        options: Options of the run.
        folder: Where cells are cached.
        finished: Called as finished(finished cells, all cells) after each cell.

    Returns:
        "command", "machine", "commit", "quick", "rows" and "targets", as they are written to results.
    """
    cells = study.cells(options)
    metrics: dict[str, Json] = {}
    for key, result in _measure_cells(study, cells, folder, options):
        metrics[key] = result
        finished(len(metrics), len(cells))
    rows = study.rows({cell.key: metrics[cell.key]["metrics"] for cell in cells}, options)
    commits = sorted({str(result["commit"]) for result in metrics.values()})
    command = f"diredi peers study --preset {study.name}{' --quick' if options.quick else ''}"
    head = {"command": command, "machine": machine(), "commit": ", ".join(commits), "quick": options.quick}
    return {**head, "rows": rows, "targets": study.targets(rows)}


def _measure_cells(study: Study, cells: Sequence[Cell], folder: Path, options: Options) -> Iterator[tuple[str, Json]]:
    """Yield key and result of each cell as they finish. They are cached in `folder`, wherever they were measured."""
    folder = folder.absolute()
    if options.ray is not None:
        with ray_cluster(options.ray) as ray:
            remote = ray.remote(num_cpus=1)(_run_measure)

            def on_ray(cell: Cell) -> Json:
                sized = remote.options(num_gpus=int(cell.spec.get("device") == "cuda"))
                return dict(ray.get(sized.remote(study.measure, cell.spec, folder)))

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
    measure: Callable[[Cell], Json], cells: Sequence[Cell], folder: Path, workers: int
) -> Iterator[tuple[str, Json]]:
    """Measure cells on all workers, with a thread that waits for each."""
    with ThreadPoolExecutor(workers) as threads:
        waiting = [threads.submit(_measure_cell, measure, folder, cell) for cell in cells]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _measure_cell(measure: Callable[[Cell], Json], folder: Path, cell: Cell) -> tuple[str, Json]:
    return cell.key, cached(folder / f"{cell.key}.json", cell.spec, partial(measure, cell))


def _run_measure(measure: Measure, spec: Json, folder: Path) -> Json:
    use_one_thread()
    return {"commit": commit(), "metrics": measure(spec, folder)}


def data_of(spec: Json) -> ClassificationSet:
    """Load the data set that a cell names as "data", from its "folder"; once in each process."""
    return _read(spec["data"], spec["folder"])


@cache
def _read(name: str, folder: str | None) -> ClassificationSet:
    return classification.load(name, None if folder is None else Path(folder))

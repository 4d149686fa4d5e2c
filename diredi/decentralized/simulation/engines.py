"""Who works on the chunks: this process, worker processes, or a Ray cluster. Answers come in the tasks' order."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from diredi.data.classification.base import LabelledImages
from diredi.decentralized.executors import process_pool, ray_cluster
from diredi.decentralized.simulation.client_batch import ClientBatch, ClientBatchResult, WorkerContext, run_client_batch
from diredi.decentralized.simulation.recipe import EngineRecipe
from diredi.errors import InvalidInput

Engine = Callable[[Iterable[ClientBatch]], Iterator[ClientBatchResult]]


@contextmanager
def open_engine(recipe: EngineRecipe, context: WorkerContext, folder: Path) -> Iterator[Engine]:
    """An engine for as long as the context lasts. Images lie in `folder` while several processes share them.

    Raises InvalidInput where Ray is asked for and not installed, DirediError when a worker or Ray fails.
    """
    if recipe.ray is not None:
        with _ray_engine(recipe.ray, recipe.workers, context) as engine:
            yield engine
    elif recipe.workers > 1:
        with _process_engine(recipe.workers, context, folder) as engine:
            yield engine
    else:
        yield partial(map, partial(run_client_batch, context))


@contextmanager
def _process_engine(workers: int, context: WorkerContext, folder: Path) -> Iterator[Engine]:
    """Processes that live as long as the context, and share the images as one mapped file."""
    module = _pickle_module(context.module)
    folder.mkdir(parents=True, exist_ok=True)
    images = folder / "images.npy"
    np.save(images, context.data.images)
    try:
        with process_pool(workers, _set_context, module, images, context.data.labels) as pool:
            yield partial(_in_order, lambda task: pool.submit(_run_in_worker, task).result, workers)
    finally:
        images.unlink(missing_ok=True)


_context: WorkerContext


def _set_context(module: bytes, images: Path, labels: NDArray[np.int64]) -> None:
    global _context  # noqa: PLW0603 - a worker process has one
    _context = WorkerContext(_unpickled(module), LabelledImages(np.load(images, mmap_mode="r"), labels))


def _pickle_module(module: nn.Module) -> bytes:
    try:
        return pickle.dumps(module)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"workers cannot import the module ({error}): define its class in a file, or take one"
        ) from None


def _unpickled(module: bytes) -> nn.Module:
    found: nn.Module = pickle.loads(module)
    return found


def _run_in_worker(task: ClientBatch) -> ClientBatchResult:
    return run_client_batch(_context, task)


@contextmanager
def _ray_engine(address: str, workers: int, context: WorkerContext) -> Iterator[Engine]:
    with ray_cluster(address) as ray:
        there, remote = ray.put(context), ray.remote(num_cpus=1)(run_client_batch)
        yield partial(_in_order, lambda task: partial(ray.get, remote.remote(there, task)), workers)


def _in_order(
    submit: Callable[[ClientBatch], Callable[[], ClientBatchResult]], workers: int, tasks: Iterable[ClientBatch]
) -> Iterator[ClientBatchResult]:
    """`submit` gives what waits for the answer. No more than twice as many tasks as workers are in memory."""
    waiting: deque[Callable[[], ClientBatchResult]] = deque()
    for task in tasks:
        if len(waiting) == 2 * workers:
            yield waiting.popleft()()
        waiting.append(submit(task))
    while waiting:
        yield waiting.popleft()()

"""Engines train batches of clients in this process, in worker processes, or on a Ray cluster."""

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
"""Trains batches and yields their results in the same order."""


@contextmanager
def open_engine(recipe: EngineRecipe, context: WorkerContext, folder: Path) -> Iterator[Engine]:
    """Open an engine for a block.

    Args:
        recipe: Number of workers, and the Ray cluster if any.
        context: What all batches have in common.
        folder: Where the file of images is that worker processes share.

    Yields:
        The engine.

    Raises:
        InvalidInput: Ray is not installed, or worker processes cannot import the module.
        DirediError: A worker process or the Ray cluster failed.
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
    """Start worker processes that share the images as one memory-mapped file."""
    module = _pickle_module(context.module)
    folder.mkdir(parents=True, exist_ok=True)
    images = folder / "images.npy"
    np.save(images, context.data.images)
    try:
        with process_pool(workers, _set_context, module, images, context.data.labels) as pool:
            yield partial(_in_order, lambda batch: pool.submit(_run_in_worker, batch).result, workers)
    finally:
        images.unlink(missing_ok=True)


_context: WorkerContext


def _set_context(module: bytes, images: Path, labels: NDArray[np.int64]) -> None:
    global _context  # noqa: PLW0603 - a worker process has one
    _context = WorkerContext(pickle.loads(module), LabelledImages(np.load(images, mmap_mode="r"), labels))


def _pickle_module(module: nn.Module) -> bytes:
    try:
        return pickle.dumps(module)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"workers cannot import the module ({error}): define its class in a file, or use one worker"
        ) from None


def _run_in_worker(batch: ClientBatch) -> ClientBatchResult:
    return run_client_batch(_context, batch)


@contextmanager
def _ray_engine(address: str, workers: int, context: WorkerContext) -> Iterator[Engine]:
    with ray_cluster(address) as ray:
        shared, remote = ray.put(context), ray.remote(num_cpus=1)(run_client_batch)
        yield partial(_in_order, lambda batch: partial(ray.get, remote.remote(shared, batch)), workers)


def _in_order(
    submit: Callable[[ClientBatch], Callable[[], ClientBatchResult]], workers: int, batches: Iterable[ClientBatch]
) -> Iterator[ClientBatchResult]:
    """Yield results in order, with at most twice as many batches as workers in memory.

    `submit` returns a function that waits for the result.
    """
    waiting: deque[Callable[[], ClientBatchResult]] = deque()
    for batch in batches:
        if len(waiting) == 2 * workers:
            yield waiting.popleft()()
        waiting.append(submit(batch))
    while waiting:
        yield waiting.popleft()()

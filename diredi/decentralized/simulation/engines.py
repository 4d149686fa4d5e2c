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

from diredi.data.classification.base import Labelled
from diredi.decentralized.executors import cluster, processes
from diredi.decentralized.simulation.client_batch import Done, Task, WorkerContext, work
from diredi.decentralized.simulation.recipe import EngineRecipe
from diredi.errors import InvalidInput

Engine = Callable[[Iterable[Task]], Iterator[Done]]


@contextmanager
def opened(recipe: EngineRecipe, context: WorkerContext, folder: Path) -> Iterator[Engine]:
    """An engine for as long as the context lasts. Images lie in `folder` while several processes share them.

    Raises InvalidInput where Ray is asked for and not installed, DirediError when a worker or Ray fails.
    """
    if recipe.ray is not None:
        with _on_ray(recipe.ray, recipe.workers, context) as engine:
            yield engine
    elif recipe.workers > 1:
        with _in_processes(recipe.workers, context, folder) as engine:
            yield engine
    else:
        yield partial(map, partial(work, context))


@contextmanager
def _in_processes(workers: int, context: WorkerContext, folder: Path) -> Iterator[Engine]:
    """Processes that live as long as the context, and share the images as one mapped file."""
    module = _pickled(context.module)
    folder.mkdir(parents=True, exist_ok=True)
    images = folder / "images.npy"
    np.save(images, context.data.images)
    try:
        with processes(workers, _share, module, images, context.data.labels) as pool:
            yield partial(_in_order, lambda task: pool.submit(_work, task).result, workers)
    finally:
        images.unlink(missing_ok=True)


_ground: WorkerContext


def _share(module: bytes, images: Path, labels: NDArray[np.int64]) -> None:
    global _ground  # noqa: PLW0603 - a worker process has one
    _ground = WorkerContext(_unpickled(module), Labelled(np.load(images, mmap_mode="r"), labels))


def _pickled(module: nn.Module) -> bytes:
    try:
        return pickle.dumps(module)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"workers cannot import the module ({error}): define its class in a file, or take one"
        ) from None


def _unpickled(module: bytes) -> nn.Module:
    found: nn.Module = pickle.loads(module)
    return found


def _work(task: Task) -> Done:
    return work(_ground, task)


@contextmanager
def _on_ray(address: str, workers: int, context: WorkerContext) -> Iterator[Engine]:
    with cluster(address) as ray:
        there, remote = ray.put(context), ray.remote(num_cpus=1)(work)
        yield partial(_in_order, lambda task: partial(ray.get, remote.remote(there, task)), workers)


def _in_order(submit: Callable[[Task], Callable[[], Done]], workers: int, tasks: Iterable[Task]) -> Iterator[Done]:
    """`submit` gives what waits for the answer. No more than twice as many tasks as workers are in memory."""
    waiting: deque[Callable[[], Done]] = deque()
    for task in tasks:
        if len(waiting) == 2 * workers:
            yield waiting.popleft()()
        waiting.append(submit(task))
    while waiting:
        yield waiting.popleft()()

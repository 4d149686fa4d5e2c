"""Who works on the chunks: this process, worker processes, or a Ray cluster. Answers come in the tasks' order."""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from diredi.data.classification.base import Labelled
from diredi.decentralized.simulation.chunk import Done, Ground, Task, work
from diredi.decentralized.simulation.recipe import EngineRecipe
from diredi.errors import DirediError, InvalidInput

Engine = Callable[[Iterable[Task]], Iterator[Done]]


@contextmanager
def opened(recipe: EngineRecipe, ground: Ground, folder: Path) -> Iterator[Engine]:
    """An engine for as long as the context lasts. Images lie in `folder` while several processes share them.

    Raises InvalidInput where Ray is asked for and not installed, DirediError when a worker or Ray fails.
    """
    if recipe.ray is not None:
        with _on_ray(recipe.ray, recipe.workers, ground) as engine:
            yield engine
    elif recipe.workers > 1:
        with _in_processes(recipe.workers, ground, folder) as engine:
            yield engine
    else:
        yield partial(map, partial(work, ground))


@contextmanager
def _in_processes(workers: int, ground: Ground, folder: Path) -> Iterator[Engine]:
    """Processes that live as long as the context, and share the images as one mapped file."""
    module = _pickled(ground.module)
    folder.mkdir(parents=True, exist_ok=True)
    images = folder / "images.npy"
    np.save(images, ground.data.images)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _started, (module, images, ground.data.labels))
    try:
        yield partial(_in_order, lambda task: pool.submit(_work, task).result, workers)
    except BrokenProcessPool:
        raise DirediError(
            "a worker of the simulation died, as when memory runs out, or at once where a program that starts one has "
            'no `if __name__ == "__main__"`: start it again with fewer workers, and it goes on with the same round'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        images.unlink(missing_ok=True)


_ground: Ground


def _started(module: bytes, images: Path, labels: NDArray[np.int64]) -> None:
    global _ground  # noqa: PLW0603 - a worker process has one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _ground = Ground(_unpickled(module), Labelled(np.load(images, mmap_mode="r"), labels))


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


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next task for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(task: Task) -> Done:
    return work(_ground, task)


@contextmanager
def _on_ray(address: str, workers: int, ground: Ground) -> Iterator[Engine]:
    try:
        import ray
    except ImportError:
        raise InvalidInput("Ray is not installed: `pip install ray`, or give the number of workers instead") from None
    try:
        ray.init(address=address, log_to_driver=False)
        there, remote = ray.put(ground), ray.remote(num_cpus=1)(work)
        yield partial(_in_order, lambda task: partial(ray.get, remote.remote(there, task)), workers)
    except (ConnectionError, ray.exceptions.RayError) as error:
        why = str(error).strip().splitlines()[-1]
        raise DirediError(
            f"the Ray cluster at {address!r} cannot simulate ({why}): check its address and nodes"
        ) from None
    finally:
        ray.shutdown()


def _in_order(submit: Callable[[Task], Callable[[], Done]], workers: int, tasks: Iterable[Task]) -> Iterator[Done]:
    """`submit` gives what waits for the answer. No more than twice as many tasks as workers are in memory."""
    waiting: deque[Callable[[], Done]] = deque()
    for task in tasks:
        if len(waiting) == 2 * workers:
            yield waiting.popleft()()
        waiting.append(submit(task))
    while waiting:
        yield waiting.popleft()()

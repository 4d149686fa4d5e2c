"""Executors for simulations and studies: a pool of worker processes, or a Ray cluster."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

import torch

from diredi.errors import DirediError, InvalidInput


@contextmanager
def process_pool(
    workers: int, prepare: Callable[..., None] | None = None, *arguments: object
) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes of one thread each for a block.

    One thread makes results independent of the number of cores. The workers end with this process, however it ends.

    Args:
        workers: Number of processes.
        prepare: Called once in each worker, as prepare(*arguments), before its first task.
        arguments: Arguments of `prepare`.

    Yields:
        The pool.

    Raises:
        DirediError: A worker process died.
    """
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (prepare, arguments))
    try:
        yield pool
    except BrokenProcessPool:
        raise DirediError(
            "a worker process died, either because memory ran out or because the program that starts it has no "
            '`if __name__ == "__main__"`: start it again with fewer workers, and it continues where it was'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(prepare: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()
    if prepare is not None:
        prepare(*arguments)


def _end_with_parent() -> None:
    """Exit when the parent process ends: a worker whose parent was killed would wait for tasks for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def use_one_thread() -> None:
    """Limit torch to one thread in this process, so that results do not depend on the number of cores."""
    torch.set_num_threads(1)


@contextmanager
def ray_cluster(address: str) -> Iterator[Any]:
    """Connect to a Ray cluster for a block.

    Args:
        address: Address of the cluster; "local" starts one on this machine. Its nodes need this package and must be
            able to import whatever is sent to them.

    Yields:
        The module `ray`.

    Raises:
        InvalidInput: Ray is not installed.
        DirediError: The cluster does not answer, or work on it fails.
    """
    try:
        import ray
    except ImportError:
        raise InvalidInput(
            "Ray is not installed: `pip install 'diredi[ray]'`, or give the number of workers instead"
        ) from None
    _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False)
        yield ray
    except (ConnectionError, ray.exceptions.RayError) as error:
        why = str(error).strip().splitlines()[-1]
        raise DirediError(f"the Ray cluster at {address!r} cannot work ({why}): check its address and nodes") from None
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise DirediError where nothing listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise DirediError(f"no Ray cluster answers at {address!r} ({error}): check its address") from None

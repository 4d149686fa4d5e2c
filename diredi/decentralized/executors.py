"""Who works for simulations and studies beside this process: processes of its own, or a Ray cluster."""

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
    workers: int, prepare: Callable[..., None] | None = None, *given: object
) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each, so that figures do not depend on the number of cores. Each calls `prepare(*given)`
    first, and ends with this process however that ends.

    Raises DirediError when one of them dies.
    """
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (prepare, given))
    try:
        yield pool
    except BrokenProcessPool:
        raise DirediError(
            "a worker process died, as when memory runs out, or at once where a program that starts one has no "
            '`if __name__ == "__main__"`: start it again with fewer workers, and it goes on where it was'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(prepare: Callable[..., None] | None, given: tuple[object, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()
    if prepare is not None:
        prepare(*given)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next task for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def use_one_thread() -> None:
    """So that figures do not depend on the number of cores, and workers do not wait for each other."""
    torch.set_num_threads(1)


@contextmanager
def ray_cluster(address: str) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address` for as long as the context lasts; "local" starts one on
    this machine. Its nodes must have this package, and be able to import what is sent to them.

    Raises InvalidInput where Ray is not installed, DirediError when the cluster or work on it fails.
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
    """Raises DirediError where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise DirediError(f"no Ray cluster answers at {address!r} ({error}): check its address") from None

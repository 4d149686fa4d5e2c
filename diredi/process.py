"""The life of a service's process, from its configuration to its end.

    raise SystemExit(run("edge_node", EdgeConfig.from_command_line, serve))

`serve(config, stop)` starts the service, calls `announce(address)` as soon as it answers, and returns soon after `stop`
is set. An error is printed as one sentence. After SIGTERM or SIGINT the process ends within two seconds.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from diredi import log
from diredi.config import ServiceConfig
from diredi.errors import DirediError
from diredi.streams import make_printable
from diredi.text import printable

GRACE_S = 1.5
"""How long a service has to end by itself; half a second later the process ends whatever it is doing."""

_C = TypeVar("_C", bound=ServiceConfig)
Serve = Callable[[_C, asyncio.Event], Coroutine[Any, Any, None]]


def run(name: str, configure: Callable[[], _C], serve: Serve[_C]) -> int:
    """Run a service until it is told to stop.

    Args:
        name: Name of the program, for logs and messages.
        configure: Reads the configuration.
        serve: Serves with that configuration until the event is set.

    Returns:
        The exit code: 0 after SIGTERM or SIGINT, else that of the error, which is printed as one sentence.
    """
    gc.freeze()  # what was imported stays, so that no search for garbage, the last one either, goes through it
    make_printable()
    try:
        config = configure()
        log.configure(name, getattr(config, "log_level", "INFO"))
        structlog.get_logger().info("service_configured", **config.model_dump(mode="json"))
        asyncio.run(_serve_until_stopped(config, serve))
    except DirediError as error:
        print(printable(f"{name}: {error}", keep="\n"), file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def announce(address: str, **more: object) -> None:
    """Log `service_started`, the event that scripts and tests wait for.

    Args:
        address: Where the service answers, with the real port where the configured one was 0.
        **more: Further fields of the line.
    """
    structlog.get_logger().info("service_started", address=address, **more)


async def _serve_until_stopped(config: _C, serve: Serve[_C]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _request_stop, stop)
    serving = asyncio.create_task(serve(config, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        await asyncio.wait({serving}, timeout=GRACE_S)
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        return
    await serving


def _request_stop(stop: asyncio.Event) -> None:
    if not stop.is_set():
        stop.set()
        # State is stored before it is acted on, so an end in the middle of something loses nothing.
        end = threading.Timer(GRACE_S + 0.4, os._exit, args=(0,))
        end.daemon = True
        end.start()
        structlog.get_logger().info("stop_requested")  # last: it fails where nobody reads standard error any more


async def run_all(coroutines: Sequence[Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
    """Run coroutines side by side until the event is set; the first that raises ends the others.

    Args:
        coroutines: What to run; one that returns is simply done.
        stop: Ends them all when it is set.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
            await stop.wait()
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None

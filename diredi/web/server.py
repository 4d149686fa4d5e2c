"""Runs a web application in the event loop that is there anyway."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from diredi.errors import InvalidInput, WrongState


def listen(host: str, port: int, option: str) -> socket.socket:
    """Return a listening socket.

    Args:
        host: A name or an address of this machine.
        port: The port; with 0 the system chooses a free one.
        option: What the user has set, for the message.

    Raises:
        WrongState: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        why = {
            errno.EADDRINUSE: "is taken: stop what has it, or choose another port",
            errno.EADDRNOTAVAIL: "is not an address of this machine: choose one of its own, or 0.0.0.0 for all",
            errno.EACCES: "may not be used by this user: choose a port from 1024 on",
        }.get(error.errno or 0, f"cannot be used ({error.strerror}): choose another one")
        raise WrongState(f"{host}:{port} of {option} {why}") from None


def url_of(listening: socket.socket, scheme: str = "http") -> str:
    """Return the address of a listening socket as a URL."""
    host, port = listening.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


async def serve(app: ASGIApp, listening: socket.socket, connections: int, tls: tuple[Path, Path] | None = None) -> None:
    """Serve an application at a socket until this task is cancelled.

    Args:
        app: The application.
        listening: The socket; the caller closes it.
        connections: The most connections at a time; further ones are answered with 503.
        tls: Files of a certificate and its key.

    Raises:
        InvalidInput: The certificate or the key cannot be used.
    """
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    logging.getLogger("uvicorn").propagate = False
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", ws="none", server_header=False,
        limit_concurrency=connections, timeout_keep_alive=5, ssl_certfile=certificate, ssl_keyfile=key,
    )  # fmt: skip
    try:
        config.load()
    except OSError as error:
        raise InvalidInput(
            f"{certificate} and {key} cannot be used for TLS ({error}): name a pair in PEM form"
        ) from None
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = server.force_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: the process has handlers of its own."""
        yield

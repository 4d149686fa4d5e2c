"""What FFmpeg's errors mean for somebody who has a camera.

FFmpeg's own text names the whole address with the password. So sentences are made of the reference as it was written,
and of FFmpeg's code for the error.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from av import error as av_error

from diredi.errors import DirediError, InvalidInput, NotFound, Refused, Unreachable


def explain(error: av_error.FFmpegError, source: str, timeout_s: float, is_late: bool = False) -> DirediError:
    """Turn an error of FFmpeg's into one of ours.

    Args:
        error: What PyAV has raised.
        source: What the source is called in messages.
        timeout_s: How long it is waited for, in seconds.
        is_late: Whether that time had passed.

    Returns:
        An error whose one sentence says what to do.
    """
    name = f"source {source}"
    match error:
        case av_error.HTTPUnauthorizedError() | av_error.HTTPForbiddenError():
            return Refused(
                f"{name} refuses the user name or password: check the variable in its address, or its line in the "
                f"file that --credentials names"
            )
        case av_error.HTTPNotFoundError():
            return NotFound(f"{name} does not exist, though its host answers: check the path")
        case av_error.HTTPClientError() | av_error.HTTPServerError():
            return Unreachable(f"{name} answers with an error ({error.strerror}): check the path and the camera's log")
        case av_error.FileNotFoundError():
            return NotFound(f"{name} does not exist: check --source")
        case av_error.PermissionError():
            return Refused(f"{name} may not be opened by this user: check its permissions (a camera's group is video)")
        case av_error.InvalidDataError() if not is_late:
            return InvalidInput(f"{name} is not a video that can be decoded: check the address")
        case av_error.ExitError() | av_error.TimeoutError():
            is_late = True
        case av_error.ConnectionRefusedError():
            return Unreachable(f"{name}: nothing answers at that port of the host: check the port and the camera")
    if is_late:
        return Unreachable(f"{name} sends nothing for {timeout_s:g} s: check the camera and the network")
    if source.startswith("/dev/"):
        return Unreachable(
            f"{name} gives no pictures ({error.strerror}): check that it is a camera, and that no other program uses it"
        )
    if not _is_known_host(source):
        return Unreachable(f"{name} names a host that nobody knows: check the name")
    hint = ""
    if source.startswith(("rtsps:", "https:")):
        hint = "; a certificate that it has signed by itself is named with #ca=FILE, or not checked with #verify=false"
    return Unreachable(f"{name} cannot be read ({error.strerror}): check the camera and the network{hint}")


def _is_known_host(url: str) -> bool:
    host = urlsplit(url).hostname
    try:
        return not host or bool(socket.getaddrinfo(host, None))
    except OSError:
        return False

"""User names and passwords of cameras, from the environment or a file."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import quote, urlsplit

from diredi.errors import InvalidInput
from edge_node.sources.reference import with_variables


def with_credentials(url: str, credentials: Path | None) -> str:
    """Return a URL as FFmpeg needs it, with user name and password.

    Args:
        url: A URL, in which `{NAME}` stands for a variable of the environment.
        credentials: A netrc file, which is asked where the URL has no password; None for none.

    Raises:
        InvalidInput: A variable is not set, or the file cannot be read.
    """
    url = with_variables(url)
    parts = urlsplit(url)
    if credentials is None or parts.password is not None or not parts.hostname:
        return url
    try:
        hosts = netrc.netrc(str(credentials)).hosts
    except OSError as error:
        raise InvalidInput(f"credentials file {credentials} cannot be read ({os.strerror(error.errno or 0)})") from None
    except netrc.NetrcParseError as error:
        raise InvalidInput(
            f"credentials file {credentials}, line {error.lineno}, is not in netrc format: write "
            f"`machine HOST login USER password PASSWORD`"
        ) from None
    found = hosts.get(parts.netloc.rpartition("@")[2]) or hosts.get(parts.hostname)
    if found is None:
        return url
    login, _, password = found
    user = f"{quote(login, safe='')}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}").geturl()

"""The passphrase of a key, in a file that a variable of the environment names."""

from __future__ import annotations

import os
from pathlib import Path

from diredi.errors import InvalidInput
from diredi.trust.identity import check_private


def read_passphrase(variable: str) -> bytes:
    """Return the passphrase in the file that a variable names; empty where the variable is not set.

    Args:
        variable: The name of the variable.

    Raises:
        InvalidInput: The file cannot be read, others can read it, or it is empty.
    """
    name = os.environ.get(variable, "")
    if not name:
        return b""
    try:
        check_private(Path(name))
        secret = Path(name).read_bytes().strip()
    except OSError as error:
        raise InvalidInput(f"{variable}: {name} cannot be read ({error.strerror}): check the name") from None
    if not secret:
        raise InvalidInput(f"{variable}: {name} is empty: write the passphrase into it")
    return secret

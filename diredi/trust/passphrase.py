"""The passphrase of a key: from a file, from the environment, or asked for. It is never an argument of a command.

A variable NAME holds the passphrase, or NAME_FILE names the file that holds it. Where neither is set, the person at the
terminal is asked.
"""

from __future__ import annotations

import getpass
import os
import sys
import threading
from pathlib import Path

from diredi.errors import InvalidInput
from diredi.trust.identity import check_private

_FILE = "_FILE"


def read_passphrase(variable: str) -> bytes:
    """Return the passphrase in the file that a variable names, or in the variable of that name without `_FILE`.

    Args:
        variable: The name of the variable that names the file.

    Returns:
        The passphrase; empty where neither variable is set.

    Raises:
        InvalidInput: The file cannot be read, others can read it, or it is empty.
    """
    name = os.environ.get(variable, "")
    if not name:
        return os.environ.get(variable.removesuffix(_FILE), "").strip().encode()
    try:
        check_private(Path(name))
        secret = Path(name).read_bytes().strip()
    except OSError as error:
        raise InvalidInput(f"{variable}: {name} cannot be read ({error.strerror}): check the name") from None
    if not secret:
        raise InvalidInput(f"{variable}: {name} is empty: write the passphrase into it")
    return secret


def is_terminal() -> bool:
    """Return whether somebody can be asked: at a terminal, and by the main thread, which nobody waits for yet."""
    return sys.stdin.isatty() and threading.current_thread() is threading.main_thread()


def ask_passphrase(prompt: str, variable: str, *, confirm: bool = False) -> bytes:
    """Ask the person at the terminal for a passphrase, which is not shown.

    Args:
        prompt: What is asked for.
        variable: The variable that could name a file with it, for the message.
        confirm: Whether it has to be typed twice, because it is a new one.

    Raises:
        InvalidInput: There is no terminal, nothing was typed, or two different ones were.
    """
    if not is_terminal():
        raise InvalidInput(f"the key needs a passphrase: name a file that holds it in {variable}")
    secret = getpass.getpass(f"{prompt}: ")
    if not secret:
        raise InvalidInput("an empty passphrase protects nothing: type one")
    if confirm and getpass.getpass("The same again: ") != secret:
        raise InvalidInput("these were two different passphrases: try again")
    return secret.encode()

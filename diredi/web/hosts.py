"""Names in a Host header that no stranger can own."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Final

LOCAL: Final = (".local", ".localdomain", ".lan", ".internal", ".home.arpa")
"""How names end that only a local network has."""
REFUSAL: Final = "this name may be a stranger's: ask for the address of this machine, or for a local name of it\n"
"""What is answered, with 421, to who asks for another name.

A page of a stranger can give its own name this machine's address, and its visitor's browser would read the answer for
it (DNS rebinding). The name that is asked for gives that away: it is one that anybody can register.
"""


def is_local_name(host: str, known: Collection[str] = ()) -> bool:
    """Return whether a Host header has an address or a name that nobody can register in the public network.

    Args:
        host: The header, with or without a port.
        known: Further names that are this machine's.
    """
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name and ("." not in name or name.lower().endswith(LOCAL) or name.lower() in known):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

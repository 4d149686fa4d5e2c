"""Why another program cannot be reached, as one sentence."""

from __future__ import annotations

import os
import socket
import ssl

from diredi.errors import DirediError, InvalidInput, Unreachable


def explain(error: Exception, what: str, authority: str) -> DirediError:
    """Return why something cannot be reached.

    Args:
        error: What was raised while the connection was made.
        what: What was to be reached, such as "broker 10.0.0.5:8883".
        authority: How the certificate is named that has signed the other's, such as "--mqtt-ca".
    """
    match error:
        case DirediError():
            return error
        case ssl.SSLCertVerificationError():
            return InvalidInput(
                f"{what} shows a certificate that is not trusted ({error.verify_message}): name with {authority} the "
                f"certificate that has signed it, and write the host as the certificate does"
            )
        case ssl.SSLError():
            why = error.reason or "it broke off"
            return InvalidInput(f"{what} does not speak TLS ({why}): check the port, or write the address without TLS")
        case socket.gaierror():
            return Unreachable(f"{what} has a name that nobody knows: check it and the network")
        case TimeoutError():
            return Unreachable(f"{what} does not answer: check address, network and firewall")
        case ConnectionRefusedError():
            return Unreachable(f"nothing listens at {what}: start it, or correct the port")
        case OSError():
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            return Unreachable(f"{what} cannot be reached ({why}): check address and network")
        case _:
            return Unreachable(f"{what} sent what cannot be understood ({type(error).__name__}): check the port")

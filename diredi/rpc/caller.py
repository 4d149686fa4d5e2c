"""The caller of an RPC: the identity in the certificate whose key it has proved to hold."""

# ruff: noqa: ANN401  (gRPC gives its handlers, contexts and serializers no types of their own)

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

from diredi.errors import InvalidInput, Refused
from diredi.trust.identity import Identity, Role


class Context(Protocol):
    """The part of a servicer's context that says who calls."""

    def auth_context(self) -> Any:
        """Return the properties of the caller's authentication."""


def caller_identity(context: Context) -> Identity:
    """Return the identity of the caller.

    Raises:
        Refused: The caller's certificate is of our authority but carries no identity.
    """
    return _identity(caller_certificate(context))


def caller_certificate(context: Context) -> bytes:
    """Return the certificate, in PEM form, whose key the caller has proved to hold.

    Raises:
        Refused: The caller has shown no certificate.
    """
    for pem in context.auth_context().get("x509_pem_cert", ()):
        return bytes(pem)
    raise Refused("the caller shows no certificate: issue one with `diredi pki issue`")


def require(context: Context, *roles: Role | str, name: str | None = None, site: str | None = None) -> Identity:
    """Return the caller if it has one of the roles and, where given, the name and the site.

    Args:
        context: The servicer's context of this call.
        *roles: Roles that are allowed.
        name: The name that the caller must have; None allows every name.
        site: The site that the caller must belong to; None allows every site.

    Returns:
        The identity of the caller.

    Raises:
        Refused: The caller has another role, name or site.
    """
    caller = caller_identity(context)
    if caller.role not in roles:
        raise Refused(f"{caller} may not do that: it takes the role {' or '.join(roles)}")
    if name is not None and caller.name != name:
        raise Refused(f"{caller} may not speak for {name[:80]!r}: use the certificate of that one")
    if site is not None and caller.site != site:
        raise Refused(f"{caller} may not speak for site {site[:80]!r}: use a certificate of that site")
    return caller


@lru_cache(maxsize=8192)
def _identity(pem: bytes) -> Identity:
    try:
        return Identity.from_certificate(pem)
    except InvalidInput as error:
        raise Refused(str(error)) from None

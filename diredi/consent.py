"""What a site has agreed to, as entries that the site's own key has signed.

Whoever reads an entry later needs nobody's word for it: it says what was asked, what was answered, when and by whom,
and the signature is over just that. A site keeps them in its journal; nothing that a cloud says is one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diredi.errors import CorruptData
from diredi.trust import signatures
from diredi.trust.identity import Credentials

_PURPOSE: Final = "diredi.consent.Entry"
Event = Literal["approved", "declined", "uploaded", "validated", "held", "unheld", "deleted"]


class ConsentEntry(BaseModel):
    """One thing that a site has agreed to, refused, or done because it had agreed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: Event
    site: str
    cycle_id: str
    what: dict[str, Any]
    """`approved` and `declined`: all that was asked. `uploaded` and `validated`: what left, by digest and figures.
    `held` and `unheld`: the release, 0 for all. `deleted`: the digests of the pictures. These are of no cycle."""
    by: str = Field(max_length=200)
    """ "policy", or the person at the site. It never leaves the site."""
    reason: str = Field(default="", max_length=500)
    """Why a person has declined, which the cloud is told, or has deleted."""
    at: datetime


@dataclass(frozen=True)
class SignedEntry:
    """An entry in the form in which it was signed."""

    text: str
    signature: bytes


def sign_entry(entry: ConsentEntry, credentials: Credentials) -> SignedEntry:
    """Sign an entry with the key of the site.

    Args:
        entry: What was agreed to.
        credentials: The site's.

    Returns:
        The entry as text, and the signature over it.
    """
    text = json.dumps(entry.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    return SignedEntry(text, signatures.sign(credentials, _PURPOSE, text.encode()))


def check_entry(signed: SignedEntry, certificate: bytes) -> ConsentEntry:
    """Return the entry that the key of a certificate has signed. Whose certificate it is, is for the caller to judge.

    Args:
        signed: The entry and its signature.
        certificate: In PEM form.

    Raises:
        Refused: The signature is not by that key over this text.
        CorruptData: It is signed, and no entry.
    """
    signatures.check(certificate, _PURPOSE, signed.text.encode(), signed.signature)
    try:
        return ConsentEntry.model_validate_json(signed.text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise CorruptData(f"that is no entry of a journal of consent ({where}: {problem['msg']})") from None

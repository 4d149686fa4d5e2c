"""The signed head of a log of decisions: the number of its entries and the root of their tree, by the online key.

Who keeps a head can tell later that nothing of what it covers was changed or removed.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Signature
from tuf.api.metadata import Root, Timestamp

from diredi.errors import Untrusted

LOG_HEAD_FILE: Final = "loghead.json"
_TYPE: Final = "diredi-log-head"


class LogHead(BaseModel):
    """How far a log is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = _TYPE
    size: int = Field(ge=0)
    root: str
    """In hex."""
    at: datetime


class _Signed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    head: LogHead
    signatures: dict[str, str]


def sign_head(head: LogHead, signer: CryptoSigner) -> bytes:
    """Return a head with its signature, as it is stored and handed out."""
    signature = signer.sign(_payload(head))
    return _Signed(head=head, signatures={signature.keyid: signature.signature}).model_dump_json().encode()


def read_head(data: bytes, root: Root) -> LogHead:
    """Return a head that the keys of a root have signed.

    Args:
        data: The head with its signature.
        root: The root that is trusted.

    Raises:
        Untrusted: It is no head, or not signed by enough of the online keys.
    """
    try:
        signed = _Signed.model_validate_json(data)
    except ValidationError:
        raise Untrusted("this is no head of a log of decisions: get one with `diredi audit head`") from None
    role, valid = root.roles[Timestamp.type], 0
    for keyid in role.keyids:
        try:
            signature = Signature(keyid, signed.signatures[keyid])
            root.keys[keyid].verify_signature(signature, _payload(signed.head))
        except (KeyError, UnverifiedSignatureError, VerificationError):
            continue
        valid += 1
    if valid < role.threshold or signed.head.type != _TYPE:
        raise Untrusted("the head of the log is not signed by the online key that the root names: it proves nothing")
    return signed.head


def _payload(head: LogHead) -> bytes:
    return json.dumps(head.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()

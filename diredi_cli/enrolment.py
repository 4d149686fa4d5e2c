"""What `diredi site enroll`, `device enroll` and `operator enroll` share: an admin makes a token for one identity."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from diredi.errors import InvalidInput
from diredi_cli.output import emit, facts, note

if TYPE_CHECKING:
    from diredi.trust.enrolment import Token
    from diredi.trust.identity import Identity

QR_BORDER: Final = 4
"""Light modules around a code, as readers need them."""
_UNITS = {"min": 60, "h": 3600, "d": 86_400}
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="DNS name or address under which it will be reached; repeat for more."),
]
Valid = Annotated[str, typer.Option("--valid", metavar="TIME", help="For how long: 30min, 24h or 7d, at most 30d.")]
AsQr = Annotated[bool, typer.Option("--qr", help="Also show the token as a QR code, about 140 columns wide.")]
Address = Annotated[
    str,
    typer.Option("--address", metavar="HOST:PORT", help="The cloud, as reached from there; else as from here."),
]


def create_token(
    cloud: str,
    operator: Path,
    identity: Identity,
    hosts: list[str],
    valid: str,
    address: str,
    as_json: bool,
    as_qr: bool = False,
) -> None:
    """Have the cloud make a token and print it."""
    from diredi.rpc.v1.enrolment_pb2 import CreateTokenRequest, CreateTokenResponse
    from diredi.rpc.v1.enrolment_pb2_grpc import EnrolmentServiceStub
    from diredi.trust.deny_list import CRL_FILE, DenyList
    from diredi.trust.enrolment import Token
    from diredi.trust.identity import Credentials, Role
    from diredi_cli.connection import ask

    request = CreateTokenRequest(identity=str(identity), hosts=hosts, valid_s=seconds_in(valid))
    made: CreateTokenResponse = ask(cloud, operator, lambda channel: EnrolmentServiceStub(channel).CreateToken, request)
    credentials, denied = (
        Credentials.parse(made.ca, made.certificate, made.key),
        DenyList.read(operator / CRL_FILE, made.ca),
    )
    print_token(identity, Token(address or cloud, credentials, denied.generation_of(Role.CLOUD)), as_json, as_qr)


def retire(cloud: str, admin: Path, identity: Identity, as_json: bool) -> None:
    """Have the cloud revoke all that was signed for a device, a site with its devices, or a person, and say whom."""
    from diredi.rpc.v1.enrolment_pb2 import RetireRequest, RetireResponse
    from diredi.rpc.v1.enrolment_pb2_grpc import EnrolmentServiceStub
    from diredi_cli.connection import ask

    request = RetireRequest(identity=str(identity))
    answer: RetireResponse = ask(cloud, admin, lambda channel: EnrolmentServiceStub(channel).Retire, request)
    emit({"retired": list(answer.identities)}, as_json, facts({"retired": ", ".join(answer.identities)}))


def print_token(identity: Identity, token: Token, as_json: bool, as_qr: bool = False) -> None:
    """Print a token, whom it is for, what to do with it, and its QR code if that is asked for."""
    expires, text = token.credentials.expires, token.encode()
    data = {"identity": str(identity), "expires": expires.isoformat(), "token": text}
    shown = {"identity": identity, "works once, until": f"{expires:%Y-%m-%d %H:%M} UTC"}
    emit(data, as_json, facts(shown), "run there:")
    if as_json:
        return
    sys.stdout.write(f"  diredi pki enroll --out FOLDER {text}\n")  # never wrapped: it is one word
    if as_qr:
        import segno

        code = segno.make_qr(text, error="l")
        if shutil.get_terminal_size().columns < (needed := code.symbol_size(border=QR_BORDER)[0]):
            note(f"this terminal is too narrow for the code: make it {needed} columns wide, or its letters smaller")
        code.terminal(sys.stdout, compact=True, border=QR_BORDER)


def seconds_in(text: str) -> int:
    """Return the seconds in a time such as 24h. Raises InvalidInput where it is none."""
    found = re.fullmatch(r"([1-9]\d{0,5})(min|h|d)", text)
    if found is None:
        raise InvalidInput(f"{text[:20]!r} is not a time: write for example --valid 24h (min, h or d)")
    return int(found[1]) * _UNITS[found[2]]

"""`diredi operator`: the persons who look after a fleet, and what each of them may do."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from diredi_cli.enrolment import Address, Valid, create_token, retire
from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder

app = typer.Typer(help="The persons who look after the fleet: viewers, operators and admins.", no_args_is_help=True)


class PersonRole(StrEnum):
    """What a person may do, as `diredi.trust.identity.PEOPLE` has it; that module is not loaded for `--help`."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


Wanted = Annotated[
    PersonRole,
    typer.Option(
        "--role",
        help="viewer: sees cycles, sites, devices and models; operator: also starts cycles, groups sites and reads "
        "weights; admin: also says who belongs to the fleet.",
    ),
]


@app.command("enroll")
def enroll(
    name: Annotated[str, typer.Argument(help="The person's name, e.g. alice.")],
    role: Wanted = PersonRole.OPERATOR,
    valid: Valid = "24h",
    address: Address = "",
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Make a token with which one person gets a certificate, once, with the role that they need. For admins."""
    from diredi.trust.identity import Identity, Role

    create_token(cloud, identity, Identity(Role(role), name), [], valid, address, as_json)


@app.command("retire")
def retire_operator(
    name: Annotated[str, typer.Argument(help="The name of the person.")],
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Revoke all certificates and tokens of a person, in all roles, within seconds. For admins."""
    from diredi.trust.identity import Identity, Role

    retire(cloud, identity, Identity(Role.OPERATOR, name), as_json)

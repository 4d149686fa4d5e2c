"""`diredi pki`: the certificate authority of a fleet."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from diredi_cli.enrolment import AsQr, Hosts, Valid, print_token, seconds_in
from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import emit, facts, table

app = typer.Typer(help="Make the certificates by which the parts of a fleet know each other.", no_args_is_help=True)

DEFAULT_AUTHORITY = Path("pki/ca")
NEW_PASSPHRASE_FILE = "DIREDI_CA_NEW_PASSPHRASE_FILE"
"""The variable that names the file with the next passphrase of the authority's key."""


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="Where the authority will live; keep it private.")] = DEFAULT_AUTHORITY,
    name: Annotated[str, typer.Option("--name", help="What the authority calls itself.")] = "DiReDi",
    ask: Annotated[
        bool, typer.Option("--ask-passphrase", help="Ask for a passphrase, and put the authority's key behind it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a certificate authority. Its key signs every identity and never leaves the folder.

    The key is behind the passphrase in the file that DIREDI_CA_PASSPHRASE_FILE names, in DIREDI_CA_PASSPHRASE, or that
    is typed. Whatever uses the key later, the cloud too, takes it from there or asks at the terminal.
    """
    from diredi.trust import ca
    from diredi.trust.identity import CA_FILE
    from diredi.trust.passphrase import ask_passphrase

    secret = ask_passphrase("New passphrase", ca.PASSPHRASE_FILE, confirm=True) if ask else None
    authority = ca.init(folder, name, passphrase=secret)
    expires = authority.certificate.not_valid_after_utc
    behind = bool(authority.passphrase)
    data = {"authority": str(folder), "certificate": str(folder / CA_FILE), "expires": expires.isoformat()}
    shown = {"authority": folder, "expires": f"{expires:%Y-%m-%d}", "key": "behind a passphrase" if behind else "open"}
    emit(data | {"passphrase": behind}, as_json, facts(shown))


@app.command("passphrase")
def passphrase(
    authority: Annotated[Path, typer.Option("--ca", metavar="FOLDER", help="The authority.")] = DEFAULT_AUTHORITY,
    as_json: AsJson = False,
) -> None:
    """Put the authority's key behind a passphrase, or behind another one.

    The new one is in the file that DIREDI_CA_NEW_PASSPHRASE_FILE names, in DIREDI_CA_NEW_PASSPHRASE, or is asked for. A
    copy of the key from before still opens with what it was behind. The keys that sign releases have a passphrase of
    their own: `diredi release rotate`.
    """
    from diredi.trust import ca
    from diredi.trust.passphrase import ask_passphrase, read_passphrase

    ca.load(authority)  # what is wrong with the old one is said first
    new = read_passphrase(NEW_PASSPHRASE_FILE) or ask_passphrase("New passphrase", NEW_PASSPHRASE_FILE, confirm=True)
    changed = ca.change_passphrase(authority, new)
    emit({"changed": [str(path) for path in changed]}, as_json, facts({"changed": ", ".join(map(str, changed))}))


@app.command("issue")
def issue(
    role: Annotated[str, typer.Argument(help="cloud, site, device, viewer, operator or admin.")],
    name: Annotated[str, typer.Argument(help="Who the certificate speaks for, e.g. site-1.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Where ca.pem, cert.pem, key.pem and root.json go.")
    ],
    authority: Annotated[Path, typer.Option("--ca", metavar="FOLDER", help="The authority.")] = DEFAULT_AUTHORITY,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host", help="DNS name or address under which it is reached; repeat for more. Services need it."
        ),
    ] = None,
    site: Annotated[str, typer.Option("--site", help="The site that a device belongs to.")] = "",
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How long it is valid.")] = 398,
    as_json: AsJson = False,
) -> None:
    """Issue an identity: a new key and a certificate for it; what was in the folder is replaced."""
    from diredi.trust import ca

    credentials = ca.issue(authority, role, name, host or [], out, site=site, lifetime=timedelta(days=days))
    data = {"identity": str(credentials.identity), "folder": str(out), "expires": credentials.expires.isoformat()}
    shown = {"identity": credentials.identity, "folder": out, "expires": f"{credentials.expires:%Y-%m-%d}"}
    emit(data, as_json, facts(shown))


@app.command("revoke")
def revoke(
    holders: Annotated[
        list[str],
        typer.Argument(
            metavar="HOLDER...", help="Identities such as device/site-1/edge-1, or cert.pem files of revoked ones."
        ),
    ],
    authority: Annotated[Path, typer.Option("--ca", metavar="FOLDER", help="The authority.")] = DEFAULT_AUTHORITY,
    to: Annotated[
        list[Path] | None,
        typer.Option(
            "--to", metavar="FOLDER", help="Identity folder of a service that gets the list; repeat for more."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Revoke all certificates of devices, sites or persons: a running service cuts them off within seconds.

    The authority signs a deny list, crl.pem. Each service reads the one in its identity folder, also while it runs. Who
    connects to a service whose certificate was revoked is refused by that, too, until it is issued again.
    """
    from diredi.store.files import atomic_write
    from diredi.trust import ca
    from diredi.trust.deny_list import CRL_FILE
    from diredi.trust.identity import Identity

    files = [Path(holder) for holder in holders if Path(holder).is_file()]
    identities = [Identity.from_uri(f"diredi://{holder}") for holder in holders if not Path(holder).is_file()]
    revoked = ca.revoke(authority, identities, [file.read_bytes() for file in files])
    for folder in to or []:
        atomic_write(folder / CRL_FILE, (authority / CRL_FILE).read_bytes())
    data = [{"serial": f"{serial:x}", "identity": holder} for serial, holder in revoked.items()]
    shown = {"revoked": ", ".join(sorted(set(revoked.values()))), "certificates": len(revoked)}
    shown["deny list"] = ", ".join(str(folder / CRL_FILE) for folder in (authority, *(to or [])))
    emit(data, as_json, facts(shown))


@app.command("list")
def list_certificates(
    authority: Annotated[Path, typer.Option("--ca", metavar="FOLDER", help="The authority.")] = DEFAULT_AUTHORITY,
    as_json: AsJson = False,
) -> None:
    """List the certificates and tokens that an authority has signed, from its register, and which of them hold."""
    from datetime import UTC, datetime

    from diredi.trust import ca
    from diredi.trust.deny_list import CRL_FILE, DenyList
    from diredi.trust.identity import CA_FILE
    from diredi.trust.register import Issued, Register

    ca.load(authority)
    revoked, now = DenyList.read(authority / CRL_FILE, (authority / CA_FILE).read_bytes()).serials, datetime.now(UTC)
    with Register.opened(authority) as register:
        issued = register.issued
    used = {entry.token for entry in issued}

    def state(entry: Issued) -> str:
        if int(entry.serial, 16) in revoked:
            return "revoked"
        if entry.enrols and entry.identity.removeprefix("enrolment/") in used:
            return "used"
        return "expired" if entry.expires < now.timestamp() else "holds"

    data = [
        {
            "identity": entry.identity,
            "enrols": entry.enrols,
            "serial": entry.serial,
            "state": state(entry),
            "hosts": list(entry.enrols_hosts or entry.hosts),
            "expires": datetime.fromtimestamp(entry.expires, UTC).isoformat(),
        }
        for entry in issued
    ]
    rows = [
        (
            f"{entry.identity} for {entry.enrols}" if entry.enrols else entry.identity,
            state(entry),
            f"{datetime.fromtimestamp(entry.expires, UTC):%Y-%m-%d}",
            ", ".join(entry.enrols_hosts or entry.hosts) or "none",
            entry.serial,
        )
        for entry in issued
    ]
    emit(data, as_json, table(("identity", "state", "ends", "hosts", "serial"), rows))


@app.command("rotate")
def rotate(
    authority: Annotated[Path, typer.Option("--ca", metavar="FOLDER", help="The authority.")] = DEFAULT_AUTHORITY,
    end: Annotated[bool, typer.Option("--finish", help="Drop the old authority, when all have renewed.")] = False,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="With --finish: also drop those who have not, who must enrol again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Replace the authority while the fleet runs: the next one is trusted beside it, and all renew by themselves.

    The cloud must run with --authority. The same command says later who has not renewed yet.
    """
    from diredi.trust import rotation

    if end:
        left = rotation.finish(authority, leave_out=leave_out)
        emit({"finished": True, "left_out": left}, as_json, facts({"left out": ", ".join(left) or "nobody"}))
        return
    if not rotation.is_under_way(authority):
        rotation.begin(authority)
    left = rotation.waiting(authority)
    shown = facts({"not renewed yet": ", ".join(left) or "nobody"})
    emit({"finished": False, "waiting": left}, as_json, shown, "when all have: diredi pki rotate --finish")


@app.command("renew")
def renew(
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Renew the certificate of a person, for the same key. Services do it by themselves."""
    from diredi.rpc.renewal import renew_now
    from diredi_cli.connection import with_cloud

    credentials = with_cloud(cloud, identity, lambda channel: renew_now(channel, identity))
    data = {"identity": str(credentials.identity), "expires": credentials.expires.isoformat()}
    shown = {"identity": credentials.identity, "expires": f"{credentials.expires:%Y-%m-%d}"}
    emit(data, as_json, facts(shown))


@app.command("token")
def token(
    identity: Annotated[str, typer.Argument(help="For whom, e.g. admin/alice, site/site-1 or device/site-1/camera-1.")],
    address: Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="The cloud, as reached from there.")],
    authority: Annotated[Path, typer.Option("--ca", metavar="FOLDER", help="The authority.")] = DEFAULT_AUTHORITY,
    host: Hosts = None,
    valid: Valid = "24h",
    as_qr: AsQr = False,
    as_json: AsJson = False,
) -> None:
    """Make an enrolment token beside the authority, without the cloud: for the first admin, or a whole deployment."""
    from diredi.trust.deny_list import CRL_FILE, DenyList
    from diredi.trust.enrolment import Token, create_token
    from diredi.trust.identity import Identity, Role

    holder = Identity.from_uri(f"diredi://{identity}")
    made = create_token(authority, holder, host or [], timedelta(seconds=seconds_in(valid)))
    denied = DenyList.read(authority / CRL_FILE, made.ca)
    print_token(holder, Token(address, made, denied.generation_of(Role.CLOUD)), as_json, as_qr)


@app.command("enroll")
def enroll(
    token: Annotated[str, typer.Argument(help="What `diredi device enroll` or the like printed; - reads it.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where ca.pem, cert.pem and key.pem go.")],
    as_json: AsJson = False,
) -> None:
    """Get a certificate with a token, where it will be used: the key is made here and never leaves this machine.

    The service that runs with it renews it by itself. If the answer was lost, the same command continues.
    """
    import asyncio
    import sys

    from diredi.rpc.enrolment import enrol
    from diredi.trust.enrolment import Token

    credentials = asyncio.run(enrol(Token.decode(sys.stdin.readline() if token == "-" else token), out))
    data = {"identity": str(credentials.identity), "folder": str(out), "expires": credentials.expires.isoformat()}
    shown = {"identity": credentials.identity, "folder": out, "expires": f"{credentials.expires:%Y-%m-%d}"}
    emit(data, as_json, facts(shown))

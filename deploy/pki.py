"""Prepares the identities of a deployment, each in a folder (a volume) of its own; what is there and still good stays.

    python pki.py ROOT OWNER_UID CLOUD [--issue IDENTITY[=HOST,HOST...]]... [--token IDENTITY[=HOST,HOST...]]...

The authority is made in ROOT/ca, which only the cloud mounts; what an identity needs goes into ROOT/<its last name>.
`--token` leaves a one-time token there, in the file `token`: its service makes the key itself and enrols at CLOUD.
`--issue` makes key and certificate here. That is for the cloud, and for peers, who have no cloud.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from diredi.errors import DirediError, InvalidInput
from diredi.store.files import atomic_write, make_folder
from diredi.trust import ca, release_keys
from diredi.trust.enrolment import Token, create_token
from diredi.trust.identity import CA_FILE, CERTIFICATE_FILE, Credentials, Identity, Role

RENEW_BEFORE = timedelta(days=30)
TOKEN_FILE, TOKEN_VALID = "token", timedelta(days=7)


def prepare(root: Path, cloud: str, wanted: str, *, issue: bool) -> list[Path]:
    """Prepare one identity and return the paths to hand over. Raises InvalidInput for an identity that cannot be."""
    text, _, names = wanted.partition("=")
    identity, hosts = Identity.from_uri(f"diredi://{text}"), names.split(",") if names else []
    authority, folder = root / "ca", root / identity.name
    if _is_good(folder, identity, (authority / CA_FILE).read_bytes(), bool(hosts), RENEW_BEFORE if issue else None):
        pass
    elif issue:
        site = identity.site if identity.role == "device" else ""
        ca.issue(authority, identity.role, identity.name, hosts, folder, site)
        print(f"pki: issued {identity}", flush=True)
    else:
        make_folder(folder)
        (folder / CERTIFICATE_FILE).unlink(missing_ok=True)
        token = Token(cloud, create_token(authority, identity, hosts, TOKEN_VALID))
        atomic_write(folder / TOKEN_FILE, token.encode().encode(), mode=0o600)
        print(f"pki: made a token for {identity}", flush=True)
    release_keys.init(authority / release_keys.FOLDER)
    release_keys.hand_out(authority / release_keys.FOLDER, folder, to_cloud=identity.role is Role.CLOUD)
    return [folder, *folder.iterdir()]


def _is_good(folder: Path, identity: Identity, authority: bytes, serves: bool, left: timedelta | None) -> bool:
    try:
        credentials = Credentials.load(folder)
        if serves:
            credentials.require_server()
    except InvalidInput:
        return False  # none, or not one that can be used
    lasts = credentials.expires - datetime.now(UTC)
    return credentials.identity == identity and credentials.ca == authority and (left is None or lasts > left)


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("owner", type=int)
    parser.add_argument("cloud")
    parser.add_argument("--issue", action="append", default=[])
    parser.add_argument("--token", action="append", default=[])
    asked = parser.parse_args(arguments)
    authority = asked.root / "ca"
    try:
        if not (authority / ca.CA_KEY_FILE).exists():
            ca.init(authority)
            print("pki: made the authority", flush=True)
        paths = [path for wanted in asked.issue for path in prepare(asked.root, asked.cloud, wanted, issue=True)]
        paths += [path for wanted in asked.token for path in prepare(asked.root, asked.cloud, wanted, issue=False)]
    except DirediError as error:
        print(f"pki: {error}", file=sys.stderr)
        return error.exit_code
    for path in (*paths, authority, *(path for path in authority.iterdir() if path.is_file())):
        os.chown(path, asked.owner, asked.owner)  # not the keys of the root of releases, which stay root's
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

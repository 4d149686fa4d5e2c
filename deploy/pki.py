"""Makes the identities of a deployment, each in a folder (a volume) of its own; what is there and still good stays.

    python pki.py ROOT OWNER_UID IDENTITY[=HOST,HOST...]...

e.g. `python pki.py /identities 10001 cloud/cloud=cloud,localhost device/site-1/edge-1=edge-1`. The authority is made in
ROOT/ca, which no service mounts; an identity is made in ROOT/<its last name>.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from diredi.errors import DirediError, InvalidInput
from diredi.trust import ca, release_keys
from diredi.trust.identity import CA_FILE, Credentials, Identity, Role

RENEW_BEFORE = timedelta(days=30)


def provide(root: Path, owner: int, wanted: dict[str, list[str]]) -> None:
    """Raises InvalidInput for an identity that cannot be."""
    authority = root / "ca"
    if not (authority / ca.CA_KEY_FILE).exists():
        ca.init(authority)
        print("pki: made the authority", flush=True)
    for text, hosts in wanted.items():
        identity = Identity.from_uri(f"diredi://{text}")
        folder = root / identity.name
        if not _is_good(folder, identity, hosts, (authority / CA_FILE).read_bytes()):
            site = identity.site if identity.role == "device" else ""
            ca.issue(authority, identity.role, identity.name, hosts, folder, site)
            print(f"pki: issued {identity}", flush=True)
        release_keys.init(authority / release_keys.FOLDER)
        release_keys.hand_out(authority / release_keys.FOLDER, folder, to_cloud=identity.role is Role.CLOUD)
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner, owner)


def _is_good(folder: Path, identity: Identity, hosts: list[str], authority: bytes) -> bool:
    try:
        credentials = Credentials.load(folder)
        if hosts:
            credentials.require_server()
    except InvalidInput:
        return False  # none, or not one that can be used: a new one is issued
    lasts = credentials.expires - datetime.now(UTC)
    return credentials.identity == identity and credentials.ca == authority and lasts > RENEW_BEFORE


def main(arguments: list[str]) -> int:
    """The exit code."""
    root, owner, *identities = arguments
    wanted = {text: hosts.split(",") if hosts else [] for text, _, hosts in (i.partition("=") for i in identities)}
    try:
        provide(Path(root), int(owner), wanted)
    except DirediError as error:
        print(f"pki: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

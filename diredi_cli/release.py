"""`diredi release`: who signs releases, and signing them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import emit, facts, table

if TYPE_CHECKING:
    from rich.table import Table
    from tuf.api.metadata import Metadata, Root

    from diredi.rpc.client import Channel
    from diredi.trust.release_signing import Bundle, Request

app = typer.Typer(
    help="Sign releases with keys that the cloud does not have, and replace such keys.", no_args_is_help=True
)


class Role(StrEnum):
    """What a key is for, as `diredi release rotate` names it."""

    ROOT = "root"
    TARGETS = "targets"
    ONLINE = "online"


AuthorityFolder = Annotated[Path, typer.Option("--ca", metavar="FOLDER", help="The authority.")]
DEFAULT_AUTHORITY = Path("pki/ca")
BundleFile = Annotated[
    Path | None,
    typer.Option("--in", metavar="FILE", help="What waits, from `release pending --out`, instead of asking the cloud."),
]


CloudFolders = Annotated[
    list[Path] | None,
    typer.Option("--to", metavar="FOLDER", help="Identity folder of the cloud that gets the new root and its keys."),
]


@app.command("key")
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the key goes; its public part goes to FILE.pub.")],
    as_json: AsJson = False,
) -> None:
    """Make a key with which a person signs releases, behind a passphrase. It never leaves the machine of its owner.

    The passphrase is asked for, or read from the file that DIREDI_RELEASE_PASSPHRASE_FILE names.
    """
    from diredi.trust.passphrase import ask_passphrase, read_passphrase
    from diredi.trust.release_keys import PASSPHRASE_FILE, make_key

    secret = read_passphrase(PASSPHRASE_FILE) or ask_passphrase("New passphrase", PASSPHRASE_FILE, confirm=True)
    public = make_key(file, secret)
    shown = {"key": file, "public part": f"{file}.pub", "id": public.keyid}
    emit({name: str(value) for name, value in shown.items()}, as_json, facts(shown))


@app.command("keys")
def keys(authority: AuthorityFolder = DEFAULT_AUTHORITY, as_json: AsJson = False) -> None:
    """Show whose signatures count: each role, how many it takes, and the ids of the keys."""
    from tuf.api.metadata import Metadata, Root

    from diredi.trust import release_keys
    from diredi.trust.release_signing import describe_keys

    folder = authority / release_keys.FOLDER
    root = Metadata[Root].from_bytes(release_keys.read_root(folder))
    roles = describe_keys(root)
    data = {
        "version": root.signed.version,
        "expires": root.signed.expires.isoformat(),
        "next_waits": (folder / release_keys.NEXT_ROOT_FILE).exists(),
        "roles": [{"role": role, "threshold": threshold, "keys": ids} for role, threshold, ids in roles],
    }
    rows = [(role, threshold, ", ".join(keyid[:12] for keyid in ids)) for role, threshold, ids in roles]
    shown = {"root": root.signed.version, "holds until": f"{root.signed.expires:%Y-%m-%d}"}
    if data["next_waits"]:
        shown["next root"] = f"{folder / release_keys.NEXT_ROOT_FILE} waits for signatures"
    emit(data, as_json, facts(shown), table(("role", "signatures", "keys"), rows))


@app.command("rotate")
def rotate(
    role: Annotated[
        Role, typer.Argument(help="The root signs which keys count, targets releases, online the newest list.")
    ],
    public: Annotated[
        list[Path] | None,
        typer.Option(
            "--key", metavar="FILE.pub", help="A key of a person, for root or targets; repeat. None: a new one."
        ),
    ] = None,
    threshold: Annotated[int, typer.Option("--threshold", min=1, help="How many of the keys have to sign.")] = 1,
    authority: AuthorityFolder = DEFAULT_AUTHORITY,
    to: CloudFolders = None,
    as_json: AsJson = False,
) -> None:
    """Replace the keys of a role: only the new ones count from then on, and devices follow by themselves.

    The new root is signed with the root key of the authority. Where more signatures are needed, it waits in the file
    next.root.json: each holder of a root key runs `diredi release sign --in` on it, and then `diredi release adopt`.
    """
    from diredi.errors import InvalidInput
    from diredi.trust import release_keys

    folder = authority / release_keys.FOLDER
    if public:
        if role is Role.ONLINE:
            raise InvalidInput("the online key is the cloud's own: leave --key out, and give --to the cloud's folder")
        named = [release_keys.load_public(path) for path in public]
        root = release_keys.entrust(folder, role, named, threshold)
    else:
        if threshold != 1:
            raise InvalidInput(f"one new key cannot give {threshold} signatures: name the keys with --key")
        root = release_keys.rotate(folder, release_keys.KEY_FILES[role])
    in_force = not (folder / release_keys.NEXT_ROOT_FILE).exists()
    for out in to or []:
        release_keys.hand_out(folder, out, to_cloud=True)
    data = {"root": root.signed.version, "role": str(role), "in_force": in_force}
    shown: dict[str, object] = {"root": root.signed.version, "new keys for": role}
    shown["in force"] = "yes" if in_force else f"no: {folder / release_keys.NEXT_ROOT_FILE} waits for signatures"
    if in_force:
        shown["next"] = (
            f"start the cloud again with {', '.join(map(str, to))}" if to else "give the cloud its folder: --to"
        )
    emit(data, as_json, facts(shown))


@app.command("adopt")
def adopt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The next root, with all signatures.")],
    authority: AuthorityFolder = DEFAULT_AUTHORITY,
    to: CloudFolders = None,
    as_json: AsJson = False,
) -> None:
    """Put the next root in force, once enough holders of root keys have signed it."""
    from diredi.errors import InvalidInput, NotFound
    from diredi.trust import release_keys

    folder = authority / release_keys.FOLDER
    if not file.exists():
        raise NotFound(f"there is no file {file}: it is the next.root.json that others have signed")
    before, proposed = release_keys.read_root(folder), file.read_bytes()
    release_keys.finish(folder, proposed)
    if release_keys.read_root(folder) == before != proposed:
        raise InvalidInput(f"{file} is not signed by enough keys, or does not follow the root of {folder}")
    for out in to or []:
        release_keys.hand_out(folder, out, to_cloud=True)
    emit({"in_force": True}, as_json, facts({"in force": file, "given to": ", ".join(map(str, to or [])) or "nobody"}))


@app.command("pending")
def pending(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write it, to be signed without a network.")
    ] = None,
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Show what waits for signatures at the cloud."""
    bundle, trusted = _fetch(cloud, identity)
    requests = _examine(bundle, trusted)
    if out is not None:
        bundle.write(out)
    emit([_data(request) for request in requests], as_json, *(_words(request) for request in requests))
    if not requests and not as_json:
        emit(None, False, facts({"waiting": "nothing"}))


@app.command("sign")
def sign(
    key_file: Annotated[Path, typer.Option("--key", metavar="FILE", help="Your key.")],
    source: BundleFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking. What is signed is shown anyway.")] = False,
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Fetch what waits for signatures, show it in words, sign it with your key and hand it back to the cloud.

    What is shown is read from what is signed, and checked against the root in the folder of --identity. With --in
    nobody is asked: the signatures go into the file, which `diredi release hand-in` brings to the cloud. The file may
    also be a next.root.json.
    """
    from diredi.errors import WrongState
    from diredi.trust.passphrase import ask_passphrase, read_passphrase
    from diredi.trust.release_keys import PASSPHRASE_FILE, load_signer, read_key

    bundle, trusted = _fetch(cloud, identity) if source is None else _open(source, identity)
    requests = _examine(bundle, trusted)
    if not as_json:
        emit(None, False, *(_words(request) for request in requests))
    if not requests:
        raise WrongState("nothing waits for a signature")
    secret = None
    if b"ENCRYPTED" in read_key(key_file):
        secret = read_passphrase(PASSPHRASE_FILE) or ask_passphrase(f"Passphrase of {key_file}", PASSPHRASE_FILE)
    signer = load_signer(key_file, secret)
    if not yes:
        typer.confirm(f"Sign {len(requests)} with the key {signer.public_key.keyid[:12]}?", abort=True, err=True)
    for request in requests:
        request.sign(signer)
    published = False
    if source is None:
        published = _hand_in(cloud, identity, {request.name: request.metadata.to_bytes() for request in requests})
    else:
        _store(source, bundle, requests)
    data = {"signed": [request.name for request in requests], "published": published}
    missing = max(request.threshold - request.signatures for request in requests)
    state = "published" if published else f"{missing} signatures are missing" if missing > 0 else "signed by enough"
    emit(data, as_json, facts({"signed": len(requests), "state": state}))


@app.command("hand-in")
def hand_in(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A signed file of `release pending --out`, or a next root.")
    ],
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Hand signatures to the cloud that were made without a network, or a root that is signed by enough."""
    bundle, _ = _open(file, identity)
    published = _hand_in(cloud, identity, {name: text.encode() for name, text in bundle.waiting.items()})
    data = {"handed_in": sorted(bundle.waiting), "published": published}
    emit(data, as_json, facts({"handed in": len(bundle.waiting), "published": "yes" if published else "not yet"}))


def _fetch(cloud: str, identity: Path) -> tuple[Bundle, Metadata[Root]]:
    from diredi.rpc.release_signing import fetch_waiting
    from diredi.trust.release_keys import read_root
    from diredi_cli.connection import with_cloud

    root = read_root(identity)

    async def work(channel: Channel) -> Bundle:
        return await fetch_waiting(channel, root)

    bundle = with_cloud(cloud, identity, work)
    return bundle, _follow(root, bundle)


def _open(file: Path, identity: Path) -> tuple[Bundle, Metadata[Root]]:
    """Return what waits in a file, which may be a root of its own."""
    from diredi.errors import NotFound
    from diredi.trust.release_keys import read_root
    from diredi.trust.release_signing import Bundle

    if not file.exists():
        raise NotFound(f"there is no file {file}: make it with `diredi release pending --out`")
    is_root = file.name.endswith("root.json")
    bundle = Bundle(waiting={"root": file.read_text()}) if is_root else Bundle.read(file)
    # A root that waits lies beside the one that it follows.
    trusted = read_root(file.parent) if is_root and (file.parent / "root.json").exists() else read_root(identity)
    return bundle, _follow(trusted, bundle)


def _follow(root: bytes, bundle: Bundle) -> Metadata[Root]:
    from diredi.trust.release_keys import newest_root

    return newest_root([root, *(text.encode() for text in bundle.roots)])


def _examine(bundle: Bundle, trusted: Metadata[Root]) -> list[Request]:
    from diredi.trust.release_signing import examine

    return examine(bundle, trusted)


def _hand_in(cloud: str, identity: Path, signed: dict[str, bytes]) -> bool:
    from diredi.rpc.release_signing import hand_back
    from diredi_cli.connection import with_cloud

    async def work(channel: Channel) -> bool:
        return any([await hand_back(channel, name, metadata) for name, metadata in signed.items()])

    return with_cloud(cloud, identity, work)


def _store(file: Path, bundle: Bundle, requests: list[Request]) -> None:
    from diredi.store.files import atomic_write
    from diredi.trust import release_keys

    signed = {request.name: request.metadata.to_bytes() for request in requests}
    if file.name.endswith("root.json"):
        atomic_write(file, signed["root"])
        if file.name == release_keys.NEXT_ROOT_FILE and (file.parent / release_keys.ROOT_FILE).exists():
            release_keys.finish(file.parent)
    else:
        bundle.model_copy(update={"waiting": {name: data.decode() for name, data in signed.items()}}).write(file)


def _data(request: Request) -> dict[str, object]:
    return {
        "name": request.name,
        "words": list(request.words),
        "signatures": request.signatures,
        "threshold": request.threshold,
        "keys": list(request.keyids),
    }


def _words(request: Request) -> Table:
    title = f"{request.words[0]} ({request.signatures} of {request.threshold} signatures)"
    return table((title,), [(line,) for line in request.words[1:]])

"""The folder of a box: who has it now, what the box remembers, and whose certificates end."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from diredi.errors import InvalidInput, WrongState
from diredi.local_services import ServiceFolder
from diredi.store.files import atomic_write, read_state
from diredi_box.options import BoxOptions

_LOCK = "box.lock"
_OPTIONS = "box.json"
_STOP_S = 30.0


class BoxFolder(ServiceFolder):
    """The places in the folder of a box."""

    def check(self) -> None:
        """Find out whether a box may use the folder; nothing is changed.

        Raises:
            InvalidInput: The folder is somebody else's, or cannot be written.
        """
        root = self.root
        if root.exists() and not root.is_dir():
            raise InvalidInput(f"{root} is a file: name a folder with --folder")
        if root.exists() and not (root / _LOCK).exists() and any(root.iterdir()):
            raise InvalidInput(f"{root} is not empty and no box made it: name another folder with --folder")
        there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise InvalidInput(f"{root} cannot be made or written, because of {there}: name another with --folder")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Have the folder for a block, in which no other box can have it.

        Raises:
            WrongState: Another box runs in it.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.root / _LOCK).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise WrongState(
                    f"a box runs in {self.root} already: stop it with `diredi box --folder {self.root} --stop`, or "
                    "name another folder with --folder"
                ) from None
            self.stop_running()  # what a box has left that was killed
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def stop_box(self) -> bool:
        """Stop the box that runs in the folder, and return whether there was one.

        Raises:
            WrongState: It does not end.
        """
        deadline = time.monotonic() + _STOP_S
        told = False
        while time.monotonic() < deadline:
            with suppress(FileNotFoundError), (self.root / _LOCK).open("r") as file:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return told
                if not told and (owner := file.read()):
                    os.kill(int(owner), signal.SIGTERM)
                    told = True
                time.sleep(0.05)
                continue
            return False
        raise WrongState(
            f"the box in {self.root} did not end within {_STOP_S:.0f} s: look at {self.log('cloud').parent}"
        )

    def remember(self, options: BoxOptions) -> None:
        """Keep what the box was told, for the next start."""
        atomic_write(self.root / _OPTIONS, options.model_dump_json(indent=1), mode=0o600)

    def remembered(self) -> BoxOptions | None:
        """Return what the box was told last; None where none was started here."""
        return read_state(self.root / _OPTIONS, BoxOptions.model_validate_json)

    def make_identities(self) -> None:
        """Make the authority and the cloud's identity where there are none, and renew each certificate that ends soon.

        The services renew their own while they run. What ended while the box was off is renewed here.
        """
        from cryptography.hazmat.primitives import serialization

        from diredi.rpc.renewal import is_due
        from diredi.trust import ca, enrolment
        from diredi.trust.identity import CERTIFICATE_FILE, Credentials

        authority = self.identity("ca")
        if not (self.identity("cloud") / CERTIFICATE_FILE).exists():
            self.make_authority("DiReDi box")
        for folder in sorted(self.root.joinpath("pki").iterdir()):
            if folder == authority or not (folder / CERTIFICATE_FILE).exists():
                continue
            own = Credentials.read(folder)
            if is_due(own):
                request = ca.request_for(own.key).public_bytes(serialization.Encoding.PEM)
                certificate = enrolment.renew(authority, own.certificate, request)
                enrolment.write_credentials(folder, own.ca, certificate, own.key)

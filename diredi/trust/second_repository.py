"""A second repository of The Update Framework, kept by somebody else than the cloud, that has to list a file, too.

Who holds all keys of the cloud, its offline ones included, still installs nothing on a device that requires one. Its
targets are named by their digest: `<sha256 in hex>.onnx`. Any tool for The Update Framework can make it.

Uptane Standard for Design and Implementation 2.0, the image repository beside the director, https://uptane.org
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tuf.api import exceptions as tuf
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from diredi.errors import InvalidInput, Unreachable, Untrusted
from diredi.store.blobs import Blob, hex_of
from diredi.store.files import make_folder

_BASE: Final = "metadata:///"
_LONGEST_BYTES: Final = 5_000_000


class _FolderFetcher(FetcherInterface):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / Path(url.removeprefix(_BASE)).name
        try:
            with path.open("rb") as file:
                return iter([file.read(_LONGEST_BYTES + 1)])
        except FileNotFoundError as error:
            raise tuf.DownloadHTTPError(f"{path} does not exist", 404) from error
        except OSError as error:
            raise tuf.DownloadError(f"{path} cannot be read ({error.strerror})") from error


class SecondRepository:
    """Ask a repository in a folder whether it lists a file; what it has said once can only become newer."""

    def __init__(self, folder: Path, root: Path, known: Path) -> None:
        """Name a repository. Nothing is read.

        Args:
            folder: Its metadata, such as a share that its keeper writes to.
            root: Its root, as its keeper has given it out.
            known: The folder in which this device remembers its metadata.
        """
        self._folder, self._root, self._known = folder, root, known

    def require(self, file: Blob) -> None:
        """Return if the newest metadata list the digest and the length of a file.

        Raises:
            Untrusted: They do not, or are not signed by those whom the root names, or are old; the message says which.
            Unreachable: The folder is not there.
        """
        if not self._folder.is_dir():
            raise Unreachable(f"the second repository {self._folder} is not there: mount or copy it")
        make_folder(self._known)
        path = f"{hex_of(file.digest)}.onnx"
        try:
            updater = Updater(
                str(self._known), _BASE, fetcher=_FolderFetcher(self._folder), bootstrap=self._read_root(),
                config=UpdaterConfig(max_delegations=4, targets_max_length=_LONGEST_BYTES),
            )  # fmt: skip
            target = updater.get_targetinfo(path)
        except (tuf.RepositoryError, tuf.DownloadError, ValueError) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise Untrusted(f"the metadata of the second repository do not hold ({why})") from error
        if target is None:
            raise Untrusted(f"the second repository does not list the file {hex_of(file.digest)[:12]}")
        if target.hashes.get("sha256") != hex_of(file.digest) or target.length != file.bytes:
            raise Untrusted(f"the second repository lists {hex_of(file.digest)[:12]} with another digest or length")

    def _read_root(self) -> bytes:
        try:
            return self._root.read_bytes()
        except OSError as error:
            raise InvalidInput(
                f"second_root {self._root} cannot be read ({error.strerror}): copy the root of the second repository"
            ) from None

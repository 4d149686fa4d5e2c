"""Keep the states of clients on disk, in a file for each client and round.

In a round, a client's state is its newest file from before that round. So a round that was interrupted can be run
again: the files that it has already written are not read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from diredi.decentralized.simulation.arrays import Arrays, from_weight_map, to_weight_map
from diredi.store.weights import WeightMap


class ClientStates:
    """The states of all clients. Files are written whole or not at all.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, client: int, number: int) -> Arrays | None:
        """Read the state of a client at the start of a round; None if it has not participated yet.

        Raises:
            CorruptData: The file is damaged.
        """
        newest = max((round_ for round_ in self._rounds(client) if round_ < number), default=None)
        return None if newest is None else from_weight_map(WeightMap.load(self._path(client, newest)))

    def write(self, client: int, number: int, state: Arrays) -> None:
        """Write the state of a client at the end of a round."""
        to_weight_map(state).save(self._path(client, number))

    def forget(self, clients: Iterable[int], number: int) -> None:
        """Delete files of these clients from before a round that has ended."""
        for client in clients:
            for older in self._rounds(client):
                if older < number:
                    self._path(client, older).unlink()

    def clear(self) -> None:
        """Delete all files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _rounds(self, client: int) -> list[int]:
        return [int(path.stem) for path in (self._folder / str(client)).glob("*.safetensors")]

    def _path(self, client: int, number: int) -> Path:
        return self._folder / str(client) / f"{number}.safetensors"

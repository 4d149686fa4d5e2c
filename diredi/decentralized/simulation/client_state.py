"""What sleeping clients remember rests on disk, a file for each client and round.

A client's newest file from before a round is what it remembers in it. So a round that was killed in the middle may be
run again: what it has already written is not yet looked at.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from diredi.decentralized.simulation.arrays import Arrays, from_weight_map, to_weight_map
from diredi.store.weights import WeightMap


class ClientStates:
    """Reads and writes whole files or none. Raises CorruptData for one that is damaged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, client: int, number: int) -> Arrays | None:
        """What a client knows when a round begins; None: it was never awake."""
        newest = max((round_ for round_ in self._rounds(client) if round_ < number), default=None)
        return None if newest is None else from_weight_map(WeightMap.load(self._path(client, newest)))

    def write(self, client: int, number: int, memory: Arrays) -> None:
        to_weight_map(memory).save(self._path(client, number))

    def forget(self, clients: Iterable[int], number: int) -> None:
        """Whatever is older than that round, which is over."""
        for client in clients:
            for older in self._rounds(client):
                if older < number:
                    self._path(client, older).unlink()

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _rounds(self, client: int) -> list[int]:
        return [int(path.stem) for path in (self._folder / str(client)).glob("*.safetensors")]

    def _path(self, client: int, number: int) -> Path:
        return self._folder / str(client) / f"{number}.safetensors"

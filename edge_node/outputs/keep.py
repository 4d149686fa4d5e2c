"""Pictures and events in a folder of this machine, no more than fit."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

import structlog

from diredi.errors import DirediError
from diredi.store.files import atomic_write, make_folder
from edge_node.inference import Result
from edge_node.outputs.events import Event, EventFeed
from edge_node.outputs.picture import picture_of

BACKLOG = 16
"""How many files may wait for a slow disk; further ones are left out and counted."""
SUFFIXES = (".jpg", ".json")


class KeepOutput:
    """Keep the picture at the beginning of each object and its event at the end; the oldest make room for new ones."""

    def __init__(self, folder: Path, limit_mib: int, feed: EventFeed) -> None:
        """Make an output; `run` starts it.

        Args:
            folder: Where the files go. Files in it that end in .jpg or .json are taken for its own.
            limit_mib: How much they may take, in MiB.
            feed: Gives the events and their pictures.
        """
        self._folder, self._limit_bytes, self._feed = folder, limit_mib * 2**20, feed
        self._waiting: deque[tuple[Event, Result | None]] = deque(maxlen=BACKLOG)
        self._has_work = asyncio.Event()
        self.left_out = 0
        """Files that were not written because the disk was too slow or full."""
        self.problem = ""
        """Why files cannot be written; empty for nothing."""
        feed.on_event.append(self._take)

    def metrics(self) -> tuple[()]:
        """Return no figures."""
        return ()

    def _take(self, event: Event) -> None:
        if event.type == "update":
            return
        if len(self._waiting) == BACKLOG:
            self.left_out += 1
        self._waiting.append((event, self._feed.scenes[event.camera].result if event.type == "begin" else None))
        self._has_work.set()

    async def run(self) -> None:
        """Write files, for ever."""
        while True:
            await self._has_work.wait()
            if not self._waiting:
                self._has_work.clear()
                continue
            event, result = self._waiting.popleft()
            try:
                await asyncio.to_thread(self._write, event, result)
                self.problem = ""
            except (DirediError, OSError) as error:
                self.left_out += 1
                said = f"events cannot be kept in {self._folder} ({error}): free some room, or correct --keep"
                if said != self.problem:
                    structlog.get_logger().warning("event_not_kept", error=said)
                self.problem = said

    def _write(self, event: Event, result: Result | None) -> None:
        make_folder(self._folder)
        began = datetime.fromtimestamp(event.began_s, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name = f"{began}-{event.camera}-{event.id}"
        suffix, data = (".jpg", picture_of(result)) if result is not None else (".json", _text(event))
        self._make_room(len(data))
        atomic_write(self._folder / (name + suffix), data, durable=False)

    def _make_room(self, wanted_bytes: int) -> None:
        """Delete the oldest files, until there is room for so many bytes more; names begin with a time."""
        files = sorted(path for path in self._folder.iterdir() if path.suffix in SUFFIXES)
        sizes = [path.stat().st_size for path in files]
        excess = sum(sizes) + wanted_bytes - self._limit_bytes
        for path, size in zip(files, sizes, strict=True):
            if excess <= 0:
                return
            path.unlink()
            excess -= size


def _text(event: Event) -> bytes:
    return json.dumps(event.to_json(), ensure_ascii=False, indent=1).encode()

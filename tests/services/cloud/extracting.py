"""A cycle that waits for its gap: where most of what can go wrong begins."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diredi.labels import LabelSpace
from diredi.rpc import convert
from tests.services.cloud.world import Operator, SiteSide, World

STRANGER = "sha256:" + "7" * 64


@dataclass
class Extracting:
    """A cycle that waits for its gap, and a manifest that would be taken."""

    world: World
    operator: Operator
    site: SiteSide
    task: Any
    labels: LabelSpace
    manifest: Any

    def stores(self) -> tuple[list[str], list[tuple[str, int]]]:
        """Everything that is in the database and under the blob store."""
        with sqlite3.connect(self.world.state_dir / "cloud.sqlite") as connection:
            rows = [line for line in connection.iterdump() if '"sites"' not in line]
        files = self.world.state_dir.joinpath("blobs").rglob("*")
        return rows, sorted((str(file), file.stat().st_size) for file in files if file.is_file())

    async def put(self, data: bytes, **changes: Any) -> None:
        """These bytes as the tutor gap."""
        blob = await self.site.put(data)
        self.manifest.tutor_gap.blob.CopyFrom(convert.blob_to(blob))
        for name, value in changes.items():
            setattr(self.manifest.tutor_gap, name, value)

    async def base(self) -> Path:
        return await self.site.fetch(self.task.tutor.weights)


@asynccontextmanager
async def extracting(world: World) -> AsyncIterator[Extracting]:
    async with world.cloud():
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)
        labels = await site.propose(task.cycle_id, "forklift")
        manifest = await site.manifest(task, labels)
        yield Extracting(world, operator, site, task, labels, manifest)

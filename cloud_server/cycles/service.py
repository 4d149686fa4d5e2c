"""What operators and sites may do with cycles: check who asks, run one command, wake the watchers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from cloud_server import authorization
from cloud_server.context import CloudContext
from cloud_server.cycles import recipes, transitions
from cloud_server.entities import Cycle, Json
from cloud_server.notifier import cycle_topic
from diredi.errors import DirediError
from diredi.knowledge.recipe import CycleRecipe
from diredi.trust.identity import Identity, Role

_MAX_LIMIT = 1000


class CycleService:
    def __init__(self, context: CloudContext, recipe: CycleRecipe) -> None:
        self._context = context
        self._recipe = recipe

    async def start(self, actor: Identity, sites: Sequence[str], request_id: str, overrides: Json) -> Cycle:
        authorization.require_operator(actor)
        recipe = recipes.merged(self._recipe, overrides)
        now = self._context.now()
        start = transitions.start_cycle
        return self._context.moved(
            await self._context.database.write(lambda r: start(r, sites, request_id, recipe, str(actor), now))
        )

    async def get(self, actor: Identity, cycle_id: str) -> Cycle:
        """Sites see their own only, and of one that they share their own part."""
        authorization.require_operator_or_site(actor)
        cycle = await self._context.database.read(lambda r: r.cycles.get(cycle_id))
        authorization.require_view_of(actor, *cycle.sites)
        return _shown(actor, cycle)

    async def recent(self, actor: Identity, site: str, limit: int) -> list[Cycle]:
        """Newest first; a site that names no site means itself."""
        authorization.require_operator_or_site(actor)
        wanted = actor.name if actor.role is Role.SITE and not site else site
        authorization.require_view_of(actor, wanted)
        most = min(limit or 100, _MAX_LIMIT)
        found = await self._context.database.read(lambda r: r.cycles.recent(wanted, most))
        return [_shown(actor, cycle) for cycle in found]

    async def watch(self, actor: Identity, cycle_id: str) -> AsyncGenerator[Cycle]:
        """The cycle now, after each change, and every 15 s, until it ends."""
        notifier, topic = self._context.notifier, cycle_topic(cycle_id)
        while True:
            seen_version = notifier.version(topic)
            cycle = await self.get(actor, cycle_id)
            yield cycle
            if cycle.ended:
                return
            await notifier.wait_for_change(topic, seen_version, self._context.keep_alive_s)

    async def approve(self, actor: Identity, cycle_id: str) -> Cycle:
        await self._own(actor, cycle_id)
        now = self._context.now()
        write = self._context.database.write
        moved = self._context.moved(await write(lambda r: transitions.approve(r, cycle_id, actor.name, now)))
        return _shown(actor, moved)

    async def decline(self, actor: Identity, cycle_id: str, reason: str) -> Cycle:
        await self._own(actor, cycle_id)
        now = self._context.now()
        write = self._context.database.write
        moved = self._context.moved(await write(lambda r: transitions.decline(r, cycle_id, actor.name, reason, now)))
        return _shown(actor, moved)

    async def _own(self, actor: Identity, cycle_id: str) -> None:
        """An operator is told that it may not, a site that it is not its cycle."""
        try:
            cycle = await self._context.database.read(lambda r: r.cycles.get(cycle_id))
        except DirediError:
            authorization.require_operator_or_site(actor)
            raise
        authorization.require_member_site(actor, cycle.sites)


def _shown(actor: Identity, cycle: Cycle) -> Cycle:
    return cycle.redact_for(actor.name) if actor.role is Role.SITE else cycle

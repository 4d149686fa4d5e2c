"""The application layer of cycles: what operators and sites may ask of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from cloud_server import authorization
from cloud_server.context import CloudContext
from cloud_server.cycles import rebase, transitions
from cloud_server.cycles.rebase import StaleRelease
from cloud_server.entities import Cycle, Json
from cloud_server.notifier import cycle_topic
from cloud_server.scopes import FLEET
from diredi.knowledge.recipe import CycleRecipe
from diredi.trust.identity import Identity, Role


class CycleService:
    """Start, show, watch, approve and decline update cycles."""

    def __init__(self, context: CloudContext, recipe: CycleRecipe) -> None:
        """Create the service.

        Args:
            context: What the services share.
            recipe: The cloud's own recipe, which a request may override.
        """
        self._context = context
        self._recipe = recipe

    async def start(
        self, actor: Identity, sites: Sequence[str], request_id: str, overrides: Json, scope: str = FLEET
    ) -> Cycle:
        """Start a cycle for an operator, or return the one that this request has started before.

        Args:
            actor: The caller.
            sites: The sites to learn from.
            request_id: Made up by the caller; the same id gives the same cycle.
            overrides: Options of the recipe that differ from the cloud's own.
            scope: Whom the release is for: "fleet", "site" or "group:NAME".

        Raises:
            Refused: The caller is not an operator, or a site is not in the group.
            InvalidInput: An option, the list of sites, the scope or the request id is not usable.
            NotFound: A site has never called.
            WrongState: A site has an unfinished cycle, or there is no release yet.
        """
        authorization.require_operator(actor)
        if len(set(sites)) > 1:
            overrides = {"router": False, **overrides}  # a device would compute the branch of each site
        recipe = self._recipe.override(overrides).model_dump(mode="json")
        return await self._context.write(
            lambda r, now: transitions.start_cycle(r, sites, request_id, recipe, str(actor), now, scope)
        )

    async def rebase(self, actor: Identity, scope: str, request_id: str, overrides: Json) -> Cycle:
        """Start the rebase of a scope's release, or return the one that this request has started before.

        Args:
            actor: The caller.
            scope: "site:NAME" or "group:NAME".
            request_id: Made up by the caller; the same id gives the same cycle.
            overrides: Options of the recipe that differ from that of the cycle whose release is rebased.

        Raises:
            Refused: The caller is not an operator.
            InvalidInput: That is no scope of a site or a group, or an option is not usable.
            NotFound: The scope has no release of its own.
            WrongState: There is nothing to rebase, or a site of it has a cycle under way.
        """
        authorization.require_operator(actor)
        transitions.check_request_id(request_id)
        return await self._context.write(
            lambda r, now: rebase.start_rebase(r, scope, request_id, str(actor), now, overrides)
        )

    async def get(self, actor: Identity, cycle_id: str) -> Cycle:
        """Return a cycle as the caller may see it: operators see all of it, a site only its own part.

        Raises:
            NotFound: There is no such cycle, or the caller is outside of its scope.
            Refused: The caller is neither a person nor a site of the cycle.
        """
        authorization.require_viewer_or_site(actor)
        cycle = await self._context.read(lambda r: r.cycles.get(cycle_id, r.visible_to(actor)))
        authorization.require_view_of(actor, *cycle.sites)
        return _view(actor, cycle)

    async def recent(self, actor: Identity, site: str, limit: int, after: str = "") -> list[Cycle]:
        """Return cycles, newest first.

        Args:
            actor: The caller.
            site: Only cycles in which this site takes part. Empty: all, or the caller's own if it is a site.
            limit: At most so many.
            after: Only cycles that are older than the one of this id; empty: all.

        Raises:
            InvalidInput: There is no cycle of the id `after`.
            Refused: The caller is neither a person nor that site.
        """
        authorization.require_viewer_or_site(actor)
        wanted = actor.name if actor.role is Role.SITE and not site else site
        authorization.require_view_of(actor, wanted)
        cycles = await self._context.read(lambda r: r.cycles.recent(wanted, limit, r.visible_to(actor), after))
        return [_view(actor, cycle) for cycle in cycles]

    async def list_stale(self, actor: Identity) -> list[StaleRelease]:
        """Return the releases of the caller's scopes that do not stand on the newest of the next wider scope.

        Raises:
            Refused: The caller is neither a person nor a site.
        """
        authorization.require_viewer_or_site(actor)
        return await self._context.read(lambda r: rebase.list_stale(r, r.visible_to(actor)))

    async def watch(self, actor: Identity, cycle_id: str) -> AsyncGenerator[Cycle]:
        """Yield a cycle now, after each change, and at the keep-alive interval, until it ends.

        Raises:
            NotFound: There is no such cycle.
            Refused: The caller is neither a person nor a site of the cycle.
        """
        notifier, topic = self._context.notifier, cycle_topic(cycle_id)
        while True:
            seen_version = notifier.version(topic)
            cycle = await self.get(actor, cycle_id)
            yield cycle
            if cycle.ended:
                return
            await notifier.wait_for_change(topic, seen_version, self._context.keep_alive_s)

    async def approve(self, actor: Identity, cycle_id: str) -> Cycle:
        """Record a site's yes and return the cycle. A second yes changes nothing.

        Raises:
            NotFound: There is no such cycle.
            Refused: The caller is not a site of the cycle.
            WrongState: The site is past approval.
        """
        cycle = await self._context.write_for_site(
            actor, cycle_id, lambda r, now: transitions.approve(r, cycle_id, actor.name, now)
        )
        return _view(actor, cycle)

    async def decline(self, actor: Identity, cycle_id: str, reason: str) -> Cycle:
        """Record a site's no, with its reason, and return the cycle. A second no changes nothing.

        Raises:
            NotFound: There is no such cycle.
            Refused: The caller is not a site of the cycle.
            WrongState: The site's gap has been uploaded.
        """
        cycle = await self._context.write_for_site(
            actor, cycle_id, lambda r, now: transitions.decline(r, cycle_id, actor.name, reason, now)
        )
        return _view(actor, cycle)


def _view(actor: Identity, cycle: Cycle) -> Cycle:
    return cycle.redact_for(actor.name) if actor.role is Role.SITE else cycle

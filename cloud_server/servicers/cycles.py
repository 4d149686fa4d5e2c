"""The RPCs of CycleService: update cycles, for operators and for the sites that take part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from cloud_server.cycles.service import CycleService
from cloud_server.servicers.convert import cycle_to
from diredi.rpc.caller import Context, caller_identity
from diredi.rpc.convert import struct_from
from diredi.rpc.v1 import cycles_pb2 as pb
from diredi.rpc.v1 import cycles_pb2_grpc as stubs


class CycleServicer(stubs.CycleServiceServicer):
    """Answers as `proto/diredi/v1/cycles.proto` says."""

    def __init__(self, service: CycleService) -> None:
        self._service = service

    async def StartCycle(self, request: pb.StartCycleRequest, context: Context) -> pb.StartCycleResponse:
        overrides = struct_from(request.recipe)
        sites = [site for site in (request.site, *request.sites) if site]
        cycle = await self._service.start(caller_identity(context), sites, request.request_id, overrides)
        return pb.StartCycleResponse(cycle=cycle_to(cycle))

    async def WatchCycle(self, request: pb.WatchCycleRequest, context: Context) -> AsyncIterator[pb.WatchCycleResponse]:
        async with aclosing(self._service.watch(caller_identity(context), request.id)) as cycles:
            async for cycle in cycles:
                yield pb.WatchCycleResponse(cycle=cycle_to(cycle))

    async def ListCycles(self, request: pb.ListCyclesRequest, context: Context) -> pb.ListCyclesResponse:
        cycles = await self._service.recent(caller_identity(context), request.site, request.limit)
        return pb.ListCyclesResponse(cycles=[cycle_to(cycle, brief=True) for cycle in cycles])

    async def GetCycle(self, request: pb.GetCycleRequest, context: Context) -> pb.GetCycleResponse:
        return pb.GetCycleResponse(cycle=cycle_to(await self._service.get(caller_identity(context), request.id)))

    async def ApproveCycle(self, request: pb.ApproveCycleRequest, context: Context) -> pb.ApproveCycleResponse:
        return pb.ApproveCycleResponse(
            cycle=cycle_to(await self._service.approve(caller_identity(context), request.id))
        )

    async def DeclineCycle(self, request: pb.DeclineCycleRequest, context: Context) -> pb.DeclineCycleResponse:
        cycle = await self._service.decline(caller_identity(context), request.id, request.reason)
        return pb.DeclineCycleResponse(cycle=cycle_to(cycle))

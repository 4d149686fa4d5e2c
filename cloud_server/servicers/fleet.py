"""The RPCs of FleetService: what devices report, and the releases that they are told of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from cloud_server.context import utc_now
from cloud_server.entities import Install
from cloud_server.fleet.service import FleetService
from cloud_server.servicers.convert import device_to, outcome_from, release_to, vitals_from
from diredi.rpc.caller import Context, caller_identity
from diredi.rpc.v1 import fleet_pb2 as pb
from diredi.rpc.v1 import fleet_pb2_grpc as stubs


class FleetServicer(stubs.FleetServiceServicer):
    """Answers as `proto/diredi/v1/fleet.proto` says."""

    def __init__(self, service: FleetService) -> None:
        self._service = service

    async def RegisterDevice(self, request: pb.RegisterDeviceRequest, context: Context) -> pb.RegisterDeviceResponse:
        await self._service.register(caller_identity(context), request.device, request.site, request.release_version)
        return pb.RegisterDeviceResponse()

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        await self._service.heartbeat(caller_identity(context), request.device, vitals_from(request))
        return pb.HeartbeatResponse()

    async def WatchReleases(
        self,
        request: pb.WatchReleasesRequest,
        context: Context,
    ) -> AsyncIterator[pb.WatchReleasesResponse]:
        async with aclosing(self._service.watch(caller_identity(context), request.device)) as deployments:
            async for deployment in deployments:
                yield pb.WatchReleasesResponse(release=None if deployment is None else release_to(deployment))

    async def ReportInstall(self, request: pb.ReportInstallRequest, context: Context) -> pb.ReportInstallResponse:
        install = Install(
            release_version=request.release_version, outcome=outcome_from(request.outcome), reason=request.reason,
            at=utc_now(),
        )  # fmt: skip
        await self._service.report_install(caller_identity(context), request.device, install)
        return pb.ReportInstallResponse()

    async def ListDevices(self, request: pb.ListDevicesRequest, context: Context) -> pb.ListDevicesResponse:
        views = await self._service.list_devices(caller_identity(context), request.site)
        return pb.ListDevicesResponse(devices=[device_to(view) for view in views])

"""The RPCs of SiteService: the tasks and the results of user domains."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from cloud_server.servicers.convert import class_names_from, manifest_from, progress_from, site_to, task_to
from cloud_server.sites.service import Policy, SiteService
from diredi.rpc.byte_counter import IngressMeter
from diredi.rpc.caller import Context, caller_certificate, caller_identity
from diredi.rpc.convert import labels_to, metrics_from
from diredi.rpc.manifest_signature import check_manifest
from diredi.rpc.v1 import sites_pb2 as pb
from diredi.rpc.v1 import sites_pb2_grpc as stubs


class SiteServicer(stubs.SiteServiceServicer):
    """Answers as `proto/diredi/v1/sites.proto` says."""

    def __init__(self, service: SiteService, meter: IngressMeter) -> None:
        self._service = service
        self._meter = meter

    async def WatchTasks(self, request: pb.WatchTasksRequest, context: Context) -> AsyncIterator[pb.WatchTasksResponse]:
        caller = caller_identity(context)
        policy = Policy(request.auto_approve, request.publish_style)
        async with aclosing(self._service.watch(caller, request.site, policy)) as assignments:
            async for assignment in assignments:
                yield pb.WatchTasksResponse(task=None if assignment is None else task_to(assignment))

    async def ReportProgress(self, request: pb.ReportProgressRequest, context: Context) -> pb.ReportProgressResponse:
        await self._service.report_progress(caller_identity(context), request.cycle_id, progress_from(request.progress))
        return pb.ReportProgressResponse()

    async def ProposeClasses(self, request: pb.ProposeClassesRequest, context: Context) -> pb.ProposeClassesResponse:
        names = class_names_from(request.names)
        labels = await self._service.propose_classes(caller_identity(context), request.cycle_id, names)
        return pb.ProposeClassesResponse(labels=labels_to(labels))

    async def SubmitGap(self, request: pb.SubmitGapRequest, context: Context) -> pb.SubmitGapResponse:
        caller, certificate = caller_identity(context), caller_certificate(context)
        check_manifest(request.manifest, certificate)
        await self._service.submit_gap(caller, manifest_from(request.manifest), certificate.decode())
        return pb.SubmitGapResponse()

    async def SubmitValidation(
        self, request: pb.SubmitValidationRequest, context: Context
    ) -> pb.SubmitValidationResponse:
        await self._service.submit_validation(caller_identity(context), request.cycle_id, metrics_from(request.after))
        return pb.SubmitValidationResponse()

    async def FailTask(self, request: pb.FailTaskRequest, context: Context) -> pb.FailTaskResponse:
        await self._service.fail_task(caller_identity(context), request.task_id, request.reason)
        return pb.FailTaskResponse()

    async def ListSites(self, request: pb.ListSitesRequest, context: Context) -> pb.ListSitesResponse:
        views = await self._service.list_sites(caller_identity(context))
        sites = [site_to(view, self._meter.totals(f"site/{view.site.name}")) for view in views]
        return pb.ListSitesResponse(sites=sites)

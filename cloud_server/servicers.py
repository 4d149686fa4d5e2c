"""The RPCs of the cloud: each converts a request, calls a service and converts the answer.

Errors become status codes in the server's one interceptor (`diredi.rpc.interceptor`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from cloud_server import authorization
from cloud_server.context import CloudContext, utc_now
from cloud_server.convert import (
    class_names_from,
    cycle_to,
    device_to,
    group_to,
    manifest_from,
    model_to,
    outcome_from,
    progress_from,
    reason_from,
    release_to,
    rollout_to,
    site_to,
    stale_to,
    task_to,
    vitals_from,
)
from cloud_server.cycles.service import CycleService
from cloud_server.enrolment import EnrolmentService
from cloud_server.entities import Install, Json, ModelKind
from cloud_server.fleet.service import FleetService
from cloud_server.paging import Page
from cloud_server.sites.service import Policy, SiteService, SiteView
from diredi.errors import NoRoom, Refused
from diredi.rpc.byte_counter import IngressMeter
from diredi.rpc.caller import Context, caller_certificate, caller_identity
from diredi.rpc.convert import kind_from, labels_to, metrics_from, struct_from, time_to
from diredi.rpc.message_signature import check_message
from diredi.rpc.release_metadata import chunks_of
from diredi.rpc.v1 import cycles_pb2, enrolment_pb2, fleet_pb2, registry_pb2, releases_pb2, sites_pb2
from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceServicer
from diredi.rpc.v1.enrolment_pb2_grpc import EnrolmentServiceServicer
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceServicer
from diredi.rpc.v1.registry_pb2_grpc import RegistryServiceServicer
from diredi.rpc.v1.releases_pb2_grpc import ReleaseServiceServicer
from diredi.rpc.v1.sites_pb2_grpc import SiteServiceServicer
from diredi.trust import enrolment, rotation
from diredi.trust.deny_list import CRL_FILE
from diredi.trust.identity import Identity, Role
from diredi.trust.release_keys import ROOT_FILE

_log = structlog.get_logger()
_CYCLES: Final = 100
"""Cycles of a page where the caller does not say how many."""


class CycleServicer(CycleServiceServicer):
    """Answers as `proto/diredi/v1/cycles.proto` says."""

    def __init__(self, service: CycleService) -> None:
        self._service = service

    async def StartCycle(
        self, request: cycles_pb2.StartCycleRequest, context: Context
    ) -> cycles_pb2.StartCycleResponse:
        overrides = struct_from(request.recipe)
        sites = [site for site in (request.site, *request.sites) if site]
        cycle = await self._service.start(caller_identity(context), sites, request.request_id, overrides, request.scope)
        return cycles_pb2.StartCycleResponse(cycle=cycle_to(cycle))

    async def RebaseRelease(
        self, request: cycles_pb2.RebaseReleaseRequest, context: Context
    ) -> cycles_pb2.RebaseReleaseResponse:
        overrides = struct_from(request.recipe)
        cycle = await self._service.rebase(caller_identity(context), request.scope, request.request_id, overrides)
        return cycles_pb2.RebaseReleaseResponse(cycle=cycle_to(cycle))

    async def WatchCycle(
        self, request: cycles_pb2.WatchCycleRequest, context: Context
    ) -> AsyncIterator[cycles_pb2.WatchCycleResponse]:
        async with aclosing(self._service.watch(caller_identity(context), request.id)) as cycles:
            async for cycle in cycles:
                yield cycles_pb2.WatchCycleResponse(cycle=cycle_to(cycle))

    async def ListCycles(
        self, request: cycles_pb2.ListCyclesRequest, context: Context
    ) -> cycles_pb2.ListCyclesResponse:
        caller = caller_identity(context)
        page = Page.of(request, request.limit or _CYCLES)
        cycles = await self._service.recent(caller, request.site, page.wanted, page.after)
        stale = [] if page.after else await self._service.list_stale(caller)
        messages, following = page.fill(cycles, lambda cycle: cycle.id, lambda cycle: cycle_to(cycle, brief=True))
        return cycles_pb2.ListCyclesResponse(
            cycles=messages, stale=[stale_to(release) for release in stale], next_page_token=following
        )

    async def GetCycle(self, request: cycles_pb2.GetCycleRequest, context: Context) -> cycles_pb2.GetCycleResponse:
        return cycles_pb2.GetCycleResponse(
            cycle=cycle_to(await self._service.get(caller_identity(context), request.id))
        )

    async def ApproveCycle(
        self, request: cycles_pb2.ApproveCycleRequest, context: Context
    ) -> cycles_pb2.ApproveCycleResponse:
        return cycles_pb2.ApproveCycleResponse(
            cycle=cycle_to(await self._service.approve(caller_identity(context), request.id))
        )

    async def DeclineCycle(
        self, request: cycles_pb2.DeclineCycleRequest, context: Context
    ) -> cycles_pb2.DeclineCycleResponse:
        cycle = await self._service.decline(caller_identity(context), request.id, reason_from(request.reason))
        return cycles_pb2.DeclineCycleResponse(cycle=cycle_to(cycle))


class SiteServicer(SiteServiceServicer):
    """Answers as `proto/diredi/v1/sites.proto` says."""

    def __init__(self, service: SiteService, meter: IngressMeter) -> None:
        self._service = service
        self._meter = meter

    async def WatchTasks(
        self, request: sites_pb2.WatchTasksRequest, context: Context
    ) -> AsyncIterator[sites_pb2.WatchTasksResponse]:
        caller = caller_identity(context)
        policy = Policy(request.auto_approve, request.publish_style, request.validates_external)
        async with aclosing(self._service.watch(caller, request.site, policy)) as assignments:
            async for assignment in assignments:
                task = None if assignment is None else task_to(assignment)
                yield sites_pb2.WatchTasksResponse(task=task, deny_list=self._service.deny_list)

    async def ReportProgress(
        self, request: sites_pb2.ReportProgressRequest, context: Context
    ) -> sites_pb2.ReportProgressResponse:
        await self._service.report_progress(caller_identity(context), request.cycle_id, progress_from(request.progress))
        return sites_pb2.ReportProgressResponse()

    async def ProposeClasses(
        self, request: sites_pb2.ProposeClassesRequest, context: Context
    ) -> sites_pb2.ProposeClassesResponse:
        names = class_names_from(request.names)
        distinct = frozenset(name.strip() for name in request.distinct)
        labels = await self._service.propose_classes(caller_identity(context), request.cycle_id, names, distinct)
        return sites_pb2.ProposeClassesResponse(labels=labels_to(labels))

    async def SubmitGap(self, request: sites_pb2.SubmitGapRequest, context: Context) -> sites_pb2.SubmitGapResponse:
        caller, certificate = caller_identity(context), caller_certificate(context)
        if request.manifest.ByteSize() > self._service.max_manifest_bytes:
            most = self._service.max_manifest_bytes
            raise NoRoom(f"the manifest has {request.manifest.ByteSize()} bytes: at most {most} are taken")
        check_message(request.manifest, certificate)
        await self._service.submit_gap(caller, manifest_from(request.manifest), certificate.decode())
        return sites_pb2.SubmitGapResponse()

    async def SubmitValidation(
        self, request: sites_pb2.SubmitValidationRequest, context: Context
    ) -> sites_pb2.SubmitValidationResponse:
        before = metrics_from(request.before) if request.HasField("before") else None
        await self._service.submit_validation(
            caller_identity(context), request.cycle_id, metrics_from(request.after), before
        )
        return sites_pb2.SubmitValidationResponse()

    async def FailTask(self, request: sites_pb2.FailTaskRequest, context: Context) -> sites_pb2.FailTaskResponse:
        await self._service.fail_task(caller_identity(context), request.task_id, reason_from(request.reason))
        return sites_pb2.FailTaskResponse()

    async def SetGroup(self, request: sites_pb2.SetGroupRequest, context: Context) -> sites_pb2.SetGroupResponse:
        change = await self._service.set_group(caller_identity(context), request.group.name, list(request.group.sites))
        return sites_pb2.SetGroupResponse(group=group_to(change.group), changes=change.effects)

    async def RemoveGroup(
        self, request: sites_pb2.RemoveGroupRequest, context: Context
    ) -> sites_pb2.RemoveGroupResponse:
        change = await self._service.remove_group(caller_identity(context), request.name)
        return sites_pb2.RemoveGroupResponse(changes=change.effects)

    async def ListGroups(self, request: sites_pb2.ListGroupsRequest, context: Context) -> sites_pb2.ListGroupsResponse:
        page = Page.of(request)
        groups = await self._service.list_groups(caller_identity(context), page.after)
        messages, following = page.fill(groups, lambda group: group.name, group_to)
        return sites_pb2.ListGroupsResponse(groups=messages, next_page_token=following)

    async def ListSites(self, request: sites_pb2.ListSitesRequest, context: Context) -> sites_pb2.ListSitesResponse:
        page = Page.of(request)
        views = await self._service.list_sites(caller_identity(context), page.after, page.wanted)

        def to_message(view: SiteView) -> sites_pb2.Site:
            return site_to(view, self._meter.totals(f"site/{view.site.name}"))

        sites, following = page.fill(views, lambda view: view.site.name, to_message)
        return sites_pb2.ListSitesResponse(sites=sites, next_page_token=following)


class FleetServicer(FleetServiceServicer):
    """Answers as `proto/diredi/v1/fleet.proto` says."""

    def __init__(self, service: FleetService) -> None:
        self._service = service

    async def RegisterDevice(
        self, request: fleet_pb2.RegisterDeviceRequest, context: Context
    ) -> fleet_pb2.RegisterDeviceResponse:
        await self._service.register(caller_identity(context), request.device, request.site, request.release_version)
        return fleet_pb2.RegisterDeviceResponse()

    async def Heartbeat(self, request: fleet_pb2.HeartbeatRequest, context: Context) -> fleet_pb2.HeartbeatResponse:
        await self._service.heartbeat(caller_identity(context), request.device, vitals_from(request))
        return fleet_pb2.HeartbeatResponse()

    async def WatchReleases(
        self,
        request: fleet_pb2.WatchReleasesRequest,
        context: Context,
    ) -> AsyncIterator[fleet_pb2.WatchReleasesResponse]:
        caller = caller_identity(context)
        async with aclosing(self._service.watch(caller, request.device)) as deployments:
            async for deployment in deployments:
                release = None if deployment is None else release_to(deployment)
                answer = fleet_pb2.WatchReleasesResponse(release=release, deny_list=self._service.deny_list)
                if deployment is not None:
                    answer.release.challenge = self._service.challenge(caller, deployment.release.version)
                yield answer

    async def GetReleaseMetadata(
        self, request: fleet_pb2.GetReleaseMetadataRequest, context: Context
    ) -> AsyncIterator[fleet_pb2.GetReleaseMetadataResponse]:
        for chunk in chunks_of(await self._service.metadata(caller_identity(context), request.name)):
            yield chunk

    async def ReportInstall(
        self, request: fleet_pb2.ReportInstallRequest, context: Context
    ) -> fleet_pb2.ReportInstallResponse:
        install = Install(
            release_version=request.release_version, outcome=outcome_from(request.outcome),
            reason=reason_from(request.reason), at=utc_now(),
        )  # fmt: skip
        signed: Json = {}
        if request.signature:
            certificate = caller_certificate(context)
            check_message(request, certificate)
            signed = {
                "report": request.SerializeToString(deterministic=True).hex(),
                "certificate": certificate.decode(),
            }
        caller = caller_identity(context)
        await self._service.report_install(caller, request.device, install, request.possession, signed)
        return fleet_pb2.ReportInstallResponse()

    async def ListDevices(
        self, request: fleet_pb2.ListDevicesRequest, context: Context
    ) -> fleet_pb2.ListDevicesResponse:
        page = Page.of(request)
        views = await self._service.list_devices(caller_identity(context), request.site, page.after, page.wanted)
        devices, following = page.fill(views, lambda view: view.device.key, device_to)
        return fleet_pb2.ListDevicesResponse(devices=devices, next_page_token=following)


class ReleaseServicer(ReleaseServiceServicer):
    """Answers as `proto/diredi/v1/releases.proto` says."""

    def __init__(self, service: FleetService) -> None:
        self._service = service

    async def GetLineage(
        self, request: releases_pb2.GetLineageRequest, context: Context
    ) -> AsyncIterator[releases_pb2.GetLineageResponse]:
        for version, parents, entry in await self._service.lineage(caller_identity(context), request.version):
            yield releases_pb2.GetLineageResponse(
                version=version, parents=parents, index=entry.index, entry=entry.entry, details=entry.details
            )

    async def ListRollouts(
        self, request: releases_pb2.ListRolloutsRequest, context: Context
    ) -> AsyncIterator[releases_pb2.Rollout]:
        for report in await self._service.rollouts(caller_identity(context), request.version):
            yield rollout_to(report)

    async def ChangeRollout(
        self, request: releases_pb2.ChangeRolloutRequest, context: Context
    ) -> releases_pb2.ChangeRolloutResponse:
        change, reason = releases_pb2.RolloutChange.Name(request.change), reason_from(request.reason)
        version = await self._service.change_rollout(
            caller_identity(context), request.version, change.removeprefix("ROLLOUT_CHANGE_"), request.percent, reason
        )
        return releases_pb2.ChangeRolloutResponse(release_version=version)

    async def ListUnsigned(
        self, request: releases_pb2.ListUnsignedRequest, context: Context
    ) -> AsyncIterator[releases_pb2.ListUnsignedResponse]:
        for unsigned in await self._service.list_unsigned(caller_identity(context)):
            yield releases_pb2.ListUnsignedResponse(
                name=unsigned.name,
                metadata=unsigned.metadata.to_bytes(),
                threshold=unsigned.threshold,
                key_ids=unsigned.keyids,
            )

    async def AddSignatures(
        self, request: releases_pb2.AddSignaturesRequest, context: Context
    ) -> releases_pb2.AddSignaturesResponse:
        is_published = await self._service.add_signatures(caller_identity(context), request.name, request.metadata)
        return releases_pb2.AddSignaturesResponse(published=is_published)


class RegistryServicer(RegistryServiceServicer):
    """Answers as `proto/diredi/v1/registry.proto` says. It only reads, so it needs no service of its own."""

    def __init__(self, context: CloudContext) -> None:
        self._context = context

    async def ListModels(
        self, request: registry_pb2.ListModelsRequest, context: Context
    ) -> registry_pb2.ListModelsResponse:
        caller = caller_identity(context)
        authorization.require_viewer_or_site(caller)
        kind = kind_from(request.kind)
        wanted = ModelKind(kind) if kind else None
        page = Page.of(request)
        models = await self._context.read(lambda r: r.models.all(wanted, r.visible_to(caller), page.after, page.wanted))
        messages, following = page.fill(models, lambda model: model.id, model_to)
        return registry_pb2.ListModelsResponse(models=messages, next_page_token=following)

    async def GetModel(self, request: registry_pb2.GetModelRequest, context: Context) -> registry_pb2.GetModelResponse:
        caller = caller_identity(context)
        authorization.require_viewer_or_site(caller)
        model = await self._context.read(lambda r: r.models.get(request.id, r.visible_to(caller)))
        return registry_pb2.GetModelResponse(model=model_to(model))


class EnrolmentServicer(EnrolmentServiceServicer):
    """Answers as `proto/diredi/v1/enrolment.proto` says, and signs with the authority that the cloud was given."""

    def __init__(self, service: EnrolmentService, authority: Path | None, identity: Path) -> None:
        """Sign with the authority in a folder; None: sign nothing. `identity` is the folder of the cloud's own."""
        self._service, self._folder, self._identity = service, authority, identity

    async def CreateToken(
        self, request: enrolment_pb2.CreateTokenRequest, context: Context
    ) -> enrolment_pb2.CreateTokenResponse:
        made = await self._service.create_token(
            caller_identity(context), request.identity, list(request.hosts), timedelta(seconds=request.valid_s)
        )
        return enrolment_pb2.CreateTokenResponse(
            certificate=made.certificate, key=made.key, ca=made.ca, expires=time_to(made.expires)
        )

    async def Enrol(self, request: enrolment_pb2.EnrolRequest, context: Context) -> enrolment_pb2.EnrolResponse:
        token = caller_identity(context)
        if token.role is not Role.ENROLMENT:
            raise Refused(f"{token} is enrolled already: enrol with a token")
        folder = self._service.authority
        certificate = await asyncio.to_thread(enrolment.redeem, folder, token, request.signing_request)
        _log.info("enrolled", identity=str(Identity.from_certificate(certificate)), token=token.name)
        return enrolment_pb2.EnrolResponse(
            certificate=certificate, deny_list=_read(folder / CRL_FILE), root=_read(self._identity / ROOT_FILE)
        )

    async def RenewCertificate(
        self, request: enrolment_pb2.RenewCertificateRequest, context: Context
    ) -> enrolment_pb2.RenewCertificateResponse:
        folder = self._service.authority
        old = caller_certificate(context)
        certificate = await asyncio.to_thread(enrolment.renew, folder, old, request.signing_request)
        _log.info("certificate_signed", identity=str(Identity.from_certificate(certificate)))
        return enrolment_pb2.RenewCertificateResponse(certificate=certificate, deny_list=_read(folder / CRL_FILE))

    async def GetTrust(
        self, request: enrolment_pb2.GetTrustRequest, context: Context
    ) -> enrolment_pb2.GetTrustResponse:
        proof = b"" if self._folder is None else rotation.proof_of_next(self._folder)
        return enrolment_pb2.GetTrustResponse(deny_list=_read(self._identity / CRL_FILE), next_authority=proof)

    async def Retire(self, request: enrolment_pb2.RetireRequest, context: Context) -> enrolment_pb2.RetireResponse:
        retired = await self._service.retire(caller_identity(context), request.identity)
        return enrolment_pb2.RetireResponse(identities=map(str, retired))


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""

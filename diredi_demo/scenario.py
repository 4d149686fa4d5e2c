"""What happens in a demo, in order: only what a manufacturer, a site and an operator would do, too."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from diredi.child_process import ChildProcess
from diredi.errors import DirediError, Unreachable
from diredi.local_services import LocalServices
from diredi.rpc.client import Channel, Method, call, is_serving
from diredi.rpc.convert import blob_from, struct_to
from diredi.rpc.enrolment import enrol
from diredi.rpc.v1.common_pb2 import Model
from diredi.rpc.v1.cycles_pb2 import Cycle, GetCycleRequest, StartCycleRequest
from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceStub
from diredi.rpc.v1.edge_pb2 import GetStatusRequest, GetStatusResponse
from diredi.rpc.v1.edge_pb2_grpc import EdgeServiceStub
from diredi.rpc.v1.fleet_pb2 import ListDevicesRequest
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceStub
from diredi.rpc.v1.local_pb2 import GetSiteStatusRequest, GetSiteStatusResponse
from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
from diredi.rpc.v1.registry_pb2 import GetModelRequest
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub, RegistryServiceStub
from diredi.rpc.v1.sites_pb2 import ListSitesRequest
from diredi.rpc.v1.sites_pb2_grpc import SiteServiceStub
from diredi.trust.enrolment import Token
from diredi.trust.identity import Identity, Role
from diredi_cli.connection import open_channel
from diredi_cli.output import Progress
from diredi_cli.watch import check_ended_well, follow
from diredi_demo.data import DataPaths
from diredi_demo.options import EDGES, SITE, DemoOptions
from diredi_demo.service_configs import cloud_values, edge_values, site_values, with_scenes
from diredi_demo.timing import Clock, Stopwatch
from diredi_demo.workspace import Workspace

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_LOOK_EVERY_S = 0.25
_ROLLOUT_S = 180.0
_BOOTSTRAP_S = 4 * 3600.0


@dataclass
class Outcome:
    """What a scenario left behind, for measuring it."""

    cycle: Cycle
    data: DataPaths
    models: dict[str, Model]
    site: GetSiteStatusResponse
    edges: dict[str, GetStatusResponse]


@dataclass
class Scenario:
    """One demo, from five processes that know nothing to a fleet that runs the new release."""

    setting: DemoOptions
    folder: Workspace
    data: DataPaths
    fleet: LocalServices
    clock: Clock
    bar: Progress

    async def run(self) -> Outcome:
        """Raises the DirediError of whatever went wrong; the caller stops the fleet."""
        with self.clock.span("start", "set-up"):
            await self._start_services()
        return await self.fleet.guard(self._update())

    async def _start_services(self) -> None:
        self.bar.step("Starting one cloud, one user domain and three edge nodes")
        values = with_scenes(cloud_values(self.setting, self.folder), self.data.presumed, self.folder)
        cloud = self.fleet.start("cloud", "cloud_server", values)
        address = await self._ready(cloud)
        self.folder.make_tokens(address, SITE, EDGES)
        servers = dict(zip(EDGES, _free_addresses(len(EDGES)), strict=True)) if self.setting.keep else {}
        values = site_values(self.setting, self.folder, address, self.data.private, servers)
        site = self.fleet.start(SITE, "user_domain", values | {"labelled": self.data.labelled})
        local, frames = await self._ready(site), self._frames()
        for name in EDGES:
            values = edge_values(self.setting, self.folder, name, address, local, frames, servers.get(name, ""))
            self.fleet.start(name, "edge_node", values)
        for name in EDGES:
            await self._ready(self.fleet.services[name])

    async def _ready(self, service: ChildProcess) -> str:
        return await self.fleet.guard(self.fleet.ready(service))

    def _frames(self) -> Path:
        """Held-out images stand for what the cameras see."""
        from diredi.data.dataset import load

        return load(self.data.private, ("val",), read_labels=False).val[0].image.parent.resolve()

    async def _update(self) -> Outcome:
        operator, token = self.folder.identity("operator"), self.folder.token("operator")
        await enrol(Token.decode(token.read_text()), operator, Identity(Role.ADMIN, "operator"))
        token.unlink()
        async with open_channel(self.fleet.services["cloud"].address, operator) as cloud:
            within = Stopwatch(self.clock)
            with self.clock.span("bootstrap", "set-up"):
                await self._bootstrap(cloud, within)
            self.clock.add_parts("bootstrap", within.steps_in("bootstrap", self.clock.now()), "set-up")
            cycle = await self._cycle(cloud)
            models = await self._models(cloud, cycle)
            site = await self._site_status()
            edges = {name: await self._edge_status(name) for name in EDGES}
        return Outcome(cycle, self.data, models, site, edges)

    async def _bootstrap(self, cloud: Channel, within: Stopwatch) -> None:
        """Until release 1 exists and every edge node runs it, and the site can be asked."""
        service = self.fleet.services["cloud"]
        step = "The manufacturer makes release 1"
        self.bar.step(step)

        async def released() -> bool:
            for event in service.new_events():
                if event.get("event") == "bootstrap_progressed":
                    within.see("bootstrap", str(event["step"]))
                    text = f"{event['step']}: {event['message']}"
                    self.bar.step(step, float(event["fraction"]), text)
            return await is_serving(cloud, "diredi.v1.CycleService")

        await _until(released, _BOOTSTRAP_S, "the cloud has no release 1")
        self.bar.step("Every device installs release 1")
        await self._until_all_run(cloud, 1)

        async def site_online() -> bool:
            sites = await _ask(SiteServiceStub(cloud).ListSites, ListSitesRequest())
            return any(site.name == SITE and site.online for site in sites.sites)

        await _until(site_online, _ROLLOUT_S, f"the cloud has not heard of {SITE}")

    async def _cycle(self, cloud: Channel) -> Cycle:
        recipe = struct_to(self.setting.recipe)
        request = StartCycleRequest(site=SITE, request_id=str(uuid.uuid4()), recipe=recipe)
        stub, within = CycleServiceStub(cloud), Stopwatch(self.clock)
        start = self.clock.now()
        started = (await _ask(stub.StartCycle, request)).cycle
        cycle = await follow(cloud, started.id, self.bar, within.see_cycle)
        released = self.clock.now()
        check_ended_well(cycle, f"{self.folder.log('cloud')} and {self.folder.log(SITE)}")
        self.bar.step(f"Every device installs release {cycle.release_version}")
        await self._until_all_run(cloud, cycle.release_version)
        cycle = (await _ask(stub.GetCycle, GetCycleRequest(id=cycle.id))).cycle
        self.clock.add_cycle(cycle, within)
        self.clock.add("rollout", released, self.clock.now(), "cycle")
        self.clock.add("cycle", start, self.clock.now(), "cycle")
        return cycle

    async def _until_all_run(self, cloud: Channel, version: int) -> None:
        stub = FleetServiceStub(cloud)

        async def all_run() -> bool:
            answer = await _ask(stub.ListDevices, ListDevicesRequest(site=SITE))
            running = {device.name: device.release_version for device in answer.devices}
            return all(running.get(name) == version for name in EDGES)

        await _until(all_run, _ROLLOUT_S, f"not every device runs release {version}")

    async def _models(self, cloud: Channel, cycle: Cycle) -> dict[str, Model]:
        """The models of both releases from the registry, and the files that devices run, downloaded."""
        from diredi.rpc.blobs import download

        ids = {"tutor": cycle.base_tutor_id, "student": cycle.base_student_id, "new student": cycle.updated_student_id}
        stub = RegistryServiceStub(cloud)
        found = {name: (await _ask(stub.GetModel, GetModelRequest(id=model))).model for name, model in ids.items()}
        for name, path in (
            ("student", self.folder.release(cycle.release_version - 1)),
            ("new student", self.folder.release(cycle.release_version)),
        ):
            await download(BlobServiceStub(cloud), blob_from(found[name].onnx), path)
        return found

    async def _site_status(self) -> GetSiteStatusResponse:
        """Asked inside the site, with the site's own identity."""
        site = Identity(Role.SITE, SITE)
        async with open_channel(self.fleet.services[SITE].address, self.folder.identity(SITE), site) as channel:
            return await _ask(LocalServiceStub(channel).GetSiteStatus, GetSiteStatusRequest())

    async def _edge_status(self, name: str) -> GetStatusResponse:
        device = Identity(Role.DEVICE, name, SITE)
        async with open_channel(self.fleet.services[name].address, self.folder.identity(SITE), device) as channel:
            return await _ask(EdgeServiceStub(channel).GetStatus, GetStatusRequest())


async def _ask(method: Method[_Request, _Response], request: _Request) -> _Response:
    """One call, again when the other side was away: every call here may be repeated, and the machine may be busy."""
    return await call(method, request, deadline_s=10.0, attempts=4)


async def _until(true: Callable[[], Any], timeout_s: float, otherwise: str) -> None:
    """Asks again and again, and takes "away" for "not yet". Raises DirediError after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    if await true():
                        return
                except Unreachable:
                    pass
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        raise DirediError(f"{otherwise} after {timeout_s:.0f} s: see the logs of the services") from None


def _free_addresses(number: int) -> list[str]:
    """Return addresses with free ports, for web servers that the site must know before they are."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [f"127.0.0.1:{probe.getsockname()[1]}" for probe in probes]

"""One cycle through the three real services, with real jobs on detectors as small as they get."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from site_doubles import Models, config_of, running, write_data_set

from cloud_server.app import serve as serve_cloud
from cloud_server.config import CloudConfig
from diredi.data.sources import resolve
from diredi.errors import DirediError
from diredi.rpc.client import Channel, call, connect, is_serving
from diredi.rpc.v1 import common_pb2, cycles_pb2, edge_pb2, fleet_pb2, registry_pb2
from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceStub
from diredi.rpc.v1.edge_pb2_grpc import EdgeServiceStub
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceStub
from diredi.rpc.v1.registry_pb2_grpc import RegistryServiceStub
from diredi.trust.identity import Identity, Role
from edge_node.config import EdgeConfig
from edge_node.node import serve as serve_edge
from tests.support.net import free_port
from tests.support.pki import Pki
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.usefixtures("quick_processes")

TINY: dict[str, Any] = {"epochs": 1, "batch": 8}


@asynccontextmanager
async def in_background(serve: Any, config: Any) -> AsyncIterator[None]:
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(config, stop))
    try:
        yield
    finally:
        stop.set()
        await serving


def cloud_config(folder: Path, pki: Pki, models: Models) -> CloudConfig:
    presumed = write_data_set(folder / "presumed", classes=2)
    return CloudConfig(
        listen=f"127.0.0.1:{free_port()}",
        state_dir=folder / "cloud",
        identity=pki.issue("cloud", "cloud"),
        presumed=str(presumed),
        tutor=str(models.tutor),
        student=str(models.student),
        image_size=64,
        max_harm=1.0,
        canary_devices=1,
        bootstrap={"coreset_images": 4},  # type: ignore[arg-type]
        recipe={  # type: ignore[arg-type]
            "form": "weights",
            "tutor": TINY,
            "student": TINY,
            "redistil": TINY,
            "coreset_images": 4,
            "lam": 1.0,
            "max_false_alarms": 1e9,
        },
    )


def edge_config(folder: Path, pki: Pki, cloud: str, user_domain: str, frames: Path, device: str) -> EdgeConfig:
    return EdgeConfig(
        device=device,
        site="site-1",
        cloud=cloud,
        user_domain=user_domain,
        identity=pki.issue("device", device, "site-1"),
        state_dir=folder / device,
        listen=f"127.0.0.1:{free_port()}",
        source=f"folder:{frames}",
        confidence=0.001,
        frames_per_second=1,
        heartbeat_s=0.5,
        hand_samples_per_minute=600,
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)  # five programs that import torch, on machines that may be busy
async def test_a_cycle_ends_with_the_new_class_on_every_device(
    tmp_path: Path, pki: Pki, models: Models, data: Path
) -> None:
    cloud = cloud_config(tmp_path, pki, models)
    site = config_of(tmp_path / "site", pki, cloud.listen, data)
    frames = data.parent / "images" / "val"
    edges = [edge_config(tmp_path, pki, cloud.listen, site.listen, frames, f"camera-{i}") for i in (1, 2)]
    async with (
        in_background(serve_cloud, cloud),
        connect(cloud.listen, pki.credentials("operator", "alice")) as operator,
        running(site, pki) as local,
        in_background(serve_edge, edges[0]),
        in_background(serve_edge, edges[1]),
    ):
        await until(lambda: cloud_is_ready(operator), 300)
        await until(lambda: all_devices_run(operator, 1))
        first = await call(
            RegistryServiceStub(operator).ListModels, registry_pb2.ListModelsRequest(), deadline_s=PATIENCE_S
        )
        kinds = {common_pb2.ModelKind.Name(model.kind) for model in first.models}
        assert kinds == {"MODEL_KIND_TUTOR", "MODEL_KIND_STUDENT"}
        cycles = CycleServiceStub(operator)
        request = cycles_pb2.StartCycleRequest(site="site-1", request_id="once")
        cycle = (await call(cycles.StartCycle, request, deadline_s=PATIENCE_S)).cycle
        await until(lambda: has_ended(cycles, cycle.id), 600)
        cycle = (await call(cycles.GetCycle, cycles_pb2.GetCycleRequest(id=cycle.id), deadline_s=PATIENCE_S)).cycle
        assert cycle.state == cycles_pb2.CYCLE_STATE_RELEASED, cycle.history[-1].reason
        assert cycle.HasField("site_after")
        measured = [change.metrics["after"]["images"] for change in cycle.history if "after" in change.metrics]
        assert measured and set(measured) == {4}, "all held-out images of the presumed data, and of the site"
        assert not list((cloud.state_dir / "jobs").glob("*/*.safetensors")), "nothing of a job is left when it is over"
        await until(lambda: all_devices_run(operator, 2))
        for edge in edges:
            camera = Identity(Role.DEVICE, edge.device, "site-1")
            async with connect(edge.listen, pki.credentials("site", "site-1"), server=camera) as channel:
                status = await call(
                    EdgeServiceStub(channel).GetStatus, edge_pb2.GetStatusRequest(), deadline_s=PATIENCE_S
                )
                assert [item.name for item in status.labels.classes] == ["car", "person", "forklift"]
                assert status.dropped_frames == 0
        seen = await local.status()
        assert 0 < seen.samples <= len(list(frames.iterdir()))
        assert seen.cycle_id == ""
        assert not any("Sample" in name for name in seen.sent_bytes)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_site_without_a_label_takes_part_and_its_release_is_decided_by_an_estimate(
    tmp_path: Path, pki: Pki
) -> None:
    gentle = TINY | {"learning_rate": 1e-4}
    cloud = CloudConfig(
        listen=f"127.0.0.1:{free_port()}",
        state_dir=tmp_path / "cloud",
        identity=pki.issue("cloud", "cloud"),
        presumed="scenes:presumed",  # so that it begins with the starter release, which knows what it looks at
        presumed_train=16,
        presumed_val=16,
        max_harm=1.0,
        bootstrap={"coreset_images": 8},  # type: ignore[arg-type]
        recipe={"form": "weights", "tutor": gentle, "student": gentle, "redistil": gentle, "lam": 1.0},  # type: ignore[arg-type]
    )
    frames = resolve("scenes:site-1", tmp_path / "drawn", train=16, val=12)
    shutil.rmtree(frames.parent / "labels")
    frames.write_text("train: images/train\nval: images/val\n")
    site = config_of(tmp_path / "site", pki, cloud.listen, frames, labelled=False)
    async with (
        in_background(serve_cloud, cloud),
        connect(cloud.listen, pki.credentials("operator", "alice")) as operator,
        running(site, pki) as local,
    ):
        await until(lambda: cloud_is_ready(operator), 300)
        start = ("cycle", "start", "--site", "site-1", "--watch")
        code, told = await diredi(cloud, pki, *start)
        assert code == 1 and "start the cycle with --labels oracle" in told, "the operator is told what to do"
        code, shown = await diredi(cloud, pki, *start, "--labels", "oracle")
        assert code in {0, 1}, shown
        cycles = CycleServiceStub(operator)
        newest = await call(cycles.ListCycles, cycles_pb2.ListCyclesRequest(limit=1), deadline_s=PATIENCE_S)
        request = cycles_pb2.GetCycleRequest(id=newest.cycles[0].id)
        cycle = (await call(cycles.GetCycle, request, deadline_s=PATIENCE_S)).cycle
        seen = await local.status()
    decided = {cycles_pb2.CYCLE_STATE_RELEASED: 0, cycles_pb2.CYCLE_STATE_ROLLED_BACK: 1}
    assert decided[cycle.state] == code, shown
    [part] = cycle.sites
    for metrics in (part.gap.student_before, part.gap.tutor_after, part.gap.student_after, part.site_after):
        assert metrics.judged_by == "oracle"
    assert part.gap.decisions[0].subject == "labels"
    assert "the cloud's tutor found" in part.gap.decisions[0].because
    assert part.gap.decisions[1].subject == "estimates", "how far such an estimate is off on the coreset"
    assert all(count >= 10 and count % 10 == 0 for count in part.gap.boxes.values())
    assert "forklift" not in {item.name for item in part.gap.labels.classes}, "an oracle teaches no new class"
    assert "estimated by an oracle's answers, without labels: mAP50 on the site's images" in cycle.history[-1].reason
    assert "(estimate)" in shown and "the cloud's tutor found" in shown
    assert "diredi.v1.ProposeClassesRequest" not in seen.sent_bytes
    assert (seen.train_images, seen.held_out_images) == (16, 12)


async def diredi(cloud: CloudConfig, pki: Pki, *arguments: str) -> tuple[int | None, str]:
    """The exit code of a command, and what it says to its operator."""
    options = ("--cloud", cloud.listen, "--identity", str(pki.issue("operator", "alice")))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "diredi_cli", *arguments, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"COLUMNS": "1000"},
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def cloud_is_ready(operator: Channel) -> bool:
    try:
        return await is_serving(operator, "diredi.v1.CycleService")
    except DirediError:
        return False


async def all_devices_run(operator: Channel, version: int) -> bool:
    answer = await call(FleetServiceStub(operator).ListDevices, fleet_pb2.ListDevicesRequest(), deadline_s=PATIENCE_S)
    return len(answer.devices) == 2 and all(device.release_version == version for device in answer.devices)


async def has_ended(cycles: CycleServiceStub, cycle_id: str) -> bool:
    answer = await call(cycles.GetCycle, cycles_pb2.GetCycleRequest(id=cycle_id), deadline_s=PATIENCE_S)
    return answer.cycle.state >= cycles_pb2.CYCLE_STATE_RELEASED

"""One party makes something grow without end: it is refused, and an honest one beside it is served."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from cloud_server.quotas import Quotas
from diredi.errors import CorruptData, InvalidInput, NoRoom, WrongState
from diredi.rpc.v1 import cycles_pb2, fleet_pb2, registry_pb2, sites_pb2
from diredi_cli.main import run
from tests.services.cloud.extracting import STRANGER, extracting
from tests.services.cloud.world import SiteSide, World, ask, metrics, state_of, states_of


def files_in(world: World) -> list[Path]:
    return [file for file in world.state_dir.joinpath("blobs").rglob("*") if file.is_file()]


async def put(site: SiteSide, data: bytes, total: int | None = None) -> None:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    request = registry_pb2.PutChunkRequest(digest=digest, total_bytes=total or len(data), offset=0, data=data)
    await ask(site.blobs.PutChunk, request)


async def test_partial_blobs_of_a_site_without_a_task_are_refused_before_a_byte_is_stored(world: World) -> None:
    async with extracting(world) as e:
        hog, before = world.site("site-2"), files_in(world)
        for number in range(50):
            with pytest.raises(WrongState, match="no task that wants an upload"):
                await put(hog, bytes([number]) * 1000, total=2**30)
        assert files_in(world) == before
        await e.site.submit(e.manifest)
        assert "UPLOADED" in states_of(await e.operator.get(e.task.cycle_id))


async def test_uploads_of_a_site_with_a_task_end_at_its_quota_and_go_with_its_cycle(world: World) -> None:
    world.settings["max_uploads_per_cycle"] = 5
    async with world.cloud() as cloud:
        hog, honest, operator = world.site("site-2"), world.site(), world.operator()
        task = await hog.extracting(operator, "r1")
        before = files_in(world)
        for number in range(5):
            await put(hog, bytes([number]) * 1000, total=2000 if number % 2 else None)
        with pytest.raises(NoRoom, match="5 files"):
            await put(hog, b"one more")
        with pytest.raises(NoRoom, match="bytes for this cycle"):
            await put(hog, bytes(1000), total=2**27)
        assert len(files_in(world)) == len(before) + 5

        await cloud.uploads.collect()
        assert len(files_in(world)) == len(before) + 5, "while its task is open its uploads can go on"
        await ask(hog.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=task.cycle_id))
        with pytest.raises(WrongState, match="no task"):
            await put(hog, bytes([1]) * 1000, total=2000)
        assert await cloud.uploads.collect() == 5
        assert files_in(world) == before

        own = await honest.extracting(operator, "r2")
        await honest.extract(own)
        assert "UPLOADED" in states_of(await operator.get(own.cycle_id))
        kept = files_in(world)
        await cloud.uploads.collect()
        assert files_in(world) == kept, "what a model or an accepted gap is made of stays"


async def test_an_upload_leaves_the_reserve_of_the_disk_to_the_database(world: World) -> None:
    async with extracting(world):
        pass
    world.settings["disk_reserve_mib"] = 2**30  # more than any disk has
    async with world.cloud():
        site, operator = world.site(), world.operator()
        before = files_in(world)
        with pytest.raises(NoRoom, match="no room on the disk"):
            await put(site, b"some bytes")
        assert files_in(world) == before
        assert (await ask(operator.registry.ListModels, registry_pb2.ListModelsRequest())).models


async def test_class_names_without_end_are_refused_and_another_site_proposes_its_own(world: World) -> None:
    world.settings |= {"max_classes_per_cycle": 20, "max_classes_per_site": 30, "max_classes": 40}
    async with world.cloud():
        hog, honest, operator = world.site("site-2"), world.site(), world.operator()
        task = await hog.extracting(operator, "r1")
        assert len((await hog.propose(task.cycle_id, *(f"a{n}" for n in range(20)))).names) == 22
        assert len((await hog.propose(task.cycle_id, "a0", "car")).names) == 22, "known names cost nothing"
        await refuse_classes(hog, task.cycle_id, 1, "in a cycle")
        await ask(hog.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=task.cycle_id))
        task = await hog.extracting(operator, "r2")
        await refuse_classes(hog, task.cycle_id, 11, "a site may propose")
        own = await honest.extracting(operator, "r3")
        assert len((await honest.propose(own.cycle_id, "crane")).names) == 23
        await refuse_classes(honest, own.cycle_id, 18, "a label space may have")


async def refuse_classes(site: SiteSide, cycle_id: str, count: int, words: str) -> None:
    request = sites_pb2.ProposeClassesRequest(cycle_id=cycle_id, names=[f"b{n}" for n in range(count)])
    with pytest.raises(NoRoom, match=words):
        await ask(site.stub.ProposeClasses, request)


async def test_metrics_of_invented_classes_are_refused_and_the_real_ones_taken(world: World) -> None:
    async with extracting(world) as e:
        good = cycles_pb2.GapManifest()
        good.CopyFrom(e.manifest)
        for number in range(2000):
            e.manifest.tutor_after.per_class[f"invented {number}"].ap50 = 0.5
        with pytest.raises(InvalidInput, match="'invented 0'"):
            await ask(e.site.stub.SubmitGap, e.site.signed(e.manifest))
        e.manifest.recipe.update({"x": "y" * Quotas().manifest_bytes})
        with pytest.raises(NoRoom, match="the manifest has"):
            await ask(e.site.stub.SubmitGap, e.site.signed(e.manifest))
        await e.site.submit(good)
        await e.operator.until(e.task.cycle_id, "CANARY")
        after = metrics(0.7, "forklift")
        after.per_class["invented"].ap50 = 0.5
        request = sites_pb2.SubmitValidationRequest(cycle_id=e.task.cycle_id, after=after)
        with pytest.raises(InvalidInput, match="'invented'"):
            await ask(e.site.stub.SubmitValidation, request)
        await e.site.validate(e.task.cycle_id)
        assert state_of(await e.operator.get(e.task.cycle_id)) == "RELEASED"


async def test_a_device_that_reports_installs_without_end_keeps_the_newest(world: World) -> None:
    world.settings["max_installs_per_device"] = 10
    async with world.cloud():
        camera, operator = world.device(), world.operator()
        await camera.register()
        for number in range(40):
            outcome = fleet_pb2.INSTALL_OUTCOME_FAILED if number % 2 else fleet_pb2.INSTALL_OUTCOME_INSTALLED
            await camera.report(1, outcome, f"attempt {number}")
        device = (await operator.devices())["cam-1"]
        assert [event.reason for event in device.installs] == [f"attempt {number}" for number in range(30, 40)]


async def test_a_bit_flipped_in_a_blob_is_said_and_repaired_by_putting_the_good_bytes(world: World) -> None:
    async with world.cloud():
        student = await world.operator().model((await world.device().until(1)).student_id)
    digest = student.onnx.digest.removeprefix("sha256:")
    path = world.state_dir / "blobs" / "sha256" / digest[:2] / digest[2:]
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    async with world.cloud():
        camera, operator = world.device(), world.operator()
        for _ in range(2):
            with pytest.raises(CorruptData, match="damaged on the disk"):
                async for _chunk in read(camera, student.onnx.digest):
                    pass
        chunk = {"total_bytes": len(good), "data": good}
        with pytest.raises(WrongState, match="nothing here refers"):
            await ask(operator.blobs.PutChunk, registry_pb2.PutChunkRequest(digest=STRANGER, **chunk))
        (world.folder / "copy.onnx").write_bytes(good)
        options = ["--cloud", world.address, "--identity", str(world.identities / "alice")]
        assert await asyncio.to_thread(run, ["model", "repair", str(world.folder / "copy.onnx"), *options]) == 0
        assert b"".join([part.data async for part in read(camera, student.onnx.digest)]) == good


def read(camera, digest: str):
    from diredi.rpc.streams import read_messages

    return read_messages(camera.blobs.GetBlob(registry_pb2.GetBlobRequest(digest=digest)), 60)


async def test_an_upload_does_not_tell_a_site_that_another_one_has_put_the_same(world: World) -> None:
    """The answers to the same pieces are the same whether the blob is there or not, also through a restart."""
    secret, unknown = b"the gap of site-1" * 1000, b"nobody's" * 2125
    assert len(secret) == len(unknown)

    async def answers_to(site: SiteSide, data: bytes) -> list[tuple[int, bool]]:
        digest, found = "sha256:" + hashlib.sha256(data).hexdigest(), []
        for begin, end in ((0, 10), (10, 500), (0, 10), (500, len(data)), (0, 10)):
            request = registry_pb2.PutChunkRequest(
                digest=digest, total_bytes=len(data), offset=begin, data=data[begin:end]
            )
            answer = await ask(site.blobs.PutChunk, request)
            found.append((answer.received_bytes, answer.complete))
        return found

    async with world.cloud():
        owner, curious, operator = world.site(), world.site("site-2"), world.operator()
        await owner.extracting(operator, "r1")
        task = await curious.extracting(operator, "r2")
        await put(owner, secret)
        digest = "sha256:" + hashlib.sha256(secret).hexdigest()
        stat = await ask(curious.blobs.StatBlob, registry_pb2.StatBlobRequest(digest=digest))
        assert (stat.received_bytes, stat.complete) == (0, False)
        labels = await curious.propose(task.cycle_id, "forklift")
        manifest = await curious.manifest(task, labels)
        manifest.student_gap.blob.digest = digest
        with pytest.raises(WrongState, match=r"student gap, .* is not complete here: put it first"):
            await ask(curious.stub.SubmitGap, curious.signed(manifest))
        assert (await answers_to(curious, secret))[:3] == [(10, False), (500, False), (500, False)]
    await world.close()
    async with world.cloud():
        curious = world.site("site-2")
        told, expected = await answers_to(curious, secret), await answers_to(curious, unknown)
        whole = (len(secret), True)
        assert told == [whole] * 5, "what it has sent all of it may know"
        assert expected == [(10, False), (500, False), (500, False), whole, whole]
        owner = world.site()
        await put(owner, secret[:5], total=len(secret))  # an answer that was lost

"""Whatever is wrong with a gap is said with the right status, and leaves database and blob store as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from diredi.codecs.container import pack
from diredi.codecs.packed import header_of, stored
from diredi.errors import (
    CorruptData,
    DirediError,
    InvalidInput,
    NoRoom,
    NotFound,
    OffsetBeyondEnd,
    Refused,
    WrongState,
)
from diredi.knowledge.gap import Gap, GapNote
from diredi.rpc import convert
from diredi.rpc.message_signature import check_message
from diredi.rpc.server import start_server
from diredi.rpc.v1 import common_pb2, cycles_pb2, cycles_pb2_grpc, registry_pb2, sites_pb2
from diredi.store.blobs import Blob
from diredi.store.weights import WeightMap
from tests.services.cloud.extracting import STRANGER, Extracting, extracting
from tests.services.cloud.quick_jobs import toy
from tests.services.cloud.world import CODEC, STYLE, World, ask, gap_weights, make_gap, metrics, state_of
from tests.unit.cloud_server.samples import cycle


async def another_base_in_manifest(e: Extracting) -> None:
    e.manifest.tutor_gap.base_id = STRANGER


async def another_base_in_the_gap_itself(e: Extracting) -> None:
    await e.put(make_gap(await e.base(), STRANGER, e.labels, 0.0)[0])


async def student_gap_for_the_tutor(e: Extracting) -> None:
    e.manifest.student_gap.base_id = e.task.tutor.id


async def a_blob_that_was_never_put(e: Extracting) -> None:
    e.manifest.tutor_gap.blob.CopyFrom(common_pb2.BlobRef(digest=STRANGER, bytes=9))


async def a_blob_of_which_half_is_here(e: Extracting) -> None:
    data = make_gap(await e.base(), e.task.tutor.id, e.labels, 0.11)[0]
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    request = registry_pb2.PutChunkRequest(digest=digest, total_bytes=len(data), offset=0, data=data[: len(data) // 2])
    await ask(e.site.blobs.PutChunk, request)
    e.manifest.tutor_gap.blob.CopyFrom(common_pb2.BlobRef(digest=digest, bytes=len(data)))


async def bytes_cut_off_before_they_were_named(e: Extracting) -> None:
    await e.put(make_gap(await e.base(), e.task.tutor.id, e.labels, 0.0)[0][:-40])


async def a_changed_byte(e: Extracting) -> None:
    data = bytearray(make_gap(await e.base(), e.task.tutor.id, e.labels, 0.0)[0])
    data[-3] ^= 1
    await e.put(bytes(data))


async def weights_that_are_no_gap(e: Extracting) -> None:
    weights = WeightMap.load(await e.base())  # not the very file, which the cloud has and this site need not send
    await e.put(weights.to_bytes({"made": "at the site"}))


async def an_unknown_codec(e: Extracting) -> None:
    e.manifest.tutor_gap.codec = "pickle"


async def another_codec_than_it_is_in(e: Extracting) -> None:
    e.manifest.tutor_gap.codec = "int8-row-zstd"


async def a_key_that_the_base_lacks(e: Extracting) -> None:
    await e.put(changed(e, await e.base(), {"helper.weight": np.ones(2, np.float32)}))


async def a_shape_that_is_not_the_bases(e: Extracting) -> None:
    await e.put(changed(e, await e.base(), {"body.weight": np.ones((3, 3), np.float32)}))


async def a_branch_without_all_of_its_weights(e: Extracting) -> None:
    base = await e.base()
    gap = gap_weights(base, e.labels, 0.0)
    branch = {f"branches.0.{name}": gap[name] for name in ("body.weight", toy.ROWS)}
    note = GapNote(base_id=e.task.tutor.id, labels=e.labels, base_classes=2, branches=((2,),))
    await e.put(Gap(WeightMap({**gap, **branch}), note).to_bytes(CODEC))


async def no_rows_of_the_new_class(e: Extracting) -> None:
    await e.put(changed(e, await e.base(), {toy.ROWS: np.zeros((2, 4), np.float32)}))


async def another_schema_than_the_manifest_says(e: Extracting) -> None:
    e.manifest.tutor_gap.schema_digest = STRANGER


async def another_size_than_the_manifest_says(e: Extracting) -> None:
    e.manifest.tutor_gap.blob.bytes += 1


async def a_nan(e: Extracting) -> None:
    await e.put(poisoned(e, await e.base(), float("nan")))


async def an_infinity(e: Extracting) -> None:
    await e.put(poisoned(e, await e.base(), float("inf")))


async def a_nan_in_the_student_gap(e: Extracting) -> None:
    base = await e.site.fetch(e.task.student.weights)
    blob = await e.site.put(poisoned(e, base, float("nan"), e.task.student.id))
    e.manifest.student_gap.blob.CopyFrom(convert.blob_to(blob))


async def more_bytes_than_the_model(e: Extracting) -> None:
    noise = np.random.default_rng(0).bytes(2 * 2**20)
    await e.put(noise)


async def classes_without_an_id(e: Extracting) -> None:
    e.manifest.labels.classes[-1].name = "crane"
    e.manifest.boxes.clear()


async def classes_in_another_order(e: Extracting) -> None:
    first, second = e.manifest.labels.classes[:2]
    first.name, second.name = second.name, first.name


async def ids_with_a_hole(e: Extracting) -> None:
    e.manifest.labels.classes[-1].id = 7


async def a_figure_that_is_no_number(e: Extracting) -> None:
    e.manifest.student_before.map50 = float("nan")


async def boxes_of_a_class_that_is_none(e: Extracting) -> None:
    e.manifest.boxes["crane"] = 3


async def a_score_of_no_lambda(e: Extracting) -> None:
    e.manifest.scores.add(lam=float("nan"), metrics=metrics(0.3))


async def a_score_that_is_no_figure(e: Extracting) -> None:
    e.manifest.scores.add(lam=0.2, metrics=metrics(1.3))


async def a_decision_that_would_move_the_operators_cursor(e: Extracting) -> None:
    e.manifest.decisions.add(subject="form", choice="branch", because="\x1b[2Jall is well")


async def more_decisions_than_there_are(e: Extracting) -> None:
    for _ in range(17):
        e.manifest.decisions.add(subject="form", choice="branch", because="it measured so")


async def a_style_against_the_sites_own_policy(e: Extracting) -> None:
    e.manifest.style.update(STYLE)


async def a_style_that_is_something_else(e: Extracting) -> None:
    e.manifest.style.update({"picture": "data:image/jpeg;base64,"})


async def no_labels(e: Extracting) -> None:
    e.manifest.ClearField("labels")


async def no_tutor_gap(e: Extracting) -> None:
    e.manifest.ClearField("tutor_gap")


async def a_digest_that_is_a_path(e: Extracting) -> None:
    e.manifest.tutor_gap.blob.digest = "sha256:../../../../etc/passwd"


def changed(e: Extracting, base: Path, arrays: dict[str, np.ndarray]) -> bytes:
    gap = gap_weights(base, e.labels, 0.0)
    note = GapNote(base_id=e.task.tutor.id, labels=e.labels, base_classes=2)
    return Gap(WeightMap({**gap, **arrays}), note).to_bytes(CODEC)


def poisoned(e: Extracting, base: Path, poison: float, base_id: str = "") -> bytes:
    """Written past the codec, which would refuse it."""
    base_id = base_id or e.task.tutor.id
    good = gap_weights(base, e.labels, 0.0)
    gap = WeightMap({**good, "body.weight": np.where(np.eye(*good["body.weight"].shape) > 0, np.float32(poison), 0)})
    note = GapNote(base_id=base_id, labels=e.labels, base_classes=2)
    arrays = [header_of(name, array, "raw") for name, array in gap.items()]
    payload = b"".join(stored(entry, gap[entry.name]) for entry in arrays)
    return pack(CODEC, arrays, payload, {"diredi.gap": note.model_dump_json()})


Spoil = Callable[[Extracting], Any]
CASES: list[tuple[Spoil, type[DirediError], str]] = [
    (another_base_in_manifest, WrongState, "base"),
    (another_base_in_the_gap_itself, WrongState, "base"),
    (student_gap_for_the_tutor, WrongState, "student gap"),
    (a_blob_that_was_never_put, WrongState, "put it first"),
    (a_blob_of_which_half_is_here, WrongState, "put it first"),
    (bytes_cut_off_before_they_were_named, CorruptData, "again"),
    (a_changed_byte, CorruptData, "again"),
    (weights_that_are_no_gap, CorruptData, "not"),
    (an_unknown_codec, InvalidInput, "pickle"),
    (another_codec_than_it_is_in, CorruptData, "codec"),
    (a_key_that_the_base_lacks, InvalidInput, "helper.weight"),
    (a_shape_that_is_not_the_bases, InvalidInput, "body.weight"),
    (a_branch_without_all_of_its_weights, InvalidInput, r"branches.0.norm.running_var"),
    (no_rows_of_the_new_class, InvalidInput, "no rows"),
    (another_schema_than_the_manifest_says, InvalidInput, "manifest"),
    (another_size_than_the_manifest_says, InvalidInput, "bytes"),
    (a_nan, InvalidInput, "body.weight"),
    (an_infinity, InvalidInput, "body.weight"),
    (a_nan_in_the_student_gap, InvalidInput, "body.weight"),
    (more_bytes_than_the_model, NoRoom, "codec"),
    (classes_without_an_id, InvalidInput, "crane"),
    (classes_in_another_order, InvalidInput, "classes"),
    (ids_with_a_hole, InvalidInput, "7"),
    (a_figure_that_is_no_number, InvalidInput, "map50"),
    (boxes_of_a_class_that_is_none, InvalidInput, "crane"),
    (a_score_of_no_lambda, InvalidInput, "lam"),
    (a_score_that_is_no_figure, InvalidInput, "ap50"),
    (a_decision_that_would_move_the_operators_cursor, InvalidInput, "because"),
    (more_decisions_than_there_are, InvalidInput, "decisions"),
    (a_style_against_the_sites_own_policy, InvalidInput, "policy"),
    (a_style_that_is_something_else, InvalidInput, "not usable"),
    (no_labels, InvalidInput, "labels"),
    (no_tutor_gap, InvalidInput, "tutor_gap"),
    (a_digest_that_is_a_path, InvalidInput, "digest"),
]


@pytest.mark.slow
async def test_a_gap_that_is_wrong_is_refused_and_leaves_every_store_as_it_was(world: World) -> None:
    """One cycle for all cases: each is refused after the others, and a good gap is taken after all."""
    async with extracting(world) as e:
        good = cycles_pb2.GapManifest()
        good.CopyFrom(e.manifest)
        for spoil, error, words in CASES:
            e.manifest.CopyFrom(good)
            await spoil(e)
            before = e.stores()
            with pytest.raises(error, match=words) as refusal:
                await ask(e.site.stub.SubmitGap, e.site.signed(e.manifest))
            assert type(refusal.value) is error, f"{spoil.__name__}: {refusal.value}"
            assert e.stores() == before, spoil.__name__
            assert state_of(await e.operator.get(e.task.cycle_id)) == "EXTRACTING"
        await e.site.submit(good)
        assert state_of(await e.operator.until(e.task.cycle_id, "CANARY")) == "CANARY"


def by_another_site(e: Extracting, manifest: Any) -> Any:
    return e.site.signed(manifest, "site-2")


def by_another_key_of_the_same_name(e: Extracting, manifest: Any) -> Any:
    return e.site.signed(manifest, "site-1-renewed")


def over_another_manifest(e: Extracting, manifest: Any) -> Any:
    request = e.site.signed(manifest)
    request.manifest.train_images += 1000
    return request


def with_one_bit_less(e: Extracting, manifest: Any) -> Any:
    request = e.site.signed(manifest)
    request.manifest.signature = request.manifest.signature[:-1] + bytes([request.manifest.signature[-1] ^ 1])
    return request


def of_no_signature_at_all(e: Extracting, manifest: Any) -> Any:
    request = e.site.signed(manifest)
    request.manifest.signature = b"yes"
    return request


async def test_a_manifest_that_the_sites_key_did_not_sign_is_refused(world: World) -> None:
    async with extracting(world) as e:
        before = e.stores()
        unsigned = sites_pb2.SubmitGapRequest(manifest=e.manifest)
        with pytest.raises(InvalidInput, match="not signed"):
            await ask(e.site.stub.SubmitGap, unsigned)
        for forge in (
            by_another_site,
            by_another_key_of_the_same_name,
            over_another_manifest,
            with_one_bit_less,
            of_no_signature_at_all,
        ):
            manifest = cycles_pb2.GapManifest()
            manifest.CopyFrom(e.manifest)
            with pytest.raises(Refused, match="signature"):
                await ask(e.site.stub.SubmitGap, forge(e, manifest))
            assert e.stores() == before, forge.__name__
        await e.site.submit(e.manifest)


async def test_whoever_asks_later_can_hold_the_manifest_against_the_sites_key(world: World) -> None:
    async with extracting(world) as e:
        e.manifest.recipe.update({"lam": 0.5, "epochs": 3, "losses": ["a", 1.25]})
        e.manifest.scores.add(lam=0.2, metrics=metrics(0.3))
        e.manifest.decisions.add(subject="form", choice="branch", because="it measured so")
        await e.site.submit(e.manifest)
        (part,) = (await e.operator.get(e.task.cycle_id)).sites
        assert part.certificate.encode() == world.credentials("site-1").certificate
        check_message(part.gap, part.certificate.encode())
        part.gap.train_images += 1
        with pytest.raises(Refused):
            check_message(part.gap, part.certificate.encode())


async def test_a_gap_submitted_again_is_accepted_and_another_one_is_refused(world: World) -> None:
    async with extracting(world) as e:
        await e.site.submit(e.manifest)
        await e.operator.until(e.task.cycle_id, "CANARY")
        before = e.stores()
        await e.site.submit(e.manifest)
        e.manifest.train_images += 1
        with pytest.raises(WrongState, match="EXTRACTING"):
            await ask(e.site.stub.SubmitGap, e.site.signed(e.manifest))
        assert e.stores() == before


async def test_a_gap_of_a_cycle_that_is_over_is_refused(world: World) -> None:
    async with extracting(world) as e:
        await ask(e.site.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=e.task.cycle_id, reason="no"))
        with pytest.raises(WrongState, match="DECLINED"):
            await ask(e.site.stub.SubmitGap, e.site.signed(e.manifest))


async def test_class_ids_are_given_once_and_never_again(world: World) -> None:
    async with extracting(world) as e:
        assert (await e.site.propose(e.task.cycle_id, "forklift", "car")).names == ("car", "person", "forklift")
        for bad in ("", "x" * 65, "two\nlines", "  "):
            before = e.stores()
            with pytest.raises(InvalidInput):
                await ask(
                    e.site.stub.ProposeClasses,
                    sites_pb2.ProposeClassesRequest(cycle_id=e.task.cycle_id, names=["crane", bad]),
                )
            assert e.stores() == before
        await ask(e.site.stub.FailTask, sites_pb2.FailTaskRequest(task_id=e.task.id, reason="no room"))
        again = await e.site.extracting(e.operator, "r2")
        labels = await e.site.propose(again.cycle_id, "crane")
        assert labels.names == ("car", "person", "forklift", "crane")
        assert labels.version > e.labels.version


async def test_two_spellings_become_two_classes_only_where_the_site_says_so(world: World) -> None:
    async with extracting(world) as e:
        for name in ("Person", "persons", "p\u0435rson", "\uff50erson"):
            before = e.stores()
            request = sites_pb2.ProposeClassesRequest(cycle_id=e.task.cycle_id, names=["crane", name])
            with pytest.raises(InvalidInput, match=r"may be 'person'.*class_names"):
                await ask(e.site.stub.ProposeClasses, request)
            assert e.stores() == before
        request = sites_pb2.ProposeClassesRequest(
            cycle_id=e.task.cycle_id, names=["persons", "boat"], distinct=["persons"]
        )
        answer = await ask(e.site.stub.ProposeClasses, request)
        assert {"persons", "boat"} <= {one.name for one in answer.labels.classes}


async def test_an_upload_that_breaks_the_rules_of_blobs_gets_the_status_of_the_contract(world: World) -> None:
    async with extracting(world) as e:
        data = b"some bytes"
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        put = e.site.blobs.PutChunk
        before = e.stores()
        with pytest.raises(OffsetBeyondEnd):
            await ask(put, registry_pb2.PutChunkRequest(digest=digest, total_bytes=10, offset=5, data=data[5:]))
        with pytest.raises(CorruptData):
            await ask(put, registry_pb2.PutChunkRequest(digest=STRANGER, total_bytes=10, offset=0, data=data))
        with pytest.raises(NoRoom, match="at most"):
            await ask(put, registry_pb2.PutChunkRequest(digest=digest, total_bytes=2**40, offset=0, data=data))
        with pytest.raises(InvalidInput):
            await ask(put, registry_pb2.PutChunkRequest(digest="../etc", total_bytes=10, offset=0, data=data))
        assert e.stores() == before


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"lambda": 0.5}, "lambda"),
        ({"lam": 7}, "lam"),
        ({"redistil": {"epochs": -1}}, "epochs"),
        ({"codec": "zip"}, "zip"),
    ],
)
async def test_a_recipe_with_a_wrong_option_is_refused_by_name(
    world: World, overrides: dict[str, Any], words: str
) -> None:
    async with world.cloud():
        site, operator = world.site(), world.operator()
        await site.extracting(operator)  # the site is known
        with pytest.raises(InvalidInput, match=words):
            await operator.start(request_id="r2", **overrides)


async def test_what_does_not_exist_is_not_found(world: World) -> None:
    async with world.cloud():
        operator, site = world.operator(), world.site()
        for method, request in [
            (operator.cycles.GetCycle, cycles_pb2.GetCycleRequest(id="nothing")),
            (site.cycles.ApproveCycle, cycles_pb2.ApproveCycleRequest(id="nothing")),
            (site.stub.ReportProgress, sites_pb2.ReportProgressRequest(cycle_id="nothing")),
            (site.stub.ProposeClasses, sites_pb2.ProposeClassesRequest(cycle_id="nothing", names=["x"])),
            (site.stub.SubmitValidation, sites_pb2.SubmitValidationRequest(cycle_id="nothing", after=metrics(0.5))),
            (site.stub.FailTask, sites_pb2.FailTaskRequest(task_id="nothing/extract")),
            (operator.registry.GetModel, registry_pb2.GetModelRequest(id="0123456789")),
        ]:
            with pytest.raises(NotFound):
                await ask(method, request)
        with pytest.raises(NotFound):
            await site.fetch(convert.blob_to(Blob(STRANGER, 9)))


class PartServicer(cycles_pb2_grpc.CycleServiceServicer):
    """Answers with the part of the site that is asked for, whoever asks: the checks of the cloud stand before it."""

    async def GetCycle(self, request: Any, context: Any) -> cycles_pb2.GetCycleResponse:
        return cycles_pb2.GetCycleResponse(cycle=cycles_pb2.Cycle(site=cycle().part(request.id).site))


async def test_the_part_of_a_site_that_a_cycle_does_not_have_is_not_found(empty_world: World) -> None:
    server = await start_server(empty_world.credentials("cloud"), "127.0.0.1:0", [PartServicer()])
    empty_world.address = server.address
    get = cycles_pb2_grpc.CycleServiceStub(empty_world.channel("alice")).GetCycle
    try:
        assert (await ask(get, cycles_pb2.GetCycleRequest(id="site-1"))).cycle.site == "site-1"
        with pytest.raises(NotFound, match="site-9"):
            await ask(get, cycles_pb2.GetCycleRequest(id="site-9"))
    finally:
        await server.stop(0)


async def test_control_characters_of_a_stranger_are_not_stored(world: World) -> None:
    """A terminal would obey them; they are in the names of steps, in reasons and in progress."""
    async with extracting(world) as e:
        evil, mild = "\x1b[2J\x9b1Aall is well\u202e", "\ufffd[2J\ufffd1Aall is well\ufffd"
        progress = cycles_pb2.Progress(step=evil, fraction=0.5, message=evil)
        await ask(
            e.site.stub.ReportProgress, sites_pb2.ReportProgressRequest(cycle_id=e.task.cycle_id, progress=progress)
        )
        shown = await e.operator.get(e.task.cycle_id)
        assert (shown.progress.step, shown.progress.message) == (mild, mild)
        await e.world.device().register()
        await e.world.device().report(1, reason=evil)
        assert (await e.operator.devices())["cam-1"].installs[0].reason == mild
        await ask(e.site.stub.FailTask, sites_pb2.FailTaskRequest(task_id=e.task.id, reason=evil))
        ended = await e.operator.get(e.task.cycle_id)
        assert mild in ended.history[-1].reason
        assert evil not in str(ended)


async def test_bytes_that_are_no_message_are_refused_for_good(world: World) -> None:
    """INTERNAL would say that the cloud failed and that the same may be tried again."""
    async with world.cloud():
        channel = world.channel("site-1")
        for method in ("/diredi.v1.SiteService/SubmitGap", "/diredi.v1.BlobService/PutChunk"):
            for garbage in (b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x7f", b"\x0a\x03abc\x07"):
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await channel.unary_unary(method, bytes, bytes)(garbage, timeout=60)
                assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (method, garbage)

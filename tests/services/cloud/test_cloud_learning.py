"""The real jobs, on detectors as small as they get: the bootstrap, and a cycle whose gap was really learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloud_server import starter
from diredi.data.dataset import load
from diredi.data.sources import resolve
from diredi.detectors.onnx import OnnxPredictor
from diredi.jobs import LocalExecutor
from diredi.knowledge.jobs.specs import ExtractResult, ExtractSpec, GapFile
from diredi.knowledge.recipe import CycleRecipe
from diredi.progress import Progress
from diredi.rpc import convert
from diredi.rpc.v1 import cycles_pb2, registry_pb2, sites_pb2
from diredi.store.blobs import digest_of_file
from diredi.store.weights import WeightMap
from tests.services.cloud.world import SiteSide, World, ask, state_of, states_of

TINY: dict[str, Any] = {"epochs": 1, "batch": 8}
SETTINGS: dict[str, Any] = {
    "presumed": "scenes:presumed", "presumed_train": 24, "presumed_val": 8, "image_size": 64,
    "tutor": "yolo11-w0.125", "student": "yolo11-w0.125", "max_harm": 1.0, "canary_devices": 0,
    "bootstrap": {"tutor": TINY, "student": TINY, "coreset_images": 8},
    "recipe": {"tutor": TINY, "student": TINY, "redistil": TINY, "coreset_images": 8, "lam": 1.0},
}  # fmt: skip


@pytest.mark.timeout(1200)  # five programs that import torch, on machines that may be busy
async def test_a_cycle_with_real_detectors_ends_in_a_file_that_edge_nodes_can_run(empty_world: World) -> None:
    world = empty_world
    world.jobs = "diredi.knowledge.jobs"
    world.settings |= SETTINGS
    world.patience_s = 600
    async with world.cloud() as cloud:
        operator, site = world.operator(), world.site()
        first = (await ask(operator.registry.ListModels, registry_pb2.ListModelsRequest())).models
        assert sorted(model.kind for model in first) == [2, 3]
        private = resolve("scenes:site-1", world.folder / "private", 0, 16, 8)
        task = await site.extracting(operator)
        labels = await site.propose(task.cycle_id, *load(private).label_names)
        await site.submit(await extracted(site, task, private, convert.labels_to(labels)))
        candidate = await operator.until(task.cycle_id, "CANARY")
        assert state_of(candidate) == "CANARY", candidate.history[-1].reason
        assert candidate.history[-2].figures["after"]["images"] == 8
        validate = await site.next_task(sites_pb2.TASK_KIND_VALIDATE)
        predictor = OnnxPredictor(await site.fetch(validate.student.onnx))
        assert predictor.labels.names == labels.names
        await site.validate(task.cycle_id, map50=1.0)
        assert states_of(await operator.until(task.cycle_id))[-1] == "RELEASED"
        assert not list((cloud.config.state_dir / "jobs").glob("*/tutor.safetensors"))  # tidied up


async def test_a_cloud_of_built_in_scenes_begins_with_the_fp32_weights_of_the_starter_release(
    empty_world: World,
) -> None:
    world = empty_world
    world.jobs = "diredi.knowledge.jobs"
    world.settings |= {
        "presumed": "scenes:presumed", "presumed_train": 16, "presumed_val": 8, "bootstrap": {"coreset_images": 8}
    }  # fmt: skip
    world.patience_s = 240
    shipped = starter.unpack(world.folder / "shipped")
    async with world.cloud() as cloud:
        operator = world.operator()
        first = (await ask(operator.registry.ListModels, registry_pb2.ListModelsRequest())).models
        expected = {str(digest_of_file(path).digest) for path in (shipped.tutor, shipped.student)}
        assert {model.id for model in first} == expected
        assert all(model.weights.digest == model.id for model in first)
        stored = [cloud.blobs.path(model.id) for model in first]
        assert all("float16" not in {dtype for dtype, _ in WeightMap.load(path).schema().values()} for path in stored)
        assert not list((cloud.config.state_dir / "jobs").glob("*/student.safetensors"))  # tidied up


async def extracted(site: SiteSide, task: Any, private: Path, labels: Any) -> Any:
    """The manifest of what the real extraction found, its blobs put."""

    async def silent(_: Progress) -> None: ...

    spec = ExtractSpec(
        data=private,
        tutor=await safetensors(site, task.tutor),
        student=await safetensors(site, task.student),
        coreset=await site.fetch(task.coreset),
        labels=convert.labels_from(labels),
        recipe=CycleRecipe.of(convert.struct_from(task.recipe)),
    )
    made = await LocalExecutor().run("diredi.knowledge.jobs.extract", spec, ExtractResult, site.folder / "job", silent)

    async def put(gap: GapFile, base_id: str) -> Any:
        blob = await site.put(gap.path.read_bytes())
        return cycles_pb2.EncodedGap(
            blob=convert.blob_to(blob), codec=gap.codec, fp32_bytes=gap.fp32_bytes, base_id=base_id,
            schema_digest=gap.schema_digest,
        )  # fmt: skip

    assert made.student_gap is not None
    return cycles_pb2.GapManifest(
        cycle_id=task.cycle_id, tutor_gap=await put(made.tutor_gap, task.tutor.id),
        student_gap=await put(made.student_gap, task.student.id), labels=labels,
        train_images=made.train_images, held_out_images=made.held_out_images, boxes=made.boxes,
        student_before=convert.metrics_to(made.student_before), tutor_after=convert.metrics_to(made.tutor_after),
    )  # fmt: skip


async def safetensors(site: SiteSide, model: Any) -> Path:
    """The loader wants to see by the name what it loads."""
    path = await site.fetch(model.weights)
    return path.rename(path.with_suffix(".safetensors"))

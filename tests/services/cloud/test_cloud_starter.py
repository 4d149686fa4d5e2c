"""What a cloud begins with that is given no models. Cycles with real jobs are proved with all three services."""

from __future__ import annotations

import pytest

from cloud_server import starter
from diredi.rpc.v1 import registry_pb2
from diredi.store.blobs import digest_of_file
from diredi.store.weights import WeightMap
from tests.services.cloud.world import World, ask


@pytest.mark.slow
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

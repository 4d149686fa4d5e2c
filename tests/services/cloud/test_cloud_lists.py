"""Every list comes in pages, and a page of the largest items that the cloud takes fits into a message."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cloud_server.config import CloudConfig
from cloud_server.entities import Cycle, Install, Model, ModelKind, Outcome, Part, Progress, Vitals, device_key
from cloud_server.paging import PAGE_BYTES
from cloud_server.states import State
from cloud_server.store import Repository
from diredi.errors import InvalidInput
from diredi.labels import LabelSpace
from diredi.rpc.limits import MAX_MESSAGE_BYTES
from diredi.rpc.v1 import cycles_pb2, fleet_pb2, registry_pb2, sites_pb2
from diredi.store.blobs import Blob
from tests.services.cloud.world import World, ask
from tests.unit.cloud_server.samples import manifest, metrics

NOW = datetime(2031, 1, 1, tzinfo=UTC)
WIDE = "\N{OK HAND SIGN}"
"""Four bytes."""


async def pages_of(method: Any, request: Any, field: str) -> list[list[Any]]:
    pages = []
    while True:
        answer = await ask(method, request)
        pages.append(list(getattr(answer, field)))
        if not answer.next_page_token:
            return pages
        request.page_token = answer.next_page_token


def names_of(pages: list[list[Any]], attribute: str = "name") -> list[str]:
    return [getattr(item, attribute) for page in pages for item in page]


def wide_names(count: int) -> tuple[str, ...]:
    return tuple(f"{number:04}" + WIDE * 60 for number in range(count))


def add_cycle(r: Repository, number: int, sites: int, gap: bool = False) -> str:
    said = {"dropped_because": WIDE * 500, "progress": Progress(step=WIDE * 64, fraction=0.5, message=WIDE * 200)}
    given = manifest(f"c{number}").model_copy(update={"recipe": {"x": "y" * 1_000_000}}) if gap else None
    parts = tuple(
        Part(
            site=f"{site:03}" + "s" * 60,
            state=State.FAILED,
            gap=given,
            certificate="c" * 1500,
            progressed_at=NOW,
            **said,
        )
        for site in range(sites)
    )
    base = r.models.all()[0].id
    cycle = Cycle(
        id=f"c{number}", request_id=f"r{number}", state=State.FAILED, recipe={}, base_tutor_id=base,
        base_student_id=base, progressed_at=NOW, created=NOW, parts=parts,
    )  # fmt: skip
    return r.cycles.add(cycle, "operator/alice", WIDE * 500).id


def add_model(r: Repository, number: int, classes: int) -> None:
    labels = LabelSpace(names=wide_names(classes))
    digest = f"sha256:{number:064x}"
    presumed = metrics(0.5, **dict.fromkeys(labels.names, 0.5))
    r.models.add(
        Model(
            id=digest,
            kind=ModelKind.TUTOR,
            architecture="yolo11n",
            image_size=64,
            labels=labels,
            weights=Blob(digest, 9),
            presumed=presumed,
            created=NOW,
        )
    )  # fmt: skip


def add_device(r: Repository, number: int, installs: int) -> None:
    name = f"cam-{number:03}"
    r.devices.record_contact(name, "site-1", NOW, Vitals())
    for entry in range(installs):
        outcome = Outcome.FAILED if entry % 2 else Outcome.INSTALLED
        install = Install(release_version=1, outcome=outcome, reason=WIDE * 500, at=NOW)
        r.devices.record_install(device_key("site-1", name), install)


@pytest.mark.slow
async def test_pages_of_the_largest_items_fit_into_messages_and_have_each_item_once(world: World) -> None:
    most = CloudConfig(state_dir=world.state_dir, identity=world.identities).quotas
    async with world.cloud() as cloud:
        operator = world.operator()

        def fill(r: Repository, _now: datetime) -> None:
            for number in range(18):
                add_cycle(r, number, sites=100)
            add_model(r, 1, most.classes)
            for number in range(3):
                add_device(r, number, most.installs_per_device if number == 0 else 0)
            for number in range(5):
                r.sites.record_contact(f"site-{number:04}", NOW)
            r.groups.set("a", ["site-0000"])
            r.groups.set("b", ["site-0001"])

        await cloud.context.write(fill)
        cycles = await pages_of(operator.cycles.ListCycles, cycles_pb2.ListCyclesRequest(), "cycles")
        assert len(cycles) > 1
        assert names_of(cycles, "id") == [f"c{number}" for number in reversed(range(18))]
        models = await pages_of(operator.registry.ListModels, registry_pb2.ListModelsRequest(page_size=2), "models")
        assert [len(page) for page in models] == [2, 1]
        assert len(set(names_of(models, "id"))) == 3
        devices = await pages_of(operator.fleet.ListDevices, fleet_pb2.ListDevicesRequest(page_size=2), "devices")
        assert names_of(devices) == ["cam-000", "cam-001", "cam-002"]
        sites = await pages_of(operator.sites.ListSites, sites_pb2.ListSitesRequest(page_size=4), "sites")
        assert [len(page) for page in sites] == [4, 1]
        largest = max(item.ByteSize() for pages in (cycles, models, devices, sites) for page in pages for item in page)
        assert 10**6 < largest < MAX_MESSAGE_BYTES - PAGE_BYTES, "a page that is nearly full may get one more"
        groups = await pages_of(operator.sites.ListGroups, sites_pb2.ListGroupsRequest(page_size=1), "groups")
        assert [[group.name for group in page] for page in groups] == [["a"], ["b"]]


async def test_a_cycle_with_more_gaps_than_a_message_holds_is_shown_without_the_last_ones(world: World) -> None:
    async with world.cloud() as cloud:
        operator = world.operator()
        cycle_id = await cloud.context.write(lambda r, _: add_cycle(r, 1, sites=12, gap=True))
        shown = await operator.get(cycle_id)
        with_gap = [part.HasField("gap") for part in shown.sites]
        assert with_gap == sorted(with_gap, reverse=True)
        assert 3 < sum(with_gap) < 12
        assert shown.gap == shown.sites[0].gap


async def test_a_page_token_that_is_none_is_refused(world: World) -> None:
    async with world.cloud():
        operator = world.operator()
        for method, request in (
            (operator.cycles.ListCycles, cycles_pb2.ListCyclesRequest(page_token="none")),
            (operator.registry.ListModels, registry_pb2.ListModelsRequest(page_token="none")),
            (operator.sites.ListSites, sites_pb2.ListSitesRequest(page_token="\x1b[2J")),
            (operator.fleet.ListDevices, fleet_pb2.ListDevicesRequest(page_token="x" * 1000)),
        ):
            with pytest.raises(InvalidInput, match="page_token"):
                await ask(method, request)

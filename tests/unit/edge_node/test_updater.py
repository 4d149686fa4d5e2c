"""The updater against every end that an update can take, and against a power cut in each of its states."""

from __future__ import annotations

from pathlib import Path

import pytest
from updater_world import PowerCut, World

from diredi.errors import CorruptData, NoRoom
from edge_node.update_states import State

WAY = [State.DOWNLOADING, State.VERIFYING, State.WARMING, State.SWAPPING, State.REPORTING, State.IDLE]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def install(world: World, version: int, **how: object) -> None:
    updater = world.start()
    updater.want(world.publish(version, **how))  # type: ignore[arg-type]
    before = len(world.told)
    await world.run(updater, lambda: len(world.told) > before and updater.record.state is State.IDLE)


async def test_an_update_goes_through_every_state_in_order_and_is_reported(world: World) -> None:
    await install(world, 1)
    assert world.states == WAY
    assert (world.running, world.told) == (1, [(1, True, "")])


@pytest.mark.parametrize("state", WAY)
async def test_after_a_power_cut_in_any_state_the_device_runs_and_the_update_is_finished(
    world: World, state: State
) -> None:
    await install(world, 1)
    wanted = world.publish(2)
    updater = world.start()
    updater.want(wanted)
    world.power_cut = lambda record: record.state is state
    with pytest.raises(PowerCut):
        await world.run(updater, lambda: False)
    world.power_cut = lambda _: False
    updater = world.start()
    swapped = state in (State.REPORTING, State.IDLE)
    assert world.running == (2 if swapped else 1), "it must run the release that last proved itself, at once"
    await world.run(updater, lambda: updater.record.state is State.IDLE)
    assert world.running == 2
    assert world.told[-1] == (2, True, "")
    assert updater.record.installed == wanted
    assert world.fetches <= 3, "what was downloaded is not downloaded again"


async def test_a_power_cut_in_failed_still_reports_the_failure(world: World) -> None:
    await install(world, 1)
    updater = world.start()
    updater.want(world.publish(2, breaks="warm-up"))
    world.power_cut = lambda record: record.state is State.FAILED
    with pytest.raises(PowerCut):
        await world.run(updater, lambda: False)
    world.power_cut = lambda _: False
    updater = world.start()
    assert world.running == 1
    await world.run(updater, lambda: updater.record.state is State.IDLE)
    assert world.told[-1][:2] == (2, False)


@pytest.mark.parametrize(("breaks", "stage"), [("load", "verifying"), ("warm-up", "warming"), ("live", "swapping")])
async def test_a_model_that_breaks_is_refused_and_the_old_one_goes_on(world: World, breaks: str, stage: str) -> None:
    await install(world, 1)
    await install(world, 2, breaks=breaks)
    assert world.running == 1
    assert world.told[-1] == (2, False, f"{stage}: the file is not the detector that the release says it is")
    world.start()
    assert world.running == 1


async def test_a_first_release_that_breaks_on_a_live_frame_leaves_no_model(world: World) -> None:
    await install(world, 1, breaks="warm-up")
    assert world.running == 0
    assert world.told[-1][:2] == (1, False)


@pytest.mark.parametrize("wrong", [{"labels": ("car", "bus")}, {"image_size": 96}])
async def test_a_file_that_is_not_what_the_release_says_is_refused(world: World, wrong: dict[str, object]) -> None:
    await install(world, 1)
    await install(world, 2, **wrong)
    assert (world.running, world.told[-1][:2]) == (1, (2, False))


async def test_a_refused_release_is_reported_once_however_often_the_cloud_names_it(world: World) -> None:
    await install(world, 1)
    bad = world.publish(2, breaks="warm-up")
    updater = world.start()
    for _ in range(3):
        updater.want(bad)
        await world.run(updater, lambda: updater.record.failure is not None and updater.record.state is State.IDLE)
    assert [told[0] for told in world.told] == [1, 2]


async def test_bytes_that_do_not_match_are_fetched_again_when_the_cloud_repeats_the_release(world: World) -> None:
    await install(world, 1)
    world.fetch_error = CorruptData("the bytes are not the digest's")
    await install(world, 2)
    assert (world.running, world.told[-1]) == (1, (2, False, "downloading: the bytes do not match the digest"))
    world.fetch_error = None
    await install(world, 2)
    assert (world.running, world.told[-1]) == (2, (2, True, ""))


async def test_a_full_disk_is_reported_and_the_old_release_goes_on(world: World) -> None:
    await install(world, 1)
    world.fetch_error = NoRoom("no room")
    await install(world, 2)
    assert (world.running, world.told[-1]) == (1, (2, False, "downloading: no room on the device's disk"))


async def test_a_report_waits_for_a_cloud_that_is_away(world: World) -> None:
    updater = world.start()
    updater.want(world.publish(1))
    world.cloud_away = True
    await world.run(updater, lambda: updater.record.state is State.REPORTING and bool(updater.last_error))
    world.cloud_away = False
    updater = world.start()
    await world.run(updater, lambda: updater.record.state is State.IDLE)
    assert world.told == [(1, True, "")]


async def test_a_withdrawn_release_is_followed_by_the_one_before_without_a_download(world: World) -> None:
    await install(world, 1)
    await install(world, 2)
    fetches = world.fetches
    await install(world, 1)
    assert (world.running, world.told[-1], world.fetches) == (1, (1, True, ""), fetches)


async def test_the_previous_release_stays_on_disk_and_older_ones_go(world: World) -> None:
    for version in (1, 2, 3):
        await install(world, version)
    kept = sorted(path.name.split("-")[1] for path in (world.folder / "releases").iterdir())
    assert kept == ["2", "3"]


async def test_a_damaged_file_of_the_installed_release_makes_the_device_start_with_the_one_before(world: World) -> None:
    await install(world, 1)
    await install(world, 2)
    for path in (world.folder / "releases").glob("release-2-*"):
        path.write_bytes(b"rust")
    updater = world.start()
    assert world.running == 1
    assert updater.record.installed is not None
    assert updater.record.installed.version == 1


async def test_a_release_that_kills_the_process_each_time_is_given_up(world: World) -> None:
    await install(world, 1)
    deadly = world.publish(2)
    world.power_cut = lambda record: record.state is State.WARMING and record.target == deadly
    for _ in range(3):
        updater = world.start()
        updater.want(deadly)
        with pytest.raises(PowerCut):
            await world.run(updater, lambda: False)
    updater = world.start()
    await world.run(updater, lambda: updater.record.state is State.IDLE)
    assert (world.running, world.told[-1][:2]) == (1, (2, False))


async def test_a_release_that_is_withdrawn_during_its_installation_is_not_installed(world: World) -> None:
    await install(world, 1)
    first, second = world.publish(1), world.publish(2)
    updater = world.start()
    updater.want(second)
    world.power_cut = lambda record: bool(record.state is State.VERIFYING and updater.want(first))
    await world.run(updater, lambda: State.VERIFYING in world.states[6:] and updater.record.state is State.IDLE)
    assert (world.running, [told[0] for told in world.told]) == (1, [1])


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\x00 garbage", b"[]", b"null", b'{"state": "ASLEEP"}'])
async def test_a_damaged_record_is_set_aside_and_the_newest_whole_release_on_disk_runs(
    world: World, damage: bytes
) -> None:
    await install(world, 1)
    await install(world, 2)
    (world.folder / "update.json").write_bytes(damage)
    (world.folder / "releases" / "release-9-0123456789ab.onnx").write_bytes(b"not what its name says")
    updater = world.start()
    assert world.running == 2, "without a word of the cloud's"
    assert (world.folder / "update.json.damaged-1").read_bytes() == damage
    assert updater.record.installed is not None
    await install(world, 3)
    assert world.running == 3


async def test_a_damaged_record_without_a_release_is_a_fresh_start(world: World) -> None:
    (world.folder / "update.json").write_text("{")
    await install(world, 1)
    assert world.running == 1

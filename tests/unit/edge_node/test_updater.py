"""The updater against every end that an update can take, and against a power cut in each of its states."""

from __future__ import annotations

from pathlib import Path

import pytest
from updater_harness import PowerCut, UpdaterHarness

from diredi.errors import CorruptData, NoRoom
from edge_node.site_rules import UpdateWait
from edge_node.update_states import State

WAY = [State.DOWNLOADING, State.VERIFYING, State.WARMING, State.SWAPPING, State.REPORTING, State.IDLE]


@pytest.fixture
def harness(tmp_path: Path) -> UpdaterHarness:
    return UpdaterHarness(tmp_path)


async def install(harness: UpdaterHarness, version: int, **how: object) -> None:
    updater = harness.start()
    updater.request(harness.publish(version, **how))  # type: ignore[arg-type]
    before = len(harness.reports)
    await harness.run(updater, lambda: len(harness.reports) > before and updater.record.state is State.IDLE)


async def test_an_update_goes_through_every_state_in_order_and_is_reported(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    assert harness.states == WAY
    assert (harness.running, harness.reports) == (1, [(1, True, "")])


@pytest.mark.parametrize("state", WAY)
async def test_after_a_power_cut_in_any_state_the_device_runs_and_the_update_is_finished(
    harness: UpdaterHarness, state: State
) -> None:
    await install(harness, 1)
    wanted = harness.publish(2)
    updater = harness.start()
    updater.request(wanted)
    harness.power_cut = lambda record: record.state is state
    with pytest.raises(PowerCut):
        await harness.run(updater, lambda: False)
    harness.power_cut = lambda _: False
    updater = harness.start()
    swapped = state in (State.REPORTING, State.IDLE)
    assert harness.running == (2 if swapped else 1), "it must run the release that last proved itself, at once"
    await harness.run(updater, lambda: updater.record.state is State.IDLE)
    assert harness.running == 2
    assert harness.reports[-1] == (2, True, "")
    assert updater.record.installed == wanted
    assert harness.fetches <= 3, "what was downloaded is not downloaded again"


async def test_a_power_cut_in_failed_still_reports_the_failure(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    updater = harness.start()
    updater.request(harness.publish(2, breaks="warm-up"))
    harness.power_cut = lambda record: record.state is State.FAILED
    with pytest.raises(PowerCut):
        await harness.run(updater, lambda: False)
    harness.power_cut = lambda _: False
    updater = harness.start()
    assert harness.running == 1
    await harness.run(updater, lambda: updater.record.state is State.IDLE)
    assert harness.reports[-1][:2] == (2, False)


@pytest.mark.parametrize(("breaks", "stage"), [("load", "verifying"), ("warm-up", "warming"), ("live", "swapping")])
async def test_a_model_that_breaks_is_refused_and_the_old_one_goes_on(
    harness: UpdaterHarness, breaks: str, stage: str
) -> None:
    await install(harness, 1)
    await install(harness, 2, breaks=breaks)
    assert harness.running == 1
    assert harness.reports[-1] == (2, False, f"{stage}: the file is not the detector that the release says it is")
    harness.start()
    assert harness.running == 1


async def test_a_first_release_that_breaks_on_a_live_frame_leaves_no_model(harness: UpdaterHarness) -> None:
    await install(harness, 1, breaks="warm-up")
    assert harness.running == 0
    assert harness.reports[-1][:2] == (1, False)


@pytest.mark.parametrize("wrong", [{"labels": ("car", "bus")}, {"image_size": 96}])
async def test_a_file_that_is_not_what_the_release_says_is_refused(
    harness: UpdaterHarness, wrong: dict[str, object]
) -> None:
    await install(harness, 1)
    await install(harness, 2, **wrong)
    assert (harness.running, harness.reports[-1][:2]) == (1, (2, False))


async def test_a_refused_release_is_reported_once_however_often_the_cloud_names_it(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    bad = harness.publish(2, breaks="warm-up")
    updater = harness.start()
    for _ in range(3):
        updater.request(bad)
        await harness.run(updater, lambda: updater.record.failure is not None and updater.record.state is State.IDLE)
    assert [version for version, *_ in harness.reports] == [1, 2]


async def test_bytes_that_do_not_match_are_fetched_again_when_the_cloud_repeats_the_release(
    harness: UpdaterHarness,
) -> None:
    await install(harness, 1)
    harness.fetch_error = CorruptData("the bytes are not the digest's")
    await install(harness, 2)
    assert (harness.running, harness.reports[-1]) == (1, (2, False, "downloading: the bytes do not match the digest"))
    harness.fetch_error = None
    await install(harness, 2)
    assert (harness.running, harness.reports[-1]) == (2, (2, True, ""))


async def test_a_full_disk_is_reported_and_the_old_release_goes_on(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    harness.fetch_error = NoRoom("no room")
    await install(harness, 2)
    assert (harness.running, harness.reports[-1]) == (1, (2, False, "downloading: no room on the device's disk"))


async def test_a_report_waits_for_a_cloud_that_is_away(harness: UpdaterHarness) -> None:
    updater = harness.start()
    updater.request(harness.publish(1))
    harness.cloud_away = True
    await harness.run(updater, lambda: updater.record.state is State.REPORTING and bool(updater.last_error))
    harness.cloud_away = False
    updater = harness.start()
    await harness.run(updater, lambda: updater.record.state is State.IDLE)
    assert harness.reports == [(1, True, "")]


async def test_going_back_is_a_new_release_with_old_bytes_and_needs_no_download(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    await install(harness, 2)
    fetches = harness.fetches
    await install(harness, 3, bytes_of=1)
    assert (harness.running, harness.reports[-1], harness.fetches) == (3, (3, True, ""), fetches)


@pytest.mark.parametrize(
    ("told", "reason"),
    [({"version": 2}, "older than release 7"), ({"version": 7, "bytes_of": 8}, "run here with other bytes")],
)
async def test_rollback_and_swapped_bytes_are_refused_though_they_would_be_proven(
    harness: UpdaterHarness, told: dict[str, int], reason: str
) -> None:
    await install(harness, 7)
    updater = harness.start()
    updater.request(harness.publish(**told))
    await harness.run(updater, lambda: len(harness.reports) > 1 and updater.record.state is State.IDLE)
    version, installed, why = harness.reports[-1]
    assert (harness.running, version, installed) == (7, told["version"], False)
    assert reason in why


async def test_rollback_is_refused_also_after_a_failure_and_a_restart(harness: UpdaterHarness) -> None:
    await install(harness, 2)
    for path in (harness.folder / "releases").iterdir():
        path.write_bytes(b"rust")
    updater = harness.start()
    assert harness.running == 0, "nothing is left that could run"
    updater.request(harness.publish(1))
    await harness.run(updater, lambda: bool(harness.reports[1:]) and updater.record.state is State.IDLE)
    assert (harness.running, harness.reports[-1][:2]) == (0, (1, False))
    await install(harness, 2)
    assert harness.running == 2


async def test_each_scope_counts_for_itself_so_that_a_device_may_leave_one(harness: UpdaterHarness) -> None:
    await install(harness, 3)
    await install(harness, 5, scope="site:site-1")
    await install(harness, 3)
    assert harness.running == 3


async def test_a_release_that_nobody_has_signed_is_not_fetched_and_does_not_start(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    harness.forged.append(harness.publish(2))
    updater, fetches = harness.start(), harness.fetches
    updater.request(harness.forged[0])
    await harness.run(updater, lambda: bool(harness.reports[1:]) and updater.record.state is State.IDLE)
    assert (harness.running, harness.fetches, harness.reports[-1][:2]) == (1, fetches, (2, False))
    assert "not in the signed metadata" in harness.reports[-1][2]
    harness.forged.append(harness.publish(1))
    harness.start()
    assert harness.running == 0, "what was put on the disk by another hand does not start"


async def test_a_release_that_fails_on_later_frames_is_taken_back_three_times_and_then_left_alone(
    harness: UpdaterHarness,
) -> None:
    await install(harness, 1)
    updater = harness.start()
    bad = harness.publish(2, breaks="later")
    updater.request(bad)

    def is_quarantined() -> bool:
        updater.request(bad)  # the cloud repeats it
        return bool(updater.record.failure and updater.record.failure.lasting)

    await harness.run(updater, is_quarantined)
    await harness.run(updater, lambda: updater.record.state is State.IDLE)
    assert harness.reports[1:] == [
        (2, True, ""), (2, False, "running: it failed on 3 frames in a row (RuntimeError)"),
    ] * 3  # fmt: skip
    assert (harness.running, harness.active.failed_frames) == (1, 9)
    updater = harness.start()
    updater.request(bad)
    assert not updater.record.should_install(bad), "also after a restart"
    await install(harness, 3)
    assert harness.running == 3


async def test_a_release_that_fails_only_after_a_restart_is_taken_back_from_disk(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    await install(harness, 2, breaks="later")
    updater = harness.start()
    assert harness.running == 2
    await harness.run(updater, lambda: len(harness.reports) == 3 and updater.record.state is State.IDLE)
    assert (harness.running, harness.reports[2][:2]) == (1, (2, False))
    harness.start()
    assert harness.running == 1


async def test_the_previous_release_stays_on_disk_and_older_ones_go(harness: UpdaterHarness) -> None:
    for version in (1, 2, 3):
        await install(harness, version)
    versions = sorted(path.name.split("-")[1] for path in (harness.folder / "releases").iterdir())
    assert versions == ["2", "3"]


async def test_a_damaged_file_of_the_installed_release_makes_the_device_start_with_the_one_before(
    harness: UpdaterHarness,
) -> None:
    await install(harness, 1)
    await install(harness, 2)
    for path in (harness.folder / "releases").glob("release-2-*"):
        path.write_bytes(b"rust")
    updater = harness.start()
    assert harness.running == 1
    assert updater.record.installed is not None
    assert updater.record.installed.version == 1


async def test_a_release_that_kills_the_process_each_time_is_given_up(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    deadly = harness.publish(2)
    harness.power_cut = lambda record: record.state is State.WARMING and record.target == deadly
    for _ in range(3):
        updater = harness.start()
        updater.request(deadly)
        with pytest.raises(PowerCut):
            await harness.run(updater, lambda: False)
    updater = harness.start()
    await harness.run(updater, lambda: updater.record.state is State.IDLE)
    assert (harness.running, harness.reports[-1][:2]) == (1, (2, False))


async def test_a_release_that_is_withdrawn_during_its_installation_is_not_installed(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    first, second = harness.publish(1), harness.publish(2)
    updater = harness.start()
    updater.request(second)
    harness.power_cut = lambda record: bool(record.state is State.VERIFYING and updater.request(first))
    await harness.run(updater, lambda: State.VERIFYING in harness.states[6:] and updater.record.state is State.IDLE)
    assert (harness.running, [version for version, *_ in harness.reports]) == (1, [1])


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\x00 garbage", b"[]", b"null", b'{"state": "ASLEEP"}'])
async def test_a_damaged_record_is_set_aside_and_the_newest_whole_release_on_disk_runs(
    harness: UpdaterHarness, damage: bytes
) -> None:
    await install(harness, 1)
    await install(harness, 2)
    (harness.folder / "update.json").write_bytes(damage)
    (harness.folder / "releases" / "release-9-0123456789ab.onnx").write_bytes(b"not what its name says")
    updater = harness.start()
    assert harness.running == 2, "without a word of the cloud's"
    assert (harness.folder / "update.json.damaged-1").read_bytes() == damage
    assert updater.record.installed is not None
    await install(harness, 3)
    assert harness.running == 3


async def test_a_damaged_record_without_a_release_is_a_fresh_start(harness: UpdaterHarness) -> None:
    (harness.folder / "update.json").write_text("{")
    await install(harness, 1)
    assert harness.running == 1


async def test_a_release_that_the_site_holds_is_not_even_fetched_until_it_lets_go(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    fetches, updater, harness.waits = harness.fetches, harness.start(), UpdateWait.HELD
    updater.request(harness.publish(2))

    def let_go() -> bool:
        if updater._changed.is_set():  # it has not looked yet
            return False
        if harness.waits is UpdateWait.HELD:
            assert (harness.running, harness.fetches, updater.waits) == (1, fetches, UpdateWait.HELD)
            harness.waits = UpdateWait.NONE
            updater.reconsider()
        return harness.running == 2 and updater.record.state is State.IDLE

    await harness.run(updater, let_go)
    assert updater.waits is UpdateWait.NONE
    assert harness.reports == [(1, True, ""), (2, True, "")], "holding is no failure"


async def test_outside_of_a_window_a_release_is_fetched_and_waits_also_through_a_power_cut(
    harness: UpdaterHarness,
) -> None:
    await install(harness, 1)
    harness.waits, wanted = UpdateWait.WINDOW, harness.publish(2)
    updater = harness.start()
    updater.request(wanted)
    await harness.run(updater, lambda: updater.record.state is State.DOWNLOADING and harness.fetches == 2)
    assert (harness.running, updater.waits) == (1, UpdateWait.WINDOW)
    updater, harness.waits = harness.start(), UpdateWait.NONE
    await harness.run(updater, lambda: updater.record.state is State.IDLE)
    assert (harness.running, harness.fetches, harness.reports[-1]) == (2, 2, (2, True, ""))


async def test_a_release_that_waits_for_a_window_makes_room_for_a_newer_one(harness: UpdaterHarness) -> None:
    await install(harness, 1)
    updater, harness.waits = harness.start(), UpdateWait.WINDOW
    updater.request(harness.publish(2))
    await harness.run(updater, lambda: harness.fetches == 2)
    updater = harness.start()
    updater.request(harness.publish(3))
    harness.waits = UpdateWait.NONE
    await harness.run(updater, lambda: harness.running == 3 and updater.record.state is State.IDLE)
    assert harness.reports == [(1, True, ""), (3, True, "")]

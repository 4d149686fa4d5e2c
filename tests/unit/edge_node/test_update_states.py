"""The updater's table of states, without any I/O."""

from __future__ import annotations

import pytest

from diredi.labels import LabelSpace
from edge_node.update_states import IN_PROGRESS, MAX_STARTS, NEXT, InstallableRelease, State, UpdateRecord


def release(version: int, digit: str = "a") -> InstallableRelease:
    return InstallableRelease(
        version=version, digest="sha256:" + digit * 64, bytes=10, labels=LabelSpace(names=("car",)), image_size=64
    )


def installed(version: int) -> UpdateRecord:
    record = UpdateRecord().begin(release(version))
    for state in (State.VERIFYING, State.WARMING, State.SWAPPING):
        record = record.advance(state)
    return record.finish_swap().finish()


def test_every_state_leads_back_to_idle() -> None:
    reached = {State.IDLE}
    while len(reached) < len(State):
        more = {state for state, following in NEXT.items() if following & reached} - reached
        assert more, f"no way back to idle from {set(State) - reached}"
        reached |= more


def test_a_state_is_never_followed_by_one_that_the_table_does_not_name() -> None:
    with pytest.raises(AssertionError, match="IDLE is never followed by SWAPPING"):
        UpdateRecord().advance(State.SWAPPING)


def test_installed_changes_only_when_the_swap_is_behind_us() -> None:
    record = installed(1).begin(release(2, "b"))
    for state in (State.VERIFYING, State.WARMING, State.SWAPPING):
        record = record.advance(state)
        assert record.installed == release(1)
    record = record.finish_swap()
    assert (record.state, record.installed, record.previous) == (State.REPORTING, release(2, "b"), release(1))


@pytest.mark.parametrize("state", IN_PROGRESS)
def test_a_restart_in_the_middle_begins_with_the_download_again(state: State) -> None:
    assert UpdateRecord(state=state, target=release(2)).resume().state is State.DOWNLOADING


@pytest.mark.parametrize("state", [State.IDLE, State.REPORTING, State.FAILED])
def test_a_restart_elsewhere_goes_on_where_it_was(state: State) -> None:
    assert UpdateRecord(state=state, target=release(2)).resume().state is state


def test_an_older_release_is_installed_when_the_cloud_names_it() -> None:
    assert installed(2).should_install(release(1, "b"))
    assert not installed(2).should_install(release(2))


def test_the_same_version_with_other_bytes_is_another_release() -> None:
    assert installed(2).should_install(release(2, "b"))


def test_a_release_that_is_itself_wrong_is_not_tried_again() -> None:
    record = installed(1).begin(release(2, "b")).fail("bad", lasting=True).finish()
    assert not record.should_install(release(2, "b"))
    assert record.should_install(release(3, "c"))


def test_a_passing_failure_is_tried_again_after_pauses_that_double() -> None:
    record, waits = installed(1), []
    for _ in range(4):
        record = record.begin(release(2, "b")).fail("no room", lasting=False).finish()
        waits.append(record.wait_before(release(2, "b"), 10))
    assert waits == [10, 20, 40, 80]
    assert record.wait_before(release(3, "c"), 10) == 0


def test_a_release_that_takes_the_process_with_it_is_given_up() -> None:
    record = installed(1).begin(release(2, "b"))
    tries = 0
    while not (record := record.advance(State.VERIFYING)).has_crashed_too_often:
        tries += 1
        record = record.resume()
    assert tries == MAX_STARTS


def test_going_back_to_the_previous_release_keeps_the_other_as_previous() -> None:
    record = installed(1).begin(release(2, "b"))
    for state in (State.VERIFYING, State.WARMING, State.SWAPPING):
        record = record.advance(state)
    record = record.finish_swap().finish().begin(release(1))
    for state in (State.VERIFYING, State.WARMING, State.SWAPPING):
        record = record.advance(state)
    record = record.finish_swap()
    assert (record.installed, record.previous) == (release(1), release(2, "b"))

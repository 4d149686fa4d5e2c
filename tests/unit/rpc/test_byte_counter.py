import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from diredi.rpc.byte_counter import DAYS, FRAME_BYTES, EgressMeter, IngressMeter
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]


def until(condition, timeout_s=PATIENCE_S):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_message_counts_with_its_frame(tmp_path):
    meter = EgressMeter(tmp_path / "egress.json")
    meter.count("diredi.v1.PutChunkRequest", 100)
    meter.count("diredi.v1.PutChunkRequest", 0)
    meter.count("diredi.v1.StatBlobRequest", 73)

    assert meter.totals() == {"diredi.v1.PutChunkRequest": 100 + 2 * FRAME_BYTES, "diredi.v1.StatBlobRequest": 78}
    assert meter.messages() == {"diredi.v1.PutChunkRequest": 2, "diredi.v1.StatBlobRequest": 1}
    assert meter.total_bytes == 188


def test_totals_go_on_after_a_restart(tmp_path):
    first = EgressMeter(tmp_path / "egress.json")
    first.count("a", 10)
    first.close()
    again = EgressMeter(tmp_path / "egress.json")
    again.count("a", 10)
    again.close()

    third = EgressMeter(tmp_path / "egress.json")
    assert (third.totals(), third.messages(), third.since) == ({"a": 30}, {"a": 2}, first.since)


def test_totals_of_an_earlier_version_go_on(tmp_path):
    (tmp_path / "egress.json").write_text('{"bytes": {"a": 15}, "messages": {"a": 1}}')
    meter = EgressMeter(tmp_path / "egress.json")
    assert (meter.totals(), meter.since, meter.problem) == ({"a": 15}, "", "")


def test_days_are_kept_apart_across_a_restart_up_to_a_number(tmp_path):
    days = {f"2024-{month:02}-{day:02}": {"a": 1} for month in range(1, 13) for day in range(1, 32)}
    old = {"bytes": {"a": len(days)}, "messages": {"a": len(days)}, "days": days}
    (tmp_path / "egress.json").write_text(json.dumps(old))
    first = EgressMeter(tmp_path / "egress.json", by_day=True)
    first.count("a", 10)
    first.close()

    again = EgressMeter(tmp_path / "egress.json", by_day=True)
    kept = list(again.days().items())
    assert again.totals() == {"a": len(days) + 15}
    assert len(kept) == DAYS and kept[-1][1] == {"a": 15} and kept[0][0] > min(days)


def test_what_was_counted_is_soon_on_disk_and_a_kill_loses_none_of_it(tmp_path):
    program = (
        "import sys, threading; from pathlib import Path; from diredi.rpc.byte_counter import EgressMeter\n"
        "meter = EgressMeter(Path(sys.argv[1]))\n"
        "for _ in range(1000): meter.count('a', 10)\n"
        "threading.Event().wait()"
    )
    path = tmp_path / "egress.json"
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=ROOT)
    try:
        until(lambda: path.exists() and json.loads(path.read_text())["messages"] == {"a": 1000})
    finally:
        process.kill()
        process.wait()
    assert EgressMeter(path).totals() == {"a": 15_000}


def test_a_disk_that_fails_stops_no_counting_is_told_and_catches_up(tmp_path):
    folder = tmp_path / "state"
    meter = EgressMeter(folder / "egress.json")  # there is no such folder
    meter.count("a", 10)
    until(lambda: meter.problem)
    meter.count("a", 10)
    assert meter.totals() == {"a": 30}
    assert "cannot be saved" in meter.problem
    folder.mkdir()
    assert meter.save()
    assert meter.problem == ""
    meter.close()
    assert EgressMeter(folder / "egress.json").totals() == {"a": 30}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "null", '{"bytes": {"a": "many"}, "messages": {}}', '{"bytes": {"a": -1}, "messages": {}}'],
)
def test_a_broken_file_is_set_aside_and_it_is_said_since_when_bytes_are_counted(tmp_path, content):
    path = tmp_path / "egress.json"
    path.write_text(content)

    meter = EgressMeter(path)
    assert meter.totals() == {}
    assert f"counted since {meter.since}" in meter.problem
    assert (tmp_path / "egress.json.damaged-1").read_text() == content
    meter.count("a", 10)
    meter.close()
    again = EgressMeter(path)
    assert (again.totals(), again.since, again.problem) == ({"a": 15}, meter.since, "")


def test_peers_are_counted_apart_whatever_their_names(tmp_path):
    meter = IngressMeter(tmp_path / "ingress")
    meter.count("device/a_b/c", "m", 1)
    meter.count("device/a/b_c", "m", 2)
    meter.close()

    again = IngressMeter(tmp_path / "ingress")
    assert again.totals("device/a_b/c") == {"m": 6}
    assert again.totals("device/a/b_c") == {"m": 7}
    assert again.totals("site/unknown") == {}


def test_a_broken_file_of_one_peer_is_set_aside_and_no_other_peer_is_concerned(tmp_path):
    first = IngressMeter(tmp_path)
    first.count("site/a", "m", 1)
    first.count("site/b", "m", 1)
    first.close()
    (tmp_path / "site%2Fa.json").write_text("")

    again = IngressMeter(tmp_path)
    again.count("site/a", "m", 1)
    again.count("site/b", "m", 1)
    assert (again.totals("site/a"), again.totals("site/b")) == ({"m": 6}, {"m": 12})
    again.close()
    assert (tmp_path / "site%2Fa.json.damaged-1").exists()


def test_a_file_that_cannot_even_be_looked_at_stops_no_counting_and_is_told(tmp_path):
    meter = EgressMeter(tmp_path / ("x" * 300))
    assert "counted from zero" in meter.problem
    meter.count("a", 10)
    assert meter.totals() == {"a": 15}
    meter.close()


def test_a_machine_without_room_for_one_more_thread_stops_no_counting_is_told_and_catches_up(tmp_path):
    path = tmp_path / "egress.json"
    meter = EgressMeter(path)
    usual = threading.stack_size(2**46)
    try:
        with pytest.raises(RuntimeError):
            threading.Thread(target=print).start()
        meter.count("a", 10)
        assert meter.totals() == {"a": 15}
        assert "cannot be saved" in meter.problem
    finally:
        threading.stack_size(usual)
    meter.count("a", 10)
    until(path.exists)
    until(lambda: json.loads(path.read_text())["bytes"] == {"a": 30})
    assert meter.problem == ""
    meter.close()

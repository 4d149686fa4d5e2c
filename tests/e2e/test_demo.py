"""A whole cycle in real processes, none of them a warm one, by the command line alone."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.demo_world import Demo, Diredi, processes_of, small_demo
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_report_has_every_promised_key(demo: Demo):
    report = demo.report
    assert report["cycle"]["state"] == "RELEASED"
    for when in ("before", "after"):
        for where in ("presumed", "site"):
            metrics = report[when][where]
            assert all(0 <= metrics[key] <= 1 for key in ("map50", "map50_95", "precision", "recall", "f1"))
            assert metrics["per_class"] and all(
                {"ap50", "ap50_95"} <= entry.keys() for entry in metrics["per_class"].values()
            )
    assert report["new_classes"] == ["forklift"]
    assert "forklift" in report["after"]["site"]["per_class"]
    assert report["releases"] == {"edge-1": 2, "edge-2": 2, "edge-3": 2}
    assert report["private_bytes"] > 0
    assert {"data", "bootstrap", "extract", "apply", "redistil", "rollout", "cycle", "total"} <= report[
        "seconds"
    ].keys()


def test_the_gap_is_at_most_a_quarter_of_the_tutor(demo: Demo):
    gap = demo.report["gap"]
    assert 0 < gap["bytes"] <= gap["tutor_fp32_bytes"] / 4 * 1.25  # tiny models carry more overhead than real ones


def test_no_frame_is_dropped_by_the_update(demo: Demo):
    for device in demo.report["devices"]:
        assert device["dropped_frames"] == 0 and device["frames"] > 0


def test_the_table_is_on_standard_output_and_progress_is_not(demo: Demo):
    for word in ("mAP50", "AP50 forklift (new)", "PutChunkRequest", "private data that stayed", "edge-3"):
        assert word in demo.said.out
    assert "The manufacturer makes release 1" in demo.said.err
    assert "The manufacturer makes release 1" not in demo.said.out


def test_keep_says_how_to_talk_to_the_fleet_and_how_to_stop_it(demo: Demo):
    assert demo.folder.addresses()["cloud"] in demo.said.err
    assert "--stop" in demo.said.err
    assert demo.said.err.strip().splitlines()[-1].startswith("Next: ")


def test_a_demo_that_still_runs_is_not_replaced(demo: Demo, program: Diredi):
    said = program("demo", "--out", demo.folder.out)
    assert said.code == 6 and "--stop" in said.error
    assert demo.folder.report.exists()


def test_every_device_tells_the_cloud_what_it_runs(demo: Demo, diredi: Diredi):
    devices = diredi("device", "list", "--json", *demo.at()).json()
    assert {d["name"]: d["release_version"] for d in devices} == {"edge-1": 2, "edge-2": 2, "edge-3": 2}
    assert all(d["online"] and d["site"] == "site-1" for d in devices)
    assert [i["release_version"] for i in devices[0]["installs"]] == [1, 2]
    assert diredi("device", "list", "--json", "--site", "nowhere", *demo.at()).json() == []
    assert "edge-2" in diredi("device", "list", *demo.at()).out


def test_the_cloud_knows_the_site(demo: Demo, diredi: Diredi):
    (site,) = diredi("site", "list", "--json", *demo.at()).json()
    assert site["name"] == "site-1" and site["online"] and site["devices"] == 3
    assert sum(site["received_bytes"].values()) > demo.report["gap"]["bytes"]
    assert "site-1" in diredi("site", "list", *demo.at()).out


def test_a_cycle_is_listed_shown_and_watched_after_its_end(demo: Demo, diredi: Diredi):
    cycles = diredi("cycle", "list", "--json", *demo.at()).json()
    first = cycles[-1]
    assert first["id"] == demo.report["cycle"]["id"] and first["state"] == "RELEASED"
    shown = diredi("cycle", "show", first["id"], "--json", *demo.at()).json()
    assert shown["history"][0]["state"] == "REQUESTED" and shown["history"][-1]["state"] == "RELEASED"
    assert shown["gap"]["tutor_gap"]["blob"]["bytes"] == demo.report["gap"]["bytes"]
    assert diredi("cycle", "watch", first["id"], "--json", *demo.at()).json()["state"] == "RELEASED"
    assert "RELEASED" in diredi("cycle", "show", first["id"], *demo.at()).out
    assert first["id"] in diredi("cycle", "list", *demo.at()).out


def test_models_are_listed_shown_and_exported(demo: Demo, diredi: Diredi, tmp_path: Path):
    models = diredi("model", "list", "--json", *demo.at()).json()
    assert {m["kind"] for m in models} >= {"TUTOR", "STUDENT"}
    students = diredi("model", "list", "--kind", "student", "--json", *demo.at()).json()
    assert [m["kind"] for m in students] == ["STUDENT", "STUDENT"]
    newest = students[0]
    prefix = newest["id"].removeprefix("sha256:")[:12]
    assert diredi("model", "show", prefix, "--json", *demo.at()).json()["id"] == newest["id"]
    assert "forklift" in diredi("model", "show", prefix, *demo.at()).out
    onnx, weights = tmp_path / "new.onnx", tmp_path / "new.safetensors"
    assert diredi("model", "export", prefix, "--out", onnx, "--json", *demo.at()).json()["format"] == "onnx"
    assert onnx.read_bytes() == demo.folder.release(2).read_bytes()
    diredi("model", "export", prefix, "--out", weights, "--json", *demo.at()).json()
    data = next(demo.folder.data.glob("scenes-site-1-*/data.yaml"))
    metrics = diredi("eval", onnx, "--data", data, "--json").json()
    assert metrics["map50"] == pytest.approx(demo.report["after"]["site"]["map50"], abs=1e-6)
    assert diredi("eval", weights, "--data", data, "--json").json()["per_class"].keys() == metrics["per_class"].keys()
    frigate = tmp_path / "frigate"
    diredi("model", "export", prefix, "--format", "frigate", "--out", frigate, "--json", *demo.at()).json()
    assert sorted(path.name for path in frigate.iterdir()) == ["config.yaml", "labelmap.txt", "model.onnx"]
    assert "forklift" in (frigate / "labelmap.txt").read_text()
    tutor = next(m for m in models if m["kind"] == "TUTOR")
    said = diredi("model", "export", tutor["id"], "--out", onnx, *demo.at())
    assert said.code == 4 and "--format safetensors" in said.error


def test_the_uploaded_gap_can_be_looked_into(demo: Demo, diredi: Diredi):
    report = demo.report["gap"]
    blobs = (demo.folder.state("cloud") / "blobs").rglob("*")
    gap = next(path for path in blobs if path.is_file() and path.stat().st_size == report["bytes"])
    found = diredi("gap", "inspect", gap, "--json").json()
    assert found["codec"] == report["codec"] and found["bytes"] == report["bytes"]
    assert found["norm"] > 0 and len(found["largest"]) == 10
    assert "codec" in diredi("gap", "inspect", gap).out


@contextlib.contextmanager
def asleep(demo: Demo, service: str) -> Iterator[None]:
    """Meanwhile the service does nothing, so that no cycle gets ahead of the commands of a test."""
    [process] = [one for one in processes_of(demo.folder.out) if service in one.cmdline()]
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_only_the_site_can_say_no_and_its_no_ends_the_cycle(demo: Demo, diredi: Diredi):
    with asleep(demo, "user_domain"):
        cycle = diredi("cycle", "start", "--site", "site-1", "--json", *demo.at()).json()
        again = diredi("cycle", "start", "--site", "site-1", *demo.at())
        assert again.code == 6, "a site has one cycle at a time"
        refused = diredi("cycle", "decline", cycle["id"], *demo.at())
        assert refused.code == 5 and refused.error
        declined = diredi("cycle", "decline", cycle["id"], "--reason", "not today", "--json", *demo.at("site-1")).json()
        assert declined["state"] == "DECLINED" and declined["history"][-1]["reason"] == "not today"
    watched = diredi("cycle", "watch", cycle["id"], *demo.at())
    assert watched.code == 5 and "DECLINED" in watched.error
    assert diredi("cycle", "approve", cycle["id"], *demo.at("site-1")).code == 6


def test_wrong_input_to_a_running_cloud_is_told_in_one_sentence(demo: Demo, diredi: Diredi, tmp_path: Path):
    unknown = diredi("cycle", "start", "--site", "site-9", *demo.at())
    assert unknown.code == 4 and "site-9" in unknown.error
    option = diredi("cycle", "start", "--site", "site-1", "--option", "lamda=1", *demo.at())
    assert option.code == 2 and "lamda" in option.error
    assert diredi("cycle", "show", "c-none", *demo.at()).code == 4
    assert diredi("model", "show", "0123456789", *demo.at()).code == 4
    assert diredi("pki", "init", tmp_path / "ca").code == 0
    assert diredi("pki", "issue", "operator", "eve", "--ca", tmp_path / "ca", "--out", tmp_path / "eve").code == 0
    foreign = diredi("cycle", "list", "--cloud", demo.folder.addresses()["cloud"], "--identity", tmp_path / "eve")
    assert foreign.code == 8 and "certificate" in foreign.error


Started = Callable[..., "subprocess.Popen[str]"]


def data_of(demo: Demo) -> tuple[str, ...]:
    """The first demo's scenes as a user's own data, so that they need not be drawn again."""
    presumed, private = (next(demo.folder.data.glob(f"scenes-{site}-*")) for site in ("presumed", "site-1"))
    return ("--presumed", str(presumed / "data.yaml"), "--private", str(private / "data.yaml"))


def until_all_started(process: subprocess.Popen[str], out: Path) -> None:
    def started() -> bool:
        assert process.poll() is None, process.communicate()
        addresses = out / "fleet" / "addresses.json"
        return addresses.exists() and "edge-3" in addresses.read_text()

    eventually("every service of the demo has started", started)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_nothing_is_left_running_however_a_demo_is_ended(
    demo: Demo, started: Started, tmp_path: Path, number: signal.Signals, code: int
):
    out = tmp_path / "out"
    process = started("demo", "--out", out, "--config", small_demo(tmp_path / "small.yaml"), *data_of(demo))
    until_all_started(process, out)
    assert len(processes_of(out)) >= 6
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == code
    psutil.wait_procs(processes_of(out), timeout=PATIENCE_S)  # after SIGKILL the services end by themselves
    assert processes_of(out) == []


def test_a_service_that_dies_is_named_with_its_log(demo: Demo, started: Started, tmp_path: Path):
    out = tmp_path / "out"
    process = started("demo", "--out", out, "--config", small_demo(tmp_path / "small.yaml"), *data_of(demo))
    until_all_started(process, out)
    victim = json.loads((out / "fleet" / "processes.json").read_text())["edge-2"]["pid"]
    psutil.Process(victim).kill()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: edge-2 ended by itself") and str(out / "fleet" / "logs" / "edge-2.log") in last
    assert "last lines of" in err
    assert processes_of(out) == []

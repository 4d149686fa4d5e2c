"""`diredi box`: cloud, site, edge node and pages by one command, in one folder, and the same again after a stop."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
import yaml

from diredi.data.sources import resolve
from diredi.detectors.onnx import OnnxPredictor
from diredi.store.blobs import digest_of_file
from tests.e2e.demo_world import Diredi, processes_of
from tests.support.net import free_port
from tests.support.visitor import Visitor
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_processes")]

Started = Callable[..., "subprocess.Popen[str]"]

# The starter release, and as few of the manufacturer's images as there can be.
SMALL = {
    "cloud": {"presumed_train": 4, "presumed_val": 2, "bootstrap": {"coreset_images": 4}},
    "edge": {"runtime": "onnxruntime", "frames_per_second": 2},
}


def links_of(process: subprocess.Popen[str], folder: Path) -> dict[str, str]:
    """What a box prints with --json when it is live."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("}"):
            return dict(json.loads("".join(lines)))
    raise AssertionError((process.communicate()[1], *(log.read_text() for log in folder.glob("logs/*"))))


def get(url: str) -> str:
    with urlopen(url, timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def detections(url: str) -> float:
    found = re.findall(r"^diredi_edge_detections_total\{.*\} ([0-9.]+)$", get(f"{url}metrics"), re.MULTILINE)
    return sum(map(float, found))


def identities(folder: Path) -> dict[str, str]:
    return {path.parent.name: digest_of_file(path).digest for path in folder.glob("pki/*/*.pem") if path.stem == "key"}


def health(url: str) -> dict[str, Any]:
    return dict(json.loads(get(f"{url}healthz")))


async def visit(site: str, console: str, port: int) -> None:
    visitor, operator = Visitor(f"127.0.0.1:{port}"), Visitor(f"127.0.0.1:{port + 1}")
    await visitor.log_in(site)
    [node] = json.loads((await visitor.ask("/live"))[2])["nodes"]
    assert (node["answers"], node["release"]) == (True, 1)
    status, _, picture = await visitor.ask("/live/edge-1/gate/picture")
    assert status == 200 and picture.startswith(b"\xff\xd8")
    await operator.log_in(console)


def test_a_box_detects_is_stopped_and_goes_on_with_the_same_release_and_identities(
    tmp_path: Path, started: Started, diredi: Diredi
):
    folder, port = tmp_path / "box", free_port()
    images = resolve("scenes:presumed", tmp_path / "scenes", seed=1, train=1, val=4).parent / "images" / "val"
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    process = started(
        "box", "--folder", folder, "--camera", f"gate=folder:{images}", "--camera", "away=rtsp://127.0.0.1:1/x",
        "--port", port, "--config", tmp_path / "small.yaml", "--json",
    )  # fmt: skip
    links = links_of(process, folder)
    eventually("the box sees something", lambda: detections(links["camera"]) > 0)
    assert health(links["camera"])["cameras"] == {"gate": "ok", "away": "away"}, "one camera is no matter to the other"

    console = diredi("box", "--folder", folder, "--open", "--json").json()["console"]
    asyncio.run(visit(links["site"], console, port))

    again = diredi("box", "--folder", folder)
    assert again.code == 6 and "--stop" in again.error
    other = diredi("box", "--folder", tmp_path / "other", "--camera", f"folder:{images}", "--port", port)
    assert other.code == 6 and f"127.0.0.1:{port} of the site's pages is taken" in other.error

    [release], before = folder.glob("edge-1/releases/*.onnx"), identities(folder)
    assert len(before) == 4
    assert OnnxPredictor(release, threads=1).golden, "what the device has checked before it swapped"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and f"diredi box --folder {folder}" in said
    assert "camera gate gives frames" in said and "camera away gives no frames" in said
    psutil.wait_procs(processes_of(folder), timeout=PATIENCE_S)
    assert processes_of(folder) == []

    process = started("box", "--folder", folder, "--json")
    links = links_of(process, folder)
    assert links["camera"] == f"http://127.0.0.1:{port + 2}/", "what it was told is remembered"
    assert health(links["camera"])["release"] == 1
    assert [*folder.glob("edge-1/releases/*.onnx")] == [release] and identities(folder) == before
    eventually("the box sees something again", lambda: detections(links["camera"]) > 0)
    edge = json.loads((folder / "processes.json").read_text())["edge-1"]["pid"]
    psutil.Process(edge).kill()
    eventually("what dies is started again", lambda: started_again(folder, edge) and detections(links["camera"]) > 0)
    assert diredi("box", "--folder", folder, "--stop", "--json").json() == {"stopped": True}
    assert process.wait(PATIENCE_S) == 0


def started_again(folder: Path, before: int) -> bool:
    now = json.loads((folder / "processes.json").read_text())["edge-1"]["pid"]
    return now != before and "web_server_started" in (folder / "logs" / "edge-1.log").read_text()


def test_what_a_box_cannot_do_is_told_before_anything_is_made(tmp_path: Path, diredi: Diredi):
    folder = tmp_path / "box"
    for arguments, code, word in (
        ((), 2, "--camera"),
        (("--camera", "ftp://10.0.0.7/x"), 2, "source"),
        (("--camera", "rtsp://admin:secret@10.0.0.7/x"), 2, "holds a password"),
        (("--camera", "scenes:site-1", "--student", tmp_path / "none.pt"), 4, "none.pt does not exist"),
        (("--camera", "a=scenes:site-1", "--camera", "a=scenes:site-1"), 2, "two cameras are called a"),
        (("--open",), 6, "no box has started"),
    ):
        said = diredi("box", "--folder", folder, *arguments)
        assert (said.code, word in said.error) == (code, True), said.err
        assert "secret" not in said.err and not folder.exists()
    assert diredi("box", "--folder", folder, "--stop", "--json").json() == {"stopped": False}
    (tmp_path / "thesis.txt").write_text("x")
    said = diredi("box", "--folder", tmp_path, "--camera", "scenes:site-1")
    assert said.code == 2 and "no box made it" in said.error

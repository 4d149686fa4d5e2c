"""What is handed on of a node, without a network: objects that are followed, zones, topics, addresses."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diredi.detectors.predictor import Detections
from diredi.errors import InvalidInput
from diredi.labels import LabelSpace
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.retry import Backoff
from edge_node.active_model import RunningModel
from edge_node.inference import Broadcast, Result, only
from edge_node.outputs.addresses import Broker, check_webhook, web_address
from edge_node.outputs.discovery import counted, discovery_of
from edge_node.outputs.events import EventFeed
from edge_node.outputs.keep import KeepOutput
from edge_node.outputs.topics import Topics, class_levels
from edge_node.outputs.tracker import Tracker
from edge_node.outputs.webhook import WebhookOutput
from edge_node.servicer import Output
from edge_node.sources.reference import Reference, SourceSettings
from edge_node.update_states import InstallableRelease
from tests.support.net import free_port
from tests.support.waiting import until

LABELS = LabelSpace(names=("car", "person"))
RELEASE = InstallableRelease(version=3, digest=f"sha256:{0:064x}", bytes=1, labels=LABELS, image_size=64)


class Yard:
    """A camera whose objects a test moves, and the feed that hears of them."""

    name = "yard"

    def __init__(self, settings: str = "") -> None:
        self.settings = Reference.parse(f"folder:x{settings}").settings
        self.now_s, self.number = 100.0, 0
        broadcast = Broadcast(asyncio.new_event_loop())
        self.feed = EventFeed("camera-1", "site-1", [self], broadcast, clock=lambda: self.now_s)  # type: ignore[list-item]
        self.said: list[tuple[str, str]] = []
        self.feed.on_event.append(lambda event: self.said.append((event.type, event.class_name)))

    def show(self, *boxes: tuple[int, float, float], after_s: float = 0.2) -> None:
        """A frame of 100 by 100 with objects of 20 by 20: class, left and top of each."""
        self.now_s += after_s
        self.number += 1
        found = Detections.of(
            [[x, y, x + 20, y + 20] for _, x, y in boxes], [0.9] * len(boxes), [class_id for class_id, *_ in boxes]
        )
        model = RunningModel(RELEASE, predictor=None)  # type: ignore[arg-type]
        image = np.zeros((100, 100, 3), np.uint8)
        self.feed.take(Result(self.number, "yard", 1_700_000_000 + self.now_s, image, found, model))


def test_an_object_begins_once_is_followed_while_it_moves_and_ends_when_it_is_gone() -> None:
    yard = Yard()
    for step in range(8):
        yard.show((0, 9 * step, 40))
    assert yard.said == [("begin", "car")]
    yard.show()
    yard.show((0, 81, 40))
    assert yard.said == [("begin", "car")], "missed in one frame and found again where it was expected"
    for _ in range(12):
        yard.show()
    assert yard.said == [("begin", "car"), ("end", "car")]
    assert {event.id for event in yard.feed.recent} == {yard.feed.recent[0].id}
    assert yard.feed.recent[-1].seen_s < 1_700_000_000 + yard.now_s


def test_of_several_objects_only_the_one_that_leaves_ends() -> None:
    yard = Yard()
    for _ in range(3):
        yard.show((0, 0, 0), (0, 70, 70), (1, 40, 40))
    for _ in range(15):
        yard.show((0, 0, 0), (1, 40, 40))
    assert [said for said in yard.said if said[0] == "end"] == [("end", "car")]
    assert yard.feed.recent[-1].box[:2] == (70, 70)


def test_what_shows_in_a_single_frame_is_no_object_and_a_lasting_one_is_updated_every_five_seconds() -> None:
    yard = Yard()
    yard.show((1, 0, 0))
    yard.show((0, 50, 50))
    for _ in range(26):
        yard.show((0, 50, 50))
    assert yard.said == [("begin", "car"), ("update", "car")]


def test_two_objects_that_pass_each_other_keep_their_numbers_and_classes_are_never_mixed() -> None:
    tracker = Tracker()
    for step in range(9):
        x = 10.0 * step
        boxes = [[x, 0, x + 30, 30], [80 - x, 10, 110 - x, 40], [x, 0, x + 30, 30]]
        tracker.update(Detections.of(boxes, [0.9, 0.8, 0.7], [0, 0, 1]), 0.2 * step)
    places = {track.number: (track.class_id, float(track.box[0])) for track in tracker.tracks}
    assert sorted(places.values()) == [(0, 0.0), (0, 80.0), (1, 80.0)]
    assert len(places) == 3


def test_an_object_is_counted_in_the_zones_that_it_stands_in_and_a_zone_counts_only_its_classes() -> None:
    yard = Yard("#zone=gate:car:0,0,0.5,0,0.5,1,0,1#zone=lawn:0.5,0,1,0,1,1,0.5,1")
    for x in (0, 10, 20, 30, 40, 50, 60):
        yard.show((0, x, 40), (1, x, 0))
    assert yard.feed.scenes["yard"].counts() == {("all", 0): 1, ("all", 1): 1, ("lawn", 0): 1, ("lawn", 1): 1}
    car = [event for event in yard.feed.recent if event.class_name == "car"]
    assert [event.zones for event in car] == [("gate",), ("gate", "lawn"), ("lawn",)], (
        "on the line between both it is in both"
    )
    assert car[-1].entered_zones == ("gate", "lawn")


def test_objects_of_a_camera_that_gives_no_frames_end_and_classes_that_nobody_knows_are_said() -> None:
    yard = Yard("#classes=car,forklift")
    yard.show((0, 0, 0))
    yard.show((0, 0, 0))
    yard.now_s += 29
    yard.feed.end_silent()
    assert yard.said == [("begin", "car")]
    yard.now_s += 2
    yard.feed.end_silent()
    assert yard.said[-1] == ("end", "car")
    assert yard.feed.scenes["yard"].counts() == {}
    assert yard.feed.problem == "camera yard is to report forklift, which the release does not know"


def test_only_the_classes_that_a_camera_is_to_report_are_reported() -> None:
    found = Detections.of([[0, 0, 1, 1], [0, 0, 2, 2]], [0.9, 0.8], [0, 1])
    assert only(found, LABELS, ("person", "forklift")).classes.tolist() == [1]
    assert only(found, LABELS, ()) is found


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("#zone=gate", "a zone is NAME:x,y"),
        ("#zone=gate:0,0,1,1", "three corners or more"),
        ("#zone=gate:0,0,1,0,1,1,2,2", "less than or equal to 1"),
        ("#zone=a/b:0,0,1,0,1,1", "match pattern"),
        ("#zone=all:0,0,1,0,1,1", "choose another name"),
        ("#zone=gate:car:person:0,0,1,0,1,1", "a zone is NAME:x,y"),
        ("#zone=gate:0,0,1,0,1,1#zone=gate:0,0,1,0,1,1", "a name of its own"),
    ],
)
def test_a_zone_that_cannot_be_is_refused(setting: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        Reference.parse(f"folder:x{setting}")


def test_topics_hold_no_character_that_means_something_to_mqtt_and_no_two_classes_share_one() -> None:
    names = ("Fork lift", "fork-lift", "a/b+#", "叉车", "🚗", "🚙", "a_b", "car_1", "car")
    levels = class_levels(names)
    assert len(set(levels)) == len(names)
    assert all(re.fullmatch(r"\w+", level) for level in levels)
    assert (levels[3], levels[8]) == ("叉车", "car")


def test_home_assistant_gets_one_entity_for_each_count_and_names_of_strangers_reach_no_template() -> None:
    labels = LabelSpace(names=("car", "{{ states }}"))
    settings = SourceSettings.model_validate({"zone": ["gate:car:0,0,1,0,1,1"]})
    topics = Topics("diredi", "site-1", "camera.1")
    config = discovery_of(topics, labels, {"yard": settings}, with_pictures=False)
    components = config["components"]
    assert isinstance(components, dict)
    assert len(components) == 2 + len(counted(labels, settings)) == 5
    assert not any("template" in key for component in components.values() for key in component)
    assert not any("{" in component["state_topic"] for component in components.values())
    other = discovery_of(replace(topics, device="camera_1"), labels, {}, with_pictures=False)
    assert config["device"] != other["device"], "names that differ in a character that Home Assistant does not take"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mqtt://camera:hunter2@10.0.0.5", "holds a password"),
        ("mqtts://camera:{NOT_SET_ANYWHERE}@10.0.0.5", "the broker names the variable NOT_SET_ANYWHERE"),
        ("http://10.0.0.5", "is not an address of MQTT"),
        ("mqtts://", "names no host"),
        ("mqtt://10.0.0.5:99999", "a port that does not exist"),
    ],
)
def test_a_broker_that_cannot_be_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        Broker(url).check()
    assert "hunter2" not in str(caught.value)


def test_a_port_alone_is_one_of_this_machine_and_nobody_else() -> None:
    assert web_address("8080") == ("127.0.0.1", 8080)
    assert web_address("[::]:80") == ("::", 80)
    assert web_address("0.0.0.0:0") == ("0.0.0.0", 0)
    for text in ("", "http", "host:", "::1:80", "70000", "-1"):
        with pytest.raises(InvalidInput, match="write a port"):
            web_address(text)


@contextmanager
def hook(port: int, answers: list[int]) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """A web server that answers posts with these codes, then with 204; yields what it has got."""
    got: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append((self.headers.get("Authorization", ""), body))
            self.send_response(answers.pop(0) if answers else 204)
            self.send_header("Location", f"http://127.0.0.1:{port}/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@asynccontextmanager
async def at_work(output: Output) -> Any:
    task = asyncio.create_task(output.run())
    yield
    task.cancel()


async def test_a_webhook_gets_each_event_in_order_however_often_it_fails_and_goes_on_after_one_that_it_refuses(
    tmp_path: Path,
) -> None:
    yard, port, meter = Yard(), free_port(), EgressMeter()
    credentials = tmp_path / "netrc"
    credentials.write_text("machine 127.0.0.1 login me password hunter2\n")
    output = WebhookOutput(
        f"http://127.0.0.1:{port}/events", credentials, meter, yard.feed, queue=3, backoff=Backoff(0.001, 0.01)
    )
    for class_id in (0, 1, 0, 1):
        yard.show((class_id, 20 * yard.number, 0))
        yard.show((class_id, 20 * (yard.number - 1), 0))
    assert output.dropped == 1, "four have begun, and three fit"
    async with at_work(output):
        await until(lambda: "nothing listens at webhook 127.0.0.1" in output.problem)
        with hook(port, [503, 307, 422]) as got:
            await until(lambda: len(got) == 5 and not output.problem)
    assert [body["class"] for _, body in got] == ["person", "person", "person", "car", "person"]
    assert output.dropped == 2, "the one that was refused"
    assert got[0][0].startswith("Basic ")
    assert meter.messages()["webhook/event"] > 5
    assert "hunter2" not in output.problem


def test_a_webhook_that_cannot_be_is_refused_without_its_password() -> None:
    for url, said in (("ftp://x", "not an address of HTTP"), ("https://x/?token=hunter2", "holds a password")):
        with pytest.raises(InvalidInput, match=said) as caught:
            check_webhook(url)
        assert "hunter2" not in str(caught.value)


async def test_pictures_and_events_are_kept_within_bounds_and_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    yard, folder = Yard(), tmp_path / "not yet" / "kept"
    (tmp_path / "not yet").write_text("a file")
    output = KeepOutput(folder, 1, yard.feed)
    async with at_work(output):
        yard.show((0, 0, 0))
        yard.show((0, 0, 0))
        await until(lambda: output.problem)
        assert output.problem.startswith(f"events cannot be kept in {folder}")
        (tmp_path / "not yet").unlink()
        folder.mkdir(parents=True)
        (folder / "20000101T000000.jpg").write_bytes(bytes(2**20))
        yard.show((1, 50, 50))
        yard.show((1, 50, 50))
        await until(lambda: len(list(folder.iterdir())) == 1 and not list(folder.glob("2000*")))
        for _ in range(15):
            yard.show()
        await until(lambda: len(list(folder.glob("*.json"))) == 2)
    assert not output.problem
    assert {json.loads(path.read_text())["type"] for path in folder.glob("*.json")} == {"end"}

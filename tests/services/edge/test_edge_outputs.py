"""What a node hands on beside gRPC, to a real broker and a real web client; it detects, whatever is wrong with them."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from edge_doubles import EdgeCloud, config_of, running

from diredi.detectors.spec import DetectorSpec
from tests.support.mqtt import PASSWORD, USER, MqttBroker, MqttReader, broker, mqtt_server, reader
from tests.support.net import free_port
from tests.support.pki import Pki
from tests.support.prometheus import values_of
from tests.support.waiting import until

__all__ = ["broker", "mqtt_server", "reader"]

Students = list[tuple[Path, DetectorSpec]]
ROOT = "diredi/site-1/camera-1"


def low(config: dict[str, Any]) -> dict[str, Any]:
    """With a confidence at which an untrained detector finds something in every frame."""
    return {"confidence": 0.001, "frames_per_second": 20, "reconnect_s": 0.02, "mqtt_picture_s": 0.05, **config}


async def test_a_broker_has_events_states_pictures_and_what_home_assistant_wants(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, broker: MqttBroker, reader: MqttReader,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    await cloud.fleet.publish(1, *students[0])
    monkeypatch.setenv("MQTT_PASSWORD", PASSWORD)
    web = free_port()
    config = config_of(
        tmp_path, pki, cloud.address, f"{frames}#zone=door:car:0,0,1,0,1,1,0,1",
        **low({
            "mqtt": f"mqtts://{USER}:{{MQTT_PASSWORD}}@127.0.0.1:{broker.tls_port}", "mqtt_ca": broker.ca,
            "mqtt_detections": True, "http": str(web),
        }),
    )  # fmt: skip
    async with running(config, pki) as node:
        await until(
            lambda: reader.last("/camera/camera-1/picture") and reader.last("/event") and reader.last("/status")
        )
        await until(lambda: reader.last("/camera/camera-1/detections"))
        assert reader.last(f"{ROOT}/availability") == b"online"
        assert reader.last(f"{ROOT}/problem") == b"OFF"
        release_1 = {"installed_version": "1", "latest_version": "1", "title": "Detector"}
        await until(lambda: reader.all(f"{ROOT}/update")[-1] == release_1)
        picture = cv2.imdecode(np.frombuffer(reader.last("/picture") or b"", np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (48, 64, 3)
        begun = next(event for event in reader.all(f"{ROOT}/event") if event["type"] == "begin")
        assert {"id", "camera", "class", "confidence", "box", "zones", "began", "seen", "release"} <= set(begun)
        found = reader.all("/detections")[-1]
        assert found["release"] == 1
        assert {"class", "confidence", "box"} <= set(found["detections"][0])
        topics = check_discovery(reader.all("/config")[-1])
        await until(lambda: topics <= {topic for topic, _ in reader.messages})
        sent = (await node.status()).sent_bytes
        assert {"mqtt/event", "mqtt/state", "mqtt/picture", "mqtt/discovery", "mqtt/detections"} <= set(sent)
        await asyncio.to_thread(check_web, web)
        await cloud.fleet.publish(2, *students[2])
        await until(lambda: reader.all(f"{ROOT}/update")[-1]["installed_version"] == "2")
        assert "count/all/forklift" in json.dumps(reader.all("/config")[-1]), "the class that release 2 has learned"
    await until(lambda: reader.last(f"{ROOT}/availability") == b"offline")
    assert "output_crashed" not in capsys.readouterr().out


def get(port: int, path: str, host: str = "localhost") -> tuple[int, bytes]:
    """The status and the first bytes of an answer; a picture that goes on for ever is not waited for."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read1() if path.endswith("live") else answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


async def answers(port: int) -> bool:
    try:
        return (await asyncio.to_thread(get, port, "/healthz"))[0] == 200
    except OSError:
        return False


def check_web(port: int) -> None:
    """Pictures, events, health and metrics, each as its reader wants it, and for nobody else."""
    assert get(port, "/")[1].count(b"<img ") == 1
    jpeg = cv2.imdecode(np.frombuffer(get(port, "/cameras/camera-1/picture.jpg")[1], np.uint8), cv2.IMREAD_COLOR)
    assert jpeg is not None
    assert b"Content-Type: image/jpeg" in get(port, "/cameras/camera-1/live")[1]
    events = json.loads(get(port, "/events?limit=3&camera=camera-1")[1])["events"]
    assert 0 < len(events) <= 3
    assert json.loads(get(port, "/healthz")[1])["status"] == "ok"
    for path in ("/events?limit=x", "/cameras/yard/live"):
        assert get(port, path)[0] == 400
    code, said = get(port, "/events", host="rebound.example.com")
    assert (code, b"may be a stranger's" in said) == (421, True)
    assert get(port, "/healthz", host="edge-1:8080")[0] == get(port, "/healthz", host="pi.local")[0] == 200
    code, metrics = get(port, "/metrics")
    assert code == 200
    values = values_of(metrics)
    assert values["diredi_edge_release",] == 1
    assert values["diredi_edge_frames_total", ("camera", "camera-1")] > 0
    assert values["diredi_edge_mqtt_connected",] == 1
    assert values["diredi_edge_sent_bytes_total", ("type", "http/picture")] > len(jpeg)
    assert any(name == "diredi_edge_detections_total" for name, *_ in values)
    assert any(name == "diredi_edge_detection_seconds_bucket" for name, *_ in values)


def check_discovery(config: dict[str, Any]) -> set[str]:
    """What Home Assistant's schema of device discovery demands; returns the topics that it will listen to."""
    assert config["device"]["identifiers"]
    assert config["origin"]["name"]
    wanted = {
        "sensor": "state_topic", "binary_sensor": "state_topic", "update": "state_topic", "camera": "topic",
    }  # fmt: skip
    seen: set[str] = set()
    for key, component in config["components"].items():
        assert component[wanted[component["platform"]]]
        assert key.replace("_", "").replace("-", "").isalnum()
        seen.add(component["platform"])
    assert seen == set(wanted)
    identifiers = [component["unique_id"] for component in config["components"].values()]
    assert len(set(identifiers)) == len(identifiers)
    listened = {component[wanted[component["platform"]]] for component in config["components"].values()}
    return {*listened, config["availability_topic"]}


@pytest.mark.slow
async def test_a_broker_that_is_away_or_refuses_is_told_in_a_sentence_and_gets_the_newest_events_later(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, broker: MqttBroker
) -> None:
    await cloud.fleet.publish(1, *students[0])
    credentials = tmp_path / "netrc"
    credentials.write_text(f"machine 127.0.0.1 login {USER} password wrong-{PASSWORD}\n")
    broker.kill()
    mqtt = f"mqtt://127.0.0.1:{broker.port}"
    config = config_of(
        tmp_path,
        pki,
        cloud.address,
        frames,
        **low({"mqtt": mqtt, "credentials": credentials, "event_queue": 1, "mqtt_version": "5"}),
    )
    async with running(config, pki) as node:
        status = await node.until(
            lambda status: "nothing listens at broker" in status.last_error and status.frames > 50
        )
        broker.start()
        status = await node.until(lambda status: "refuses the user name or password" in status.last_error)
        assert PASSWORD not in status.last_error
        credentials.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
        reader = MqttReader(broker)
        await until(lambda: reader.last(f"{ROOT}/availability") == b"online")
        await until(lambda: reader.last("/status") and reader.all("/status")[-1]["dropped_events"] > 0)
        heard = len(reader.messages)
        broker.cut_off("diredi_site-1_camera-1")
        states = [b"offline", b"online"]
        await until(
            lambda: [text for topic, text in reader.messages[heard:] if topic.endswith("availability")] == states
        )
        frames_before = status.frames
        broker.kill()
        await node.until(lambda status: status.last_error and status.frames > frames_before)
        reader.close()
        broker.start()
        reader = MqttReader(broker)
        await until(lambda: reader.last(f"{ROOT}/availability") == b"online" and reader.last("/config"))
        reader.close()


async def test_a_port_that_is_taken_and_a_broker_that_nobody_has_signed_keep_no_node_from_detecting(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, broker: MqttBroker
) -> None:
    await cloud.fleet.publish(1, *students[0])
    mqtt = f"mqtts://127.0.0.1:{broker.tls_port}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = config_of(tmp_path, pki, cloud.address, frames, **low({"mqtt": mqtt, "http": str(port)}))
        async with running(config, pki) as node:
            status = await node.until(lambda status: "certificate that is not trusted" in status.last_error)
            assert "--mqtt-ca" in status.last_error
            await node.until(lambda status: status.frames > 5)
            taken.close()
            await until(lambda: answers(port))

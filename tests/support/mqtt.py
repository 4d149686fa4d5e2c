"""A real MQTT broker, mosquitto, which can be stopped, killed and started again; and a reader of all that it has."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.apt import need
from tests.support.net import free_ports
from tests.support.pki import Pki
from tests.support.waiting import eventually

USER, PASSWORD = "camera", "hunter2:/@?#"
MOSQUITTO = ("/usr/sbin/mosquitto", "/usr/bin/mosquitto_passwd")


class MqttBroker:
    """A broker that wants a user name and a password, with and without TLS, and forgets all when it stops."""

    def __init__(self, folder: Path, pki: Pki) -> None:
        self.port, self.tls_port, self.open_port = free_ports(3)
        identity = pki.issue("cloud", "broker")
        self.ca = identity / "ca.pem"
        users = folder / "users"
        subprocess.run([MOSQUITTO[1], "-c", "-b", str(users), USER, PASSWORD], check=True, capture_output=True)
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"per_listener_settings true\nuser root\n"
            f"listener {self.port} 127.0.0.1\npassword_file {users}\n"
            f"listener {self.tls_port} 127.0.0.1\npassword_file {users}\n"
            f"certfile {identity / 'cert.pem'}\nkeyfile {identity / 'key.pem'}\ncafile {self.ca}\n"
            f"listener {self.open_port} 127.0.0.1\nallow_anonymous true\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is None:
            self._process = subprocess.Popen([MOSQUITTO[0], "-c", str(self._config)], stderr=subprocess.DEVNULL)
            eventually("the broker listens", self._listens, every_s=0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def cut_off(self, client_id: str) -> None:
        """End the connection of a client without a farewell: another one comes with its name, and goes."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        accepted = threading.Event()
        double = Client(CallbackAPIVersion.VERSION2, client_id=client_id)
        double.on_connect = lambda *_: accepted.set()
        double.connect("127.0.0.1", self.open_port)
        double.loop_start()
        assert accepted.wait(60)
        double.disconnect()
        double.loop_stop()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.open_port)) == 0


class MqttReader:
    """A subscriber to everything: what has come, in order, and what is retained."""

    def __init__(self, broker: MqttBroker) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.messages: list[tuple[str, bytes]] = []
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self.messages.append(
            (message.topic, bytes(message.payload))
        )
        self._client.connect("127.0.0.1", broker.open_port)
        self._client.loop_start()
        assert self._ready.wait(60)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def last(self, end: str) -> bytes | None:
        """The newest message whose topic ends like this."""
        return next((payload for topic, payload in reversed(self.messages) if topic.endswith(end)), None)

    def all(self, end: str) -> list[Any]:
        """The JSON of all messages whose topic ends like this."""
        return [json.loads(payload) for topic, payload in list(self.messages) if topic.endswith(end)]


@pytest.fixture(scope="session")
def mqtt_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttBroker]:
    need(lambda: all(shutil.which(program) for program in MOSQUITTO), "mosquitto")
    folder = tmp_path_factory.mktemp("broker")
    broker = MqttBroker(folder, Pki(folder / "pki"))
    yield broker
    broker.kill()


@pytest.fixture
def broker(mqtt_server: MqttBroker) -> MqttBroker:
    """The one broker of all tests, running, with nothing in it."""
    mqtt_server.kill()
    mqtt_server.start()
    return mqtt_server


@pytest.fixture
def reader(broker: MqttBroker) -> Iterator[MqttReader]:
    reader = MqttReader(broker)
    yield reader
    reader.close()

"""What a node publishes to an MQTT broker: how it is, what it counts, events, and pictures where that is wanted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from diredi.labels import LabelSpace
from diredi.rpc.retry import Backoff
from edge_node.config import EdgeConfig
from edge_node.inference import Result
from edge_node.outputs.broker import EVENT, BrokerConnection, Message
from edge_node.outputs.discovery import counted, discovery_of, node_id
from edge_node.outputs.events import Event, EventFeed, time_text
from edge_node.outputs.picture import picture_of
from edge_node.outputs.topics import Topics
from edge_node.servicer import NodeParts, detections_to_json

LOOK_S = 1.0
"""How often the state of the node is looked at."""


class MqttOutput:
    """Publish what a node sees and how it is."""

    def __init__(self, config: EdgeConfig, node: NodeParts, feed: EventFeed) -> None:
        """Make an output; `run` connects it.

        Args:
            config: Says where the broker is and what is published.
            node: The parts of the node.
            feed: Gives events and results.
        """
        self._config, self._node, self._feed = config, node, feed
        self._topics = topics = Topics(config.mqtt_topic, config.site, config.device)
        self._cameras = {camera.name: camera.settings for camera in node.inference.cameras}
        self.connection = BrokerConnection(
            config.broker, node_id(topics), _state(topics.availability, "offline"), node.meter,
            queue=config.event_queue, backoff=Backoff(config.reconnect_s, 30 * config.reconnect_s),
        )  # fmt: skip
        self._labels: LabelSpace | None = None
        self._status_s = -config.heartbeat_s
        self._picture_s: dict[str, float] = {}
        self._drawing: set[asyncio.Task[None]] = set()
        feed.on_event.append(self._send_event)
        feed.on_result.append(self._send_result)
        feed.on_event.append(lambda event: self._count(event.camera))

    @property
    def problem(self) -> str:
        """Why there is no connection to the broker; empty for none."""
        return self.connection.problem

    def metrics(self) -> Iterable[Metric]:
        """Return whether the broker is connected, and how many events were dropped."""
        connected, dropped = int(self.connection.is_connected), self.connection.dropped
        yield GaugeMetricFamily("diredi_edge_mqtt_connected", "Whether the MQTT broker is connected.", value=connected)
        yield CounterMetricFamily(
            "diredi_edge_mqtt_events_dropped", "Events that were dropped for MQTT.", value=dropped
        )

    async def run(self) -> None:
        """Publish, for ever."""
        self.connection.set(_state(self._topics.availability, "online"))
        async with asyncio.TaskGroup() as group:
            group.create_task(self.connection.run())
            group.create_task(self._watch_node())

    async def _watch_node(self) -> None:
        while True:
            self._look_at_node()
            await asyncio.sleep(LOOK_S)

    def _look_at_node(self) -> None:
        """Publish what has changed of the node."""
        node, topics = self._node, self._topics
        model, wanted, problem = node.active.current, node.updater.wanted, node.last_error
        release = model.release.version if model else 0
        labels = model.release.labels if model else LabelSpace(names=())
        if labels != self._labels:
            self._labels = labels
            if self._config.mqtt_discovery:
                self._announce(labels)
            for camera in self._cameras:
                self._count(camera)
        latest = max(release, wanted.version if wanted else 0)
        self.connection.set(
            _state(
                topics.update, {"installed_version": str(release), "latest_version": str(latest), "title": "Detector"}
            )
        )
        self.connection.set(_state(topics.problem, "ON" if problem else "OFF"))
        if time.monotonic() - self._status_s >= self._config.heartbeat_s:
            self._status_s, rates = time.monotonic(), node.telemetry.rates()
            self.connection.set(
                _state(topics.status, {
                    "problem": problem,
                    "release": release,
                    "cloud_online": node.cloud.online,
                    "frames": rates.frames,
                    "dropped_frames": rates.dropped,
                    "frames_per_second": round(rates.frames_per_second, 2),
                    "latency_ms": round(rates.latency_ms, 1),
                    "cameras": {camera.name: camera.state.value for camera in node.inference.cameras},
                    "dropped_events": self.connection.dropped,
                })
            )  # fmt: skip

    def _announce(self, labels: LabelSpace) -> None:
        with_pictures = self._config.mqtt_picture_s > 0
        found = discovery_of(self._topics, labels, self._cameras, with_pictures=with_pictures)
        topic = f"{self._config.mqtt_discovery}/device/{node_id(self._topics)}/config"
        self.connection.set(Message(topic, _json(found), "mqtt/discovery", retain=True))

    def _send_event(self, event: Event) -> None:
        self.connection.send(Message(self._topics.event, _json(event.to_json()), EVENT))

    def _count(self, camera: str) -> None:
        """Publish how many objects a camera sees."""
        if self._labels is None:
            return
        counts = self._feed.scenes[camera].counts()
        for zone, class_id in counted(self._labels, self._cameras[camera]):
            topic = self._topics.count(camera, zone, self._labels, class_id)
            self.connection.set(_state(topic, str(counts[zone, class_id])))

    def _send_result(self, result: Result) -> None:
        if not self.connection.is_connected:
            return
        if self._config.mqtt_detections:
            height, width = result.image.shape[:2]
            found = {
                "frame": result.number,
                "captured": time_text(result.captured_s),
                "picture": [width, height],
                "release": result.model.release.version,
                "detections": detections_to_json(result.detections, result.model.release.labels),
            }
            self.connection.set(Message(self._topics.detections(result.camera), _json(found), "mqtt/detections"))
        every_s, last_s = self._config.mqtt_picture_s, self._picture_s.get(result.camera)
        if every_s > 0 and (last_s is None or time.monotonic() - last_s >= every_s):
            self._picture_s[result.camera] = time.monotonic()
            task = asyncio.ensure_future(self._send_picture(result))
            self._drawing.add(task)
            task.add_done_callback(self._drawing.discard)

    async def _send_picture(self, result: Result) -> None:
        jpeg = await asyncio.to_thread(picture_of, result)
        self.connection.set(Message(self._topics.picture(result.camera), jpeg, "mqtt/picture"))


def _state(topic: str, value: object) -> Message:
    payload = value.encode() if isinstance(value, str) else _json(value)
    return Message(topic, payload, "mqtt/state", retain=True)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

"""What tells Home Assistant which entities a node has: its device discovery of MQTT, in one message."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence

import diredi
from diredi.labels import LabelSpace
from edge_node.outputs.events import ALL
from edge_node.outputs.topics import Topics
from edge_node.sources.reference import SourceSettings

Json = dict[str, object]


def discovery_of(
    topics: Topics, labels: LabelSpace, cameras: Mapping[str, SourceSettings], *, with_pictures: bool
) -> Json:
    """Return the configuration of a node for Home Assistant.

    Args:
        topics: The topics of the node.
        labels: The label space of the release that runs.
        cameras: The settings of each camera by its name.
        with_pictures: Whether pictures are published.
    """
    node = node_id(topics)
    components: dict[str, Json] = {
        "problem": {
            "platform": "binary_sensor", "name": "Problem", "device_class": "problem", "state_topic": topics.problem,
            "json_attributes_topic": topics.status, "entity_category": "diagnostic",
        },
        "update": {
            "platform": "update", "name": "Detector", "device_class": "firmware", "state_topic": topics.update,
            "entity_category": "diagnostic",
        },
    }  # fmt: skip
    for camera, settings in cameras.items():
        for zone, class_id in counted(labels, settings):
            where = camera if zone == ALL else f"{camera} {zone}"
            components[f"count_{camera}_{zone}_{class_id}"] = {
                "platform": "sensor", "name": f"{where} {labels.names[class_id]}", "state_class": "measurement",
                "state_topic": topics.count(camera, zone, labels, class_id),
            }  # fmt: skip
        if with_pictures:
            components[f"picture_{camera}"] = {
                "platform": "camera", "name": camera, "topic": topics.picture(camera)
            }  # fmt: skip
    return {
        "device": {
            "identifiers": [node], "name": topics.device, "manufacturer": "DiReDi",
            "model": f"edge node at {topics.site}", "sw_version": diredi.__version__,
        },
        "origin": {"name": "DiReDi", "sw_version": diredi.__version__},
        "availability_topic": topics.availability,
        "qos": 1,
        "components": {
            _identifier(key): {**component, "unique_id": f"{node}_{_identifier(key)}"}
            for key, component in components.items()
        },
    }  # fmt: skip


def counted(labels: LabelSpace, settings: SourceSettings) -> Sequence[tuple[str, int]]:
    """Return what is counted of a camera: the zone, ALL for the whole picture, and the class id.

    Args:
        labels: The label space of the release that runs.
        settings: The camera's settings.
    """
    zones: list[tuple[str, tuple[str, ...]]] = [(ALL, ()), *((zone.name, zone.classes) for zone in settings.zone)]
    return [
        (zone, class_id)
        for zone, wanted in zones
        for class_id, name in enumerate(labels.names)
        if (not wanted or name in wanted) and (not settings.classes or name in settings.classes)
    ]


def node_id(topics: Topics) -> str:
    """Return what Home Assistant calls this node: letters, digits, `-` and `_` alone."""
    return _identifier(f"diredi_{topics.site}_{topics.device}")


def _identifier(text: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", text)
    return plain if plain == text else f"{plain}_{zlib.crc32(text.encode()):08x}"

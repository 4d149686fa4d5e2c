"""Makes the outputs that a configuration asks for. Their packages are loaded only then."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from diredi.errors import InvalidInput
from diredi.rpc.retry import Backoff
from edge_node.config import EdgeConfig
from edge_node.outputs.addresses import web_address
from edge_node.outputs.events import EventFeed
from edge_node.outputs.keep import KeepOutput
from edge_node.servicer import NodeParts, Output

CRASH_PAUSE_S = 5.0


def make_outputs(config: EdgeConfig, node: NodeParts) -> list[Coroutine[Any, Any, None]]:
    """Make the outputs that the configuration asks for, and note them in the node's parts.

    Args:
        config: The configuration of the node.
        node: Its parts.

    Returns:
        What is to run as long as the node does; nothing where no output is asked for.

    Raises:
        InvalidInput: A package is missing that an output needs.
    """
    if (config.mqtt, config.http, config.webhook, config.keep) == (None, None, None, None):
        return []
    feed = EventFeed(config.device, config.site, node.inference.cameras, node.broadcast)
    node.outputs.append(feed)
    try:
        if config.mqtt is not None:
            from edge_node.outputs.mqtt import MqttOutput

            node.outputs.append(MqttOutput(config, node, feed))
        if config.webhook is not None:
            from edge_node.outputs.webhook import WebhookOutput

            node.outputs.append(
                WebhookOutput(
                    config.webhook, config.credentials, node.meter, feed,
                    queue=config.event_queue, backoff=Backoff(config.reconnect_s, 30 * config.reconnect_s),
                )
            )  # fmt: skip
        if config.keep is not None:
            node.outputs.append(KeepOutput(config.keep, config.keep_mib, feed))
        if config.http is not None:
            from edge_node.outputs.http import HttpOutput

            node.outputs.append(HttpOutput(web_address(config.http), node, feed))
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"an output needs {error.name}, which is not installed: pip install 'diredi[outputs]'"
        ) from None
    return [_run(output) for output in node.outputs]


async def _run(output: Output) -> None:
    """Run an output; one that fails at something unforeseen is started again, and never ends the node."""
    while True:
        try:
            return await output.run()
        except Exception:
            structlog.get_logger().exception("output_crashed", output=type(output).__name__)
            await asyncio.sleep(CRASH_PAUSE_S)

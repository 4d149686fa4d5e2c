"""The connection to an MQTT broker: opened again for ever, with what is to be sent kept in bounds."""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from diredi.errors import DirediError, InvalidInput, Refused, Unreachable
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.retry import Backoff
from edge_node.outputs.addresses import Broker
from edge_node.outputs.failures import explain

CONNECT_S = 5.0
ANSWER_S = 10.0
KEEPALIVE_S = 30
IN_FLIGHT = 10
"""How many messages may be without the broker's acknowledgement at a time."""
EVENT = "mqtt/event"
"""What events count as; they are kept while the broker is away."""
REFUSED_PAUSE = 10
"""How much longer than usual a broker is left alone that refuses the password."""


@dataclass(frozen=True)
class Message:
    """Hold what is published."""

    topic: str
    payload: bytes
    kind: str
    """What it counts as in the bytes that leave, such as "mqtt/event"."""
    retain: bool = False


class BrokerConnection:
    """Publish to a broker from the event loop, and never wait for it.

    States are kept by topic: the broker gets the newest of each, and retained ones again after each connection. Events
    are kept in order, no more than `queue` of them; while the broker is away the oldest are dropped and counted.
    """

    def __init__(
        self, broker: Broker, client_id: str, will: Message, meter: EgressMeter, *, queue: int, backoff: Backoff
    ) -> None:
        """Make a connection; `run` opens it.

        Args:
            broker: Where to.
            client_id: The name that the broker knows this node by.
            will: What the broker publishes when this node vanishes; the node itself publishes it when it stops.
            meter: Counts what leaves.
            queue: How many events are kept.
            backoff: Pauses between tries.
        """
        self.broker = broker
        self._client_id, self._will, self._meter, self._backoff = client_id, will, meter, backoff
        self._log = structlog.get_logger()
        self._client: mqtt.Client | None = None
        self._connected = False
        self._ended = asyncio.Event()
        self._retained: dict[str, Message] = {}
        self._newest: OrderedDict[str, Message] = OrderedDict()
        """What is still to be sent, of which only the newest counts."""
        self._events: deque[Message] = deque()
        self._queue = queue
        self._unacknowledged: dict[int, Message] = {}
        self._refused = False
        self._is_dropping = False
        self.dropped = 0
        """Events that were dropped since the start."""
        self.problem = ""
        """Why there is no connection, in a sentence; empty while there is one."""

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._connected

    def set(self, message: Message) -> None:
        """Publish a state; one of the same topic that has not been sent yet is replaced."""
        if message.retain:
            if self._retained.get(message.topic) == message:
                return
            self._retained[message.topic] = message
        elif not self._connected:
            return
        self._newest.pop(message.topic, None)
        self._newest[message.topic] = message
        self._pump()

    def send(self, message: Message) -> None:
        """Publish an event, now or when the broker is there again."""
        self._events.append(message)
        self._bound()
        self._pump()

    async def run(self) -> None:
        """Keep the connection, for ever; when this is cancelled, say that the node is gone."""
        while True:
            try:
                await self._connect_and_serve()
            except Exception as error:  # whatever a broker does, the node goes on and tries again
                self._fail(explain(error, f"broker {self.broker}", "--mqtt-ca"))
            await asyncio.sleep(self._backoff.next_s() * (REFUSED_PAUSE if self._refused else 1))

    async def _connect_and_serve(self) -> None:
        """Connect, and return when the connection has ended."""
        loop = asyncio.get_running_loop()
        self._ended.clear()
        self._refused = False
        client = await asyncio.to_thread(self._open)
        self._client = client
        opened_s = loop.time()
        try:
            client.on_socket_close = self._forget_socket
            if (taken := client.socket()) is not None:
                loop.add_reader(taken, self._read, client)
            while not self._ended.is_set():
                self._flush()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), 1.0)
                client.loop_misc()
                if not (self._connected or self._ended.is_set()) and loop.time() - opened_s > ANSWER_S:
                    raise Unreachable(f"broker {self.broker} takes connections and does not answer: check the port")
        except asyncio.CancelledError:
            if self._connected:
                client.publish(self._will.topic, self._will.payload, qos=1, retain=self._will.retain)
            raise
        finally:
            self._close(client)

    def _open(self) -> mqtt.Client:
        """Return a connected client; in a thread, since names, connecting and TLS take their time."""
        broker = self.broker
        user, password = broker.user()
        is_v5 = broker.version == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=self._client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311,
        )  # fmt: skip
        client.connect_timeout = CONNECT_S
        client.on_connect, client.on_publish = self._on_connect, self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_socket_register_write = _nothing  # with this, paho leaves all writing to `_flush`
        client.will_set(self._will.topic, self._will.payload, qos=1, retain=self._will.retain)
        if user:
            client.username_pw_set(user, password)
        if broker.uses_tls:
            client.tls_set_context(_tls_context(broker.ca))
        client.connect(broker.host, broker.port, KEEPALIVE_S)
        return client

    def _read(self, client: mqtt.Client) -> None:
        try:
            client.loop_read()
            while isinstance(taken := client.socket(), ssl.SSLSocket) and taken.pending():
                client.loop_read()
        except Exception as error:  # bytes that are not MQTT
            self._fail(explain(error, f"broker {self.broker}", "--mqtt-ca"))
            self._ended.set()

    def _flush(self) -> None:
        """Write what paho wants to write, as far as the socket takes it; never from within one of its callbacks."""
        client, loop = self._client, asyncio.get_running_loop()
        if client is not None and client.want_write():
            client.loop_write()
        if client is None or (taken := client.socket()) is None:
            return
        if client.want_write():
            loop.add_writer(taken, self._flush)
        else:
            loop.remove_writer(taken)

    def _forget_socket(self, _client: object, _userdata: object, taken: mqtt.SocketLike) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(taken)
        loop.remove_writer(taken)

    def _on_connect(
        self, _client: object, _userdata: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            error = explain_refusal(str(reason), self.broker)
            self._refused = isinstance(error, Refused)
            self._fail(error)
            self._ended.set()
            return
        self._connected, self._is_dropping, self.problem = True, False, ""
        self._backoff.reset()
        self._log.info("broker_connected", broker=str(self.broker), queued=len(self._events))
        for topic, message in self._retained.items():
            self._newest.setdefault(topic, message)
        self._pump()

    def _on_disconnect(
        self, _client: object, _userdata: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        was_connected, self._connected = self._connected, False
        if was_connected:
            self._fail(Unreachable(f"broker {self.broker} has ended the connection ({reason}): it is opened again"))
        elif not self.problem:
            tls = "" if self.broker.uses_tls else "; for TLS write mqtts://"
            self._fail(Unreachable(f"broker {self.broker} ends the connection at once: check the port{tls}"))
        self._ended.set()

    def _on_publish(
        self, _client: object, _userdata: object, number: int, reason: ReasonCode, _properties: object
    ) -> None:
        message = self._unacknowledged.pop(number, None)
        if reason.is_failure and message is not None:
            self._fail(
                Refused(f"broker {self.broker} does not take {message.topic} ({reason}): allow this user to write it")
            )
        self._pump()

    def _pump(self) -> None:
        """Hand paho as many messages as may be on their way at a time."""
        client = self._client
        if client is None or not self._connected:
            return
        while len(self._unacknowledged) < IN_FLIGHT and (self._newest or self._events):
            message = self._newest.popitem(last=False)[1] if self._newest else self._events.popleft()
            info = client.publish(message.topic, message.payload, qos=1, retain=message.retain)
            self._unacknowledged[info.mid] = message
            self._meter.count(message.kind, len(message.topic.encode()) + len(message.payload))
        asyncio.get_running_loop().call_soon(self._flush)

    def _close(self, client: mqtt.Client) -> None:
        """End the connection, and keep the events that were not acknowledged."""
        self._client, self._connected = None, False
        with suppress(Exception):  # nothing that a dead connection says matters any more
            client.on_disconnect = None
            client.disconnect()
            client.loop_write()
        if (taken := client.socket()) is not None:  # the farewell did not fit
            self._forget_socket(client, None, taken)
            taken.close()
        kept = [message for message in self._unacknowledged.values() if message.kind == EVENT]
        self._unacknowledged.clear()
        self._events.extendleft(reversed(kept))
        self._bound()

    def _bound(self) -> None:
        while len(self._events) > self._queue:
            self._events.popleft()
            self.dropped += 1
            if not self._is_dropping:
                self._log.warning("events_dropped", broker=str(self.broker), queue=self._queue)
            self._is_dropping = True

    def _fail(self, error: DirediError) -> None:
        if str(error) != self.problem:
            self._log.warning("broker_failed", error=str(error))
        self.problem = str(error)


def explain_refusal(reason: str, broker: Broker) -> DirediError:
    """Return why a broker refuses a connection, as one sentence.

    Args:
        reason: What the broker says, in the words of MQTT 5.
        broker: The broker.
    """
    if reason in ("Bad user name or password", "Not authorized", "Bad authentication method"):
        return Refused(
            f"broker {broker} refuses the user name or password: correct the variables of the address, or the file of "
            f"--credentials"
        )
    if reason == "Unsupported protocol version":
        return InvalidInput(
            f"broker {broker} does not speak MQTT {broker.version}: set --mqtt-version to the other one"
        )
    return Unreachable(f"broker {broker} refuses the connection ({reason}): look at its log")


def _tls_context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except ssl.SSLError:
        raise InvalidInput(f"{ca} holds no certificate in PEM form: name another file with --mqtt-ca") from None
    except OSError as error:
        raise InvalidInput(f"{ca} cannot be read ({error.strerror}): correct --mqtt-ca") from None


def _nothing(*_: object) -> None:
    """Take no notice."""

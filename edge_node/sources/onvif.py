"""Finds ONVIF cameras in the local network, and asks one where its streams are.

What cameras answer is taken for strangers' text: it is bounded, and no host that an answer names is ever contacted.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import struct
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from diredi.errors import DirediError, InvalidInput, Refused, Unreachable

MULTICAST = ("239.255.255.250", 3702)
MAX_BYTES = 2**20
SERVICE = "/onvif/device_service"

_SOAP = "http://www.w3.org/2003/05/soap-envelope"
_DEVICE = "http://www.onvif.org/ver10/device/wsdl"
_MEDIA = "http://www.onvif.org/ver10/media/wsdl"
_SECURITY = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-"
_ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
_DISCOVERY = "http://schemas.xmlsoap.org/ws/2005/04/discovery"


@dataclass(frozen=True)
class FoundCamera:
    """Hold what a camera has answered to a probe."""

    address: str
    """Its host, with the port of its ONVIF service where that is not 80."""
    name: str
    """What it calls itself; empty for nothing."""

    @property
    def source(self) -> str:
        """What `--source` is set to for the camera's first stream."""
        return f"onvif://{self.address}"


def find_cameras(wait_s: float = 3.0, group: tuple[str, int] = MULTICAST) -> list[FoundCamera]:
    """Ask all cameras of the local network to say where they are (WS-Discovery).

    Args:
        wait_s: How long answers are waited for, in seconds.
        group: Address and port that are asked.

    Raises:
        Unreachable: This machine has no network on which it could ask.
    """
    message = (
        f'<s:Envelope xmlns:s="{_SOAP}" xmlns:a="{_ADDRESSING}" xmlns:d="{_DISCOVERY}"><s:Header>'
        f"<a:MessageID>urn:uuid:{uuid.uuid4()}</a:MessageID>"
        f"<a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To><a:Action>{_DISCOVERY}/Probe</a:Action>"
        f'</s:Header><s:Body><d:Probe><d:Types xmlns:n="http://www.onvif.org/ver10/network/wsdl">'
        f"n:NetworkVideoTransmitter</d:Types></d:Probe></s:Body></s:Envelope>"
    )
    found: dict[str, FoundCamera] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        if not sum(_is_sent(probe, message.encode(), group, index) for index, _ in socket.if_nameindex()):
            raise Unreachable("no camera can be looked for: this machine has no network, or may not send to it")
        end = time.monotonic() + wait_s
        while (left_s := end - time.monotonic()) > 0:
            probe.settimeout(left_s)
            try:
                answer, (host, _) = probe.recvfrom(65536)
                camera = _found(answer, host)
            except (TimeoutError, InvalidInput):  # one who answers nonsense keeps nobody else from being found
                continue
            found.setdefault(camera.address, camera)
    return sorted(found.values(), key=lambda camera: camera.address)


def _is_sent(probe: socket.socket, message: bytes, group: tuple[str, int], interface: int) -> bool:
    """Send a message into one of this machine's networks, and return whether that could be done."""
    with suppress(OSError):
        probe.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("4s4si", bytes(4), bytes(4), interface))
        return probe.sendto(message, group) > 0
    return False


def _found(answer: bytes, host: str) -> FoundCamera:
    parsed = _parsed(answer, host)
    ports = [urlsplit(address).port for text in _texts(parsed, "XAddrs") for address in text.split()]
    port = next((port for port in ports if port), 80)
    scopes = " ".join(_texts(parsed, "Scopes")).split()
    name = next((scope.rpartition("/name/")[2] for scope in scopes if "/name/" in scope), "")
    printable = "".join(letter if letter.isprintable() else "?" for letter in unquote(name))
    return FoundCamera(host if port == 80 else f"{host}:{port}", printable[:64])


def stream_address(address: str, profile: int, timeout_s: float) -> str:
    """Ask a camera for the address of a stream.

    Args:
        address: "onvif://user:password@host:port", percent-encoded.
        profile: Which of its profiles, from 0. Cameras put the largest picture first.
        timeout_s: How long each answer is waited for, in seconds.

    Returns:
        The RTSP address, with user name and password and with the host that was asked.

    Raises:
        Refused: The camera wants another user name or password.
        InvalidInput: The camera has no such profile, or its answer is none of ONVIF's.
        Unreachable: The camera does not answer.
    """
    camera = _Onvif(address, timeout_s)
    media = urlsplit(next(_texts(camera.ask(_DEVICE, "GetCapabilities", "<Category>Media</Category>"), "XAddr"), ""))
    camera.path = media.path or SERVICE
    profiles = [item.get("token", "") for item in _named(camera.ask(_MEDIA, "GetProfiles"), "Profiles")]
    if profile >= len(profiles):
        raise InvalidInput(f"source {camera.name} has {len(profiles)} profiles, from 0: #stream={profile}")
    setup = (
        '<StreamSetup><Stream xmlns="http://www.onvif.org/ver10/schema">RTP-Unicast</Stream>'
        '<Transport xmlns="http://www.onvif.org/ver10/schema"><Protocol>RTSP</Protocol></Transport></StreamSetup>'
        f"<ProfileToken>{escape(profiles[profile])}</ProfileToken>"
    )
    stream = urlsplit(next(_texts(camera.ask(_MEDIA, "GetStreamUri", setup), "Uri"), ""))
    if stream.scheme not in ("rtsp", "rtsps"):
        raise InvalidInput(f"source {camera.name} names no RTSP stream: write the stream's own address in its place")
    user = urlsplit(address).netloc.rpartition("@")
    host = f"{camera.host}:{stream.port}" if stream.port else camera.host
    return stream._replace(netloc=f"{user[0]}{user[1]}{host}").geturl()


class _Onvif:
    """Speak SOAP to one camera."""

    def __init__(self, address: str, timeout_s: float) -> None:
        parts = urlsplit(address)
        self.host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        self.name = f"onvif://{parts.netloc.rpartition('@')[2]}"
        self.path = SERVICE
        self._port = parts.port or 80
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._timeout_s = timeout_s
        self._offset_s = self._clock_offset_s()

    def ask(self, namespace: str, action: str, arguments: str = "") -> ElementTree.Element:
        """Return the answer to one request, which is signed where there is a password."""
        body = f'<{action} xmlns="{namespace}">{arguments}</{action}>'
        return self._post(f"{namespace}/{action}", self._security() if self._user else "", body)

    def _clock_offset_s(self) -> float:
        """Return how far the camera's clock is ahead: a signature is refused that was made at another time."""
        request = f'<GetSystemDateAndTime xmlns="{_DEVICE}"/>'
        try:
            answer = self._post(f"{_DEVICE}/GetSystemDateAndTime", "", request)
            utc = next(_named(answer, "UTCDateTime"))
            names = ("Year", "Month", "Day", "Hour", "Minute", "Second")
            now = datetime(*(int(next(_texts(utc, name))) for name in names), tzinfo=UTC)  # type: ignore[misc,arg-type]
        except (Refused, InvalidInput, StopIteration, ValueError):  # it does not say; most clocks are right
            return 0.0
        return now.timestamp() - time.time()

    def _security(self) -> str:
        nonce = os.urandom(16)
        created = datetime.fromtimestamp(time.time() + self._offset_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # ONVIF prescribes SHA-1; the nonce keeps the digest from being used again.
        digest = hashlib.sha1(nonce + created.encode() + self._password.encode(), usedforsecurity=False).digest()
        return (
            f'<w:Security xmlns:w="{_SECURITY}wssecurity-secext-1.0.xsd" '
            f'xmlns:u="{_SECURITY}wssecurity-utility-1.0.xsd" s:mustUnderstand="1"><w:UsernameToken>'
            f"<w:Username>{escape(self._user)}</w:Username>"
            f'<w:Password Type="{_SECURITY}username-token-profile-1.0#PasswordDigest">'
            f"{base64.b64encode(digest).decode()}</w:Password>"
            f'<w:Nonce EncodingType="{_SECURITY}soap-message-security-1.0#Base64Binary">'
            f"{base64.b64encode(nonce).decode()}</w:Nonce><u:Created>{created}</u:Created>"
            f"</w:UsernameToken></w:Security>"
        )

    def _post(self, action: str, header: str, body: str) -> ElementTree.Element:
        envelope = f'<s:Envelope xmlns:s="{_SOAP}"><s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>'
        request = urllib.request.Request(
            f"http://{self.host}:{self._port}{self.path}",
            envelope.encode(),
            {"Content-Type": f'application/soap+xml; charset=utf-8; action="{action}"'},
        )
        # No proxy, and no redirect: what is asked is the camera, and nothing that it names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        try:
            with opener.open(request, timeout=self._timeout_s) as answer:
                return _parsed(answer.read(MAX_BYTES), self.name)
        except urllib.error.HTTPError as error:
            raise self._explained(error) from None
        except (OSError, http.client.HTTPException):
            raise Unreachable(f"source {self.name} does not answer: check address, network and camera") from None

    def _explained(self, error: urllib.error.HTTPError) -> DirediError:
        with error:
            said = error.read(MAX_BYTES)
        if error.code in (401, 403) or b"NotAuthorized" in said or b"FailedAuthentication" in said:
            return Refused(
                f"source {self.name} refuses the user name or password for ONVIF: check the variable in its address, "
                f"or its line in the file that --credentials names, and the camera's own list of ONVIF users"
            )
        return InvalidInput(f"source {self.name} does not speak ONVIF there (HTTP {error.code}): check host and port")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _parsed(text: bytes, name: str) -> ElementTree.Element:
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise InvalidInput(f"{name} answers with a document type, which no ONVIF camera does: check the address")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        raise InvalidInput(f"{name} does not answer as an ONVIF camera does: check host and port") from None


def _named(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Yield the elements of a name, whatever namespace a camera puts them in."""
    return (item for item in element.iter() if item.tag.rpartition("}")[2] == name)


def _texts(element: ElementTree.Element, name: str) -> Iterator[str]:
    return ((item.text or "").strip() for item in _named(element, name))

"""What an ONVIF camera answers, as the specification says it, with a clock of its own."""

from __future__ import annotations

import base64
import hashlib
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

SLOW = timedelta(hours=1)
"""By how much the camera's clock is behind. It refuses what was signed at another time."""
PROFILES = {"main": "h264", "sub": "h265"}
MATCH = """<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope" xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery">
<e:Body><d:ProbeMatches><d:ProbeMatch><d:Scopes>onvif://www.onvif.org/type/video_encoder onvif://www.onvif.org/name/%1B[31mGate%20%C3%A9
</d:Scopes><d:XAddrs>http://192.0.2.7:8080/onvif/device_service</d:XAddrs></d:ProbeMatch></d:ProbeMatches></e:Body></e:Envelope>"""


class _Handler(BaseHTTPRequestHandler):
    user: ClassVar[str]
    password: ClassVar[str]
    rtsp_port: ClassVar[int]
    asked: ClassVar[list[str]]
    odd: ClassVar[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(body)
        if self.odd == "redirect":
            return self.answer(302, "")
        if self.odd == "document type":
            return self.answer(200, '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
        if "GetSystemDateAndTime" not in body and not self.is_signed(body):
            return self.answer(400, "<Fault><Subcode>ter:NotAuthorized</Subcode></Fault>")
        return self.answer(200, self.content(body))

    def content(self, body: str) -> str:
        if "GetSystemDateAndTime" in body:
            date = (datetime.now(UTC) - SLOW).strftime("%Y %m %d %H %M %S").split()
            names = ("Year", "Month", "Day", "Hour", "Minute", "Second")
            parts = "".join(f"<t:{name}>{value}</t:{name}>" for name, value in zip(names, date, strict=True))
            return f"<t:UTCDateTime>{parts}</t:UTCDateTime>"
        if "GetCapabilities" in body:
            return "<t:Media><t:XAddr>http://192.0.2.7/elsewhere/media</t:XAddr></t:Media>"
        if "GetProfiles" in body:
            return "".join(f'<t:Profiles token="{token}"/>' for token in PROFILES)
        token = re.search(r"<ProfileToken>(\w+)<", body)
        assert token is not None
        assert self.path == "/elsewhere/media"
        return f"<t:Uri>rtsp://192.0.2.7:{self.rtsp_port}/{PROFILES[token[1]]}</t:Uri>"

    def is_signed(self, body: str) -> bool:
        found = [
            re.search(rf"<\w:{name}(?: [^>]*)?>([^<]*)<", body) for name in ("Username", "Password", "Nonce", "Created")
        ]
        user, digest, nonce, created = (match[1] if match else "" for match in found)
        late = abs(datetime.fromisoformat(created or "1970-01-01T00:00:00Z") - (datetime.now(UTC) - SLOW))
        signed = hashlib.sha1(base64.b64decode(nonce) + (created + self.password).encode()).digest()
        return user == self.user and digest == base64.b64encode(signed).decode() and late < timedelta(minutes=5)

    def answer(self, status: int, content: str) -> None:
        self.send_response(status)
        self.send_header("Location", "http://192.0.2.7/")
        self.end_headers()
        wrapped = f'<e:Envelope xmlns:e="e" xmlns:t="t" xmlns:ter="ter"><e:Body>{content}</e:Body></e:Envelope>'
        self.wfile.write((content if content.startswith("<!") else wrapped).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def onvif_camera(user: str, password: str, rtsp_port: int, odd: str = "") -> Iterator[tuple[int, list[str]]]:
    """The port of a camera's ONVIF service, and what it is asked; `odd` is what it does in place of answers."""
    asked: list[str] = []
    told = {"user": user, "password": password, "rtsp_port": rtsp_port, "odd": odd, "asked": asked}
    handler = type("Handler", (_Handler,), told)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


@contextmanager
def onvif_network() -> Iterator[tuple[str, int]]:
    """Where a probe goes: to something that answers nonsense, and to a camera."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            probe, reply = self.request
            for answer in (b"\xff\xfe<", b"<!DOCTYPE a>", b"<a/>" * 3, MATCH.encode()):
                reply.sendto(answer, self.client_address)
            assert b"NetworkVideoTransmitter" in probe

    with socketserver.UDPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1", server.server_address[1]
        server.shutdown()

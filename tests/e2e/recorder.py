"""A relay between a site and its cloud that keeps every byte the site sends, as it was before TLS.

It can read along because the test owns the authority: towards the site it is the cloud, towards the cloud it is whoever
called. Real deployments give nobody both.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from diredi.trust.enrolment import Token, write_credentials
from diredi.trust.identity import Identity, Role


class Recorder:
    """`with Recorder("127.0.0.1:7070", identity_folder, tokens) as recorder:` listens at `recorder.address`."""

    def __init__(self, upstream: str, identity: Callable[[str], Path], tokens: Path) -> None:
        """`tokens` is the folder with the token of each sender that enrols."""
        self._upstream = upstream
        self._identity, self._tokens = identity, tokens
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._sent: dict[str, list[bytearray]] = {}
        self._open: list[socket.socket] = [self._listener]

    def sent_by(self, name: str) -> bytes:
        """All that one sender has sent, connection by connection."""
        with self._lock:
            return b"\0".join(bytes(stream) for stream in self._sent.get(name, []))

    @property
    def senders(self) -> set[str]:
        with self._lock:
            return set(self._sent)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(plain,), daemon=True).start()

    def _relay(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            caller = self._context(self._identity("cloud"), ssl.PROTOCOL_TLS_SERVER).wrap_socket(
                plain, server_side=True
            )
            certificate = caller.getpeercert() or {}
            names = [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
            name, context = self._caller(Identity.from_uri(names[0]))
            host, port = self._upstream.rsplit(":", 1)
            raw = socket.create_connection((host, int(port)))
            cloud = context.wrap_socket(raw, server_hostname=host)
            kept = bytearray()
            with self._lock:
                self._sent.setdefault(name, []).append(kept)
                self._open += [caller, cloud]
            threading.Thread(target=self._pump, args=(cloud, caller, None), daemon=True).start()
            self._pump(caller, cloud, kept)

    def _caller(self, identity: Identity) -> tuple[str, ssl.SSLContext]:
        """Who calls, and how to be him towards the cloud; who enrols shows the certificate of his token."""
        if identity.role is not Role.ENROLMENT:
            return identity.name, self._context(self._identity(identity.name), ssl.PROTOCOL_TLS_CLIENT)
        for file in self._tokens.iterdir():
            shown = Token.decode(file.read_text()).credentials
            if shown.identity == identity:
                with TemporaryDirectory() as folder:
                    write_credentials(Path(folder), shown.ca, shown.certificate, shown.key)
                    return file.name, self._context(Path(folder), ssl.PROTOCOL_TLS_CLIENT)
        raise OSError(f"nobody has the token {identity}")

    def _context(self, folder: Path, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        context.load_verify_locations(folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["h2"])
        return context

    def _pump(self, source: ssl.SSLSocket, target: ssl.SSLSocket, kept: bytearray | None) -> None:
        try:
            while data := source.recv(65536):
                if kept is not None:
                    with self._lock:
                        kept += data
                target.sendall(data)
        except OSError:
            pass
        finally:
            for sock in (source, target):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()

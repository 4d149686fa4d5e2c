"""An RTSP server: `/usr/bin/python3 rtsp_server.py PORT TLS_PORT FOLDER`. GStreamer's, as many cameras have it inside.

It runs under the system's own Python, for which Debian builds GStreamer's bindings. It needs nothing of the tests.
Each `NAME.mp4` of the folder is served as `/NAME`, to whoever has the user name and the password in `users.txt`. It
says "ready" when it answers, and ends with its standard input. At TLS_PORT it shows `cert.pem`.
"""

import sys
from pathlib import Path
from typing import Any

import gi

for name in ("Gst", "GstRtsp", "GstRtspServer"):
    gi.require_version(name, "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PAYLOADS = {"h264": "h264parse ! rtph264pay", "h265": "h265parse ! rtph265pay"}
UNKNOWN = (
    "videotestsrc is-live=true ! jpegenc ! rtpjpegpay pt=96"
    " ! capssetter name=pay0 caps=application/x-rtp,encoding-name=NEW"
)
"""Video in a format that nobody has heard of yet."""

port, tls_port, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
user, password = (folder / "users.txt").read_text().split()
Gst.init(None)
permissions = GstRtspServer.RTSPPermissions()
for permission in ("media.factory.access", "media.factory.construct"):
    permissions.add_permission_for_role("viewer", permission, True)


def authentication(certificate: Any) -> Any:
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_digest(user, password, token)
    auth.set_tls_certificate(certificate)
    return auth


def add(mounts: Any, path: str, launch: str) -> None:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {launch} )")
    factory.set_permissions(permissions)
    mounts.add_factory(path, factory)


def serve(port: str, certificate: Any) -> Any:
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.set_auth(authentication(certificate))
    for file in folder.glob("*.mp4"):
        payload = PAYLOADS[file.stem.partition("-")[0]]
        launch = f"filesrc location={file} ! qtdemux ! {payload} name=pay0 pt=96 config-interval=-1"
        add(server.get_mount_points(), f"/{file.stem}", launch)
    add(server.get_mount_points(), "/unknown-codec", UNKNOWN)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    return server


certificate = Gio.TlsCertificate.new_from_files(str(folder / "cert.pem"), str(folder / "key.pem"))
servers = [serve(port, None), serve(tls_port, certificate)]
loop = GLib.MainLoop()
GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_HUP, lambda *_: loop.quit())
print("ready", flush=True)
loop.run()

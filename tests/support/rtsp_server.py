"""An RTSP server: `/usr/bin/python3 rtsp_server.py PORT FOLDER`. GStreamer's, as many cameras have it inside.

It runs under the system's own Python, for which Debian builds GStreamer's bindings. It needs nothing of the tests.
Each `NAME.mp4` of the folder is served as `/NAME`, to whoever has the user name and the password in `users.txt`. It
says "ready" when it answers, and ends with its standard input.
"""

import sys
from pathlib import Path

import gi

for name in ("Gst", "GstRtsp", "GstRtspServer"):
    gi.require_version(name, "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PAYLOADS = {"h264": "h264parse ! rtph264pay", "h265": "h265parse ! rtph265pay"}
UNKNOWN = (
    "videotestsrc is-live=true ! jpegenc ! rtpjpegpay pt=96"
    " ! capssetter name=pay0 caps=application/x-rtp,encoding-name=NEW"
)
"""Video in a format that nobody has heard of yet."""

port, folder = sys.argv[1], Path(sys.argv[2])
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)

auth = GstRtspServer.RTSPAuth()
auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
token = GstRtspServer.RTSPToken()
token.set_string("media.factory.role", "viewer")
user, password = (folder / "users.txt").read_text().split()
auth.add_digest(user, password, token)
server.set_auth(auth)

permissions = GstRtspServer.RTSPPermissions()
for permission in ("media.factory.access", "media.factory.construct"):
    permissions.add_permission_for_role("viewer", permission, True)


def serve(path: str, launch: str) -> None:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {launch} )")
    factory.set_permissions(permissions)
    server.get_mount_points().add_factory(path, factory)


for file in folder.glob("*.mp4"):
    payload = PAYLOADS[file.stem.partition("-")[0]]
    serve(f"/{file.stem}", f"filesrc location={file} ! qtdemux ! {payload} name=pay0 pt=96 config-interval=-1")
serve("/unknown-codec", UNKNOWN)

loop = GLib.MainLoop()
if not server.attach(None):
    sys.exit(f"port {port} is taken")
GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_HUP, lambda *_: loop.quit())
print("ready", flush=True)
loop.run()

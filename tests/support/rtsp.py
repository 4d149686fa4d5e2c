"""A network camera: a real RTSP server with H.264 and H.265, which can be switched off and on."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from tests.support.apt import need
from tests.support.net import free_ports
from tests.support.pki import Pki

SERVER = Path(__file__).parent / "rtsp_server.py"
PYTHON = "/usr/bin/python3"
PACKAGES = ("python3-gi", "gir1.2-gst-rtsp-server-1.0", "gstreamer1.0-plugins-good")
USER, PASSWORD = "viewer", "hunter2:/@?#"
FRAMES_PER_SECOND = 10
SECONDS = 120


class RtspCamera:
    """A camera at a port of this machine that wants a user name and a password (digest)."""

    def __init__(self, folder: Path) -> None:
        self.port, self.tls_port = free_ports(2)
        self.ca = folder / "ca.pem"
        self.netrc = folder / "netrc"
        self.netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def url(self, name: str) -> str:
        return f"rtsp://127.0.0.1:{self.port}/{name}"

    def tls_url(self, name: str) -> str:
        return f"rtsps://127.0.0.1:{self.tls_port}/{name}"

    def switch_on(self) -> None:
        if self._process is not None:
            return
        command = [PYTHON, str(SERVER), str(self.port), str(self.tls_port), str(self._folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def hang(self) -> None:
        """Send nothing more, and keep all connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a `hang`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def switch_off(self) -> None:
        """As when its power fails."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None


@pytest.fixture(scope="session")
def rtsp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtspCamera]:
    need(_is_installed, *PACKAGES)
    folder = Pki(tmp_path_factory.mktemp("camera-pki")).issue("cloud", "camera")
    (folder / "users.txt").write_text(f"{USER} {PASSWORD}")
    _encode(folder / "h264.mp4", "libx264", {})
    _encode(folder / "h265.mp4", "libx265", {"x265-params": "log-level=none"})
    _encode(folder / "h264-without-key-frames.mp4", "libx264", {}, key_frames=False)
    camera = RtspCamera(folder)
    yield camera
    camera.switch_off()


@pytest.fixture
def rtsp_camera(rtsp_server: RtspCamera) -> RtspCamera:
    """The one camera of all tests, switched on."""
    rtsp_server.switch_on()
    return rtsp_server


def shade(frame: int) -> int:
    """How bright the whole of a frame is."""
    return 16 + 2 * (frame % 100)


def _encode(path: Path, codec: str, options: dict[str, str], key_frames: bool = True) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=FRAMES_PER_SECOND, options={"preset": "ultrafast", **options})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.gop_size = FRAMES_PER_SECOND if key_frames else 10**6
        stream.codec_context.max_b_frames = 0
        images = (np.full((64, 96, 3), shade(number), np.uint8) for number in range(SECONDS * FRAMES_PER_SECOND))
        packets = (packet for image in images for packet in stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        for packet in (*packets, *stream.encode()):
            if key_frames or not packet.is_keyframe:
                file.mux(packet)


def _is_installed() -> bool:
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    elements = "from gi.repository import Gst; Gst.init(None); exit(not Gst.ElementFactory.find('rtph265pay'))"
    command = [PYTHON, "-c", f"{check}; {elements}"]
    return Path(PYTHON).exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0

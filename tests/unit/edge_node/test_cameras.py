"""Cameras over a real network: RTSP with H.264 and H.265, MJPEG and pictures over HTTP; and what goes wrong."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import av
import cv2
import numpy as np
import pytest
from av.video.stream import VideoStream

from diredi.errors import DirediError, InvalidInput, NotFound, Refused, Unreachable
from diredi.rpc.retry import Backoff
from edge_node.camera import Camera, SourceState
from edge_node.sources import SOURCES, Frame, SourceOptions, check_source, open_source
from edge_node.sources.onvif import find_cameras, stream_address
from tests.support.net import free_port
from tests.support.onvif import onvif_camera, onvif_network
from tests.support.rtsp import FRAMES_PER_SECOND, PASSWORD, USER, RtspCamera, rtsp_camera, rtsp_server
from tests.support.waiting import eventually

__all__ = ["rtsp_camera", "rtsp_server"]


@pytest.fixture
def options(tmp_path: Path) -> Iterator[SourceOptions]:
    options = SourceOptions(tmp_path)
    yield options
    options.stopped.set()


def brightness(frame: Frame | None) -> float:
    assert frame is not None
    return float(frame.image.mean())


@contextmanager
def reading(reference: str, options: SourceOptions, frames_per_second: float = 100) -> Iterator[Camera]:
    """A camera as a node has it, from its start to its end."""
    stopped = threading.Event()
    camera = Camera(
        "front",
        partial(open_source, reference, replace(options, stopped=stopped)),
        check_source(reference).settings,
        frames_per_second=frames_per_second,
        pauses=Backoff(0.05, 0.2),
        stopped=stopped,
        changed=threading.Condition(),
    )
    camera.start()
    try:
        yield camera
    finally:
        stopped.set()
        camera.thread.join(10)


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_an_rtsp_stream_is_read_with_the_password_of_a_file(
    rtsp_camera: RtspCamera, options: SourceOptions, codec: str, transport: str
) -> None:
    options = replace(options, credentials=rtsp_camera.netrc)
    source = open_source(f"{rtsp_camera.url(codec)}#transport={transport}", options)
    frames = [source.read() for _ in range(5)]
    source.close()
    assert source.live
    assert [frame.image.shape for frame in frames if frame] == [(64, 96, 3)] * 5
    assert brightness(frames[4]) > brightness(frames[0])
    captured = [frame.captured_s for frame in frames if frame and frame.captured_s]
    assert captured == sorted(captured)


def test_a_camera_that_loses_its_power_is_read_again_when_it_is_back(
    rtsp_camera: RtspCamera, options: SourceOptions
) -> None:
    options = replace(options, credentials=rtsp_camera.netrc)
    with reading(f"{rtsp_camera.url('h264')}#timeout=5", options) as camera:
        eventually("the first frame", camera.take)
        rtsp_camera.switch_off()
        eventually("an error", lambda: camera.state is SourceState.AWAY)
        assert str(rtsp_camera.port) in camera.problem
        assert PASSWORD not in camera.problem
        rtsp_camera.switch_on()
        camera.take()
        eventually("a frame after the error", camera.take)
        assert (camera.state, camera.problem) == (SourceState.OK, "")


def test_a_camera_that_hangs_with_its_connection_open_is_away_until_it_goes_on(
    rtsp_camera: RtspCamera, options: SourceOptions
) -> None:
    options = replace(options, credentials=rtsp_camera.netrc)
    with reading(f"{rtsp_camera.url('h264')}#timeout=3", options) as camera:
        eventually("the first frame", camera.take)
        rtsp_camera.hang()
        try:
            eventually("an error", lambda: "sends nothing for 3 s" in camera.problem)
            assert camera.state is SourceState.AWAY
        finally:
            rtsp_camera.go_on()
        camera.take()
        eventually("a frame after the error", camera.take)


class Broken:
    """A source of somebody's own, which gives three frames and then does what it should not."""

    live = True

    def __init__(self, then: Callable[[], Frame]) -> None:
        self._then = then
        self._frames = 3

    def read(self) -> Frame:
        self._frames -= 1
        return Frame(np.zeros((48, 64, 3), np.uint8)) if self._frames >= 0 else self._then()

    def close(self) -> None:
        """Hold nothing."""


@contextmanager
def broken(then: Callable[[], Frame], monkeypatch: pytest.MonkeyPatch, options: SourceOptions) -> Iterator[Camera]:
    monkeypatch.setitem(SOURCES, "broken", lambda place, options: Broken(then))
    with reading("broken:by-intent#timeout=0.2", options) as camera:
        yield camera


def test_a_source_that_never_comes_back_is_away_and_not_online_without_frames(
    options: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    come_back = threading.Event()

    def hang() -> Frame:
        come_back.wait()
        return Frame(np.zeros((48, 64, 3), np.uint8))

    with broken(hang, monkeypatch, options) as camera:
        eventually("the first frame", camera.take)
        eventually("an error", lambda: "has given no frame" in camera.problem)
        assert camera.state is SourceState.AWAY
        come_back.set()
        eventually("frames again", lambda: camera.state is SourceState.OK and not camera.problem)


def test_a_defect_of_a_source_ends_nothing_and_its_text_shows_no_password(
    options: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Frame:
        raise RuntimeError("cannot read rtsp://admin:hunter2@10.0.0.7/live?pwd=hunter2")

    with broken(fail, monkeypatch, options) as camera:
        eventually("an error", lambda: "RuntimeError" in camera.problem)
        assert camera.state is SourceState.UNREADABLE
        assert "hunter2" not in camera.problem
        camera.take()
        eventually("a frame after the error", camera.take)


def test_one_image_that_cannot_be_decoded_is_left_out_and_a_folder_of_them_is_not_readable(
    tmp_path: Path, options: SourceOptions
) -> None:
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"spoilt")
    with reading(f"folder:{tmp_path}#timeout=2", options) as camera:
        for _ in range(6):
            eventually("a frame", camera.take)
        assert (camera.state, camera.problem) == (SourceState.OK, "")
        for name in "ac":
            (tmp_path / f"{name}.png").write_bytes(b"spoilt")
        eventually("an error", lambda: camera.take() or "cannot be decoded" in camera.problem)
        eventually("the state", lambda: camera.take() or camera.state is SourceState.UNREADABLE)


def test_a_camera_with_tls_is_read_when_its_certificate_is_known_or_not_to_be_checked(
    rtsp_camera: RtspCamera, options: SourceOptions
) -> None:
    options = replace(options, credentials=rtsp_camera.netrc)
    url = rtsp_camera.tls_url("h264")
    with pytest.raises(Unreachable, match="named with #ca=FILE"):
        open_source(url, options)
    for setting in (f"#ca={rtsp_camera.ca}", "#verify=false"):
        source = open_source(url + setting, options)
        assert brightness(source.read()) > 0
        source.close()


def test_a_camera_that_is_away_at_the_start_is_read_when_it_comes(
    rtsp_camera: RtspCamera, options: SourceOptions
) -> None:
    rtsp_camera.switch_off()
    with reading(rtsp_camera.url("h264"), replace(options, credentials=rtsp_camera.netrc)) as camera:
        eventually("an error", lambda: "nothing answers at that port" in camera.problem)
        assert camera.state is SourceState.AWAY
        rtsp_camera.switch_on()
        eventually("a frame", camera.take)


def test_a_slow_reader_gets_the_newest_frame(rtsp_camera: RtspCamera, options: SourceOptions) -> None:
    options = replace(options, credentials=rtsp_camera.netrc)
    with reading(rtsp_camera.url("h264"), options) as camera, reading(rtsp_camera.url("h264"), options) as other:
        eventually("a frame", lambda: camera.has_frame)
        first = camera.take()
        for _ in range(10):
            eventually("the next frame of a fast reader", other.take)
        eventually("a frame", lambda: camera.has_frame)
        newest = camera.take()
    assert first is not None and newest is not None
    assert first.captured_s is not None and newest.captured_s is not None
    assert newest.captured_s - first.captured_s > 5 / FRAMES_PER_SECOND, "those between are left out"


WRONG = {
    "none": (Refused, "refuses the user name or password"),
    "wrong": (Refused, "refuses the user name or password"),
    "path": (NotFound, "check the path"),
    "host": (Unreachable, "a host that nobody knows"),
    "port": (Unreachable, "nothing answers at that port"),
    "silent": (Unreachable, "sends nothing for 0.5 s"),
    "codec": (InvalidInput, "set the camera to H.264 or H.265"),
    "key frames": (Unreachable, "sends no key frame for 3 s"),
    "not a video": (InvalidInput, "is not a video"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_is_wrong_with_a_camera_is_one_sentence_without_its_password(
    rtsp_camera: RtspCamera, options: SourceOptions, monkeypatch: pytest.MonkeyPatch, wrong: str,
    capfd: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("CAMERA_PASSWORD", "wrong-too" if wrong == "wrong" else PASSWORD)
    url = rtsp_camera.url("h264").replace("://", f"://{USER}:{{CAMERA_PASSWORD}}@" if wrong != "none" else "://")
    port = f":{rtsp_camera.port}"
    with silent_port() as silent:
        (tmp_path / "page").write_text("<html>log in</html>")
        reference = {
            "path": url.replace("h264", "h266"),
            "host": url.replace("127.0.0.1", "camera.invalid"),
            "port": url.replace(port, f":{free_port()}"),
            "silent": url.replace(port, f":{silent}") + "#timeout=0.5",
            "codec": url.replace("h264", "unknown-codec"),
            "key frames": url.replace("h264", "h264-without-key-frames") + "#timeout=3",
            "not a video": f"{tmp_path}/page",
        }.get(wrong, url)
        error, says = WRONG[wrong]
        with pytest.raises(DirediError, match=says) as caught:
            open_source(reference, options).read()
    assert type(caught.value) is error
    said = str(caught.value) + "".join(capfd.readouterr())
    assert not {PASSWORD, "hunter2", "wrong-too"} & set(said.replace(":", " ").replace("@", " ").split())
    assert "hunter2" not in said


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("rtsp://admin:hunter2@10.0.0.7/live", "holds a password"),
        ("http://10.0.0.7/snap.jpg?user=a&password=hunter2", "holds a password"),
        ("rtsp://admin:{NO_SUCH_VARIABLE}@10.0.0.7/live", "NO_SUCH_VARIABLE, which is not set"),
        ("rtsp://10.0.0.7/live#transport=pigeon", "transport is not usable"),
        ("rtsp://10.0.0.7/live#colour=red", "colour does not exist"),
        ("rtsp://10.0.0.7/live#rotate=90#rotate=180", "given twice"),
        ("rtsp://10.0.0.7/live#crop=0.5,0,0.5,1", "right must be beyond left"),
        ("rtsp://10.0.0.7/live#mask=0,0,1,1", "three corners"),
        ("rtsp:///live", "names no host"),
    ],
)
def test_a_reference_that_is_written_wrong_is_refused_before_anything_is_opened(reference: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        check_source(reference)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("profile", "codec"), [(0, "h264"), (1, "h265")])
def test_an_onvif_camera_is_asked_for_the_stream_of_a_profile_though_its_clock_is_wrong(
    rtsp_camera: RtspCamera, options: SourceOptions, monkeypatch: pytest.MonkeyPatch, profile: int, codec: str
) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", PASSWORD)
    with onvif_camera(USER, PASSWORD, rtsp_camera.port) as (port, asked):
        url = f"onvif://{USER}:{{CAMERA_PASSWORD}}@127.0.0.1:{port}#stream={profile}"
        source = open_source(url, options)
        assert brightness(source.read()) > 0
        source.close()
        address = stream_address(
            f"onvif://{USER}:x@127.0.0.1:{port}".replace(":x@", f":{quote(PASSWORD, '')}@"), profile, 5
        )
        assert address.endswith(f"@127.0.0.1:{rtsp_camera.port}/{codec}"), (
            "of the host that was asked, not the named one"
        )
        assert not any("hunter2" in text for text in asked), "the password itself is not sent"


@pytest.mark.parametrize(
    ("odd", "password", "error", "says"),
    [
        ("", "hunter2-wrong", Refused, "refuses the user name or password"),
        ("redirect", PASSWORD, InvalidInput, "does not speak ONVIF"),
        ("document type", PASSWORD, InvalidInput, "document type"),
    ],
)
def test_an_onvif_camera_that_refuses_or_leads_elsewhere_is_one_sentence(
    options: SourceOptions,
    monkeypatch: pytest.MonkeyPatch,
    odd: str,
    password: str,
    error: type[DirediError],
    says: str,
) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", password)
    with onvif_camera(USER, PASSWORD, 1, odd) as (port, asked):
        with pytest.raises(error, match=says) as caught:
            open_source(f"onvif://{USER}:{{CAMERA_PASSWORD}}@127.0.0.1:{port}", options)
        assert asked
    assert "hunter2" not in str(caught.value)


def test_cameras_of_the_network_are_found_beside_what_answers_nonsense() -> None:
    with onvif_network() as group:
        (camera,) = find_cameras(0.5, group)
    assert (camera.address, camera.name) == ("127.0.0.1:8080", "?[31mGate é"), (
        "where the answer came from, and no colour"
    )
    assert camera.source == "onvif://127.0.0.1:8080"


class HttpCamera(BaseHTTPRequestHandler):
    """Serves files of `folder`, /stream as MJPEG and /snap.jpg as one picture, each brighter than the one before."""

    pictures = 0
    folder: Path

    def do_GET(self) -> None:
        file = self.folder / self.path[1:]
        self.send_response(200)
        if file.is_file():
            self.send_header("Content-Length", str(file.stat().st_size))
            self.end_headers()
            self.wfile.write(file.read_bytes())
            return
        if self.path == "/snap.jpg":
            self.send_header("Content-Type", "image/jpeg")
            self.end_headers()
            self.wfile.write(self.picture())
            return
        self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=frame")
        self.end_headers()
        for _ in range(20):
            picture = self.picture()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
            self.wfile.write(head + picture + b"\r\n")

    def picture(self) -> bytes:
        type(self).pictures += 1
        return cv2.imencode(".jpg", np.full((48, 64, 3), 10 * (self.pictures % 20), np.uint8))[1].tobytes()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def http_camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    HttpCamera.folder = tmp_path_factory.mktemp("http")
    for name in ("gate.m3u8", "gate.mp4"):
        with av.open(str(HttpCamera.folder / name), "w", options={"hls_time": "1"} if "m3u8" in name else {}) as file:
            stream = file.add_stream("libx264", rate=5, options={"preset": "ultrafast"})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.gop_size = 5
            for shade in range(20, 220, 20):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), "bgr24")))
            file.mux(stream.encode())
    server = ThreadingHTTPServer(("127.0.0.1", 0), HttpCamera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("path", "live"), [("/snap.jpg", False), ("/stream", True)])
def test_pictures_and_motion_jpeg_over_http_are_frames(
    http_camera: str, options: SourceOptions, path: str, live: bool
) -> None:
    HttpCamera.pictures = 0
    source = open_source(f"{http_camera}{path}", options)
    shades = [brightness(source.read()) for _ in range(4)]
    source.close()
    assert source.live is live
    assert shades == sorted(shades)
    assert len(set(shades)) == 4


@pytest.mark.parametrize("name", ["gate.m3u8", "gate.mp4"])
def test_hls_and_a_file_over_http_are_frames(http_camera: str, options: SourceOptions, name: str) -> None:
    source = open_source(f"{http_camera}/{name}", replace(options, repeat=False))
    frames = []
    with suppress(Unreachable):  # what FFmpeg makes of the end of a playlist
        while (frame := source.read()) is not None:
            frames.append(round(brightness(frame), -1))
    source.close()
    assert frames == list(range(20, 220, 20))


def test_a_camera_that_is_opened_again_and_again_leaves_no_thread_and_no_connection_behind(
    http_camera: str, options: SourceOptions
) -> None:
    def held() -> tuple[int, ...]:
        source = open_source(f"video:{HttpCamera.folder}/gate.mp4", options)
        assert brightness(source.read()) > 0
        source.close()
        del source
        return tuple(len(list(Path(f"/proc/self/{what}").iterdir())) for what in ("task", "fd"))

    gc.disable()
    try:
        threads, files = held()
        for _ in range(5):
            assert held()[0] <= threads
            assert held()[1] <= files
    finally:
        gc.enable()


def test_a_playlist_does_not_make_the_node_read_its_own_files(
    http_camera: str, options: SourceOptions, tmp_path: Path
) -> None:
    secret = HttpCamera.folder / "gate.mp4"
    lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:5", "#EXTINF:5,", f"file://{secret}", "#EXT-X-ENDLIST")
    (HttpCamera.folder / "evil.m3u8").write_text("\n".join(lines))
    with pytest.raises(DirediError):
        open_source(f"{http_camera}/evil.m3u8#timeout=2", options).read()


def test_a_stream_that_ends_is_away(http_camera: str, options: SourceOptions) -> None:
    source = open_source(f"{http_camera}/stream", options)
    with pytest.raises(Unreachable, match="check the camera"):
        while source.read() is not None:
            pass
    source.close()

"""Sources of frames: folders, videos, cameras, scenes."""

from __future__ import annotations

import shutil
import struct
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from diredi.errors import DirediError, InvalidInput, NotFound
from edge_node.sources import SOURCES, Frame, SourceOptions, check_source, open_source
from edge_node.sources.video import SourceClock
from edge_node.sources.view import MotionGate, view
from tests.support.waiting import eventually


@pytest.fixture
def options(tmp_path: Path) -> SourceOptions:
    return SourceOptions(tmp_path / "cache")


def image(shade: int) -> np.ndarray:
    return np.full((48, 64, 3), shade, np.uint8)


def folder_of(path: Path, *shades: int) -> Path:
    path.mkdir()
    for index, shade in enumerate(shades):
        cv2.imwrite(str(path / f"{index}.png"), image(shade))
    return path


def video_of(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v")), 10, (64, 48)
    )
    for index in range(frames):
        writer.write(image(index * 20))
    writer.release()
    return path


def test_a_folder_comes_in_the_order_of_names_and_begins_again(tmp_path: Path, options: SourceOptions) -> None:
    source = open_source(f"folder:{folder_of(tmp_path / 'f', 10, 20)}", options)
    frames = [source.read() for _ in range(3)]
    assert [int(frame.image[0, 0, 0]) for frame in frames if frame is not None] == [10, 20, 10]


def test_the_images_of_a_folder_are_those_that_it_has_when_a_round_begins(
    tmp_path: Path, options: SourceOptions
) -> None:
    folder = folder_of(tmp_path / "f", 10, 20)
    source = open_source(f"folder:{folder}", options)
    assert [brightness(source.read()) for _ in range(2)] == [10, 20]
    (folder / "0.png").unlink()
    cv2.imwrite(str(folder / "2.png"), image(30))
    assert [brightness(source.read()) for _ in range(3)] == [20, 30, 20]
    shutil.rmtree(folder)
    with pytest.raises(DirediError):
        source.read()
    with pytest.raises(NotFound):
        source.read()


def brightness(frame: Frame | None) -> int:
    assert frame is not None
    return int(frame.image[0, 0, 0])


def test_a_folder_ends_where_it_may_not_repeat(tmp_path: Path) -> None:
    source = open_source(f"folder:{folder_of(tmp_path / 'f', 10)}", SourceOptions(tmp_path, repeat=False))
    assert source.read() is not None
    assert source.read() is None


@pytest.mark.parametrize(("repeat", "expected"), [(True, 7), (False, 3)])
def test_a_video_file_is_read_to_its_end_and_begins_again(tmp_path: Path, repeat: bool, expected: int) -> None:
    source = open_source(f"video:{video_of(tmp_path / 'v.avi', 3)}", SourceOptions(tmp_path, repeat=repeat))
    frames = [frame for _ in range(7) if (frame := source.read()) is not None]
    source.close()
    assert len(frames) == expected
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.dtype == np.uint8


@pytest.mark.slow
def test_built_in_scenes_are_frames_of_that_site(options: SourceOptions) -> None:
    source = open_source("scenes:site-1", options)
    frame = source.read()
    assert frame is not None
    assert frame.image.ndim == 3
    assert frame.image.std() > 1


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [
        ("nowhere", InvalidInput, "folder:..."),
        ("ftp:host", InvalidInput, "folder:..."),
        ("folder:/does/not/exist", NotFound, "does not exist"),
        ("video:/does/not/exist.mp4", NotFound, "does not exist"),
        ("camera:front", InvalidInput, "neither an index"),
        ("camera:77", NotFound, "camera /dev/video77"),
        ("scenes:atlantis", InvalidInput, "atlantis"),
    ],
)
def test_a_source_that_cannot_be_read_is_named_with_a_remedy(
    reference: str, error: type[DirediError], says: str, options: SourceOptions
) -> None:
    with pytest.raises(error, match=says):
        open_source(reference, options)


def test_hidden_files_and_what_is_no_image_are_not_frames(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", 10)
    for name in ("._0.png", ".thumbnails/0.png", "__MACOSX/0.png", "a.heic"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\x00\x05\x16\x07 Mac OS X")
    cv2.imwrite(str(folder / "1.tif"), image(20))
    source = open_source(f"folder:{folder}", SourceOptions(tmp_path, repeat=False))
    frames = [source.read() for _ in range(3)]
    assert [frame if frame is None else int(frame.image[0, 0, 0]) for frame in frames] == [10, 20, None]


def test_a_file_of_a_folder_that_cannot_be_decoded_is_one_bad_frame(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", 10, 20)
    (folder / "0.png").write_bytes(b"spoilt")
    source = open_source(f"folder:{folder}", SourceOptions(tmp_path, repeat=False))
    with pytest.raises(InvalidInput, match=r"0\.png: image cannot be decoded"):
        source.read()
    assert source.read() is not None
    (folder / "1.png").write_bytes(b"spoilt")
    with pytest.raises(InvalidInput, match=r"0\.png: image cannot be decoded"):
        open_source(f"folder:{folder}", SourceOptions(tmp_path))


def test_a_folder_without_images_and_a_file_that_is_no_video_are_refused(
    tmp_path: Path, options: SourceOptions
) -> None:
    with pytest.raises(NotFound, match="holds no image"):
        open_source(f"folder:{folder_of(tmp_path / 'empty')}", options)
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    with pytest.raises(InvalidInput, match="is not a video"):
        open_source(f"video:{text}", options)


def test_every_registered_source_says_what_is_wrong_with_a_place_that_is_none(options: SourceOptions) -> None:
    for kind in SOURCES:
        with pytest.raises(DirediError):
            open_source(f"{kind}:no such place", options)


def test_a_watched_folder_gives_what_is_written_from_now_on_once_and_waits_for_the_whole_file(
    tmp_path: Path, options: SourceOptions
) -> None:
    folder = folder_of(tmp_path / "ftp", 10)
    source = open_source(f"{folder}#watch=true", options)
    whole = cv2.imencode(".png", image(30))[1].tobytes()
    read: list[Frame | None] = []
    reader = threading.Thread(target=lambda: read.extend(source.read() for _ in range(2)))
    reader.start()
    (folder / "half.png").write_bytes(whole[:40])
    (folder / "a.png").write_bytes(cv2.imencode(".png", image(20))[1].tobytes())
    eventually("the first new image", lambda: read or not reader.is_alive())
    (folder / "half.png").write_bytes(whole)
    reader.join()
    assert [int(frame.image[0, 0, 0]) for frame in read if frame] == [20, 30]
    options.stopped.set()
    assert source.read() is None, "it ends when the node does, also without a new image"


def test_what_is_looked_at_is_turned_then_cropped_then_masked() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[:50, :100] = 255  # the upper left quarter is white
    turned = view(frame, check_source("scenes:a#rotate=90").settings)
    assert turned.shape == (200, 100, 3)
    assert turned[:100, 50:].min() == 255, "clockwise: upper right now"
    cropped = view(frame, check_source("scenes:a#rotate=90#crop=0.5,0,1,0.5").settings)
    assert cropped.shape == (100, 50, 3)
    assert cropped.min() == 255
    masked = view(frame, check_source("scenes:a#crop=0,0,0.5,0.5#mask=0,0,1,0,0,1#mask=1,1,1,0.9,0.9,1").settings)
    assert (masked[0, 0, 0], masked[49, 99, 0], masked[25, 75, 0], masked[40, 60, 0]) == (0, 0, 255, 255)
    assert frame[0, 0, 0] == 255, "the source's own frame is not changed"


def test_only_frames_in_which_something_moved_are_looked_at_and_now_and_then_a_still_one() -> None:
    gate = MotionGate(0.01)
    still, moved = np.full((240, 320, 3), 90, np.uint8), np.full((240, 320, 3), 90, np.uint8)
    moved[50:110, 50:110] = 200
    noisy = still + np.random.default_rng(0).integers(0, 6, still.shape, np.uint8)
    seen = [gate.is_open(frame, at) for at, frame in enumerate((still, still, noisy, moved, moved, still))]
    assert seen == [True, False, False, True, False, True]
    assert [gate.is_open(still, at) for at in (6, 14, 16)] == [False, False, True]
    assert MotionGate(0).is_open(still, 0) and MotionGate(0).is_open(still, 0)


def test_time_stamps_of_a_source_say_how_far_frames_are_apart_and_survive_clocks_that_jump() -> None:
    now, monotonic = [1000.0], [50.0]
    clock = SourceClock(lambda: now[0], lambda: monotonic[0])

    def arrive(stamp: float | None, after: float, jump: float = 0.0) -> float:
        now[0] += after + jump
        monotonic[0] += after
        return clock.captured_s(stamp)

    assert arrive(7.0, 0) == 1000
    assert arrive(7.2, 0.7) == pytest.approx(1000.2), "it was late: the network held it up for half a second"
    assert arrive(8.0, 0.3) == pytest.approx(1001.0)
    assert arrive(8.2, 0.2, jump=3600) == pytest.approx(4601.2), "this machine's clock was set"
    assert arrive(90000.0, 0.2) == pytest.approx(4601.4), "the camera's clock was set"
    assert arrive(90000.2, 0.2) == pytest.approx(4601.6)
    assert arrive(1.0, 0.2) == pytest.approx(4601.8), "the camera has started again"
    assert arrive(None, 0.2) == pytest.approx(4602.0)


def test_a_film_that_was_held_upright_is_upright(tmp_path: Path, options: SourceOptions) -> None:
    """Telephones turn no pixels: the file says by how much they were turned."""
    video = video_of(tmp_path / "v.mp4", 3)
    data = bytearray(video.read_bytes())
    matrix = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(matrix, data.index(b"tkhd"))
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    video.write_bytes(data)
    frame = open_source(f"video:{video}", options).read()
    assert frame is not None
    assert frame.image.shape == (64, 48, 3)

"""Sources of frames: folders, videos, cameras, scenes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from diredi.errors import DirediError, InvalidInput, NotFound
from edge_node.sources import SOURCES, SourceOptions, open_source


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
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for index in range(frames):
        writer.write(image(index * 20))
    writer.release()
    return path


def test_a_folder_comes_in_the_order_of_names_and_begins_again(tmp_path: Path, options: SourceOptions) -> None:
    source = open_source(f"folder:{folder_of(tmp_path / 'f', 10, 20)}", options)
    frames = [source.read() for _ in range(3)]
    assert [int(frame.image[0, 0, 0]) for frame in frames if frame is not None] == [10, 20, 10]


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
    with pytest.raises(InvalidInput, match="holds no image"):
        open_source(f"folder:{folder_of(tmp_path / 'empty')}", options)
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    with pytest.raises(InvalidInput, match="is not a video"):
        open_source(f"video:{text}", options)


def test_every_registered_source_says_what_is_wrong_with_a_place_that_is_none(options: SourceOptions) -> None:
    for kind in SOURCES:
        with pytest.raises(DirediError):
            open_source(f"{kind}:no such place", options)

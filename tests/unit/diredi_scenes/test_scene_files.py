"""Scenes on disk: the same bytes whoever draws them, whole or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from diredi.data.dataset import check, load
from diredi.data.sources import resolve
from diredi.errors import DirediError, InvalidInput, NoRoom
from diredi_scenes import SITES, worker, write_scenes
from diredi_scenes.scene import render


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_however_many_processes_draw(tmp_path: Path) -> None:
    for name, workers in (("alone", None), ("one", 1), ("three", 3)):
        write_scenes(tmp_path / name, "site-1", 6, 3, seed=7, image_size=96, workers=workers)
    assert digests(tmp_path / "alone") == digests(tmp_path / "one") == digests(tmp_path / "three")
    assert len(digests(tmp_path / "one")) == 2 * 9 + 1


def test_other_seeds_sites_and_splits_give_other_pictures() -> None:
    pictures = [
        render(site, split, index, seed, 96).jpeg
        for site, split, index, seed in (
            ("site-1", "train", 0, 0), ("site-1", "train", 1, 0), ("site-1", "val", 0, 0), ("site-1", "train", 0, 1),
            ("site-3", "train", 0, 0),
        )
    ]  # fmt: skip
    assert len(set(pictures)) == len(pictures)


def test_more_images_begin_with_the_same_ones() -> None:
    """So that a bench with twice the images only adds some."""
    assert render("presumed", "train", 3, 0, 96).jpeg == render("presumed", "train", 3, 0, 96).jpeg


@pytest.mark.slow
def test_written_set_is_a_data_set_without_a_fault(tmp_path: Path) -> None:
    said: list[float] = []
    path = write_scenes(tmp_path / "set", "site-1", 5, 2, seed=0, image_size=96, workers=2,
                        on_progress=lambda now: said.append(now.fraction))  # fmt: skip
    assert check(path).problems == []
    found = load(path)
    assert (len(found.train), len(found.val)) == (5, 2)
    assert found.names == SITES["site-1"].names
    assert said == sorted(said)
    assert said[-1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", 1, 1, 0), "no built-in site 'nowhere': choose one of presumed"),
        (("site-1", 0, 1, 0), "ask for at least 1"),
        (("site-1", 1, 1, 0, 32), "ask for at least 1, 1 and 64"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path: Path, arguments: tuple[str, int, int, int], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        write_scenes(tmp_path / "set", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_folder_with_something_else_in_it_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InvalidInput, match="has content that is not a data set"):
        write_scenes(tmp_path, "site-1", 1, 1, 0)
    assert [file.name for file in tmp_path.iterdir()] == ["holiday.jpg"]


def test_drawing_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The workers are real, and stumble over a size that cannot be drawn."""
    with pytest.raises(DirediError, match=r"rendering scenes into .* ended with"):
        write_scenes(tmp_path / "set", "site-1", 2, 1, seed=-1, image_size=96, workers=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full to be a full disk")
def test_full_disk_ends_a_worker_with_the_code_that_says_so(tmp_path: Path) -> None:
    write_scenes(tmp_path / "set", "site-1", 1, 1, seed=0, image_size=96)
    [image] = (tmp_path / "set/images/train").iterdir()
    image.unlink()
    image.symlink_to("/dev/full")
    arguments = [str(tmp_path / "set"), "site-1", "0", "96", "1", "train=1", "val=1", "0"]
    done = subprocess.run([sys.executable, "-m", worker.__name__, *arguments], check=False, capture_output=True)
    assert done.returncode == NoRoom.exit_code


def test_scenes_are_generated_once(tmp_path: Path) -> None:
    path = resolve("scenes:site-2", tmp_path, seed=3, train=2, val=1)
    before = {file: file.stat().st_mtime_ns for file in path.parent.rglob("*")}
    assert resolve("scenes:site-2", tmp_path, seed=3, train=2, val=1) == path
    assert {file: file.stat().st_mtime_ns for file in path.parent.rglob("*")} == before
    assert resolve("scenes:site-2", tmp_path, seed=4, train=2, val=1) != path


@pytest.mark.slow
def test_two_that_generate_at_once_end_with_one_whole_set(tmp_path: Path) -> None:
    paths: list[Path] = []

    def generate() -> None:
        paths.append(resolve("scenes:site-1", tmp_path, train=3, val=1))

    both = [threading.Thread(target=generate) for _ in (0, 1)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert paths[0] == paths[1]
    assert check(paths[0]).ok
    assert [folder.name for folder in tmp_path.iterdir()] == [paths[0].parent.name]


def test_path_of_a_user_is_itself_and_a_folder_is_its_data_yaml(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "mine", "site-3", 1, 1, 0, image_size=64)
    assert resolve(str(path), tmp_path / "cache") == path
    assert resolve(str(path.parent), tmp_path / "cache") == path
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("ref", ["scenes:nowhere", "no/such/data.yaml", ""])
def test_unknown_source_is_refused_with_what_there_is(
    tmp_path: Path, ref: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="scenes:presumed, scenes:site-1"):
        resolve(ref, tmp_path)

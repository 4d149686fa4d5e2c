"""Sets of images to classify are read in every form they come in, and a file that is not one of them is named."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diredi.data.classification import SETS, load
from diredi.data.classification.base import LabelledImages
from diredi.data.classification.cifar10 import CLASSES, cifar10
from diredi.data.classification.download import Remote, cache_folder, fetch
from diredi.data.classification.fashion_mnist import fashion_mnist
from diredi.errors import CorruptData, DatasetError, DirediError, InvalidInput, NoRoom, NotFound, Unreachable

BATCHES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
IDX = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


# Digits: nothing to download.


@pytest.mark.slow
def test_digits_are_eight_by_eight_from_black_to_white_and_always_split_alike() -> None:
    found, again = load("digits"), load("digits")
    assert found.name == "digits"
    assert found.classes == tuple("0123456789")
    assert found.train.images.shape[1:] == found.test.images.shape[1:] == (1, 8, 8)
    assert (found.train.images.dtype, found.train.labels.dtype) == (np.uint8, np.int64)
    assert (found.train.images.min(), found.train.images.max()) == (0, 255)
    assert len(found.train) + len(found.test) == 1797
    for a, b in ((found.train, again.train), (found.test, again.test)):
        assert np.array_equal(a.images, b.images)
        assert np.array_equal(a.labels, b.labels)


@pytest.mark.slow
def test_a_fifth_of_every_digit_is_for_measuring_and_no_image_is_in_both_splits() -> None:
    found = load("digits")
    tests, trains = np.bincount(found.test.labels), np.bincount(found.train.labels)
    assert (np.abs(tests - (tests + trains) / 5) <= 0.5).all()
    train, test = ({image.tobytes() for image in split.images} for split in (found.train, found.test))
    assert not train & test
    assert len(train) + len(test) == 1797


def test_digits_are_of_the_class_that_their_labels_say() -> None:
    """An image is nearer to the mean of its class than to any other, nearly always."""
    found = load("digits")
    means = np.stack([found.train.images[found.train.labels == label].mean(axis=0) for label in range(10)])
    distances = ((found.test.images[:, None].astype(float) - means) ** 2).sum(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == found.test.labels).mean() > 0.85


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # as if it were not there
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InvalidInput, match=r"scikit-learn.*diredi\[peers\]"):
        load("digits")


# What all forms have in common.


def test_taken_samples_are_a_copy_in_the_order_asked_for() -> None:
    whole = LabelledImages(np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2), np.array([4, 5, 6]))
    part = whole.select(np.array([2, 0]))
    assert part.labels.tolist() == [6, 4]
    assert part.images[:, 0, 0, 0].tolist() == [8, 0]
    part.images[:] = 99
    assert whole.images.max() == 11


def test_an_unknown_set_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"'mnist'.*cifar10, digits, fashion_mnist"):
        load("mnist")


def test_sets_are_there_without_torch_and_without_scikit_learn_until_digits_are_asked_for() -> None:
    program = (
        "import sys; from diredi.data.classification import SETS; sys.exit(bool({'torch', 'sklearn'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# CIFAR-10.


def records(count: int, seed: int) -> np.ndarray:
    made = np.random.default_rng([seed]).integers(0, 256, (count, 3073), np.uint8)
    made[:, 0] = np.arange(count) % 10
    return made


def write_batches(folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    batches = {name: records(2 + number, number) for number, name in enumerate(BATCHES)}
    for name, batch in batches.items():
        (folder / name).write_bytes(batch.tobytes())
    return batches


def archive_of(batches: dict[str, bytes], inside: str = "cifar-10-batches-bin/") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, data in {"readme.html": b"<html>", **batches}.items():
            member = tarfile.TarInfo(inside + name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def smooth(seed: int) -> np.ndarray:
    """An image, BGR, that JPEG hardly changes."""
    corners = np.random.default_rng([seed]).integers(0, 256, (2, 2, 3), np.uint8)
    return cv2.resize(corners, (32, 32), interpolation=cv2.INTER_LINEAR)


def write_npz(path: Path, images: list[np.ndarray], **spoilt: np.ndarray) -> None:
    files = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].ravel() for image in images]
    arrays = {
        "jpeg": np.concatenate(files),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": np.arange(len(files), dtype=np.uint8),
        "classes": np.array(CLASSES),
    }
    np.savez(path, **{**arrays, **spoilt})


@pytest.mark.parametrize("place", [".", "cifar-10-batches-bin"])
def test_cifar10_is_read_from_the_binary_version_wherever_it_was_unpacked(tmp_path: Path, place: str) -> None:
    batches = write_batches(tmp_path / place)
    found = load("cifar10", tmp_path)
    train = np.concatenate([batches[name] for name in BATCHES[:5]])
    assert found.classes[3] == "cat"
    assert found.train.labels.tolist() == train[:, 0].tolist()
    assert np.array_equal(found.train.images, train[:, 1:].reshape(-1, 3, 32, 32))
    assert np.array_equal(found.test.images, batches["test_batch.bin"][:, 1:].reshape(-1, 3, 32, 32))
    assert found.train.images.flags.c_contiguous


def test_cifar10_is_read_from_the_published_archive_of_which_nothing_is_unpacked(tmp_path: Path) -> None:
    batches = write_batches(tmp_path / "unpacked")
    evil = {"../../evil.bin": b"x", **{name: batch.tobytes() for name, batch in batches.items()}}
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "cifar-10-binary.tar.gz").write_bytes(archive_of(evil))
    found, same = load("cifar10", tmp_path / "packed"), load("cifar10", tmp_path / "unpacked")
    assert np.array_equal(found.train.images, same.train.images)
    assert found.test.labels.tolist() == same.test.labels.tolist()
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["cifar-10-binary.tar.gz"]
    assert not list(tmp_path.rglob("evil.bin"))


def test_cifar10_is_read_from_jpeg_with_red_first(tmp_path: Path) -> None:
    images = [smooth(seed) for seed in range(4)]
    write_npz(tmp_path / "train.npz", images)
    write_npz(tmp_path / "test.npz", images[:1])
    found = load("cifar10", tmp_path)
    assert found.train.labels.tolist() == [0, 1, 2, 3]
    assert found.train.images.shape == (4, 3, 32, 32)
    assert found.test.images.shape == (1, 3, 32, 32)
    expected = np.stack(images)[..., ::-1].transpose(0, 3, 1, 2)
    assert np.abs(found.train.images.astype(int) - expected).mean() < 3
    assert found.train.images.flags.c_contiguous


def test_a_folder_without_cifar10_is_told_what_belongs_there_even_if_it_has_the_pickled_version(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (Path.touch, (tmp_path / "unpickled",))

    for name in BATCHES:
        (tmp_path / name.removesuffix(".bin")).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(NotFound, match=r"cifar-10-binary\.tar\.gz"):
        load("cifar10", tmp_path)
    (tmp_path / "train.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DatasetError, match=r"train\.npz"):
        load("cifar10", tmp_path)
    write_npz(tmp_path / "train.npz", [smooth(0)], labels=np.array([Trap()], object))
    with pytest.raises(DatasetError, match=r"train\.npz"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "unpickled").exists()


def test_a_batch_that_is_missing_is_named(tmp_path: Path) -> None:
    batches = write_batches(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(NotFound, match=r"data_batch_3\.bin does not exist"):
        load("cifar10", tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    kept = {name: batch.tobytes() for name, batch in batches.items() if name != "data_batch_3.bin"}
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(archive_of(kept))
    with pytest.raises(CorruptData, match=r"cifar-10-binary\.tar\.gz lacks data_batch_3\.bin"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("cut", [1, 3072])
def test_a_batch_that_was_cut_off_is_named(tmp_path: Path, cut: int) -> None:
    batch = tmp_path / "data_batch_2.bin"
    write_batches(tmp_path)
    batch.write_bytes(batch.read_bytes()[:-cut])
    with pytest.raises(DatasetError, match=r"data_batch_2\.bin: .*3073"):
        load("cifar10", tmp_path)


def test_a_batch_longer_than_any_is_not_taken_whole(tmp_path: Path) -> None:
    write_batches(tmp_path)
    with (tmp_path / "test_batch.bin").open("ab") as file:
        file.truncate(10_001 * 3073)
    with pytest.raises(DatasetError, match=r"test_batch\.bin: .*10000 records"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("spoilt", "kind", "said"),
    [
        ({"labels": np.array([0, 10], np.uint8)}, DatasetError, "within 0 to 9"),
        ({"labels": np.array([0, -1])}, DatasetError, "within 0 to 9"),
        ({"labels": np.array([0])}, DatasetError, "1 labels of 2 images"),
        ({"labels": np.array([0.0, 1.0])}, DatasetError, "whole numbers"),
        ({"offsets": np.array([0, 5, 4])}, DatasetError, "must rise"),
        ({"offsets": np.array([0, 1, 10**9])}, DatasetError, "must rise"),
        ({"offsets": np.array([-4, 1, 3])}, DatasetError, "must rise"),
        ({"classes": np.array(["a", "b"])}, DatasetError, "not those of CIFAR-10"),
        ({"jpeg": np.zeros(9, np.uint8), "offsets": np.array([0, 4, 9])}, CorruptData, "cannot be decoded"),
        ({"jpeg": np.zeros(9)}, DatasetError, "bytes"),
    ],
)
def test_jpeg_images_that_do_not_fit_together_are_refused(
    tmp_path: Path, spoilt: dict[str, np.ndarray], kind: type[DirediError], said: str
) -> None:
    write_npz(tmp_path / "test.npz", [smooth(0)])
    write_npz(tmp_path / "train.npz", [smooth(0), smooth(1)], **spoilt)
    with pytest.raises(kind, match=rf"train\.npz.*{said}"):
        load("cifar10", tmp_path)


def test_jpeg_images_of_another_size_are_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "train.npz", [cv2.resize(smooth(0), (16, 32))])
    with pytest.raises(DatasetError, match=r"\(32, 16\) and not \(32, 32\)"):
        load("cifar10", tmp_path)


# Fashion-MNIST.


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def packed(data: bytes) -> bytes:
    """Without the time, so that equal data are equal files."""
    return gzip.compress(data, mtime=0)


def made_idx() -> dict[str, np.ndarray]:
    rng = np.random.default_rng([5])
    return {
        name: rng.integers(0, 256, (count, 28, 28), np.uint8) if "images" in name else np.arange(count, dtype=np.uint8)
        for name, count in zip(IDX, (7, 7, 3, 3), strict=True)
    }


def write_idx(folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = made_idx()
    for name, array in arrays.items():
        (folder / name).write_bytes(packed(idx(array)))
    return arrays


def test_fashion_mnist_is_read_from_its_four_files(tmp_path: Path) -> None:
    arrays = write_idx(tmp_path)
    found = load("fashion_mnist", tmp_path)
    assert found.classes[9] == "Ankle boot"
    assert found.train.images.shape == (7, 1, 28, 28)
    assert np.array_equal(found.train.images[:, 0], arrays[IDX[0]])
    assert found.test.labels.tolist() == [0, 1, 2]
    assert (found.test.images.dtype, found.test.labels.dtype) == (np.uint8, np.int64)


@pytest.mark.parametrize("name", IDX)
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    write_idx(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(NotFound, match=rf"{name} does not exist"):
        load("fashion_mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        (IDX[0], b"no gzip", CorruptData),
        (IDX[0], packed(idx(made_idx()[IDX[0]]))[:-200], CorruptData),
        (IDX[0], packed(idx(made_idx()[IDX[0]])[:-1]), CorruptData),
        (IDX[0], packed(idx(made_idx()[IDX[0]]) + b"x"), CorruptData),
        (IDX[0], packed(idx(np.zeros((7, 28, 27), np.uint8))), DatasetError),
        (IDX[0], packed(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 28, 28)), DatasetError),
        (IDX[0], packed(b""), DatasetError),
        (IDX[1], packed(idx(made_idx()[IDX[0]])), DatasetError),
        (IDX[1], packed(idx(np.arange(6, dtype=np.uint8))), DatasetError),
        (IDX[1], packed(idx(np.full(7, 10, np.uint8))), DatasetError),
        (IDX[1], packed(idx(np.zeros(7, np.float32))), CorruptData),
    ],
)
def test_a_file_that_is_damaged_or_something_else_is_named(
    tmp_path: Path, name: str, content: bytes, kind: type[DirediError]
) -> None:
    write_idx(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kind, match=name):
        load("fashion_mnist", tmp_path)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / IDX[2]).unlink()
    (tmp_path / IDX[2]).mkdir()
    with pytest.raises(DatasetError, match=IDX[2]):
        load("fashion_mnist", tmp_path)


# Damage of any kind.


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder a form, whole."""
    root = tmp_path_factory.mktemp("good")
    write_idx(root / "fashion_mnist")
    (root / "npz").mkdir()
    for name in ("train.npz", "test.npz"):
        write_npz(root / "npz" / name, [smooth(0), smooth(1)])
    (root / "archive").mkdir()
    packed = archive_of({name: records(1, 0).tobytes() for name in BATCHES})
    (root / "archive" / "cifar-10-binary.tar.gz").write_bytes(packed)
    return root


@settings(deadline=None, max_examples=150)
@given(data=st.data())
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("fashion_mnist", f"fashion_mnist/{IDX[0]}"),
        ("cifar10", "npz/train.npz"),
        ("cifar10", "archive/cifar-10-binary.tar.gz"),
    ],
)
def test_whatever_happened_to_a_file_there_is_an_error_that_names_it_or_a_set(
    good: Path, name: str, file: str, data: st.DataObject
) -> None:
    path = good / file
    content = path.read_bytes()
    spoilt = bytearray(content[: data.draw(st.integers(len(content) // 2, len(content)), "cut")])
    for place in data.draw(st.lists(st.integers(0, len(spoilt) - 1), max_size=3), "places"):
        spoilt[place] ^= data.draw(st.integers(1, 255), "flip")
    path.write_bytes(spoilt)
    try:
        assert len(load(name, path.parent).train) > 0
    except DirediError as error:
        assert path.name in str(error)
        assert len(str(error).splitlines()) == 1
    finally:
        path.write_bytes(content)


# Downloads.


@contextmanager
def served(folder: Path, answer: Callable[[bytes], bytes] = bytes) -> Iterator[tuple[str, list[str]]]:
    """The address of a server of `folder`, and the paths it was asked for; `answer` may spoil what it sends."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(answer(content))

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def remote(host: str, path: Path) -> Remote:
    content = path.read_bytes()
    return Remote(f"{host}/{path.name}", len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "diredi"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    write_idx(folder)
    packed = archive_of({name: records(3, 1).tobytes() for name in BATCHES})
    (folder / "cifar-10-binary.tar.gz").write_bytes(packed)
    return folder


def test_sets_are_downloaded_into_the_cache_once_and_read_from_there_ever_after(cache: Path, published: Path) -> None:
    with served(published) as (host, asked):
        files = [remote(host, published / name) for name in IDX]
        archive = remote(host, published / "cifar-10-binary.tar.gz")
        found = [fashion_mnist(None, files), cifar10(None, archive)]
        assert sorted(asked) == sorted(f"/{name}" for name in (*IDX, "cifar-10-binary.tar.gz"))
    assert [len(one.train) for one in found] == [7, 15]
    for name in ("fashion_mnist", "cifar10"):
        assert len(SETS[name](None).train) == len(load(name).train) > 0
    assert sorted(path.name for path in (cache / "fashion_mnist").iterdir()) == sorted(IDX)
    assert [path.name for path in (cache / "cifar10").iterdir()] == ["cifar-10-binary.tar.gz"]


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), CorruptData),
        (lambda content: content[: len(content) // 2], Unreachable),
        (lambda content: b"", Unreachable),
    ],
)
def test_other_bytes_than_those_published_are_never_kept(
    tmp_path: Path, cache: Path, published: Path, spoil: Callable[[bytes], bytes], kind: type[DirediError]
) -> None:
    with served(published, spoil) as (host, _), pytest.raises(kind, match=IDX[0]):
        fetch(remote(host, published / IDX[0]), cache)
    assert not list(cache.iterdir())
    with served(published) as (host, _):
        assert fetch(remote(host, published / IDX[0]), cache).read_bytes() == (published / IDX[0]).read_bytes()


def test_a_download_longer_than_the_file_is_broken_off_and_not_kept(cache: Path, published: Path) -> None:
    expected = published / IDX[3]
    with served(published) as (host, _):
        wanted = remote(host, expected)
        expected.write_bytes(expected.read_bytes() * 2**16)
        with pytest.raises(CorruptData, match=IDX[3]):
            fetch(wanted, cache)
    assert not list(cache.iterdir())


def test_a_download_for_which_there_is_no_room_is_not_begun(cache: Path, published: Path) -> None:
    with served(published) as (host, asked), pytest.raises(NoRoom, match="free some"):
        fetch(Remote(f"{host}/{IDX[0]}", 2**60, ""), cache)
    assert asked == []


def test_a_host_that_is_away_or_has_no_such_file_is_unreachable(cache: Path, published: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"  # bound, and nobody listens
        with pytest.raises(Unreachable, match=rf"{IDX[0]}.*name a folder"):
            fashion_mnist(None, [remote(nobody, published / name) for name in IDX])
    with served(published) as (host, _), pytest.raises(Unreachable, match="404"):
        fetch(Remote(f"{host}/gone.gz", 1, ""), cache)
    assert not list(cache.rglob("*.*"))


def test_a_cache_that_cannot_be_made_is_said(tmp_path: Path, cache: Path, published: Path) -> None:
    cache.parent.write_text("a file in the place of the folder")
    with served(published) as (host, asked), pytest.raises(InvalidInput, match="XDG_CACHE_HOME"):
        fetch(remote(host, published / IDX[0]), cache)
    assert asked == []


def test_the_cache_is_the_users_and_follows_xdg(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder("cifar10") == cache / "cifar10"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder("cifar10") == tmp_path / "home" / ".cache" / "diredi" / "cifar10"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("cifar10") == tmp_path / "home" / ".cache" / "diredi" / "cifar10"


# Real files.


@pytest.mark.parametrize(("name", "shape"), [("cifar10", (3, 32, 32)), ("fashion_mnist", (1, 28, 28))])
def test_real_images_are_read(shared_data: Path, name: str, shape: tuple[int, int, int]) -> None:
    folder = shared_data / "classification" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    found = load(name, folder)
    for split in (found.train, found.test):
        assert split.images.shape == (len(split), *shape)
        assert (np.bincount(split.labels, minlength=10) > 0).all()
        assert 20 < split.images.mean() < 200

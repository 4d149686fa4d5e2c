"""The scenes are in perspective, their labels are what can be seen, and the sites differ as their profiles say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from diredi.data.images import decode_image
from diredi_scenes.camera import Camera
from diredi_scenes.light import light_of
from diredi_scenes.meshes import Model, box
from diredi_scenes.models import CLUTTER, OBJECTS
from diredi_scenes.profiles import PRESUMED, SITES
from diredi_scenes.rasterizer import Place, Rasterizer, Sunlight
from diredi_scenes.scene import MOST_HIDDEN, Scene, bounds, labels_of, render

CAMERA = Camera(height=5.0, pitch=np.radians(20), roll=0.0, view=np.radians(54), size=640)
LIGHT = Sunlight(np.array([0.0, 0.0, 1.0]), 0.0, 0.92)
SITE = SITES["presumed"]


def drawn(*things: tuple[Model, Place]) -> Rasterizer:
    rasterizer = Rasterizer(CAMERA, LIGHT)
    for model, place in things:
        rasterizer.draw(model, place)
    return rasterizer


def model(name: str, seed: int = 1) -> Model:
    return OBJECTS[name](np.random.default_rng(seed))


@pytest.fixture(scope="module")
def site_1() -> list[Scene]:
    return [render("site-1", "train", index, 0, 160) for index in range(40)]


@pytest.mark.parametrize("name", [*OBJECTS])
def test_the_same_object_is_smaller_the_further_away_it_is(name: str) -> None:
    thing = model(name)
    heights = []
    for away in (12.0, 18.0, 27.0):
        _, top, _, bottom = bounds(drawn((thing, Place(0, away, np.pi))).owner, 1)
        heights.append(bottom - top)
    assert heights[0] > 1.25 * heights[1] > 1.25**2 * heights[2] > 0


def test_box_of_a_known_solid_is_where_geometry_says() -> None:
    """An oracle of its own: corners projected with plain trigonometry. OpenCV fills half a pixel more on each side."""
    cuboid = Model(((box((-1, -0.5, 0), (1, 0.5, 1.5), (0.5, 0.5, 0.5)),),), ("car",), 2, 1, 1.5)
    rows, _ = labels_of(drawn((cuboid, Place(1.0, 14.0, 0.0))), SITE)
    corners = []
    for x, y, z in ((x, y, z) for x in (0.0, 2.0) for y in (13.5, 14.5) for z in (0.0, 1.5)):
        drop, angle = CAMERA.height - z, CAMERA.pitch
        depth = y * np.cos(angle) + drop * np.sin(angle)
        down = drop * np.cos(angle) - y * np.sin(angle)
        scale = 0.5 / np.tan(CAMERA.view / 2) / depth
        corners.append((0.5 + x * scale, 0.5 + down * scale))
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    assert rows[0, 1:] == pytest.approx([*(low + high) / 2, *(high - low)], abs=2.5 / CAMERA.size)


@pytest.mark.parametrize("name", [*OBJECTS])
def test_what_an_object_changes_in_the_picture_is_in_its_boxes(name: str) -> None:
    """Boxes against pixels, with nothing of the labelling in between."""
    thing, place = model(name, 3), Place(0.5, 13.0, 0.7)
    rasterizer = drawn((thing, place))
    assert [d.name for d in rasterizer.drawn] == list(thing.classes)
    site = next(site for site in SITES.values() if set(filter(None, thing.classes)) <= set(site.names))
    rows, _ = labels_of(rasterizer, site)
    changed = np.argwhere(rasterizer.colour.any(axis=2))[:, ::-1]
    low = (rows[:, 1:3] - rows[:, 3:5] / 2).min(axis=0) * CAMERA.size
    high = (rows[:, 1:3] + rows[:, 3:5] / 2).max(axis=0) * CAMERA.size
    assert np.abs(changed.min(axis=0) - low).max() <= 1
    assert np.abs(changed.max(axis=0) + 1 - high).max() <= 1


def test_boxes_of_scenes_fit_what_is_visible_to_the_pixel(site_1: list[Scene]) -> None:
    for scene in site_1:
        for row, owner in zip(scene.boxes, scene.owners, strict=True):
            inside = scene.owner == owner
            x, y, w, h = (row[1:] * inside.shape[0]).round(2)
            left, top, right, bottom = (round(float(v)) for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
            assert inside.sum() == inside[top:bottom, left:right].sum()
            edges = (inside[top, :], inside[bottom - 1, :], inside[:, left], inside[:, right - 1])
            assert all(edge.any() for edge in edges)


@pytest.mark.parametrize(("wall_from", "labelled"), [(1.1, True), (0.3, False), (-0.5, False)])
def test_object_that_is_mostly_hidden_has_no_label(wall_from: float, labelled: bool) -> None:
    """A wall in front of a person covers everything right of `wall_from` person-widths from the left."""
    person, place = model("person"), Place(0.0, 14.0, 0.0)
    left, _, right, _ = bounds(drawn((person, place)).owner, 1)
    middle = CAMERA.size / 2
    near = 8.0
    pixel = (left + (right - left) * wall_from - middle) / CAMERA.focal
    depth = near * np.cos(CAMERA.pitch) + CAMERA.height * np.sin(CAMERA.pitch)
    wall = Model(((box((pixel * depth, 0, 0), (6, 0.01, 4.5), (0.5, 0.5, 0.5)),),), (None,), 6, 0.1, 4.5)
    rasterizer = drawn((person, place), (wall, Place(0.0, near, 0.0)))
    rows, _ = labels_of(rasterizer, SITE)
    visible = np.count_nonzero(rasterizer.owner == 1) / rasterizer.drawn[0].area
    assert labelled == (visible > 1 - MOST_HIDDEN)
    assert len(rows) == labelled


def test_object_of_which_the_frame_shows_little_has_no_label() -> None:
    bus = model("bus")
    shares = {}
    for x in (0.0, 8.0, 11.5, 30.0):
        rasterizer = drawn((bus, Place(x, 14.0, 0.0)))
        shares[x] = (
            np.count_nonzero(rasterizer.owner) / max(1, rasterizer.drawn[0].area),
            len(labels_of(rasterizer, SITE)[0]),
        )
    assert shares[0.0] == (pytest.approx(1.0), 1)
    assert all(label == (share > 1 - MOST_HIDDEN) for share, label in shares.values())
    assert shares[30.0] == (0.0, 0)


@pytest.mark.parametrize("name", [*CLUTTER])
def test_clutter_is_seen_and_has_no_label(name: str) -> None:
    rasterizer = drawn((CLUTTER[name](np.random.default_rng(0)), Place(0, 12, 0.3)))
    assert rasterizer.owner.any()
    assert len(labels_of(rasterizer, SITE)[0]) == 0


@pytest.mark.parametrize("site", [*SITES])
def test_every_site_gives_a_picture_with_labels_inside_it(site: str) -> None:
    for index in range(4):
        scene = render(site, "val", index, seed=5, size=128)
        picture = decode_image(scene.jpeg)
        assert picture.shape == (128, 128, 3)
        assert picture.std() > 4, "a picture that shows nothing"
        assert len(scene.boxes) == len(scene.names) > 0
        low, high = scene.boxes[:, 1:3] - scene.boxes[:, 3:] / 2, scene.boxes[:, 1:3] + scene.boxes[:, 3:] / 2
        assert low.min() >= -1e-6
        assert high.max() <= 1 + 1e-6
        assert [SITES[site].names[int(c)] for c in scene.boxes[:, 0]] == list(scene.names)


@pytest.mark.parametrize("kind", ["bright", "overcast", "dusk", "night", "infrared"])
@pytest.mark.parametrize("weather", ["clear", "rain", "fog"])
def test_every_light_goes_with_every_weather(kind: str, weather: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site = replace(SITES["presumed"], name="a-test", light={kind: 1.0}, weather={weather: 1.0}, cameras=1)
    monkeypatch.setattr("diredi_scenes.camera_view.SITES", {**SITES, "a-test": site})
    monkeypatch.setattr("diredi_scenes.scene.SITES", {**SITES, "a-test": site})
    picture = decode_image(render("a-test", "train", 0, 0, 128).jpeg)
    assert 4 < picture.mean() < 250
    if kind == "infrared":
        assert np.ptp(picture.astype(int), axis=2).max() <= 2


@pytest.mark.slow
def test_night_is_dark_and_noisy_where_day_is_not() -> None:
    """Brightness before the sensor's gain makes up for it."""
    rng = np.random.default_rng(0)
    assert np.mean(light_of("night", rng).ambient) * 10 < np.mean(light_of("bright", rng).ambient)
    day, night = ([_noise(render(site, "train", i, 0, 160)) for i in range(8)] for site in ("presumed", "site-2"))
    assert np.median(night) > 1.5 * np.median(day)


def test_each_camera_of_a_car_park_has_a_light_of_its_own_and_no_class_is_new() -> None:
    site = SITES["car-park"]
    assert set(site.names) < set(PRESUMED)
    kinds = [site.light_at(camera) for camera in range(site.cameras)]
    assert all(len(kind) == 1 for kind in kinds)
    assert {name for kind in kinds for name in kind} == set(site.light)
    assert SITES["site-1"].light_at(2) == SITES["site-1"].light


def test_new_class_is_in_most_images_of_its_site_and_in_none_of_the_presumed_ones(site_1: list[Scene]) -> None:
    assert np.mean(["forklift" in scene.names for scene in site_1]) >= 0.5
    assert set(PRESUMED) <= set(SITES["site-1"].names)
    assert "forklift" not in SITES["presumed"].names
    assert SITES["site-1"].names[: len(PRESUMED)] != PRESUMED, "ids differ between sites, names do not"


def test_every_class_is_seen_and_most_objects_are_large_enough_to_learn(site_1: list[Scene]) -> None:
    found = Counter(name for scene in site_1 for name in scene.names)
    assert set(found) == set(SITES["site-1"].names)
    heights = np.concatenate([scene.boxes[:, 4] for scene in site_1]) * 160
    assert np.mean(heights >= 8) > 0.85


@pytest.mark.slow
def test_cameras_are_fixed_whatever_the_seed() -> None:
    """Two seeds, the same camera: what never moves is in the same place."""
    views: dict[int, list[np.ndarray]] = {}
    for seed in (0, 1):
        for index in range(12):
            scene = render("site-3", "train", index, seed, 128)
            views.setdefault(scene.camera, []).append(cv2.GaussianBlur(decode_image(scene.jpeg), (0, 0), 2)[:30])
    same = [_alike(a[0], a[1]) for a in views.values() if len(a) > 1]
    other = [_alike(views[0][0], views[n][0]) for n in views if n != 0]
    assert np.median(same) > 0.8
    assert np.median(same) > np.median(other)


def _noise(scene: Scene) -> float:
    picture = decode_image(scene.jpeg).astype(np.float32)
    return float(np.median(np.abs(picture - cv2.medianBlur(picture, 3))))


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

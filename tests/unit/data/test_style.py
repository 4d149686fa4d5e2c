"""A style says how images look and nothing that is in them; what is restyled looks so."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from diredi.data.dataset import Sample
from diredi.data.style import SIDE, SiteStyle, image_style, measure_style, restyle
from diredi.errors import InvalidInput

RANDOM = np.random.default_rng(0)


def picture(seed: int = 0, size: int = SIDE, light: float = 1.0, blur: float = 0.6, noise: float = 0.0) -> np.ndarray:
    """Coloured blocks, as a camera in that light would take them."""
    random = np.random.default_rng(seed)
    blocks = random.integers(40, 216, (12, 12, 3)).astype(np.float32)
    image = cv2.resize(blocks, (size, size), interpolation=cv2.INTER_NEAREST) * light
    image = cv2.GaussianBlur(image, (0, 0), blur)
    return np.clip(image + random.standard_normal(image.shape) * noise * 255, 0, 255).astype(np.uint8)


def of_pictures(folder: Path, **look: float) -> SiteStyle:
    folder.mkdir(exist_ok=True)
    samples = []
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), picture(seed, **look))
        samples.append(Sample(folder / f"{seed}.png", np.zeros((0, 5), np.float32)))
    return measure_style(samples)


@pytest.mark.parametrize(
    "look", [{"light": 0.4}, {"noise": 0.04}, {"blur": 2.0}, {"light": 0.5, "blur": 1.2, "noise": 0.03}]
)
def test_a_restyled_image_measures_as_the_site_does(look: dict[str, float], tmp_path: Path) -> None:
    wanted, other = of_pictures(tmp_path / "site", **look), of_pictures(tmp_path / "ours")
    made = [image_style(restyle(picture(seed), wanted, RANDOM)) for seed in range(20, 28)]

    def mean(name: str) -> np.ndarray:
        return np.mean([getattr(style, name) for style in made], 0)

    for name in ("lightness", "colour", "noise", "sharpness"):
        there, before = (np.array(getattr(style, name)) for style in (wanted, other))
        scale = {"lightness": 12, "colour": 4, "noise": 0.006, "sharpness": 0.05}[name]
        assert np.all(np.abs(mean(name) - there) < np.maximum(np.abs(before - there) * 0.35, scale)), name


def test_an_image_in_its_own_style_stays_as_it_is() -> None:
    image = picture(3)
    again = restyle(image, image_style(image), RANDOM)
    assert np.abs(again.astype(int) - image).mean() < 3


def test_large_and_small_images_of_the_same_scene_have_the_same_style() -> None:
    large = picture(1, size=3 * SIDE, blur=3.0)
    small = cv2.resize(large, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    a, b = image_style(large), image_style(small)
    assert a.sharpness == pytest.approx(b.sharpness, rel=0.05)
    assert np.allclose(a.lightness, b.lightness, atol=3)


def test_noise_on_a_large_image_is_as_strong_as_at_the_size_of_the_measure() -> None:
    wanted = image_style(picture(2, noise=0.03))
    made = restyle(picture(4, size=2 * SIDE, blur=1.2), wanted, RANDOM)
    assert image_style(made).noise == pytest.approx(wanted.noise, rel=0.3)


def test_no_two_images_of_a_site_with_changing_light_get_the_same() -> None:
    style = image_style(picture(0)).model_copy(update={"lightness_spread": 20.0})
    means = [restyle(picture(0), style, np.random.default_rng(seed)).mean() for seed in range(12)]
    assert 8 < np.std(means) < 35


def test_a_style_is_a_handful_of_numbers(tmp_path: Path) -> None:
    said = of_pictures(tmp_path).model_dump()
    flat = [number for value in said.values() for number in (value if isinstance(value, list | tuple) else [value])]
    assert len(flat) <= 16
    assert all(isinstance(number, float) for number in flat)
    assert SiteStyle.model_validate(said) == SiteStyle.model_validate_json(
        SiteStyle.model_validate(said).model_dump_json()
    )


@pytest.mark.parametrize("wrong", [{"noise": float("nan")}, {"noise": -1}, {"lightness": [1, 2]}, {"image": "b64"}])
def test_what_is_no_style_is_refused(wrong: dict[str, object]) -> None:
    said = image_style(picture(0)).model_dump()
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SiteStyle.model_validate(said | wrong)


def test_no_images_have_no_style() -> None:
    with pytest.raises(InvalidInput, match="no images"):
        measure_style([])


def test_a_grey_and_a_black_image_can_be_restyled() -> None:
    style = image_style(picture(0))
    for image in (np.zeros((64, 48, 3), np.uint8), np.full((3, 3, 3), 128, np.uint8)):
        assert restyle(image, style, RANDOM).shape == image.shape

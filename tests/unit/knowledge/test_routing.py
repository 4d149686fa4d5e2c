"""Whether a site's images show a place of their own, and what a site does where they do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapes import KNOWN, World, tiny

from diredi.data.dataset import Dataset, Sample
from diredi.distillation.batches import Pool
from diredi.knowledge.extraction import extract_gap
from diredi.knowledge.reverse import SiteData
from diredi.knowledge.routing import try_router


def pictures(folder: Path, shade: int, count: int, seed: int) -> list[Sample]:
    """Noise around a shade of grey."""
    random, found = np.random.default_rng(seed), []
    folder.mkdir()
    for number in range(count):
        pixels = np.clip(shade + random.normal(0, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        found.append(Sample(image=folder / f"{number}.png", boxes=np.zeros((0, 5), np.float32)))
    return found


def divided(site: list[Sample], others: list[Sample], held: int) -> tuple[SiteData, SiteData]:
    return (
        SiteData(KNOWN, Pool(site[held:]), Pool(others[held:])),
        SiteData(KNOWN, Pool(site[:held]), Pool(others[:held])),
    )


def test_a_router_knows_a_bright_place_from_dark_ones(tmp_path: Path) -> None:
    learned, held = divided(pictures(tmp_path / "site", 200, 16, 0), pictures(tmp_path / "others", 40, 24, 1), 4)
    trial = try_router(tiny(), learned, held, [0], seed=0)
    assert trial is not None and trial.good
    assert trial.router.classes == (0,)
    assert "4 of 4 held-back images of the site, and takes 0 of 4 of the coreset" in trial.said


def test_a_router_that_cannot_know_is_not_relied_on(tmp_path: Path) -> None:
    learned, held = divided(pictures(tmp_path / "site", 90, 24, 0), pictures(tmp_path / "others", 90, 24, 1), 8)
    trial = try_router(tiny(), learned, held, [0], seed=0)
    assert trial is not None and not trial.good


@pytest.mark.parametrize(("site", "others"), [(2, 24), (24, 2), (0, 24), (24, 0)])
def test_with_too_few_images_there_is_no_router(tmp_path: Path, site: int, others: int) -> None:
    learned, held = divided(pictures(tmp_path / "site", 200, site, 0), pictures(tmp_path / "others", 40, others, 1), 0)
    assert try_router(tiny(), learned, replace(learned), [0], seed=0) is None
    assert try_router(tiny(), learned, held, [], seed=0) is None


def reddened(data: Dataset, folder: Path) -> Dataset:
    """The same scenes under another light, all of them alike: a place of its own."""
    folder.mkdir()

    def other(sample: Sample) -> Sample:
        with Image.open(sample.image) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32)
        pixels = 255 - pixels
        pixels[..., 0] = 255
        path = folder / f"{sample.image.parent.name}-{sample.image.stem}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return replace(sample, image=path)

    return replace(data, train=[other(one) for one in data.train], val=[other(one) for one in data.val])


@pytest.mark.slow
def test_a_site_of_one_place_learns_what_is_known_for_that_place_alone(world: World, tmp_path: Path) -> None:
    """The devices find it there, the coreset's images are looked at as before, and no weight of what is known moves."""
    model = world.detector()
    site = reddened(world.presumed, tmp_path / "site")
    recipe = {
        "form": "branch",
        "branch": {
            "steps": 30,
            "learning_rate": 2e-3,
            "batch": 8,
            "train_only": ["neck", "head"],
            "batch_norm": "frozen",
            "losses": {},
        },
        "probe_steps": 16,
        "max_cost": 100,
    }
    gaps = extract_gap(model, model, site, coreset=world.presumed, recipe=recipe)
    decided = {one.subject: one.choice for one in gaps.metrics.decisions}
    assert decided["known classes are learned"] == "by a branch, in its own place alone"
    assert "not at all" in decided["all weights of the student learn"]
    assert gaps.student is not None and gaps.student.note.routed == gaps.student.note.branches != ()
    assert gaps.student.leaves_known(model.weights())
    before, after = gaps.metrics.student_before, gaps.metrics.student_after
    assert after is not None and after.map50 > before.map50 + 0.1
